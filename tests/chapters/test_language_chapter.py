"""Chapter 07: a language model's study recorded part by part, figures beside the lab's, agreement of verdicts."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import healing_tables
import pandas as pd
import pytest
import tiny_models
from lab_helpers import same_weights
from small_study import RL, SMALL
from test_beyond import curves

from rlheals.book.models import measured
from rlheals.chapters.language import figures, runs
from rlheals.chapters.language.claims import (
    ABOUT,
    CLAIMS,
    DRAFT,
    UNREGISTERED,
    agreement,
    agreement_table,
    drafted,
    outcome,
)
from rlheals.chapters.language.runs import LAB, STUDIES, LanguageTables
from rlheals.chapters.language.takeaways import TAKEAWAYS
from rlheals.chapters.registry import CHAPTERS
from rlheals.cli import main as cli
from rlheals.display.markup import Table
from rlheals.engines import models
from rlheals.engines.hf import Sampling
from rlheals.errors import BadInput
from rlheals.profiles import load_profile, to_yaml
from rlheals.profiles.edit_grid import SwapGrid
from rlheals.profiles.healing import Healing
from rlheals.profiles.profile import Profile
from rlheals.profiles.sections import RLStarts, Rotation, WarmUp
from rlheals.stats.verdicts import VERDICTS
from rlheals.store.store import Store
from rlheals.study.claims import ESTIMATORS, FILE, Outcome, judge
from rlheals.study.compute import compute
from rlheals.study.plan import plan
from rlheals.study.record import recorded_manifests
from rlheals.training.fetch import Source
from rlheals.weights.trajectory import LABELS
from rlheals.yaml_file import read_yaml

PARTS = ([], ["--healing"], ["--rotation"], ["--edits"])
(STUDY,) = STUDIES


def tiny(folder: Path) -> Profile:
    """As `smollm2`, with an untrained model of two layers: every part of the study in seconds."""
    played = {"prompts": "short", "precision": "bf16"}
    rl = RL.model_copy(update={**played, "log_kl": False, "sampling": Sampling(max_new_tokens=8)})
    return SMALL.model_copy(
        update={
            "name": "tiny-lm",
            "model": Source(name=str(tiny_models.folder(folder, "llama", tied=True)), dtype="float32"),
            "decodes": 1,
            "evaluated": (0, 3, 5),
            "rule_steps": (),
            "sft": SMALL.sft.model_copy(update=played),
            "evaluate": SMALL.evaluate.model_copy(update={**played, "splits": ("sft", "held_out", "ood"), "hands": 3}),
            "rl_starts": RLStarts(starts=(3, 5), runs=1, decodes=1, rl=rl),
            "healing": Healing(map=("rl", "rl-varied"), states=(10, 90), steps=(3, 5)),
            "rotation": Rotation(steps=(0, 3, 5), branches=("lora-16",), branch_steps=(3, 5), draws=2, questions=2),
            "swaps": SwapGrid(
                late=5, start=3, restore=("directions(all) @ blocks", "directions(all) @ blocks layers=0"),
                swap=("noise() like directions(all) @ blocks",),
            ),
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Profile, Path]:
    """The study of a base seed, recorded by the commands that record the real one."""
    place = tmp_path_factory.mktemp("language")
    profile = tiny(place / "model")
    (place / "tiny-lm.yaml").write_text(to_yaml(profile))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLHEALS_STORE", str(place / "store"))
        asked = [
            "study",
            "--profile",
            str(place / "tiny-lm.yaml"),
            "--record",
            str(place / "results"),
            "--missing",
        ]
        for part in PARTS:
            assert cli.main([*asked, "--seeds", "1", *part]) == 0
    return profile, place / "results"


def test_every_part_is_recorded_and_drawn(recorded: tuple[Profile, Path], tmp_path: Path) -> None:
    profile, results = recorded
    assert sorted(path.name for path in results.iterdir()) == [
        "tiny-lm", "tiny-lm-healing", "tiny-lm-rotation", "tiny-lm-swaps",
    ]  # fmt: skip
    chapter = runs.language(profile, results=results, store=tmp_path)
    assert (chapter.recorded.seeds, chapter.fresh.by_task, chapter.runs) == ([1], {}, ())
    healing, rotation = (chapter.recorded.of("tiny-lm", part) for part in ("healing", "rotation"))
    steps = healing.steps.drop_duplicates("state").set_index("state")["step"]
    assert (steps[10], steps[90]) == (3, 5), "the starts that the profile fixes, whatever SFT has lost"
    assert set(healing.episodes["control"]) == {"sft", "rl", "rl-varied"}
    assert set(rotation.path["branch"]) == {"sft", "lora-16", "rl"}
    blocks = rotation.angles[["pair", "what", *LABELS]].drop_duplicates()
    for _, mine in blocks[blocks["kind"] != "embed"].groupby(["pair", "what"], observed=True):
        assert len(mine) == 2 * 7, "every matrix of both layers, none of them cut into heads"
    drawn = {one.name: one for one in (figure(chapter) for figure in figures.LANGUAGE)}
    assert drawn.keys() == TAKEAWAYS.keys()
    for one in drawn.values():
        assert len(one.frame), one.name
        assert set(one.frame["study"]) == {"recorded"}
        assert "Recorded study: base seeds 1; " in one.origin
    assert set(drawn["language-lora"].frame["series"]) == {
        f"tiny-lm, {column}, {branch}" for column, branch in product(figures.ALONG, figures.TRAJECTORIES)
    }
    assert set(drawn["language-edits"].frame["edit"]) == {
        "restore: directions(all)", "restore: directions(all), layers 0-0", "swap: noise() like directions(all)",
    }  # fmt: skip
    spectrum = drawn["language-spectra"].frame.query("series == 'tiny-lm, spectrum'")
    assert spectrum["value"].is_monotonic_decreasing
    assert spectrum["value"].between(0, 1).all()


def test_nothing_is_computed_again_and_a_lost_store_does_not_matter(
    recorded: tuple[Profile, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, results = recorded
    monkeypatch.setenv("RLHEALS_STORE", str(tmp_path / "store"))
    asked = [
        "study",
        "--profile",
        str(results.parent / "tiny-lm.yaml"),
        "--record",
        str(results),
        "--missing",
    ]
    for part in PARTS:
        assert cli.main([*asked, "--seeds", "1", *part]) == 0
    assert not (tmp_path / "store" / "runs").exists()


@pytest.fixture(scope="module")
def made() -> LanguageTables:
    """The model's study made by hand at known levels, beside a lab of other ones."""
    seeds = drafted().study.seeds
    mine = {"sft": curves(seeds), "healing": healing_tables.study(seeds, abilities=(0.9,))}
    return LanguageTables({LAB: {"healing": healing_tables.study(abilities=(0.75,))}, STUDY: mine})


