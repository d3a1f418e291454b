"""What holds for every chapter after SFT: what it runs, what is recorded of it, what is drawn from it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from chapter_studies import STUDIES, parts, recorded_study
from lab_helpers import one_line
from recorded_cases import *  # noqa: F403 (the tests of a recorded chapter)
from recorded_cases import figures_say_what_they_are_drawn_from
from small_study import SMALL

from rlheals.chapters.registry import CHAPTERS
from rlheals.errors import BadInput
from rlheals.profiles import load_profile
from rlheals.store.store import Store


@pytest.fixture(scope="module", params=[key for key in STUDIES if key not in ("rotation", "swaps")])
def recorded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared: Store
) -> SimpleNamespace:
    return recorded_study(request.param, shared, tmp_path_factory.mktemp(request.param))


def test_a_base_seed_that_is_asked_for_twice_counts_once(shared: Store) -> None:
    twice = CHAPTERS["sft"].chapter.open(SMALL, [1, 1], 1, Path("nothing"), shared, quiet=True)
    assert len(twice.fresh.bases) == 1


def test_without_a_recorded_study_figures_say_so(shared: Store, tmp_path: Path) -> None:
    figures_say_what_they_are_drawn_from("recovery", shared, tmp_path, with_recorded=False)


@pytest.mark.parametrize("key", STUDIES)
def test_inputs_stand_before_what_needs_them_and_no_run_is_there_twice(key: str, tmp_path: Path) -> None:
    store, lab = Store(tmp_path), load_profile("lab")
    for part in parts(key, lab, (1,), 20):
        seen: list[str] = []
        for spec in part.plan(lab, 1, store).specs():
            assert set(spec.inputs.values()) <= set(seen)
            seen.append(store.key(spec))
        again = "RL evaluates the same run in two ways, and two states of SFT can be one step"
        assert len(set(seen)) == len(seen) or key in ("recovery", "healing"), again


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("recovery", r"rl_starts\.starts is empty"),
        ("rotation", r"rotation\.steps or rl_starts\.starts is empty"),
        ("swaps", r"swaps\.late or swaps\.start is not set"),
        ("protection", r"protection\.regularisers is empty"),
        ("healing", r"healing\.map is empty"),
    ],
)
def test_a_profile_without_what_a_chapter_is_about_says_so(key: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=said) as refused:
        CHAPTERS[key].chapter.open(SMALL, [1], 1, tmp_path, Store(tmp_path), quiet=True)
    one_line(refused.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        *(({f"rl_starts.{name}": [77]}, name) for name in ("starts", "reader_starts", "late_starts")),
        ({"rl_starts.control_start": 77}, "control_start"),
        ({"rotation.branches": ["warm"]}, "'warm' is not one of"),
        ({"rotation.controls": ["lr-1e-4"]}, "is not one of"),
        ({"rotation.branches": ["lr-1e-4", "lr-1e-4"]}, "different names"),
        ({"rotation.steps": [0, 7]}, "not one of sft.checkpoints"),
        ({"rotation.draws": 1}, "rotation.draws"),
        ({"swaps.restore": ["values(all)"]}, "EDIT @ WHERE"),
        ({"swaps.restore": ["conjure() @ blocks"]}, "accepted are values"),
        ({"swaps.swap": ["values(all) @ walls"]}, "accepted are blocks"),
        ({"swaps.swap": ["values() @ blocks", "values(all)@blocks"]}, "there twice"),
        ({"swaps.late": 7}, "not one of sft.checkpoints"),
        ({"protection.regularisers": ["kl=0.1", "kl=0.10"]}, "there twice"),
        ({"protection.steps": [7]}, "not one of sft.checkpoints"),
        ({"healing.map": ["rest"]}, "'rest' is not one of"),
        ({"healing.edits": ["values(all)"]}, "EDIT @ WHERE"),
        *(
            ({"protection.regularisers": [text]}, "accepted: NAME=VALUE")
            for text in ("", "kl", "kl=", "kl=-1", "kl=nan", "shield=1", "kl=0.1=2", "KL=1")
        ),
    ],
)
def test_impossible_settings_are_one_line(changes: dict, said: str) -> None:
    with pytest.raises(BadInput, match=said) as refused:
        load_profile("lab", changes)
    one_line(refused.value)


def test_edits_and_regularisers_have_one_spelling() -> None:
    entries = {"swaps.restore": ["values( all )@layers=0-1"], "protection.regularisers": ["kl=0.10"]}
    made = load_profile("lab", entries)
    assert made.swaps.restore == ("values(all) @ kinds=q,k,v,o,gate,up,down layers=0,1",)
    assert made.protection.regularisers == ("kl=0.1",)


def test_a_reader_computes_few_rl_runs_and_no_branches() -> None:
    mine = load_profile("lab").for_reader(recorded=True)
    assert mine.rl_starts.starts == (160, 960)
    assert (mine.rl_starts.runs, mine.rl_starts.decodes, mine.rl_starts.control_start) == (1, 1, None)
    assert (mine.rotation.branches, mine.rotation.controls, mine.rotation.decodes) == ((), (), 1)


def test_a_profile_that_asks_for_vllm_plays_everything_with_it_and_trains_as_before(tmp_path: Path) -> None:
    store, profile = Store(tmp_path), STUDIES["recovery"]
    served = profile.model_copy(update={"engine": "vllm"})
    for part in parts("recovery", profile):
        both = (part.plan(one, 1, store).specs() for one in (profile, served))
        for own, theirs in zip(*both, strict=True):
            played = own.stage in ("evaluate", "rl")
            assert theirs.stage == (f"{own.stage}_vllm" if played else own.stage)
            assert (theirs.settings, theirs.seed) == (own.settings, own.seed)
