"""What a chapter works with: the reader's fresh runs, the recorded study beside them, and where both come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlheals import record, tables
from rlheals.claims import Judged, judge, read_claims
from rlheals.errors import BadInput
from rlheals.places import project_root
from rlheals.profiles import VARIANTS, Profile, load_profile
from rlheals.record import Recorded
from rlheals.store import Store, default_store
from rlheals.study import compute, plan
from rlheals.tables import Tables


@dataclass(frozen=True)
class SFTChapter:
    """Chapter 01: fresh tables, recorded tables (None when there are none), and their provenance."""

    profile: Profile
    fresh: Tables
    recorded: Tables | None
    manifests: tuple[Recorded, ...]
    variants: dict[str, Tables]
    minutes: float
    code: str

    def judged(self) -> list[Judged]:
        """The claims with their verdicts; empty unless the recorded study is the one that was decided on."""
        claims = read_claims()
        decided = claims.study
        if self.recorded is None or self.profile.name != decided.profile:
            return []
        decodes = int(self.recorded.episodes["decode"].max()) + 1
        if not set(decided.seeds) <= set(self.recorded.seeds) or decodes < decided.decodes:
            return []
        return judge(claims, self.recorded)

    def caption(self, note: str) -> str:
        """A figure's note, followed by the seeds, hands, settings, code and minutes behind it."""
        settings = self.profile.evaluate
        hands = self.fresh.episodes.drop_duplicates(["split", "item"]).groupby("split", observed=True).size()
        parts = [
            f"Fresh run (dots with Wilson intervals): base seed {joined_seeds(self.fresh.seeds)}, "
            f"profile {self.profile.name}"
        ]
        parts.append(
            "hands " + ", ".join(f"{split.replace('_', '-')} {count:,}" for split, count in hands.items())
        )
        parts.append(f"up to {settings.attempts} attempts at temperature {settings.sampling.temperature:g}")
        parts.append(f"code {self.code[:8]}")
        parts.append(f"{self.minutes:.1f} core-minutes")
        text = f"{note} {'; '.join(parts)}."
        if self.recorded is not None:
            decodes = int(self.recorded.episodes["decode"].max()) + 1
            minutes = sum(manifest.minutes for manifest in self.manifests)
            text += (
                f" Recorded study (lines with bands): base seeds {joined_seeds(self.recorded.seeds)}, "
                f"{decodes} decodes, 95 % t intervals over seeds; {minutes:.0f} core-minutes."
            )
        else:
            text += " There is no recorded study of this profile."
        return text


def sft(
    profile: str | Profile = "lab",
    seeds: Sequence[int] | None = None,
    workers: int = 1,
    results: Path = record.FOLDER,
    store: Store | None = None,
    quiet: bool = False,
) -> SFTChapter:
    """Load the chapter's runs, or compute those that are not in the store yet, and read the recorded study.

    A seed that the recorded study holds cannot be the fresh one, BadInput says so: the two would be drawn as if
    they were independent.
    """
    chosen = profile if isinstance(profile, Profile) else load_profile(profile)
    root = project_root()
    results = root / results
    recorded, manifests = recorded_study(chosen.name, results)
    fresh_seeds = unrecorded_seeds(chosen, seeds, recorded.seeds if recorded is not None else ())
    place = store or default_store(root)
    mine = chosen.for_reader(recorded is not None)
    plans = [plan(mine, seed, place) for seed in fresh_seeds]
    specs = [spec for one in plans for spec in one.specs()]
    runs = compute(specs, place, workers, quiet)
    return SFTChapter(
        profile=chosen,
        fresh=tables.collect(plans, place),
        recorded=recorded,
        manifests=tuple(manifests),
        variants=variant_studies(results) if recorded is not None else {},
        minutes=sum(run.manifest.seconds for run in runs) / 60,
        code=runs[-1].manifest.code_hash,
    )


def unrecorded_seeds(profile: Profile, seeds: Sequence[int] | None, recorded: Sequence[int]) -> list[int]:
    """The base seeds of a fresh run: those asked for, or the profile's own. BadInput for one that is recorded."""
    fresh = list(seeds) if seeds is not None else list(profile.seeds)
    if both := sorted(set(fresh) & set(recorded)):
        raise BadInput(
            f"base seed {both[0]} is in the recorded study; choose a fresh one (0 ships with the package)"
        )
    return fresh


def recorded_study(name: str, results: Path) -> tuple[Tables | None, list[Recorded]]:
    """The recorded study of a profile, or (None, []) when nothing is recorded for it."""
    folder = results / name
    if not any(folder.glob("seed-*")):
        return None, []
    return record.read(folder)


def variant_studies(results: Path) -> dict[str, Tables]:
    """The recorded sensitivity studies by name, as far as there are any."""
    studies = {name: recorded_study(f"lab-{name}", results)[0] for name in VARIANTS}
    return {name: study for name, study in studies.items() if study is not None}


def joined_seeds(seeds: Sequence[int]) -> str:
    """
    >>> joined_seeds([1, 2, 3]), joined_seeds([0]), joined_seeds([0, 7])
    ('1-3', '0', '0, 7')
    """
    run = list(seeds)
    if len(run) > 2 and run == list(range(run[0], run[-1] + 1)):
        return f"{run[0]}-{run[-1]}"
    return ", ".join(map(str, run))
