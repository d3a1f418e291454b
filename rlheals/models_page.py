"""What larger models take, whether anybody has run them, and what is known: tables of the book's page about them."""

from __future__ import annotations

from pathlib import Path

from rlheals import record, tables
from rlheals.budget import GB, budget
from rlheals.claimed import CLAIMED
from rlheals.figures import paper_points
from rlheals.markup import Block, Table
from rlheals.profile import Profile
from rlheals.profiles import PROFILES, load_profile, names
from rlheals.rotation_rivals import PROMPTS, prompts_table
from rlheals.scale import weights
from rlheals.sft_chapter import variant_studies
from rlheals.sft_claims import CLAIMS
from rlheals.stats import newcombe, wilson

RUN, DRY = "run by us", "dry run only"


def models_table(results: Path) -> list[Block]:
    """Every profile besides those of the book: language models with their arithmetic, lab models by size."""
    profiles = [load_profile(name) for name in names() if name not in PROFILES]
    language = [profile for profile in profiles if profile.model is not None]
    others = sorted(
        (profile for profile in profiles if profile.model is None),
        key=lambda profile: weights(profile.pretrain.model),
    )
    return [
        Table(
            ("profile", "model", "weights", "made for", "GPU memory", "hours", "disk", "who has run it"),
            tuple(_row(profile, results) for profile in language),
        ),
        Table(
            ("profile", "what it is for", "who has run it"),
            tuple((f"`{profile.name}`", profile.about, status(profile.name, results)) for profile in others),
        ),
    ]


def status(name: str, results: Path) -> str:
    """Whether results of a profile are recorded; a dry run of every profile is one of the tests."""
    places = (results / f"{name}{one.part.suffix}" for one in CLAIMED.values())
    return RUN if any(any(place.glob("seed-*/manifest.json")) for place in places) else DRY


def _row(profile: Profile, results: Path) -> tuple[str, ...]:
    needed = budget(profile)
    assert profile.model is not None
    assert profile.hardware is not None
    return (
        f"`{profile.name}`",
        f"{profile.model.name}, {profile.model.dtype}",
        f"{needed.parameters / 1e9:.1f} billion",
        f"one {profile.hardware.gpu}",
        f"{needed.memory / GB:.0f} GB of {profile.hardware.card.memory:.0f}",
        f"{needed.hours:.0f}",
        f"{needed.disk / GB:.0f} GB",
        status(profile.name, results),
    )


def paper_table() -> list[Block]:
    """The paper's OOD accuracy at its three stages, and what its number of hands can tell."""
    rows = []
    for key in ("stages_llama", "stages_qwen"):
        paper = paper_points()[key]
        hands = paper["hands"]
        peak, end, rl = (
            round(paper["points"][f"ood_{stage}"] / 100 * hands) for stage in ("peak", "end", "rl")
        )
        rows.append(
            (
                paper["label"],
                *(f"{wilson(solved, hands):.3f}" for solved in (peak, end, rl)),
                f"{newcombe(peak, hands, end, hands):.3f}",
                f"{newcombe(rl, hands, end, hands):.3f}",
            )
        )
    about = (
        "Intervals (95 %) are ours: Wilson's of a share of hands, Newcombe's of a difference, as if both had been of "
        "different hands, since hand by hand nothing is published. They know nothing of other seeds. The peak is the "
        "highest of many checkpoints, so it and what is lost from it are too high by chance."
    )
    heads = ("model", "peak of SFT", "end of SFT", "after RL", "peak - end", "RL - end")
    return [Table(heads, tuple(rows)), about]


def prompts(results: Path) -> list[Block]:
    """The recorded study of the lab with questions in many forms, beside that with one."""
    fixed, _ = record.find(CLAIMS.read().study.profile, tables.SFT, results)
    return [PROMPTS, prompts_table(fixed, variant_studies(results).get("diverse"))]
