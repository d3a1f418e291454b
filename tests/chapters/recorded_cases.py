"""What holds of every recorded chapter after SFT, for files of tests that share the work: `recorded` is theirs."""

from __future__ import annotations

import shutil
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from chapter_studies import parts
from lab_helpers import files_of, one_line

from rlheals.chapters.edits.figures import SWAPS
from rlheals.chapters.healing.figures import HEALING
from rlheals.chapters.protected.figures import PROTECTION
from rlheals.chapters.registry import CHAPTERS
from rlheals.chapters.rl.figures import RL
from rlheals.chapters.spectra.figures import ROTATION
from rlheals.errors import BadInput
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


def test_recording_again_writes_the_same_bytes_and_a_changed_table_is_refused(
    recorded: SimpleNamespace, tmp_path: Path
) -> None:
    before = files_of(recorded.folder)
    part = parts(recorded.key, recorded.profile)[0]
    record.record(recorded.profile, [3], recorded.store, recorded.results, say=str, part=part)
    assert files_of(recorded.folder) == before
    shutil.copytree(recorded.folder, tmp_path / recorded.folder.name)
    file = next((tmp_path / recorded.folder.name).glob("seed-3*/*.parquet"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(
        BadInput, match=f"{file.parent.name}: {file.name} is missing or has changed"
    ) as refused:
        record.read(tmp_path / recorded.folder.name, CHAPTERS[recorded.key].part.kind)
    one_line(refused.value)


@pytest.mark.parametrize("with_recorded", [True, False])
def test_figures_are_drawn_and_say_what_they_are_drawn_from(
    recorded: SimpleNamespace, tmp_path: Path, with_recorded: bool
) -> None:
    results = recorded.results if with_recorded else tmp_path
    chapter = CHAPTERS[recorded.key].chapter.open(
        recorded.profile, [1], 1, results, recorded.store, quiet=True
    )
    assert (chapter.recorded is not None) == with_recorded
    figures = FIGURES[recorded.key]
    drawn = [figure(chapter) for figure in figures]
    assert len({one.name for one in drawn}) == len(figures)
    for one in drawn:
        assert one.svg.startswith(b"<?xml")
        assert len(one.frame) or not with_recorded
        assert ("base seed 1" in one.origin) == ("fresh run" in one.caption.lower())
        assert ("base seeds 2-3" in one.origin) <= with_recorded
        assert ("is not recorded." in one.caption) != with_recorded


def test_a_recorded_seed_is_no_fresh_one(recorded: SimpleNamespace) -> None:
    with pytest.raises(BadInput, match="base seed 3 is in the recorded study"):
        CHAPTERS[recorded.key].chapter.open(
            recorded.profile, [3], 1, recorded.results, recorded.store, quiet=True
        )
