"""What larger models take, whether anybody has run them, and a rival: tables of the book's page about them."""

from __future__ import annotations

from pathlib import Path

from rlheals.chapters.registry import CHAPTERS
from rlheals.chapters.scale import weights
from rlheals.chapters.sft.claims import CLAIMS
from rlheals.chapters.sft.runs import variant_studies
from rlheals.chapters.spectra.predictors import PROMPTS, prompts_table
from rlheals.display.markup import Block, Table, spans
from rlheals.planning.budget import GB, budget
from rlheals.profiles import larger
from rlheals.profiles.profile import Profile
from rlheals.store.foreign import read_table
from rlheals.study import record, tables

RUN, DRY = "run by us", "dry run only"


def models_table(results: Path) -> list[Block]:
    """Every profile besides those of the book: language models with their arithmetic, lab models by size."""
    profiles = larger()
    language = [profile for profile in profiles if profile.model is not None]
    others = sorted(
        (profile for profile in profiles if profile.model is None),
        key=lambda profile: weights(profile.pretrain.model),
    )
    return [
        Table(
            ("profile", "model", "weights", "made for", "memory", "hours", "disk", "who has run it"),
            tuple(_row(profile, results) for profile in language),
        ),
        Table(
            ("profile", "what it is for", "who has run it"),
            tuple((f"`{profile.name}`", profile.about, status(profile.name, results)) for profile in others),
        ),
    ]


def status(name: str, results: Path) -> str:
    """Whether results of a profile are recorded; a dry run of every profile is one of the tests."""
    places = (results / f"{name}{one.part.suffix}" for one in CHAPTERS.values())
    return RUN if any(any(place.glob("seed-*/manifest.json")) for place in places) else DRY


def measured(name: str, results: Path) -> tuple[float, float, list[int]] | None:
    """Of a recorded profile: the largest process of RL (bytes), core-hours of all runs, base seeds; None of others."""
    logs = [read_table(file) for file in sorted(results.glob(f"{name}-*/seed-*/log.parquet"))]
    memory = [float(log["peak_mb"].max()) * 2**20 for log in logs if "peak_mb" in log]
    if not memory:
        return None
    recorded = record.recorded_manifests(results)
    mine = [one for entry in CHAPTERS.values() for one in recorded.get(f"{name}{entry.part.suffix}", ())]
    seconds = {run.id: run.seconds for one in mine for run in one.runs}
    return max(memory), sum(seconds.values()) / 3600, sorted({one.seed for one in mine})


def _row(profile: Profile, results: Path) -> tuple[str, ...]:
    assert profile.model is not None
    assert profile.hardware is not None
    needed = budget(profile)
    memory = f"{needed.memory / GB:.0f} GB of {profile.hardware.card.memory:.0f}"
    hours = f"{needed.hours:.0f}"
    if found := measured(profile.name, results):
        memory = f"{found[0] / GB:.1f} GB, measured"
        hours = f"{found[1]:.1f} core-hours for base seeds {spans(found[2])}, measured"
    return (
        f"`{profile.name}`",
        f"{profile.model.name}, {profile.model.dtype}",
        f"{needed.parameters / 1e9:.1f} billion",
        f"one {profile.hardware.gpu}",
        memory,
        hours,
        f"{needed.disk / GB:.0f} GB",
        status(profile.name, results),
    )


def prompts(results: Path) -> list[Block]:
    """The recorded study of the lab with questions in many forms, beside that with one."""
    fixed, _ = record.find(CLAIMS.read().study.profile, tables.SFT, results)
    return [PROMPTS, prompts_table(fixed, variant_studies(results).get("diverse"))]
