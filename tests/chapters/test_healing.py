"""Chapter 05: its plan asks for what it needs and no more, and its estimators know the answer where it is known."""

from __future__ import annotations

import itertools
import re
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import healing_tables
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

from rlheals.chapters import checks
from rlheals.chapters.healing import claims as estimate
from rlheals.chapters.healing.estimates import COLUMNS, shares
from rlheals.chapters.healing.figures import HEALING, levels, map_of_healing
from rlheals.chapters.healing.measures import MEASURING, Healing
from rlheals.chapters.healing.runs import (
    BEFORE,
    HEALED,
    UNHEALED,
    HealingChapter,
    HealingTables,
    edit_arm,
    plan,
    units,
)
from rlheals.chapters.healing.takeaways import TAKEAWAYS
from rlheals.display import style
from rlheals.errors import BadInput
from rlheals.profiles import load_profile
from rlheals.profiles.healing import ARMS
from rlheals.store.store import Store
from rlheals.study.claims import half_of
from rlheals.study.peaks import PEAK, STATES, states_of

SMALL = load_profile("smoke")
STEPS = {PEAK: 10, 10: 10, 50: 30, 90: 60}
HANDS = [f"ood/{number}" for number in range(4000)]
MEASURED = [hand for hand in HANDS if half_of(hand) == MEASURING]


def planned(unit: str, folder: Path, steps: dict[int, int] = STEPS):
    return plan(SMALL, 3, Store(folder), {3: steps}, unit)


# ---- the plan