def test_the_draft_is_ready_but_for_its_margins(made: LanguageTables, tmp_path: Path) -> None:
    """With margins and in its place it would be judged, by estimators that there are, beside claims of the lab."""
    margins = dict.fromkeys(read_yaml(DRAFT, DRAFT.name)["margins"], 0.05)
    file, known = tmp_path / "claims.yaml", drafted(margins)
    part = known.model_dump(mode="json", exclude_none=True)
    file.write_text(json.dumps(read_yaml(FILE, FILE.name) | {CLAIMS.key: part}))
    assert CLAIMS.read(file) == known
    lab = {claim.id: (key, claim) for key, one in CHAPTERS.items() for claim in one.claims.read().claims}
    assert 6 <= len(known.claims) <= 10
    for claim in known.claims:
        options = dict(claim.options)
        task, chapter, estimate = (options.pop(name) for name in ("task", "chapter", "estimate"))
        key, there = lab[claim.id.removeprefix(f"{task}-")]
        assert (chapter, estimate, options) == (key, there.estimator, there.options), (
            "the lab's, of this model"
        )
        assert task in STUDIES
        values = CLAIMS.estimates(claim, made)
        found = made.of(STUDY, chapter)
        assert list(values) == ([] if found is None else [1, 2, 3]), claim.id
        if found is not None:
            assert list(values.values()) == list(CHAPTERS[key].claims.estimates(there, found).values())
    assert set(ESTIMATORS["language"]) == {"in_task"}


