"""Every figure is drawn from the study that is recorded here, without computing anything."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlheals.chapters.edits.figures import SWAPS
from rlheals.chapters.healing.figures import HEALING
from rlheals.chapters.protected.figures import PROTECTION
from rlheals.chapters.registry import CHAPTERS
from rlheals.chapters.rl import figures as rl_figures
from rlheals.chapters.rl.measures import by_seed
from rlheals.chapters.sentences import said, takeaways_of
from rlheals.chapters.sft import figures
from rlheals.chapters.spectra.figures import ROTATION
from rlheals.display.style import Drawn
from rlheals.profiles import for_task, load_profile
from rlheals.study import record

RESULTS = Path(__file__).parents[2] / "results"
LAB = load_profile("lab")
RUN = SimpleNamespace(manifest=SimpleNamespace(stage="evaluate", seconds=60.0, code_hash="0" * 64))
FIGURES: dict[str, tuple[Callable, ...]] = {
    "sft": figures.SFT, "recovery": rl_figures.RL, "rotation": ROTATION, "swaps": SWAPS, "protection": PROTECTION,
    "healing": HEALING,
}  # fmt: skip


def as_fresh(tables: Any, place: int = 0) -> Any:
    """One recorded base seed in the place of a reader's own run."""
    mine = tables.of_seed(tables.seeds[place])
    return type(tables)(**{field.name: getattr(mine, field.name).assign(seed=0) for field in fields(mine)})


@pytest.fixture(scope="module")
def chapters() -> dict[str, Any]:
    made = {}
    for key, entry in CHAPTERS.items():
        found, manifests = record.find("lab", entry.part, RESULTS)
        if found is None:
            continue
        shown = {"fresh": as_fresh(found), "recorded": found, "manifests": tuple(manifests)}
        more = entry.chapter.more(LAB, found, RESULTS)
        made[key] = entry.chapter(profile=LAB, **shown, runs=(RUN,), **more)
    return made


ALL = [
    pytest.param(name, figure, id=f"{name}-{figure.__name__}")
    for name, all_ in FIGURES.items()
    for figure in all_
]


@pytest.mark.parametrize(("chapter", "figure"), ALL)
def test_figure_and_caption_speak_of_the_studies_that_the_image_depends_on(
    chapters: dict[str, Any], chapter: str, figure: Callable
) -> None:
    """Another fresh run, everything else alike: if the image changes it is drawn, and only then is it mentioned."""
    if chapter not in chapters or len(chapters[chapter].recorded.seeds) < 2:
        pytest.skip(f"too little is recorded of {chapter} to take one base seed as another fresh run")
    mine = chapters[chapter]
    drawn = figure(mine)
    assert isinstance(drawn, Drawn)
    assert drawn.svg.startswith(b"<?xml")
    assert len(drawn.caption) > 50
    assert len(drawn.frame) or "no recorded" in drawn.caption
    other = replace(mine, fresh=as_fresh(mine.recorded, 1))
    is_drawn = figure(other).svg != drawn.svg
    assert ("fresh run" in drawn.caption.lower()) == is_drawn
    assert ("fresh run" in drawn.origin.lower()) == is_drawn
    assert "recorded study" in drawn.caption.lower()
    assert "code 00000000" not in drawn.caption
    assert ("; fresh run, 1 base seed: open marks" in drawn.caption) == is_drawn, "how it is drawn is said"
    assert drawn.caption.index("ecorded study") > 20, "what is shown comes first"
    assert 5 < len(drawn.takeaway.split()) < 35, "numbers and their units apart"
    assert "nan" not in drawn.takeaway.split()
    assert not drawn.takeaway.startswith("In this fresh run")
    numbers = list({"value", "share", "energy", "ood"} & set(drawn.frame))
    flat = drawn.frame.assign(**drawn.frame[numbers].mean(), low=-9.0, high=9.0)
    takeaway = takeaways_of(type(mine))[drawn.name]
    assert said(takeaway, flat) != drawn.takeaway, "the sentence does not depend on what is drawn"
    alone = said(takeaway, drawn.frame[drawn.frame["study"] != "recorded"], {"fresh": 1})
    assert alone.startswith("In this one-seed fresh run, ") or not (is_drawn and alone)
    rows = drawn.frame[drawn.frame["study"] == "fresh"]
    if "Wilson intervals of the hands" in drawn.caption:
        assert (rows["high"] > rows["low"]).any()


