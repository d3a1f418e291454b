"""Every figure of chapters 1 to 3 is drawn from the study that is recorded here, without computing anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from rlheals import figures, recovery_figures, rotation_figures
from rlheals.chapters import SFTChapter, recorded_study, variant_studies
from rlheals.drawing import Drawn
from rlheals.profiles import load_profile
from rlheals.recovery_chapter import RecoveryChapter, recorded_recovery
from rlheals.rotation_chapter import RotationChapter, recorded_rotation

RESULTS = Path(__file__).parents[1] / "results"
LAB = load_profile("lab")
CHAPTERS: dict[str, tuple[Callable, ...]] = {
    "sft": figures.SFT, "recovery": recovery_figures.RL, "rotation": rotation_figures.ROTATION
}  # fmt: skip


def as_fresh(tables: Any) -> Any:
    """One recorded base seed in the place of a reader's own run."""
    frames = {field.name: getattr(tables, field.name) for field in fields(tables)}
    own = {name: frame[frame["seed"] == tables.seeds[0]].assign(seed=0) for name, frame in frames.items()}
    return type(tables)(**own)


@pytest.fixture(scope="module")
def chapters() -> dict[str, Any]:
    sft, sft_manifests = recorded_study("lab", RESULTS)
    rl, rl_manifests = recorded_recovery("lab", RESULTS)
    turned, turned_manifests = recorded_rotation("lab", RESULTS)
    code = "0" * 64
    return {
        "sft": SFTChapter(LAB, as_fresh(sft), sft, tuple(sft_manifests), variant_studies(RESULTS), 1.0, code),
        "recovery": RecoveryChapter(LAB, as_fresh(rl), rl, tuple(rl_manifests), sft, 1.0, code),
        "rotation": RotationChapter(LAB, as_fresh(turned), turned, tuple(turned_manifests), 1.0, code),
    }


@pytest.mark.parametrize(
    ("chapter", "figure"),
    [
        pytest.param(name, figure, id=f"{name}-{figure.__name__}")
        for name, all_ in CHAPTERS.items()
        for figure in all_
    ],
)
def test_figure_shows_the_recorded_study(chapters: dict[str, Any], chapter: str, figure: Callable) -> None:
    drawn = figure(chapters[chapter])
    assert isinstance(drawn, Drawn)
    assert drawn.svg.startswith(b"<?xml")
    assert len(drawn.caption) > 50
    assert len(drawn.frame) or "no recorded" in drawn.caption
