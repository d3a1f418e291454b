"""What chapter 04 works with: the reader's own edited checkpoints, the recorded study beside them, and their origin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlheals import record, swaps, tables
from rlheals.chapters import joined_seeds, unrecorded_seeds
from rlheals.claims import Judged
from rlheals.errors import BadInput
from rlheals.places import project_root
from rlheals.profiles import Profile, load_profile
from rlheals.record import Recorded
from rlheals.rotation_chapter import peaks_of
from rlheals.store import Store, default_store
from rlheals.study import compute
from rlheals.study import plan as sft_plan
from rlheals.swaps import SwapTables
from rlheals.swaps_claims import complete, judged, read_swap_claims


@dataclass(frozen=True)
class SwapChapter:
    """Chapter 04: fresh tables, recorded tables (None when there are none), provenance."""

    profile: Profile
    fresh: SwapTables
    recorded: SwapTables | None
    manifests: tuple[Recorded, ...]
    minutes: float
    code: str

    @property
    def tables(self) -> SwapTables:
        """The recorded study, or the fresh run where nothing is recorded."""
        return self.recorded if self.recorded is not None else self.fresh

    def judged(self) -> list[Judged]:
        """The claims with their verdicts; empty until everything that was decided on is recorded."""
        claims = read_swap_claims()
        if self.recorded is None or self.profile.name != claims.study.profile:
            return []
        return judged(self.recorded) if complete(self.recorded, claims) else []

    def caption(self, note: str) -> str:
        """A figure's note, followed by the seeds, settings, code and minutes behind it."""
        grid = self.profile.swaps
        peaks = ", ".join(f"{peak:,}" for peak in self.fresh.peaks["peak"])
        text = (
            f"{note} Fresh run: base seed {joined_seeds(self.fresh.seeds)}, profile {self.profile.name}, peak at SFT "
            f"step {peaks}, late checkpoint at {grid.late:,}, RL from {grid.start:,}; code {self.code[:8]}; "
            f"{self.minutes:.1f} core-minutes."
        )
        if self.recorded is None:
            return f"{text} There is no recorded study of this profile."
        return (
            f"{text} Recorded study: base seeds {joined_seeds(self.recorded.seeds)}, 95 % t intervals over base seeds; "
            f"{sum(manifest.minutes for manifest in self.manifests):.0f} core-minutes."
        )


def edits(
    profile: str | Profile = "lab",
    seeds: Sequence[int] | None = None,
    workers: int = 1,
    results: Path = record.FOLDER,
    store: Store | None = None,
    quiet: bool = False,
) -> SwapChapter:
    """Load the chapter's runs, or compute those that are not in the store yet, and read the recorded study."""
    chosen = profile if isinstance(profile, Profile) else load_profile(profile)
    if chosen.swaps.late is None:
        raise BadInput(f"profile {chosen.name}: swaps.late is not set, so there is nothing to edit")
    root = project_root()
    recorded, manifests = recorded_swaps(chosen.name, root / results)
    fresh_seeds = unrecorded_seeds(chosen, seeds, recorded.seeds if recorded is not None else ())
    place = store or default_store(root)
    mine = chosen.for_reader(recorded=True)
    first = [sft_plan(mine, seed, place) for seed in fresh_seeds]
    compute([spec for one in first for spec in one.specs()], place, workers, quiet)
    peaks = peaks_of(tables.collect(first, place))
    plans = [swaps.plan(mine, seed, place, peaks) for seed in fresh_seeds]
    runs = compute([spec for one in plans for spec in one.specs()], place, workers, quiet)
    return SwapChapter(
        profile=chosen,
        fresh=swaps.collect(plans, place),
        recorded=recorded,
        manifests=tuple(manifests),
        minutes=sum(run.manifest.seconds for run in runs) / 60,
        code=next(run.manifest.code_hash for run in runs if run.manifest.stage == "edited"),
    )


def recorded_swaps(name: str, results: Path) -> tuple[SwapTables | None, list[Recorded]]:
    """The recorded edits of a profile, or (None, []) when nothing is recorded for it."""
    folder = results / f"{name}-swaps"
    if not any(folder.glob("seed-*")):
        return None, []
    return record.read(folder, SwapTables)
