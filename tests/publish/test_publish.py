"""Publishing: a folder that plays again what it says, notices a changed byte, and is never half there."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import signal
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import tiny_models
import yaml
from forks import ended, forked
from lab_helpers import files_of, flip_bit, one_line, same_weights
from safetensors.torch import load_file, save_file
from scipy import stats
from small_study import SMALL, SPIN
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlheals.chapters.rl import runs as rl_runs
from rlheals.chapters.spectra import runs as spectra_runs
from rlheals.cli.main import main
from rlheals.engines import models
from rlheals.engines.hf import Sampling
from rlheals.errors import BadInput
from rlheals.evaluation.evaluate import EvaluateSettings
from rlheals.profiles import load_profile, to_yaml
from rlheals.profiles.profile import Profile
from rlheals.publish import card as publish_card
from rlheals.publish import folder as published
from rlheals.publish import models as publish_models
from rlheals.publish import write as publish
from rlheals.publish.folder import MANIFEST, Published, check, look
from rlheals.publish.licence import OURS, licence
from rlheals.publish.write import Asked
from rlheals.store import files
from rlheals.store.runs import digest_of
from rlheals.store.store import Store
from rlheals.study import record, tables
from rlheals.study.compute import compute
from rlheals.study.peaks import peaks_of
from rlheals.study.plan import plan
from rlheals.training.fetch import Source
from rlheals.training.pretrain import PretrainSettings
from rlheals.training.sft import SFTSettings

SEED = 2
ABLE = SMALL.model_copy(
    update={
        "name": "able",
        "shipped_base": True,
        "pretrain": PretrainSettings(),
        "sft": SFTSettings(checkpoints=(0, 10, 80), batch=32, learning_rate=1e-3, loss_examples=4),
        "evaluated": (0, 80),
        "rule_steps": (),
        "decodes": 2,
        "evaluate": EvaluateSettings(splits=("held_out", "ood"), hands=10, attempts=2),
    }
)
"""From the base in the package, which solves half of the hands: another model gives other episodes."""

EPISODES = "results/able/seed-0/episodes.parquet"
Study = SimpleNamespace
"""Store, folder and manifest of something published."""

LADDER = SPIN.rl_starts.model_copy(update={"starts": (10, 80), "control_start": 10, "late_starts": ()})
LATER = SPIN.rotation.model_copy(update={"steps": (0, 10, 80), "branch_steps": (10, 80)})


def asked(profile: Profile, seed: int = SEED, **more: Any) -> Asked:
    return Asked(profile, seed, f"--profile {profile.name}", **more)


def written(wanted: Asked, store: Store, out: Path) -> Published:
    made, _ = publish.publish(wanted, store, out.parent / "no-results", out)
    return made


@pytest.fixture(scope="module")
def full(shared: Store, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A small study with RL and spectra, and the folder made of it."""
    first = plan(SPIN, SEED, shared)
    compute(first.specs(), shared, quiet=True)
    later = [part.plan(SPIN, SEED, shared) for part in rl_runs.STUDY.in_units(SPIN)]
    later.append(spectra_runs.plan(SPIN, SEED, shared, peaks_of(tables.collect([first], shared))))
    compute([spec for one in later for spec in one.specs()], shared, quiet=True)
    folder = tmp_path_factory.mktemp("full") / "folder"
    return Study(store=shared, folder=folder, made=written(asked(SPIN), shared, folder))


