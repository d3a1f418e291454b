"""What chapter 03 works with: spectra of the reader's own runs, the recorded study beside them, their origin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlheals import record, rotation, tables
from rlheals.chapters import joined_seeds, recorded_study, unrecorded_seeds
from rlheals.claims import Judged
from rlheals.errors import BadInput
from rlheals.places import project_root
from rlheals.profiles import Profile, load_profile
from rlheals.record import Recorded
from rlheals.rotation import RotationTables, peak_of
from rlheals.rotation_claims import complete, judged, read_rotation_claims
from rlheals.store import Store, default_store
from rlheals.study import compute
from rlheals.study import plan as sft_plan
from rlheals.tables import Tables


@dataclass(frozen=True)
class RotationChapter:
    """Chapter 03: fresh tables, recorded tables (None when there are none), provenance."""

    profile: Profile
    fresh: RotationTables
    recorded: RotationTables | None
    manifests: tuple[Recorded, ...]
    minutes: float
    code: str

    @property
    def tables(self) -> RotationTables:
        """The recorded study, or the fresh run where nothing is recorded."""
        return self.recorded if self.recorded is not None else self.fresh

    def judged(self) -> list[Judged]:
        """The claims with their verdicts; empty until everything that was decided on is recorded."""
        claims = read_rotation_claims()
        if self.recorded is None or self.profile.name != claims.study.profile:
            return []
        return judged(self.recorded) if complete(self.recorded, claims) else []

    def caption(self, note: str) -> str:
        """A figure's note, followed by the seeds, settings, code and minutes behind it."""
        peaks = ", ".join(f"{peak:,}" for peak in self.fresh.peaks["peak"])
        text = (
            f"{note} Fresh run: base seed {joined_seeds(self.fresh.seeds)}, profile {self.profile.name}, peak at SFT "
            f"step {peaks}; {self.profile.rotation.draws} draws of every null; code {self.code[:8]}; "
            f"{self.minutes:.1f} core-minutes."
        )
        if self.recorded is None:
            return f"{text} There is no recorded study of this profile."
        steps = self.recorded.peaks["peak"]
        spread = f"{steps.min():,}" if steps.nunique() == 1 else f"{steps.min():,} to {steps.max():,}"
        return (
            f"{text} Recorded study: base seeds {joined_seeds(self.recorded.seeds)}, peaks at steps {spread}, 95 % t "
            f"intervals over base seeds; {sum(manifest.minutes for manifest in self.manifests):.0f} core-minutes."
        )


def spectra(
    profile: str | Profile = "lab",
    seeds: Sequence[int] | None = None,
    workers: int = 1,
    results: Path = record.FOLDER,
    store: Store | None = None,
    quiet: bool = False,
) -> RotationChapter:
    """Load the chapter's runs, or compute those that are not in the store yet, and read the recorded study.

    The peak of a fresh base is that of its own SFT, so chapter 01's runs come first.
    """
    chosen = profile if isinstance(profile, Profile) else load_profile(profile)
    if not chosen.rotation.steps or not chosen.ladder.starts:
        raise BadInput(f"profile {chosen.name}: rotation.steps or ladder.starts is empty, nothing to compare")
    root = project_root()
    recorded, manifests = recorded_rotation(chosen.name, root / results)
    fresh_seeds = unrecorded_seeds(chosen, seeds, recorded.seeds if recorded is not None else ())
    place = store or default_store(root)
    mine = chosen.for_reader(recorded=True)  # other rules are not tried for this chapter
    first = [sft_plan(mine, seed, place) for seed in fresh_seeds]
    compute([spec for one in first for spec in one.specs()], place, workers, quiet)
    peaks = peaks_of(tables.collect(first, place))
    plans = [rotation.plan(mine, seed, place, peaks) for seed in fresh_seeds]
    runs = compute([spec for one in plans for spec in one.specs()], place, workers, quiet)
    return RotationChapter(
        profile=chosen,
        fresh=rotation.collect(plans, place),
        recorded=recorded,
        manifests=tuple(manifests),
        minutes=sum(run.manifest.seconds for run in runs) / 60,
        code=next(run.manifest.code_hash for run in runs if run.manifest.stage == "spectra"),
    )


def recorded_rotation(name: str, results: Path) -> tuple[RotationTables | None, list[Recorded]]:
    """The recorded spectra of a profile, or (None, []) when nothing is recorded for it."""
    folder = results / f"{name}-rotation"
    if not any(folder.glob("seed-*")):
        return None, []
    return record.read(folder, RotationTables)


def peaks_of(study: Tables) -> dict[int, int]:
    """The OOD peak of every base seed of chapter 01's study."""
    rows = study.episodes[study.episodes["split"] == "ood"]
    solved = (rows["solved_at"] > 0).groupby([rows["seed"], rows["step"]]).mean()
    return {int(str(seed)): peak_of(group.droplevel(0)) for seed, group in solved.groupby(level=0)}


def recorded_peaks(name: str, seeds: Sequence[int], results: Path) -> dict[int, int]:
    """The peaks of some base seeds from the recorded study of chapter 01; BadInput when one is not recorded."""
    study, _ = recorded_study(name, results)
    known = {} if study is None else peaks_of(study)
    if lacking := sorted(set(seeds) - set(known)):
        raise BadInput(
            f"base seed {lacking[0]} of {name} is not in {results.name}/{name}, so its peak is not known; record it "
            f"first: rlheals study --profile {name} --seeds {lacking[0]} --record {results.name}"
        )
    return {seed: known[seed] for seed in seeds}