def test_until_it_is_registered_nothing_is_judged(recorded: tuple[Profile, Path]) -> None:
    if CLAIMS.key in read_yaml(FILE, FILE.name):
        pytest.skip("registered")
    assert outcome(recorded[1]) is None
    assert CLAIMS.key not in CHAPTERS
    state, table, about = agreement_table(recorded[1])
    assert (state, about) == (UNREGISTERED, ABOUT)
    assert isinstance(table, Table)
    assert {row[2] for row in table.rows} == {"–"}
    assert len(table.rows) == len(drafted().claims)


@pytest.mark.parametrize(("lab", "here"), list(product((None, *VERDICTS), repeat=2)))
def test_what_two_verdicts_say_of_each_other(lab: str | None, here: str | None) -> None:
    shown = ("holds", "holds in part")
    expected = (
        "no data yet" if None in (lab, here)
        else "open" if "open" in (lab, here)
        else "agrees" if lab == here
        else "agrees in part" if lab in shown and here in shown
        else "differs"
    )  # fmt: skip
    assert agreement(lab, here) == agreement(here, lab) == expected


def test_the_table_has_the_verdicts_of_both_and_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    claims = drafted(dict.fromkeys(read_yaml(DRAFT, DRAFT.name)["margins"], 0.5))
    first, second, *rest = claims.claims
    levels = {first.id: 1.0, second.id: 0.0}
    numbers = {
        one.id: {seed: levels.get(one.id, 1.0) + seed / 100 for seed in (1, 2, 3)} for one in claims.claims
    }
    found = Outcome(claims, (), tuple(judge(claims, numbers)))
    theirs = CHAPTERS["sft"].claims.read()
    both = {claim.id: dict.fromkeys(theirs.study.seeds, 1.0) for claim in theirs.claims}
    both = {name: {seed: at + seed / 1e4 for seed, at in each.items()} for name, each in both.items()}
    lab = Outcome(theirs, (), tuple(judge(theirs, both)))
    monkeypatch.setattr(
        "rlheals.chapters.language.claims.outcomes",
        lambda results, keys: {key: lab if key == "sft" else replace(lab, judged=()) for key in keys},
    )
    table, _ = agreement_table(tmp_path, found)
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows[first.sentence][1:] == ("holds", "holds", "agrees")
    assert rows[second.sentence][1:] == ("not here", "holds", "differs")
    assert {rows[one.sentence][2:] for one in rest if one.options["chapter"] != "sft"} == {
        ("–", "no data yet")
    }
    assert rows[first.sentence][0].startswith("1.020 [")
    assert agreement_table(tmp_path, Outcome(claims, None, ()))[0] == "Nothing is recorded yet."
    assert "base seed 3" in agreement_table(tmp_path, Outcome(claims, ("base seed 3",), ()))[0]


def test_figures_show_the_lab_beside_the_model_and_say_where_nothing_is(
    made: LanguageTables, tmp_path: Path
) -> None:
    empty = runs.language("lab", results=tmp_path, store=tmp_path)
    assert (empty.recorded, empty.profile.name) == (None, STUDY)
    whole = replace(empty, recorded=made, manifests=())
    for figure in figures.LANGUAGE:
        none, drawn = figure(empty), figure(whole)
        assert "smollm2 is not recorded." in none.caption
        assert none.svg.count(b"<!-- no data here -->") == len(none.svg.split(b'<g id="axes_')) - 1
        assert drawn.caption
    shown = figures.healed(whole)
    frame = shown.frame.set_index(["series", "state"])["value"]
    one = {"rl": 0.1, "rl-varied": 0.9}
    for arm, back in one.items():
        assert frame[f"{STUDY}, pass4, {arm}", 90] == pytest.approx(0.08 + back * 0.72, abs=0.05)
        assert frame[f"{LAB}, pass4, {arm}", 90] == pytest.approx(0.06 + back * 0.54, abs=0.05)
    assert "with RL on the ID rule and rises from" in shown.takeaway
    curve = figures.curves(whole)
    assert curve.takeaway.startswith("OOD success@3 rises from ")
    found = curve.frame.query(f"series == '{STUDY}, ood, pass@1'").set_index("step")["value"]
    assert found.to_list() == pytest.approx([0.27, 0.97, 0.67, 0.37], abs=0.05)
    assert {split.split(", ")[1] for split in curve.frame["series"]} == {"ood", "held_out"}


