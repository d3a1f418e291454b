"""What holds of every recorded chapter after SFT, for files of tests that share the work: `recorded` is theirs."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
from chapter_studies import STUDIES, parts

from rlheals.chapters.edits.figures import SWAPS
from rlheals.chapters.healing.figures import HEALING
from rlheals.chapters.protected.figures import PROTECTION
from rlheals.chapters.registry import CHAPTERS
from rlheals.chapters.rl.figures import RL
from rlheals.chapters.spectra.figures import ROTATION
from rlheals.store.store import Store
from rlheals.study import record

FIGURES = {
    "recovery": RL, "rotation": ROTATION, "swaps": SWAPS, "protection": PROTECTION, "healing": HEALING,
}  # fmt: skip


def test_what_is_recorded_unit_by_unit_is_what_the_runs_gave(recorded: SimpleNamespace) -> None:
    units = parts(recorded.key, recorded.profile)
    names = [part.plan(recorded.profile, seed, recorded.store).name for part in units for seed in (2, 3)]
    told = [f"recorded {recorded.folder.name} {name.replace('-', ' ')}" for name in names]
    assert recorded.lines == told
    kind = CHAPTERS[recorded.key].part.kind
    found, manifests = record.read(recorded.folder, kind)
    assert sorted({manifest.seed for manifest in manifests}) == found.seeds == [2, 3]
    plans = [part.plan(recorded.profile, seed, recorded.store) for seed in (2, 3) for part in units]
    fresh = CHAPTERS[recorded.key].part.collect(plans, recorded.store)
    for field in fields(kind):
        order = list(getattr(fresh, field.name).columns)
        sides = [
            getattr(one, field.name)[order].astype(str).sort_values(order).reset_index(drop=True)
            for one in (fresh, found)
        ]
        pd.testing.assert_frame_equal(*sides)


def test_figures_are_drawn_and_say_what_they_are_drawn_from(recorded: SimpleNamespace) -> None:
    figures_say_what_they_are_drawn_from(recorded.key, recorded.store, recorded.results, with_recorded=True)


def figures_say_what_they_are_drawn_from(key: str, store: Store, results: Path, with_recorded: bool) -> None:
    chapter = CHAPTERS[key].chapter.open(STUDIES[key], [1], 1, results, store, quiet=True)
    assert (chapter.recorded is not None) == with_recorded
    figures = FIGURES[key]
    drawn = [figure(chapter) for figure in figures]
    assert len({one.name for one in drawn}) == len(figures)
    for one in drawn:
        assert one.svg.startswith(b"<?xml")
        assert len(one.frame) or not with_recorded
        assert ("base seed 1" in one.origin) == ("fresh run" in one.caption.lower())
        assert ("base seeds 2-3" in one.origin) <= with_recorded
        assert ("is not recorded." in one.caption) != with_recorded
