"""Every figure is drawn from the study that is recorded here, without computing anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlheals import (
    figures,
    record,
    recovery,
    recovery_figures,
    rotation,
    rotation_figures,
    swaps,
    swaps_figures,
    tables,
)
from rlheals.drawing import Drawn
from rlheals.profiles import load_profile
from rlheals.recovery_chapter import RecoveryChapter
from rlheals.rotation_chapter import RotationChapter
from rlheals.sft_chapter import SFTChapter, variant_studies
from rlheals.swaps_chapter import SwapChapter
from rlheals.tables import Part

RESULTS = Path(__file__).parents[1] / "results"
LAB = load_profile("lab")
RUN = SimpleNamespace(manifest=SimpleNamespace(stage="evaluate", seconds=60.0, code_hash="0" * 64))
CHAPTERS: dict[str, tuple[Callable, ...]] = {
    "sft": figures.SFT, "recovery": recovery_figures.RL, "rotation": rotation_figures.ROTATION,
    "swaps": swaps_figures.SWAPS,
}  # fmt: skip


def as_fresh(tables: Any) -> Any:
    """One recorded base seed in the place of a reader's own run."""
    mine = tables.of_seed(tables.seeds[0])
    return type(tables)(**{field.name: getattr(mine, field.name).assign(seed=0) for field in fields(mine)})


@pytest.fixture(scope="module")
def chapters() -> dict[str, Any]:
    def facts(part: Part) -> dict[str, Any]:
        found, manifests = record.find("lab", part, RESULTS)
        shown = {"fresh": as_fresh(found), "recorded": found, "manifests": tuple(manifests)}
        return {"profile": LAB, **shown, "runs": (RUN,)}

    sft = facts(tables.SFT)
    return {
        "sft": SFTChapter(**sft, variants=variant_studies(RESULTS)),
        "recovery": RecoveryChapter(**facts(recovery.STUDY), sft=sft["recorded"]),
        "rotation": RotationChapter(**facts(rotation.STUDY)),
        "swaps": SwapChapter(**facts(swaps.STUDY)),
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