def test_takeaways_say_what_is_clear_and_what_is_not() -> None:
    def rows(*known: tuple[float, float, dict]) -> pd.DataFrame:
        return pd.DataFrame(
            [{"value": at, "low": at - wide, "high": at + wide, **of} for at, wide, of in known]
        )

    angle, pair = {"series": f"{STUDY}, angle"}, {"pair": "peak-end"}
    moved = (0.004, 0.001, {"series": f"{STUDY}, values", **pair, "what": "change"})
    turned = [(at, 1.0, {**angle, **pair, "what": what}) for at, what in ((9.0, "change"), (4.0, "gaussian"))]
    assert TAKEAWAYS["language-spectra"](rows(moved, *turned)) == (
        "from the OOD peak to the end of SFT leading vectors turn by 9 degrees, above the 4 of Gaussian changes of "
        "equal norm; singular values change by 0.4 %"
    )
    names = ("restore: directions(all)", "restore: noise() like directions(all)")
    put = [(at, 0.2, {"series": STUDY, "edit": edit}) for at, edit in zip((0.1, 0.0), names, strict=True)]
    assert TAKEAWAYS["language-edits"](rows(*put)) == (
        "restoring the peak's singular vectors changes OOD success by +10 points, not clearly different from the "
        "0 points of noise of equal norm"
    )
    ends = [
        (at, 0.05, {"series": f"{STUDY}, ood, {branch}", "step": step})
        for branch, level in (("sft", 0.1), ("lora-16", 0.4)) for step, at in ((20, 0.9), (240, level))
    ]  # fmt: skip
    assert TAKEAWAYS["language-lora"](rows(*ends)) == (
        "SFT with LoRA ends at 40 % OOD success, above the 10 % of all weights"
    )


def test_a_base_after_a_warm_up_is_another_one_and_the_study_goes_on_from_it(
    recorded: tuple[Profile, Path], tmp_path: Path
) -> None:
    profile, store = recorded[0], Store(tmp_path)
    warm = profile.model_copy(
        update={"warm_up": WarmUp(steps=2, splits=("varied",)), "evaluated": (0,), "decodes": 1}
    )
    assert load_profile(STUDY, {"warm_up": {"steps": 2}}).warm_up == warm.warm_up
    with pytest.raises(BadInput, match="'ood' would teach the OOD rule"):
        load_profile(STUDY, {"warm_up": {"steps": 2, "splits": ["varied", "ood"]}})
    as_it_is, chosen = plan(profile, 1, store), plan(warm, 1, store)
    compute([as_it_is.base, *chosen.specs()], store, quiet=True)
    bases = [models.load(store.load(store.key(one.base)).path / "base") for one in (as_it_is, chosen)]
    first = models.load(store.load(store.key(chosen.sft)).path / "step-00000")
    assert not same_weights(*bases)
    assert same_weights(bases[1], first)


def test_another_task_is_asked_in_the_words_that_it_has() -> None:
    other = load_profile(f"{STUDY}-navigation")
    assert {other.sft.prompts, other.evaluate.prompts, other.rl_starts.rl.prompts} == {"fixed"}
    assert other.evaluate.sampling == load_profile(STUDY).evaluate.sampling, (
        "its own words, not the lab's dialect"
    )


def test_what_a_recorded_model_took_is_measured(recorded: tuple[Profile, Path], tmp_path: Path) -> None:
    profile, results = recorded
    memory, hours, seeds = measured(profile.name, results)
    assert 1e8 < memory < 1e11
    manifests = [one for each in recorded_manifests(results).values() for one in each]
    assert 0 < hours < sum(one.minutes for one in manifests) / 60, "runs that several parts need count once"
    assert seeds == [1]
    assert measured(profile.name, tmp_path) is None