def test_a_fresh_run_that_leaves_what_is_recorded_is_reported(chapters: dict[str, Any]) -> None:
    """One of the recorded seeds is inside nearly everywhere; unreadable answers alone put it outside."""
    mine = chapters["sft"]
    inside = figures.format_errors(mine)
    found = re.search(r"(\d+) of (\d+) points of the fresh run", inside.caption)
    assert found is None or int(found[1]) <= 0.2 * int(found[2])
    episodes = mine.fresh.episodes
    wrong = (episodes["split"] == "ood") & (episodes["step"] > 100)
    first = episodes["first"].astype(str).mask(wrong, "illegal_formula")
    broken = replace(mine, fresh=replace(mine.fresh, episodes=episodes.assign(first=first)))
    caption = figures.format_errors(broken).caption
    steps = episodes.loc[wrong, "step"].nunique()
    found = re.search(r"\bOOD: (\d+) of (\d+)", caption)
    assert found is not None, caption
    assert int(found[1]) >= steps
    assert "prediction interval" in caption


def test_every_bar_of_rl_stands_beside_the_checkpoint_it_starts_from(chapters: dict[str, Any]) -> None:
    mine = chapters["recovery"]
    frame = rl_figures.stages(mine).frame
    lab = frame[frame["study"] == "recorded"]
    accuracies = mine.recorded.once(by_seed).values()
    for series, rows in lab.groupby("series"):
        split = "ood" if series.startswith("ood") else "sft"
        assert list(rows["stage"]) == ["peak", "start", "rl", "start", "rl"]
        starts = rows["start"].to_list()[1:]
        assert starts == [starts[0]] * 2 + [starts[2]] * 2
        for bar in rows.iloc[1:].itertuples():
            each = [one.accuracy(int(bar.start), bar.stage == "rl", split=split) for one in accuracies]
            assert bar.value == pytest.approx(sum(each) / len(each))
            assert f"{int(bar.start):,}" in bar.bar


def test_a_takeaway_speaks_in_the_words_of_the_profiles_task(chapters: dict[str, Any]) -> None:
    walked = replace(chapters["sft"], profile=load_profile(for_task("lab", "navigation")))
    told = figures.format_errors(walked).takeaway
    assert "first attempts on OOD nodes" in told
    assert "hands" not in told


def test_a_smoke_run_says_that_its_numbers_mean_nothing_and_every_image_what_it_shows(
    chapters: dict[str, Any],
) -> None:
    lab = chapters["sft"]
    smoke = replace(lab, profile=load_profile("smoke"), recorded=None)
    (said,) = smoke.about_verdicts()
    assert "numbers mean nothing" in said
    assert "verdicts are those of the recorded lab study" in said
    plumbing, drawn = figures.accuracy(smoke), figures.accuracy(lab)
    assert "numbers mean nothing" in plumbing.caption
    assert plumbing.takeaway == ""
    assert plumbing.alt.startswith(f"{drawn.title}: {len(plumbing.frame['value'])} values between ")
    assert lab.about_verdicts() == []
    assert "numbers mean nothing" not in drawn.caption
    assert drawn.alt == f"{drawn.title}: {drawn.takeaway}"
    assert f'<p class="rlheals-takeaway">{drawn.takeaway}</p>' in drawn._repr_html_()
    assert drawn.alt in drawn._repr_html_()
    assert drawn.origin in drawn._repr_html_()