@pytest.fixture(scope="module")
def able(shared: Store, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """SFT of the base in the package; with a folder."""
    compute(plan(ABLE, 0, shared).specs(), shared, quiet=True)
    folder = tmp_path_factory.mktemp("able") / "folder"
    return Study(store=shared, folder=folder, made=written(asked(ABLE, 0), shared, folder))


@pytest.fixture
def copy(able: Study, tmp_path: Path) -> Path:
    return Path(shutil.copytree(able.folder, tmp_path / "copy"))


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(BadInput) as caught:
        call()
    return one_line(caught.value)


Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Said:
    """Runs a command: exit code, stdout, stderr."""
    return lambda *arguments: (main([str(argument) for argument in arguments]), *capfd.readouterr())


# What is in it --------------------------------------------------------------------------------------------------------


def test_models_tables_and_spectra_are_those_of_the_store(full: Study) -> None:
    first = plan(SPIN, SEED, full.store)
    wanted = {"base": (first.base, "base"), "step-00003": (first.sft, "step-00003")}
    for unit in (0, 1):
        for cell, spec in rl_runs.plan(SPIN, SEED, full.store, unit).runs.items():
            wanted[f"rl-{cell.start:05d}-run-{unit}"] = (spec, "update-00001")
    assert full.made.checkpoints.keys() == {*wanted, "step-00005"}
    for name, (spec, inside) in wanted.items():
        run = full.store.load(full.store.key(spec))
        assert files_of(full.folder / "checkpoints" / name) == files_of(run.path / inside)
        assert full.made.checkpoints[name].run == run.id
        loaded = AutoModelForCausalLM.from_pretrained(full.folder, subfolder=f"checkpoints/{name}")
        assert same_weights(loaded, models.load(run.path / inside))
        tokenizer = AutoTokenizer.from_pretrained(full.folder, subfolder=f"checkpoints/{name}")
        assert len(tokenizer) == loaded.config.vocab_size
    for name, spec in spectra_runs.plan(SPIN, SEED, full.store, {SEED: 3}).pairs.items():
        theirs = files_of(full.store.load(full.store.key(spec)).path)
        del theirs[MANIFEST]
        assert files_of(full.folder / "spectra" / name) == theirs
    for suffix, kind in (
        ("", tables.Tables), ("-recovery", rl_runs.RLTables), ("-rotation", spectra_runs.SpectraTables),
    ):  # fmt: skip
        found, manifests = record.read(full.folder / f"results/spin{suffix}", kind)
        assert found.seeds == [SEED]
        assert {run.id for one in manifests for run in one.runs} <= {run.id for run in full.made.runs}
    assert len(list((full.folder / "results").iterdir())) == 3
    assert load_profile(full.folder / "settings.yaml") == SPIN
    assert any("Protected SFT" in words for words in full.made.absent)


def test_the_manifest_says_what_made_it_and_names_every_file(full: Study) -> None:
    made = published.read(full.folder / MANIFEST)
    assert made == full.made
    assert made.files.keys() | {MANIFEST} == files_of(full.folder).keys()
    for run in made.runs:
        theirs = full.store.load(run.id).manifest
        assert (run.stage, run.seed, run.code_hash) == (theirs.stage, theirs.seed, theirs.code_hash)
        assert theirs.versions.items() <= made.versions.items()
    assert {"pretrain", "sft", "evaluate", "rl", "spectra", "trajectory"} <= {run.stage for run in made.runs}


def test_the_same_store_gives_the_same_bytes_also_in_an_empty_folder(full: Study, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    written(asked(SPIN), full.store, tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(full.folder)
    assert [place.name for place in tmp_path.iterdir()] == ["again"]


def test_steps_choose_models_and_leave_the_tables_whole(full: Study, tmp_path: Path) -> None:
    made = written(asked(SPIN, steps=(0, 5)), full.store, tmp_path / "few")
    assert set(made.checkpoints) == {"base", "step-00000", "step-00005", "rl-00005-run-0", "rl-00005-run-1"}
    assert made.checkpoints["base"].censuses == made.checkpoints["step-00000"].censuses
    assert files_of(tmp_path / "few/results") == files_of(full.folder / "results")
    assert "0, 3, 5" in refused(lambda: written(asked(SPIN, steps=(4,)), full.store, tmp_path / "no"))


# It plays again what it says ------------------------------------------------------------------------------------------


def test_the_cards_commands_give_the_published_episodes(
    able: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^rlheals .*$", card_of(able.folder)[1], flags=re.M)
    for line in lines:
        code, *_ = said(*shlex.split(line.replace("FOLDER", str(able.folder)))[1:])
        assert code == 0, line
    assert [line.split()[1] for line in lines] == ["publish", "publish", "evaluate"]
    recorded, mine = (
        pd.read_parquet(able.folder / EPISODES),
        pd.read_parquet(tmp_path / "again/episodes.parquet"),
    )
    theirs = recorded[(recorded["step"] == 80) & (recorded["decode"] == 0)]
    columns = list(tables.EPISODE_COLUMNS)
    assert len(mine) == 20
    pd.testing.assert_frame_equal(
        mine[columns].astype(str).reset_index(drop=True), theirs[columns].astype(str).reset_index(drop=True)
    )
    assert recorded["solved_at_either"].nunique() > 1, "nothing is solved, so little was compared"


def test_again_agrees_for_every_model_also_of_rl(full: Study) -> None:
    for name, checkpoint in full.made.checkpoints.items():
        played = look(full.folder, name)["again"]
        assert [one["decode"] for one in played] == [census.decode for census in checkpoint.censuses]
        assert all(one["episodes"] == 6 and one["different"] == 0 for one in played)
    assert "rl-00003-run-1" in full.made.checkpoints


def test_again_sees_that_the_weights_are_others(copy: Path, said: Said) -> None:
    file = copy / "checkpoints/base/model.safetensors"
    weights = load_file(file)
    weights["lm_head.weight"] = weights["lm_head.weight"].roll(1, 0)
    save_file(weights, file, metadata={"format": "pt"})
    assert "model.safetensors has changed" in refused(lambda: look(copy, "base"))
    resealed(copy)
    code, out, _ = said("publish", "--check", copy, "--again", "base", "--json")
    assert code == 1
    assert all(one["different"] > 0 for one in json.loads(out)["again"])
    assert look(copy, "step-00080")["ok"]


def test_again_counts_an_episode_that_was_changed_or_is_missing(copy: Path) -> None:
    file = copy / EPISODES
    rows = pd.read_parquet(file)
    mine = rows.index[(rows["step"] == 80) & (rows["decode"] == 1)]
    rows.loc[mine[0], "solved_at"] = 2 if rows.loc[mine[0], "solved_at"] != 2 else 1
    rows.drop(index=mine[-1]).to_parquet(file, index=False)
    resealed(copy)
    zero, one = look(copy, "step-00080")["again"]
    assert (zero["different"], one["different"], one["episodes"]) == (0, 2, 20)


def test_a_table_of_another_form_is_one_line(copy: Path) -> None:
    rows = pd.read_parquet(copy / EPISODES)
    for other in (rows.drop(columns="first"), rows.drop(columns="step"), pd.concat([rows, rows]), None):
        if other is None:
            (copy / EPISODES).write_text("not parquet")
        else:
            other.to_parquet(copy / EPISODES, index=False)
        resealed(copy)
        assert "episodes.parquet" in refused(lambda: look(copy, "base"))


def test_again_wants_a_model_that_is_there_and_was_evaluated(full: Study, tmp_path: Path) -> None:
    assert "accepted: base, step-00003" in refused(lambda: look(full.folder, "../base"))
    few = SPIN.model_copy(
        update={"evaluated": (3,), "rl_starts": SMALL.rl_starts, "rotation": SMALL.rotation}
    )
    compute(plan(few, SEED, full.store).specs(), full.store, quiet=True)
    written(asked(few, steps=(5,)), full.store, tmp_path / "few")
    assert "not evaluated" in refused(lambda: look(tmp_path / "few", "step-00005"))
    assert "How well these checkpoints play: `base`, `step-00005`" in card_of(tmp_path / "few")[1]


# A changed byte is noticed --------------------------------------------------------------------------------------------

DAMAGED = (
    "README.md", "settings.yaml", "checkpoints/base/model.safetensors", "checkpoints/step-00080/config.json",
    EPISODES, "results/able/seed-0/manifest.json",
)  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_one_flipped_bit_or_a_missing_file_is_noticed(copy: Path, name: str, said: Said) -> None:
    assert said("publish", "--check", copy)[0] == 0
    flip_bit(copy / name)
    code, out, err = said("publish", "--check", copy)
    assert (code, out, err) == (2, "", f"rlheals: copy: {name} has changed\n")
    (copy / name).unlink()
    assert f"{name} is missing" in refused(lambda: check(copy))


def test_any_other_value_in_the_manifest_is_noticed(copy: Path) -> None:
    whole = json.loads((copy / MANIFEST).read_text())
    changes: list[dict[str, Any]] = [
        {"seed": 1}, {"profile": {"name": "lab"}}, {"absent": []}, {"digest": ""}, {"more": 1}, {"files": {}},
        {"machine": {}}, {"checkpoints": {"../x": whole["checkpoints"]["base"]}},
    ]  # fmt: skip
    other = [json.dumps(whole | change) for change in changes]
    for text in [*other, "", "{", "[]", "null", "[" * 100_000, "\xff"]:
        (copy / MANIFEST).write_text(text, encoding="latin-1")
        assert f"copy/{MANIFEST}" in refused(lambda: check(copy))
    (copy / MANIFEST).unlink()
    assert "none of `rlheals publish`" in refused(lambda: check(copy))
    assert "no such folder" in refused(lambda: check(copy / "nowhere"))


def test_another_file_is_noticed_and_what_a_hub_adds_is_not_minded(copy: Path, tmp_path: Path) -> None:
    (copy / ".gitattributes").write_text("*.safetensors filter=lfs")
    (copy / ".cache/huggingface").mkdir(parents=True)
    (copy / ".cache/huggingface/lock").write_text("")
    check(copy)
    (copy / "checkpoints/.gitattributes").write_text("")
    assert "checkpoints/.gitattributes is not in the manifest" in refused(lambda: check(copy))
    (copy / "checkpoints/.gitattributes").unlink()
    for make in (lambda more: more.symlink_to(tmp_path), lambda more: more.symlink_to("nowhere"), os.mkfifo):
        make(copy / "more")
        assert "'more' is neither a file nor a folder" in refused(lambda: check(copy))
        (copy / "more").unlink()


def resealed(copy: Path) -> None:
    """The manifest of a folder as its author would write it."""
    data = json.loads((copy / MANIFEST).read_text())
    data["files"] = {name: digest_of(copy / name).sha256 for name in files_of(copy) if name != MANIFEST}
    (copy / MANIFEST).write_text(json.dumps(data | {"digest": record.manifest_digest(data)}))


def test_what_does_not_belong_there_is_refused_even_if_the_manifest_names_it(copy: Path, said: Said) -> None:
    resealed(copy)
    (copy / ".git").mkdir()
    (copy / ".git/config").write_text("[core]\nfsmonitor = true\n")
    code, out, _ = said("publish", "--check", copy)
    assert code == 0
    assert "not looked at, as hubs add them: .git\n" in out
    shutil.rmtree(copy / ".git")
    for name in ("checkpoints/base/modeling.py", "checkpoints/base/pytorch_model.bin", "a.html"):
        (copy / name).write_text("x")
        resealed(copy)
        assert f"{name} does not belong there" in refused(lambda: check(copy))
        (copy / name).unlink()
    weights = copy / "checkpoints/base/model.safetensors"
    weights.rename(weights.with_name("adapter_model.safetensors"))
    (copy / "checkpoints/base/adapter_config.json").write_text('{"peft_type": "LORA"}')
    resealed(copy)
    assert "is a LoRA adapter, whole weights are needed" in refused(lambda: check(copy))


def test_a_hubs_cache_of_links_is_checked_as_well(copy: Path, tmp_path: Path) -> None:
    for name in files_of(copy):
        blob = tmp_path / "blobs" / name.replace("/", "-")
        blob.parent.mkdir(exist_ok=True)
        shutil.move(copy / name, blob)
        (copy / name).symlink_to(blob)
    check(copy)
    blob.write_bytes(b"other")
    assert "has changed" in refused(lambda: check(copy))


# The card -------------------------------------------------------------------------------------------------------------


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def table(text: str, heading: str) -> pd.DataFrame:
    """The first table after a heading."""
    head, _, *lines = text.split(heading)[1].split("\n\n")[1].splitlines()
    head, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in (head, *lines)]
    return pd.DataFrame(rows, columns=head).set_index(head[0])


def test_the_cards_accuracies_are_those_of_the_tables(able: Study) -> None:
    rows = pd.read_parquet(able.folder / EPISODES)
    for heading, column, wanted in (
        ("**success@2 with feedback**", "solved_at", (1, 2)), ("**pass@1**", "solved_at", (1,)),
        ("**success@2 with feedback, format-agnostic**", "solved_at_either", (1, 2)),
    ):  # fmt: skip
        shown = table(card_of(able.folder)[1], heading)
        assert list(shown.columns) == ["sampling seeds", "held-out ID", "OOD"]
        for name, step in (("`base`", 0), ("`step-00080`", 80)):
            assert shown.loc[name, "sampling seeds"] == "2"
            for title, split in (("held-out ID", "held_out"), ("OOD", "ood")):
                solved = rows[(rows["step"] == step) & (rows["split"] == split)][column].isin(wanted)
                interval = stats.binomtest(int(solved.sum()), 20).proportion_ci(method="wilson")
                shares = f"{solved.mean():.3f} [{interval.low:.3f}, {interval.high:.3f}]"
                assert shown.loc[name, title] == shares


def test_what_the_card_says_of_its_intervals_is_so(
    able: Study, shared: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = card_of(able.folder)
    assert "95 % Wilson score intervals over these episodes" in text
    assert "Not every hand was asked" in text
    assert "t interval" not in text, "there is no RL here"
    monkeypatch.setattr(
        publish_card, "load_task", lambda name: SimpleNamespace(items=lambda split: range(10))
    )
    text = publish_card.card(able.made, ABLE, ({"license": "mit"}, "x"), "y", able.folder)
    assert "Every hand of a set was asked" in text
    greedy = ABLE.evaluate.model_copy(update={"sampling": Sampling(temperature=0), "hands": 2})
    exact = ABLE.model_copy(update={"name": "greedy", "decodes": 1, "evaluate": greedy})
    compute(plan(exact, 0, shared).specs(), shared, quiet=True)
    written(asked(exact, 0), shared, tmp_path / "greedy")
    _, text = card_of(tmp_path / "greedy")
    assert "Answers are greedy" in text
    assert not re.search(r"Wilson|\d \[\d", text.split("## Settings")[0])


def test_rl_seeds_get_a_t_interval_of_their_own(full: Study) -> None:
    front, text = card_of(full.folder)
    assert (front["license"], front["library_name"]) == ("mit", "transformers")
    assert "base_model" not in front
    shown = table(text, "Over RL seeds from the same SFT checkpoint")
    assert list(shown.index) == ["3"] * 3 + ["5"] * 3
    values = []
    for run in (0, 1):
        rows = pd.read_parquet(full.folder / f"results/spin-recovery/seed-2-run-{run}/episodes.parquet")
        mine = rows.query("control == 'main' and start == 5 and run == @run and split == 'ood'")
        values.append((mine["solved_at"] > 0).mean())
    half = stats.t.ppf(0.975, 1) * np.std(values, ddof=1) / np.sqrt(2)
    mean = float(np.mean(values))
    assert shown.iloc[3]["OOD"] == f"{mean:.3f} [{mean - half + 0.0:.3f}, {mean + half:.3f}]"


# Nothing is computed --------------------------------------------------------------------------------------------------


def test_an_empty_store_is_left_as_it_is_and_the_command_named(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    answer = refused(lambda: written(asked(SPIN), store, tmp_path / "out"))
    assert "rlheals study --profile spin --seeds 2" in answer
    runs = len(plan(SPIN, SEED, store).specs())
    assert answer.startswith(f"{runs} of {runs} runs")
    assert list(tmp_path.iterdir()) == []


def test_what_is_asked_for_and_missing_is_named_and_nothing_is_computed(
    shared: Store, able: Study, tmp_path: Path
) -> None:
    climbing = ABLE.model_copy(update={"rl_starts": LADDER, "rotation": LATER})
    made = written(asked(climbing, 0), shared, tmp_path / "some")
    assert sum("not computed" in words for words in made.absent) == 4, "two RL seeds, controls, spectra"
    missing = [
        (climbing, "recovery", "--recovery"), (climbing, "rotation", "--rotation"),
        (ABLE, "recovery", "rl_starts.starts is empty"),
    ]  # fmt: skip
    for profile, part, words in (*missing, *missing):  # what is asked for once more is missing as before
        needed = asked(profile, 0, needed=(part,))
        assert words in refused(lambda needed=needed: written(needed, shared, tmp_path / "all"))  # type: ignore[misc]
    assert [place.name for place in tmp_path.iterdir()] == ["some"]


def test_a_damaged_run_is_not_published(able: Study, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for spec in plan(ABLE, 0, able.store).specs():
        run = able.store.load(able.store.key(spec))
        shutil.copytree(run.path, store.root / "runs" / run.id)
    written(asked(ABLE, 0), store, tmp_path / "fine")
    file = store.root / "runs" / run.id / "episodes.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    answer = refused(lambda: written(asked(ABLE, 0), store, tmp_path / "out"))
    assert answer.startswith("1 of ")
    assert "rlheals study --profile able --seeds 0" in answer
    assert not (tmp_path / "out").exists()


def test_a_file_that_changes_while_it_is_copied_is_noticed(
    able: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    badly = lambda source, target: target.write_bytes(source.read_bytes() + b"x")  # noqa: E731
    monkeypatch.setattr(publish_models.shutil, "copyfile", badly)
    changed = refused(lambda: written(asked(ABLE, 0), able.store, tmp_path / "out"))
    assert "changed while it was copied" in changed
    assert list(tmp_path.iterdir()) == []


# Whole or not at all --------------------------------------------------------------------------------------------------

FULL = OSError(errno.ENOSPC, "No space left on device")
STOPS = (
    (publish_models, "copy_files", FULL), (publish, "card", FULL), (files, "_take_place", KeyboardInterrupt()),
)  # fmt: skip


@pytest.mark.parametrize(("module", "name", "error"), STOPS)
def test_what_is_stopped_leaves_nothing_or_what_was_there(
    able: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, error: BaseException
) -> None:
    out = tmp_path / "out"

    def stopped() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, Mock(side_effect=error))
            with pytest.raises((KeyboardInterrupt, BadInput)):
                written(asked(ABLE, 0), able.store, out)

    stopped()
    assert list(tmp_path.iterdir()) == []
    written(asked(ABLE, 0, steps=(10,)), able.store, out)
    before = files_of(out)
    stopped()
    assert [place.name for place in tmp_path.iterdir()] == ["out"]
    assert files_of(out) == before
    written(asked(ABLE, 0), able.store, out)
    assert files_of(out) == files_of(able.folder)


def test_a_folder_that_cannot_be_replaced_stays(
    able: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "out", os.replace
    written(asked(ABLE, 0, steps=(10,)), able.store, out)
    before = files_of(out)

    def stop(source: Path, target: Path) -> None:
        if Path(target) == out:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(files.os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        written(asked(ABLE, 0), able.store, out)
    assert [place.name for place in tmp_path.iterdir()] == ["out"]
    assert files_of(out) == before


def test_a_kill_before_the_end_leaves_nothing_that_passes_for_a_folder(able: Study, tmp_path: Path) -> None:
    out, real = tmp_path / "out", publish.atomic_write

    def work() -> None:
        def write(path: Path, data: str) -> None:
            if path.name == MANIFEST:
                os.kill(os.getpid(), signal.SIGKILL)
            real(path, data)

        publish.atomic_write = write  # type: ignore[assignment]
        written(asked(ABLE, 0), able.store, out)

    assert ended(forked(work)) == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out.")
    assert "none of `rlheals publish`" in refused(lambda: check(left))
    written(asked(ABLE, 0), able.store, out)
    assert files_of(out) == files_of(able.folder)


@pytest.mark.parametrize("kind", ["file", "others", "changed", "more", "link", "empty link"])
def test_what_is_not_ours_or_was_changed_is_refused_and_stays(
    able: Study, copy: Path, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif "link" in kind:
        out.symlink_to(copy if kind == "link" else "nowhere")
    else:
        if kind == "others":
            out.mkdir()
        else:
            copy.rename(out)
        with (out / ("README.md" if kind == "changed" else "notes.txt")).open("a") as file:
            file.write("mine")
    before = sorted(path.name for path in tmp_path.iterdir()), files_of(tmp_path)
    answer = refused(lambda: written(asked(ABLE, 0), able.store, out))
    assert answer.startswith(f"--out {str(out)!r}: is there already; accepted: a new or an empty folder")
    assert (sorted(path.name for path in tmp_path.iterdir()), files_of(tmp_path)) == before


# Licences, and paths that are nobody's business -----------------------------------------------------------------------


def test_of_a_base_in_a_folder_neither_path_nor_licence_is_made_up(tmp_path: Path) -> None:
    folder = tiny_models.folder(tmp_path / "secret" / "my-model", "qwen2")
    own = {"name": "words", "model": Source(name=str(folder)), "shipped_base": False, "rule_steps": ()}
    profile, store, out = SMALL.model_copy(update=own), Store(tmp_path / "store"), tmp_path / "out"
    compute(plan(profile, 1, store).specs(), store, quiet=True)
    made = written(asked(profile, 1), store, out)
    assert not [
        name for name, data in files_of(out).items() if str(tmp_path).encode() in data or b"secret" in data
    ]
    assert load_profile(out / "settings.yaml").model == Source(name="./my-model")
    front, text = card_of(out)
    assert front["license"] == "unknown"
    assert "base_model" not in front
    assert "its own licence applies" in text
    assert "format-agnostic" not in text, "only lab models have two"
    assert all(look(out, name)["ok"] for name in made.checkpoints)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\ntags: [x]\n---\n# Mine\n")
    written(asked(profile, 1), store, out)
    front, text = card_of(out)
    assert front["license"] == "apache-2.0"
    assert "license `apache-2.0`" in text


Stated = Callable[[str | None], tuple[dict[str, str], str]]


@pytest.fixture
def from_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stated:
    """The licence of weights from a hub's base, with or without its card in the cache."""
    (tmp_path / "source.json").write_text(json.dumps({"commit": "c" * 40}))
    fetched = SimpleNamespace(settings={"sha256": None})
    run: Any = SimpleNamespace(manifest=fetched, file=lambda name: tmp_path / name)

    def of(card: str | None) -> tuple[dict[str, str], str]:
        (tmp_path / "card.md").write_text(card or "")
        cached = Mock(return_value=None if card is None else str(tmp_path / "card.md"))
        monkeypatch.setattr("rlheals.publish.licence.try_to_load_from_cache", cached)
        found = licence(SMALL.model_copy(update={"model": Source(name="ada/model")}), run)
        cached.assert_called_once_with("ada/model", "README.md", revision="c" * 40)
        return found

    return of


def test_the_licence_of_a_hubs_base_is_what_its_card_says(from_hub: Stated) -> None:
    other = "---\nlicense: other\nlicense_name: own\nlicense_link: {}\n---\n"
    front, words = from_hub(other.format("https://x.example/l"))
    assert front == {
        "license": "other", "license_name": "own", "license_link": "https://x.example/l", "base_model": "ada/model",
    }  # fmt: skip
    assert "ada/model" in words
    assert "license_link" not in from_hub(other.format("LICENSE"))[0], "that file is not in our folder"
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["license"].lower() == OURS


@pytest.mark.parametrize(
    "card",
    [
        None, "", "# Model\nlicense: mit\n", "---\ntags: [x]\n---\n", "---\nlicense: [mit]\n---\n",
        "---\n- license: mit\n---\n",
        "---\nlicense: 7\n---\n", "---\nlicense: |\n  mit\n  and more\n---\n", "---\nlicense: '`x` [y](z)'\n---\n",
        "---\nlicense: !!python/object/apply:os.abort []\n---\n", "---\nlicense: {\n---\n",
        "---\nlicense: " + "[" * 100_000 + "\n---\n",
    ],
)  # fmt: skip
def test_without_a_plain_word_on_it_the_licence_is_unknown(from_hub: Stated, card: str | None) -> None:
    front, words = from_hub(card)
    assert front == {"license": "unknown", "base_model": "ada/model"}
    assert "not known" in words


# The command ----------------------------------------------------------------------------------------------------------


def test_the_command_publishes_and_says_what_is_not_in_it(
    able: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RLHEALS_STORE", str(able.store.root))
    (tmp_path / "able.yaml").write_text(to_yaml(ABLE))
    line = ("publish", "--profile", "able.yaml", "--seed", 0, "--out")
    code, out, _ = said(*line, "folder", "--json")
    assert (code, json.loads(out)["checkpoints"]) == (0, list(able.made.checkpoints))
    assert files_of(tmp_path / "folder") == files_of(able.folder)
    (tmp_path / "able.yaml").write_text(to_yaml(ABLE.model_copy(update={"rl_starts": LADDER})))
    code, out, _ = said(*line, "other", "--hub", "ada/able", "--private")
    assert code == 0
    assert "hf upload ada/able other . --private" in out
    assert "rlheals study --profile able.yaml --seeds 0 --recovery" in out
    unmeasured = card_of(tmp_path / "other")[1].split("## What was not measured")[1].split("##")[0]
    assert "rlheals study" not in unmeasured
    code, out, err = said(*line, "third", "--set", "sft.batch=3")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "rlheals study --profile able.yaml --set sft.batch=3 --seeds 0" in err
