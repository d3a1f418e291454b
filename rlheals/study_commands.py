"""What `rlheals study` does: the recorded studies of all chapters."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlheals import record, recovery, rotation, study, swaps
from rlheals.claims import read_claims
from rlheals.errors import BadInput
from rlheals.places import project_root
from rlheals.profiles import VARIANTS, Profile, load_profile, variant
from rlheals.recovery_claims import read_recovery_claims
from rlheals.rotation_chapter import recorded_peaks
from rlheals.rotation_claims import read_rotation_claims
from rlheals.store import default_store
from rlheals.swaps_claims import read_swap_claims

VARIANT_SEEDS = 3


def studies(
    profile: str | None, variants: Sequence[str], changes: dict[str, Any]
) -> list[tuple[Profile, int]]:
    """The profiles to run, each with the number of decided seeds it is run for by default.

    Nothing asked for: the study of `claims.yaml`, then every variant on its first seeds. "all" means every variant.
    """
    if profile is not None and variants:
        raise BadInput("--profile and --variant: only one of the two is accepted")
    plan, every = read_claims().study, len(read_claims().study.seeds)
    if profile is not None:
        return [(load_profile(profile, changes), every)]
    names = list(VARIANTS) if not variants or "all" in variants else list(variants)
    if changes:
        raise BadInput("--set: accepted together with --profile only; a variant is what it is")
    chosen = [(variant(name), VARIANT_SEEDS) for name in names]
    if not variants:
        chosen.insert(0, (load_profile(plan.profile, {"decodes": plan.decodes}), every))
    return chosen


def run_studies(
    chosen: Sequence[tuple[Profile, int]], seeds: Sequence[int] | None, workers: int, folder: Path | None
) -> list[dict[str, Any]]:
    """Compute studies, and record each seed as soon as it is complete when a folder is given."""
    store, decided = default_store(project_root()), read_claims().study.seeds
    done = []
    for profile, count in chosen:
        own = tuple(seeds) if seeds is not None else decided[:count]
        if folder is None:
            study.compute(
                [spec for seed in own for spec in study.plan(profile, seed, store).specs()], store, workers
            )
        else:
            record.record(profile, own, store, folder, workers, _told)
        place = None if folder is None else str(folder / profile.name)
        done.append(
            {"profile": profile.name, "seeds": list(own), "decodes": profile.decodes, "recorded": place}
        )
    return done


def run_recovery(
    profile: str | None,
    changes: dict[str, Any],
    seeds: Sequence[int] | None,
    workers: int,
    folder: Path | None,
) -> list[dict[str, Any]]:
    """RL from the ladder of a profile, unit by unit (an RL seed of a base seed, its controls), each recorded when done.

    Nothing asked for: the study of chapter 02 in `claims.yaml`; first RL seeds of all bases, then the next, controls
    last, so that a study that is cut short is short everywhere.
    """
    decided = read_recovery_claims().study
    chosen = load_profile(profile or decided.profile, changes)
    if not chosen.ladder.starts:
        raise BadInput(f"profile {chosen.name}: ladder.starts is empty, so there is no RL in it")
    store, own = default_store(project_root()), list(seeds) if seeds is not None else list(decided.seeds)
    done = []
    for unit in recovery.units(chosen):
        if folder is None:
            plans = [recovery.plan(chosen, seed, store, unit) for seed in own]
            study.compute([spec for one in plans for spec in one.specs()], store, workers)
        else:
            record.record(chosen, own, store, folder, workers, _told, recovery.part(unit))
        place = None if folder is None else str(folder / f"{chosen.name}-recovery")
        done.append({"profile": chosen.name, "unit": str(unit), "seeds": own, "recorded": place})
    return done


def run_rotation(
    profile: str | None,
    changes: dict[str, Any],
    seeds: Sequence[int] | None,
    workers: int,
    folder: Path | None,
) -> list[dict[str, Any]]:
    """Spectra and trajectories of a profile, base seed by base seed, each recorded when done.

    Nothing asked for: the study of chapter 03 in `claims.yaml`.
    """
    decided = read_rotation_claims().study
    chosen = load_profile(profile or decided.profile, changes)
    if not chosen.rotation.steps or not chosen.ladder.starts:
        raise BadInput(f"profile {chosen.name}: rotation.steps or ladder.starts is empty, nothing to compare")
    return _run_from_peaks(rotation, chosen, decided.seeds if seeds is None else seeds, workers, folder)


def run_edits(
    profile: str | None,
    changes: dict[str, Any],
    seeds: Sequence[int] | None,
    workers: int,
    folder: Path | None,
) -> list[dict[str, Any]]:
    """Edited checkpoints of a profile and their censuses, base seed by base seed, each recorded when done.

    Nothing asked for: the study of chapter 04 in `claims.yaml`.
    """
    decided = read_swap_claims().study
    chosen = load_profile(profile or decided.profile, changes)
    return _run_from_peaks(swaps, chosen, decided.seeds if seeds is None else seeds, workers, folder)


def _run_from_peaks(
    module: Any, profile: Profile, seeds: Sequence[int], workers: int, folder: Path | None
) -> list[dict[str, Any]]:
    """A study whose plan needs the peaks of the recorded study of chapter 01."""
    store, own = default_store(project_root()), list(seeds)
    peaks = recorded_peaks(profile.name, own, project_root() / (folder or record.FOLDER))
    part = module.part(peaks)
    for seed in own:
        if folder is None:
            study.compute(module.plan(profile, seed, store, peaks).specs(), store, workers)
        else:
            record.record(profile, [seed], store, folder, workers, _told, part)
    place = None if folder is None else str(folder / f"{profile.name}{part.suffix}")
    return [{"profile": profile.name, "seeds": own, "peaks": list(peaks.values()), "recorded": place}]


def _told(line: str) -> None:
    print(line, file=sys.stderr)
