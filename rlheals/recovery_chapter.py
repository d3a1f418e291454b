"""What chapter 02 works with: the reader's own RL runs, the recorded study beside them, and where both come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlheals import record, recovery
from rlheals.chapters import joined_seeds, recorded_study, unrecorded_seeds
from rlheals.claims import Judged
from rlheals.errors import BadInput
from rlheals.places import project_root
from rlheals.profiles import Profile, load_profile
from rlheals.record import Recorded
from rlheals.recovery import RecoveryTables
from rlheals.recovery_claims import complete, judged, read_recovery_claims
from rlheals.store import Store, default_store
from rlheals.study import compute
from rlheals.tables import Tables


@dataclass(frozen=True)
class RecoveryChapter:
    """Chapter 02: fresh tables, recorded tables (None when there are none), the recorded SFT study, provenance."""

    profile: Profile
    fresh: RecoveryTables
    recorded: RecoveryTables | None
    manifests: tuple[Recorded, ...]
    sft: Tables | None
    minutes: float
    code: str

    @property
    def tables(self) -> RecoveryTables:
        """The recorded study, or the fresh run where nothing is recorded."""
        return self.recorded if self.recorded is not None else self.fresh

    @property
    def starts(self) -> list[int]:
        return sorted({*self.fresh.starts, *(self.recorded.starts if self.recorded is not None else [])})

    def judged(self) -> list[Judged]:
        """The claims with their verdicts; empty until everything that was decided on is recorded."""
        claims = read_recovery_claims()
        if self.recorded is None or self.profile.name != claims.study.profile:
            return []
        return judged(self.recorded) if complete(self.recorded, claims) else []

    def caption(self, note: str) -> str:
        """A figure's note, followed by the seeds, settings, code and minutes behind it."""
        rl = self.profile.ladder.rl
        text = (
            f"{note} Fresh run (dots with Wilson intervals): base seed {joined_seeds(self.fresh.seeds)}, profile "
            f"{self.profile.name}, starts {', '.join(f'{start:,}' for start in self.fresh.starts)}; {rl.algorithm}, "
            f"{rl.updates} updates of {rl.episodes} episodes, learning rate {rl.learning_rate:g}; "
            f"code {self.code[:8]}; {self.minutes:.1f} core-minutes."
        )
        if self.recorded is None:
            return f"{text} There is no recorded study of this profile."
        rows = self.recorded.episodes
        runs = self.recorded.log.groupby(["seed", "control"])["run"].nunique().max()
        return (
            f"{text} Recorded study (lines with bands): base seeds {joined_seeds(self.recorded.seeds)}, RL seeds per "
            f"start: up to {runs}, {rows['decode'].nunique()} decodes, 95 % t intervals over base seeds; "
            f"{sum(manifest.minutes for manifest in self.manifests):.0f} core-minutes."
        )


def rl(
    profile: str | Profile = "lab",
    seeds: Sequence[int] | None = None,
    workers: int = 1,
    results: Path = record.FOLDER,
    store: Store | None = None,
    quiet: bool = False,
) -> RecoveryChapter:
    """Load the chapter's runs, or compute those that are not in the store yet, and read the recorded study."""
    chosen = profile if isinstance(profile, Profile) else load_profile(profile)
    if not chosen.ladder.starts:
        raise BadInput(f"profile {chosen.name}: ladder.starts is empty, so there is no RL in it")
    root = project_root()
    recorded, manifests = recorded_recovery(chosen.name, root / results)
    fresh_seeds = unrecorded_seeds(chosen, seeds, recorded.seeds if recorded is not None else ())
    place = store or default_store(root)
    mine = chosen.for_reader(recorded is not None)
    plans = [recovery.plan(mine, seed, place) for seed in fresh_seeds]
    runs = compute([spec for one in plans for spec in one.specs()], place, workers, quiet)
    return RecoveryChapter(
        profile=chosen,
        fresh=recovery.collect(plans, place),
        recorded=recorded,
        manifests=tuple(manifests),
        sft=recorded_study(chosen.name, root / results)[0],
        minutes=sum(run.manifest.seconds for run in runs) / 60,
        code=next(run.manifest.code_hash for run in runs if run.manifest.stage == "rl"),
    )


def recorded_recovery(name: str, results: Path) -> tuple[RecoveryTables | None, list[Recorded]]:
    """The recorded RL study of a profile, or (None, []) when nothing is recorded for it."""
    folder = results / f"{name}-recovery"
    if not any(folder.glob("seed-*")):
        return None, []
    return record.read(folder, RecoveryTables)
