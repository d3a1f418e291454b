"""Studies: runs are found again when nothing that makes them changed; workers and kills change no byte."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from lab_helpers import refused
from small_study import RUNS, SMALL, results_of

import rlheals
from rlheals.engines.models import SHIPPED_BASE
from rlheals.errors import BadInput
from rlheals.profiles import PROFILES, load_profile, variant
from rlheals.profiles.profile import Profile
from rlheals.settings import validated
from rlheals.store.runs import RunSpec
from rlheals.store.stages import STAGES
from rlheals.store.store import Store
from rlheals.study.compute import compute
from rlheals.study.jobs import run_unit
from rlheals.study.plan import base_spec, plan
from rlheals.study.single import unit
from rlheals.training.adopt import weights_hash


def changed(**paths: Any) -> Profile:
    data = SMALL.model_dump(mode="json")
    for path, value in paths.items():
        *groups, last = path.split("__")
        place = data
        for group in groups:
            place = place[group]
        place[last] = value
    return validated(Profile, data, "test")


def keys_of(profile: Profile, store: Store, seed: int = 1) -> dict[str, str]:
    """Ids of all runs, by what they are for."""
    chosen = plan(profile, seed, store)
    named = {"base": chosen.base, "sft": chosen.sft}
    named |= {f"census {step} {decode}": spec for (step, decode), spec in chosen.censuses.items()}
    named |= {f"rules {step}": spec for step, spec in chosen.rules.items()}
    return {name: store.key(spec) for name, spec in named.items()}


# What determines a run ------------------------------------------------------------------------------------------------

ALL = {"base", "sft", "census 0 0", "census 3 0", "rules 3"}
CENSUSES = {name for name in ALL if name.startswith("census")}


@pytest.mark.parametrize(
    ("change", "affected"),
    [
        ({"name": "other"}, set()),
        ({"about": "something"}, set()),
        ({"seeds": [1, 2, 3]}, set()),
        ({"pretrain__learning_rate": 1e-4}, ALL),
        ({"pretrain__variant": "strict"}, ALL),
        ({"pretrain__model__layers": 3}, ALL),
        ({"sft__learning_rate": 1e-5}, ALL - {"base"}),
        ({"sft__batch": 5}, ALL - {"base"}),
        ({"sft__checkpoints": [0, 2, 3, 5]}, ALL - {"base"}),
        ({"evaluate__sampling__temperature": 1.0}, CENSUSES | {"rules 3"}),
        ({"evaluate__attempts": 3}, CENSUSES | {"rules 3"}),
        ({"evaluate__hands": 4}, CENSUSES),
        ({"evaluate__splits": ["ood"]}, CENSUSES),
        ({"rule_hands": 2}, {"rules 3"}),
    ],
)
def test_a_setting_changes_the_runs_it_enters_and_no_other(
    change: dict[str, Any], affected: set[str], tmp_path: Path
) -> None:
    store = Store(tmp_path)
    before, after = keys_of(SMALL, store), keys_of(changed(**change), store)
    assert before.keys() == after.keys() == ALL
    assert {name for name in ALL if before[name] != after[name]} == affected
    assert not (tmp_path / "runs").exists()


def test_more_decodes_or_steps_add_runs_and_keep_the_others(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fewer = keys_of(changed(evaluated=[3], rule_steps=[]), store)
    more = keys_of(changed(decodes=3), store)
    assert set(more) == ALL | {f"census {step} {decode}" for step in (0, 3) for decode in (1, 2)}
    assert set(fewer) == {"base", "sft", "census 3 0"}
    assert all(more[name] == key for name, key in fewer.items())


def test_no_two_runs_of_a_study_are_the_same_and_seeds_share_nothing_but_the_code(tmp_path: Path) -> None:
    store, lab = Store(tmp_path), load_profile("lab", {"decodes": 4})
    keys = [key for seed in range(4) for key in keys_of(SMALL, store, seed).values()]
    assert len(set(keys)) == len(keys)
    plans = [plan(lab, seed, store) for seed in range(6)]
    noise = {
        (spec.stage, spec.seed, *spec.inputs.values(), str(spec.settings))
        for chosen in plans[1:]
        for spec in chosen.specs()
    }
    assert len(noise) == 5 * (2 + 4 * len(lab.sft.checkpoints) + len(lab.rule_steps))
    assert len({spec.seed for chosen in plans for spec in chosen.censuses.values()}) == 6 * 4


def test_inputs_come_before_those_that_use_them(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for profile in (SMALL, *PROFILES.values()):
        done: set[str] = set()
        for spec in plan(profile, 1, store).specs():
            assert set(spec.inputs.values()) <= done
            done.add(store.key(spec))


def test_seed_0_is_the_shipped_base_unless_the_model_is_another(tmp_path: Path) -> None:
    assert base_spec(load_profile("lab"), 0).stage == base_spec(load_profile("smoke"), 0).stage == "adopt"
    assert base_spec(load_profile("lab"), 1).stage == "pretrain"
    assert base_spec(variant("75"), 0).stage == "pretrain"
    assert base_spec(SMALL, 0).stage == "pretrain"
    store = Store(tmp_path)
    (run,) = compute([base_spec(load_profile("lab"), 0)], store, quiet=True)
    assert {path.name for path in (run.path / "base").iterdir()} == {p.name for p in SHIPPED_BASE.iterdir()}
    for file in SHIPPED_BASE.iterdir():
        assert (run.path / "base" / file.name).read_bytes() == file.read_bytes()


def test_a_variant_of_the_pretraining_has_a_base_of_its_own_for_every_seed(tmp_path: Path) -> None:
    store, lab = Store(tmp_path), load_profile("lab")
    for name in ("75", "50"):
        for seed in (1, 0):
            assert store.key(base_spec(variant(name), seed)) != store.key(base_spec(lab, seed))


# Computing ------------------------------------------------------------------------------------------------------------


def test_a_study_is_computed_once_and_told_about_in_order(
    tmp_path: Path, reference: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    specs = plan(SMALL, 1, store).specs()
    keys = [store.key(spec) for spec in specs]
    finished: list[str] = []
    runs = compute(specs, store, finished=finished.append)
    assert [run.id for run in runs] == finished == keys
    assert len(store.ids()) == RUNS
    assert results_of(tmp_path) == reference
    assert capsys.readouterr().err.count(": computing") == RUNS
    started = time.perf_counter()
    compute(specs, store, finished=finished.append)
    assert time.perf_counter() - started < 5
    assert finished == keys * 2
    said = capsys.readouterr().err
    assert said.count(": loaded") == RUNS
    assert ": computing" not in said
    compute(specs, store, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_an_error_in_a_unit_ends_the_study_and_names_what_is_missing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    chosen = plan(SMALL, 1, store)
    with refused(store.key(chosen.base)[:12]):
        compute([chosen.sft], store, quiet=True)
    assert store.ids() == []


# Units from files -----------------------------------------------------------------------------------------------------


def test_a_unit_is_read_from_json(tmp_path: Path) -> None:
    spec, store = RunSpec(stage="adopt", settings={"sha256": weights_hash()}), Store(tmp_path / "store")
    path = tmp_path / "unit.json"
    path.write_text(json.dumps(spec.model_dump()))
    assert unit("adopt", path, store)["id"] == store.key(spec) == store.ids()[0]
    with pytest.raises(BadInput, match="its stage is 'adopt', not 'sft'"):
        unit("sft", path, store)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "cannot be read"),
        ("[]", "unit.json"),
        ('{"stage": "sft", "step": 3}', "step is not a setting"),
        ('{"stage": "sft", "inputs": {"base": "abc"}}', "inputs.base"),
        ('{"stage": "sft", "seed": ' + "9" * 5000 + "}", "unit.json"),
        (b"\xff\xfe", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_unit_is_refused(tmp_path: Path, text: str | bytes | None, named: str) -> None:
    path = tmp_path / "unit.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with refused(named):
        unit("sft", path, Store(tmp_path / "store"))


def test_only_stages_are_run(tmp_path: Path) -> None:
    package = Path(rlheals.__file__).parent
    files = [file for file in package.rglob("*.py") if "\ndef run(work: Work" in file.read_text("utf-8")]
    known = {".".join(("rlheals", *file.relative_to(package).with_suffix("").parts)) for file in files}
    assert set(STAGES.values()) == known
    for stage in ("store", "os", "machine", "tasks.base", "no.such.stage"):
        with pytest.raises(BadInput, match=f"stage '{stage}' is not known; accepted: adopt"):
            run_unit(RunSpec(stage=stage), Store(tmp_path), lambda line: None)