def test_every_input_is_computed_before_it_is_used(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for unit in units(SMALL):
        known: set[str] = set()
        for spec in planned(unit, tmp_path).specs():
            assert set(spec.inputs.values()) <= known, (unit, spec.stage)
            known.add(store.key(spec))


def test_all_second_stages_of_a_state_start_from_the_same_checkpoint_with_the_same_noise(
    tmp_path: Path,
) -> None:
    made = planned("map", tmp_path)
    for cell, spec in made.runs.items():
        assert spec.settings["folder"] == f"step-{STEPS[cell.start]:05d}"
    assert {spec.seed for (_, decode), spec in made.censuses.items() if decode == 0} == {300}
    assert {cell.control for cell in made.runs} == set(SMALL.healing.map)


def test_imitation_sees_as_many_examples_as_it_is_told(tmp_path: Path) -> None:
    made = planned("map", tmp_path)
    (settings,) = {
        (spec.settings["checkpoints"][-1], spec.settings["batch"])
        for spec in made.runs.values()
        if spec.stage == "sft"
    }
    assert settings[0] * settings[1] == SMALL.healing.examples


def test_an_arm_with_a_past_of_its_own_is_measured_at_its_own_start(tmp_path: Path) -> None:
    made = planned("arms", tmp_path)
    own = {cell.control for cell, _ in made.censuses if cell.run < 0}
    assert own == {name for name in SMALL.healing.arms if ARMS[name].before or ARMS[name].fused}


def test_a_state_that_sft_does_not_reach_has_no_runs(tmp_path: Path) -> None:
    steps = {PEAK: 10, 10: 30}
    made = planned("map", tmp_path, steps)
    assert {cell.start for cell in made.runs} == {10}
    assert not planned("arms", tmp_path, steps).runs
    assert not planned("mechanism", tmp_path, steps).paths


def test_states_are_the_first_steps_at_which_so_much_of_the_peak_is_lost() -> None:
    curve = pd.Series({0: 0.9, 10: 0.5, 20: 0.8, 40: 0.73, 80: 0.71, 160: 0.4, 320: 0.41, 640: 0.1})
    assert states_of(curve) == {PEAK: 20, 10: 80, 50: 160}
    assert states_of(curve.sample(frac=1, random_state=0)) == states_of(curve)
    assert states_of(curve + 1) == {PEAK: 20, 10: 160}, "a share of the peak, not points"
    tied = pd.Series({0: 0.0, 20: 1.0, 40: 0.9, 80: 0.5, 160: 0.1})
    assert states_of(tied) == {PEAK: 20, 10: 40, 50: 80, 90: 160}, "a tenth exactly is a tenth"
    with pytest.raises(BadInput, match="three SFT steps"):
        states_of(curve.iloc[:2])


# ---- measures and estimators


def episodes(
    arm: str,
    state: int,
    run: int,
    share: float,
    *,
    decodes: int = 4,
    split: str = "ood",
    ability: float = 0.9,
):
    """A share of the measuring hands is solved at once by every sampling seed; the other half of the hands never is."""
    right = set(MEASURED[: round(share * len(MEASURED))])
    frames = [
        pd.DataFrame(
            {
                "item": HANDS,
                "split": split,
                "solved_at": [int(hand in right) for hand in HANDS],
                "solved_at_either": [int(hand in right) for hand in HANDS],
                "first_values_right": True,
            }
        ).assign(decode=decode)
        for decode in range(decodes)
    ]
    return pd.concat(frames).assign(control=arm, start=state, run=run, ability=ability, seed=1)


def healing(
    *frames: pd.DataFrame, path: pd.DataFrame | None = None, states: tuple[int, ...] = (PEAK, *STATES)
) -> Healing:
    none = pd.DataFrame({"seed": []})
    empty = {field.name: none for field in fields(HealingTables)}
    rows = {"episodes": pd.concat(frames, ignore_index=True), "path": none if path is None else path}
    rows["steps"] = pd.DataFrame({"state": states, "seed": 1, "ability": 0.9})
    return Healing.of(HealingTables(**{**empty, **rows}), 1)


def curve(**after: float) -> list[pd.DataFrame]:
    """Peak .8, start .4; what second stages reach from it, by arm."""
    before = [episodes(BEFORE, PEAK, -1, 0.8), episodes(BEFORE, 50, -1, 0.4)]
    return [*before, *(episodes(arm.replace("_", "-"), 50, 0, share) for arm, share in after.items())]


def test_a_share_of_the_loss_is_counted_from_the_start_to_the_peak() -> None:
    one = healing(*curve(rl=0.5, rl_varied=0.7))
    assert one.lost(50) == pytest.approx(0.4, abs=1e-3)
    assert estimate.regained(one, "rl", 50) == pytest.approx((0.1, 0.4), abs=1e-3)
    assert estimate.regained(one, "rl-varied", 50) == pytest.approx((0.3, 0.4), abs=1e-3)
    assert estimate.regained_over(one, "rl-varied", "rl", 50) == pytest.approx((0.2, 0.4), abs=1e-3)
    for pair in (("rl-varied", "rl"), ("rl", "rl-varied")):
        assert estimate.regained_alike(one, *pair, 50, 0.15) == pytest.approx((0.06 - 0.2, 0.4), abs=1e-3)
    assert estimate.ends_over(one, "rl", "rl-varied", 50) == pytest.approx(-0.2, abs=1e-3)


def test_an_arm_with_its_own_start_is_measured_from_there() -> None:
    one = healing(*curve(dft=0.7), episodes("dft", 50, -1, 0.6))
    assert one.gain("dft", 50) == pytest.approx(0.1, abs=1e-3)
    assert estimate.regained(one, "dft", 50) == pytest.approx((0.1, 0.2), abs=1e-3)


def test_pass_at_four_asks_whether_one_of_the_sampling_seeds_solves_a_hand() -> None:
    frame = episodes(BEFORE, PEAK, -1, 0.8)
    frame.loc[frame["decode"] != 2, ["solved_at", "solved_at_either"]] = 0
    one = healing(frame)
    assert one.peak(measure="pass4") == pytest.approx(0.8, abs=1e-3)
    assert one.peak(measure="pass1") == pytest.approx(0.2, abs=1e-3)


def test_the_half_that_chose_the_states_does_not_measure_them() -> None:
    frame = episodes(BEFORE, PEAK, -1, 0.5)
    choosing = ~frame["item"].isin(MEASURED)
    changed = frame.assign(solved_at_either=frame["solved_at_either"].where(~choosing, 1))
    assert healing(frame).peak() == healing(changed).peak()


def test_neither_the_order_of_rows_nor_a_second_rl_seed_alike_changes_anything() -> None:
    frames = curve(rl=0.5)
    one, again = (
        healing(*frames),
        healing(*reversed([frame.sample(frac=1, random_state=1) for frame in frames])),
    )
    twice = healing(*frames, episodes("rl", 50, 1, 0.5))
    values = [estimate.regained(each, "rl", 50).over for each in (one, again, twice)]
    assert values == pytest.approx([values[0]] * 3)


def test_what_was_not_measured_is_not_a_number() -> None:
    one = healing(*curve(rl=0.5))
    assert np.isnan(estimate.regained(one, "expert", 50).over)
    assert np.isnan(estimate.regained(one, "rl", 90).under)
    assert np.isnan(one.lost(50, ability=0.5))


def test_an_able_base_is_compared_by_shares_not_by_points() -> None:
    weak = [episodes(BEFORE, PEAK, -1, 0.4, ability=0.5), episodes(BEFORE, 50, -1, 0.2, ability=0.5)]
    one = healing(*curve(rl=0.6), *weak, episodes("rl", 50, 0, 0.3, ability=0.5))
    assert estimate.regained_by_ability(one, "rl", 50, 0.9, 0.5) == pytest.approx(0, abs=5e-3)


def test_vectors_turn_back_if_the_healed_run_is_nearer_the_peak_at_equal_distance_from_the_start() -> None:
    def run(arm: str, sizes: list[float], angles: list[float]) -> pd.DataFrame:
        place = [f"update-{number:05d}" for number in range(len(sizes))]
        both = [(-1, sizes, angles), (PEAK, sizes[::-1], angles)]
        rows = [
            pd.DataFrame({"folder": place, "change_norm": norms, "angle": seen, "seen_from": of, "part": 4})
            for of, norms, seen in both
        ]
        return pd.concat(rows).assign(control=arm, start=50, seed=1)

    path = pd.concat([run(HEALED, [0, 1, 2], [30, 25, 20]), run(UNHEALED, [0, 2, 4], [30, 31, 32])])
    one = healing(*curve(), path=path)
    assert estimate.turns_back(one, 50) == pytest.approx(31 - 20)
    assert one.reach(UNHEALED, 50) == 4


def test_edits_are_compared_with_the_controls_of_equal_size() -> None:
    vectors, noise = "directions(all) @ blocks", "noise() like directions(all) @ blocks"
    ends = curve(**{UNHEALED: 0.4, HEALED: 0.8})
    edited = [
        episodes(edit_arm(UNHEALED, entry), 50, 0, share) for entry, share in ((vectors, 0.6), (noise, 0.3))
    ]
    one = healing(*ends, *edited)
    assert estimate.restores(one, 50, vectors, noise) == pytest.approx(0.3, abs=1e-3)
    assert estimate.edit_regains(one, 50, vectors) == pytest.approx((0.2, 0.4), abs=1e-3)


def test_every_edit_and_arm_of_the_lab_can_be_read() -> None:
    lab = load_profile("lab")
    assert {*lab.healing.window} <= {*lab.healing.map}
    assert {"rl", UNHEALED, HEALED} <= {*lab.healing.map}
    assert len(STATES) == 3
    made = plan(lab, 0, Store(Path("unused")), {0: {PEAK: 80, 10: 480, 50: 1920, 90: 5120}}, "mechanism")
    assert len(made.runs) == 2 * 2 * len(lab.healing.edits)
    assert replace(made, steps={}).name == "seed-0-mechanism"


def test_a_state_that_sft_did_not_reach_has_no_data_and_the_other_claims_are_judged() -> None:
    """One base seed that never loses nine tenths must not take the verdicts of the whole chapter with it."""
    whole = healing_tables.study(abilities=(0.9, 0.5))
    without = replace(whole, steps=whole.steps[(whole.steps["seed"] != 13) | (whole.steps["state"] != 90)])
    with pytest.raises(BadInput, match="did not lose 90 %"):
        Healing.of(without, 13).accuracy(BEFORE, 90, False)
    found = estimate.CLAIMS.outcome(without)
    late = {claim.id for claim in found.claims.claims if claim.options["state"] == 90}
    assert set(found.no_data) == late
    assert all(
        said == "base seed 13: SFT did not lose 90 % of the OOD peak" for said in found.no_data.values()
    )
    assert len(found.judged) == len(found.claims.claims) - len(late)
    assert not found.missing


def test_an_able_base_that_is_not_recorded_is_missing_and_no_other_takes_its_place() -> None:
    whole = healing_tables.study(abilities=(0.9, 0.5))
    cut = {
        name: frame[(frame["seed"] != 13) | (frame["ability"] != 0.9)]
        for name, frame in (("episodes", whole.episodes), ("steps", whole.steps))
    }
    found = estimate.CLAIMS.outcome(replace(whole, **cut))
    assert not found.judged
    assert any("base seed 13" in said for said in found.missing)


def test_a_recording_that_stopped_before_the_mechanism_judges_the_others_and_says_so() -> None:
    whole = healing_tables.study(abilities=(0.9, 0.5))
    cut = replace(whole, path=pd.DataFrame(columns=["control", "start", "seed", "ability"]))
    found = estimate.CLAIMS.outcome(cut)
    assert found.no_data == {"healing-turns-back": "base seed 11: what it needs is not recorded yet"}
    assert len(found.judged) == len(found.claims.claims) - 1
    judged = {one.claim.id: one.verdict for one in estimate.CLAIMS.outcome(whole).judged}
    assert all(one.verdict == judged[one.claim.id] for one in found.judged)


# ---- figures and checks


@pytest.fixture(scope="module")
def study() -> HealingTables:
    return healing_tables.study()


def chapter(tables: HealingTables, profile: str = "smoke") -> HealingChapter:
    """With nothing recorded, so that what is given is a reader's own."""
    run = SimpleNamespace(manifest=SimpleNamespace(stage="rl", seconds=60.0, code_hash="0" * 64))
    return HealingChapter(load_profile(profile), tables, None, (), (run,))


def test_the_map_holds_the_share_of_every_cell_and_says_where_there_is_none(study: HealingTables) -> None:
    frame = map_of_healing(chapter(study)).frame.set_index(["arm", "state", "ability"])
    assert len(frame) == 4 * 3 * 3
    for (arm, state, ability), row in frame.iterrows():
        (known,) = shares(study, arm, state, ability=ability)[COLUMNS].to_numpy()
        assert row[COLUMNS].to_list() == pytest.approx(known)
    assert frame.loc[("rl-varied", 90, 0.9), "value"] == pytest.approx(0.9, abs=0.1)
    assert frame.loc[("rl", 90, 0.9), "value"] == pytest.approx(0.1, abs=0.1)
    cut = replace(study, steps=study.steps[study.steps["state"] != 90])
    some = map_of_healing(chapter(cut)).frame
    assert some.loc[some["state"] == 90, "value"].isna().all()
    assert some.loc[some["state"] != 90, "value"].notna().all()


@pytest.mark.parametrize("states", [(), (10,), (10, 50)])
def test_every_figure_is_drawn_of_a_study_that_is_not_whole(states: tuple[int, ...]) -> None:
    """Nothing lost, one base seed, no mechanism: an empty panel says so."""
    some = healing_tables.study(seeds=(3,), states=states, abilities=(1.0,), runs=1)
    drawn = [figure(chapter(some)) for figure in HEALING]
    assert len({one.name for one in drawn}) == len(HEALING)
    assert all(one.svg.startswith(b"<?xml") for one in drawn)
    nothing = [one.name for one in drawn if one.frame.empty or one.frame["value"].isna().all()]
    assert ("healing-mixed" in nothing) == (50 not in states)
    assert ("healing-map" in nothing) == (not states)


def test_marks_of_fewer_sampling_seeds_are_not_called_pass_at_4(study: HealingTables) -> None:
    one = replace(study, episodes=study.episodes[study.episodes["decode"] == 0])
    said = "The fresh run has 1 sampling seed: its pass@4 is pass@1."
    for figure in (levels, map_of_healing):
        assert said in figure(chapter(one)).caption
        assert "its pass@4" not in figure(chapter(study)).caption


def test_the_sentences_above_the_figures_say_what_was_made(study: HealingTables) -> None:
    drawn = [figure(chapter(study, "lab")) for figure in HEALING]
    told = {one.name: one.takeaway.removeprefix("In this fresh run, ") for one in drawn}
    assert set(told) == set(TAKEAWAYS)
    for name, said in {
        "levels": "with RL on rules up to 13, OOD pass@4 rises from 4",
        "map": "of losses of 10 %, 50 % and 90 %, RL on rules up to 13 regains ",
        "numbers": "RL on other rules up to 10 regains ",
        "imitation": "not clearly different from the",
        "why": "changes arithmetic more than reading: its share rises from 4",
        "gradients": "over 60 runs (RL, expert iteration), OOD gain",
        "arms": "second stages from the same start, ",
        "paths": "at equal size, rules up to 13 leave RL 18 degrees from the peak, below the 33",
        "mixed": "OOD pass@4 of RL up to 10 rises from",
    }.items():
        assert said in told[f"healing-{name}"]
    for figure in HEALING:
        takeaway = figure(chapter(study.of_seed(11), "lab")).takeaway
        assert takeaway.startswith("In this one-seed fresh run, ")
        assert not re.search("clearly|interval|rises|falls", takeaway)


@pytest.mark.parametrize("figure", HEALING)
def test_no_label_of_a_figure_is_cut_off_or_lies_on_another(
    figure, study: HealingTables, monkeypatch
) -> None:
    seen = []
    finish = style.finish
    monkeypatch.setattr(style, "finish", lambda drawn, *more: seen.append(drawn) or finish(drawn, *more))
    figure(chapter(study))
    (drawn,) = seen
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    texts = [text for legend in drawn.legends for text in legend.get_texts()]
    for axis in filter(Axes.get_visible, drawn.axes):
        texts += [*axis.texts, axis.title, axis.xaxis.label]
        for each, (low, high) in ((axis.xaxis, axis.get_xlim()), (axis.yaxis, sorted(axis.get_ylim()))):
            texts += [tick.label1 for tick in each.get_major_ticks() if low <= tick.get_loc() <= high]
    texts = [text for text in texts if text.get_text() and text.get_visible()]
    whole = drawn.bbox
    boxes = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts]
    for text, box in boxes:
        assert whole.x0 - 1 <= box.x0, f"{text!r} leaves the figure"
        assert box.x1 <= whole.x1 + 1, f"{text!r} leaves the figure"
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        wide = min(first.x1, second.x1) - max(first.x0, second.x0)
        high = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert wide < 2 or high < 2, f"{one!r} lies on {other!r}"


def test_laws_of_second_stages_hold_and_what_breaks_one_is_named(study: HealingTables) -> None:
    found = checks.healing(chapter(study))
    assert found.ok, found
    steps, episodes = study.steps, study.episodes
    late = steps["step"].mask(steps["state"] == 10, 10_000)
    broken = {
        "states reached before a smaller loss": replace(study, steps=steps.assign(step=late)),
        "evaluations of what is no state": replace(study, steps=steps[steps["state"] != 50]),
        "results of a start that is not evaluated": replace(
            study, episodes=episodes[(episodes["run"] >= 0) | (episodes["start"] != 50)]
        ),
        "results on other hands than their start": replace(
            study, episodes=episodes[(episodes["run"] < 0) | (episodes["item"] != episodes["item"].iloc[0])]
        ),
        "solved at once in the taught format, but not in either": replace(
            study, episodes=episodes.assign(solved_at_either=0)
        ),
    }
    for name, tables in broken.items():
        assert f"{name}: outside" in str(checks.healing(chapter(tables))), name
