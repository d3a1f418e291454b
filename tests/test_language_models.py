"""Instruct models go through the same stages as the lab's: one template everywhere, whatever the family."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny_models
from lab_helpers import refused, same_weights
from small_study import CLIMB, RL, WHOLE
from tiny_models import FAMILIES
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from vllm_here import needs_vllm

from rlheals.chapters.rl import runs as rl_runs
from rlheals.chapters.rl.runs import MAIN, Cell
from rlheals.cli import main as cli
from rlheals.engines import models
from rlheals.engines.hf import Sampling
from rlheals.errors import BadInput
from rlheals.evaluation.dialects import Chat, dialect_for
from rlheals.evaluation.rollout import form_of, rollout
from rlheals.profiles import to_yaml
from rlheals.profiles.profile import Profile
from rlheals.store.store import Store
from rlheals.study.compute import compute
from rlheals.study.plan import plan
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.task import GeneralPoints
from rlheals.training import expert
from rlheals.training.expert import example
from rlheals.training.fetch import Source
from rlheals.training.sft import SFTSettings, examples

TASK = GeneralPoints()
LATER_CHAPTERS = ("02_rl_heals", "03_what_moves", "04_swapping_directions", "05_when_rl_heals")


def chat(family: str = "qwen2") -> Chat:
    return Chat(tiny_models.tokenizer(family), TASK)


def profile_of(folder: Path, **changes: Any) -> Profile:
    """The small study with a language model in place of the lab's."""
    saving = {"gradient_checkpointing": True}
    rl = RL.model_copy(update={**saving, "kl_base": 0.1, "sampling": Sampling(max_new_tokens=8)})
    few = {"starts": (3,), "runs": 1, "decodes": 1, "control_start": None, "rl": rl}
    made = {
        "name": "chat",
        "model": Source(name=str(folder)),
        "sft": CLIMB.sft.model_copy(update={**saving, "micro_batch_size": 2}),
        "rl_starts": CLIMB.rl_starts.model_copy(update=few),
    }
    return CLIMB.model_copy(update={**made, **changes})


# The whole way --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_every_stage_up_to_rl_runs_with_a_model_of_the_family(family: str, tmp_path: Path) -> None:
    folder, store = tiny_models.folder(tmp_path / "model", family), Store(tmp_path / "store")
    profile = profile_of(folder)
    chosen = rl_runs.plan(profile, 1, store, 0)
    compute(chosen.specs(), store, quiet=True)
    base = store.load(store.key(chosen.before.base))
    assert same_weights(models.load(base.path / "base"), models.load(folder))
    assert json.loads(base.file("source.json").read_text())["dtype"] == "float32"
    sft = store.load(store.key(chosen.before.sft))
    losses = json.loads(sft.file("losses.json").read_text())
    assert [record["step"] for record in losses["sets"]] == [0, 3, 5]
    assert losses["sets"][-1]["train"] < losses["sets"][0]["train"], "it learns"
    trained = models.load(sft.path / "step-00005")
    assert type(trained) is type(models.load(folder))
    assert not same_weights(trained, models.load(folder))
    census = store.load(store.key(chosen.censuses[Cell(MAIN, 3, -1), 0]))
    attempts = pd.read_parquet(census.file("attempts.parquet"))
    assert set(attempts["split"]) == {"held_out", "ood"}
    assert attempts.groupby("item")["attempt"].max().eq(2).all(), "an untrained model solves nothing"
    run = store.load(store.key(chosen.runs[Cell(MAIN, 3, 0)]))
    log = pd.read_parquet(run.file("log.parquet"))
    assert log["gradient_norm"].gt(0).all()
    assert not same_weights(models.load(run.path / "update-00001"), models.load(sft.path / "step-00003"))


@needs_vllm
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_vllm_plays_the_study_of_a_language_model(family: str, tmp_path: Path) -> None:
    """Through its chat template, censuses and RL; what it answers greedily is what transformers answers."""
    folder = tiny_models.folder(tmp_path / "model", family, hidden_size=64, initializer_range=0.2)
    store, greedy = Store(tmp_path / "store"), Sampling(temperature=0, max_new_tokens=8)
    profile = profile_of(folder, engine="vllm")
    profile = profile.model_copy(
        update={"evaluate": profile.evaluate.model_copy(update={"sampling": greedy})}
    )
    chosen = rl_runs.plan(profile, 1, store, 0)
    compute(chosen.specs(), store, quiet=True)
    stages = {spec.stage for spec in chosen.specs()}
    assert {"evaluate_vllm", "rl_vllm"} <= stages
    run = store.load(store.key(chosen.runs[Cell(MAIN, 3, 0)]))
    assert pd.read_parquet(run.file("log.parquet"))["gradient_norm"].gt(0).all()
    asked = chosen.censuses[Cell(MAIN, 3, 0), 0]
    same = asked.model_copy(update={"stage": "evaluate"})
    compute([same], store, quiet=True)
    by_vllm, by_transformers = (
        pd.read_parquet(store.load(store.key(spec)).file("attempts.parquet")) for spec in (asked, same)
    )
    told = ["item", "protocol", "attempt", "text"]
    assert by_vllm["text"].nunique() > 4, "an untrained model with large weights says many things"
    agreed = by_vllm[told].merge(by_transformers[told], how="inner", on=told)
    assert len(agreed) > 0.9 * len(by_transformers), "a near tie may fall otherwise"


def test_a_bfloat16_base_stays_one(tmp_path: Path) -> None:
    folder, store = tiny_models.folder(tmp_path / "model", "qwen2"), Store(tmp_path / "store")
    profile = profile_of(folder, model=Source(name=str(folder), dtype="bfloat16"))
    chosen = plan(profile, 1, store)
    compute(chosen.specs()[:2], store, quiet=True)
    sft = store.load(store.key(chosen.sft))
    assert str(models.load(sft.path / "step-00005").dtype) == "torch.bfloat16"


def test_other_files_in_the_folder_are_another_base(tmp_path: Path) -> None:
    folder, store = tiny_models.folder(tmp_path / "model", "qwen2"), Store(tmp_path / "store")
    before = plan(profile_of(folder), 1, store)
    (folder / "notes.md").write_text("not read")
    assert store.key(plan(profile_of(folder), 1, store).base) == store.key(before.base)
    tiny_models.folder(folder, "qwen2", seed=1)
    after = plan(profile_of(folder), 1, store)
    assert store.key(after.base) != store.key(before.base)
    assert store.key(after.sft) != store.key(before.sft)
    with pytest.raises(BadInput, match="changed since this run was planned"):
        compute([before.base], store, quiet=True)


class Heard(Exception):
    pass


class AsShown:
    """In place of a random generator: cards in their order, and always the same form."""

    def __init__(self, form: int) -> None:
        self.form = form

    def permutation(self, count: int) -> range:
        return range(count)

    def integers(self, count: int) -> int:
        return self.form


# One template -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", [0, 5, TASK.forms - 1])
def test_what_is_trained_is_the_template_of_the_conversation_token_by_token(family: str, form: int) -> None:
    dialect = chat(family)
    words = dialect.tokenizer
    for item in TASK.items("sft")[::100]:
        prompt, reply = dialect.prompt(item, form), dialect.expert(item, form)
        turns = [{"role": "user", "content": TASK.prompt(item, form)}]
        day = {"date_string": "26 Jul 2024"}
        asked = words.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **day)
        turns.append({"role": "assistant", "content": TASK.expert(item, form)})
        whole = words.apply_chat_template(turns, tokenize=False, **day)
        assert words.decode(prompt) == asked
        assert whole.removesuffix("\n") == words.decode([*prompt, *reply])
        assert words(asked, add_special_tokens=False)["input_ids"] == prompt
        assert words(whole.removesuffix("\n"), add_special_tokens=False)["input_ids"] == [*prompt, *reply]
        assert prompt.count(words.bos_token_id) == (family != "qwen2")
        assert TASK.grade(item, dialect.read(reply).text).solved


@pytest.mark.parametrize("prompts", ["fixed", "diverse"])
@pytest.mark.parametrize("lab", [True, False], ids=["lab", "chat"])
def test_a_question_that_is_played_is_one_that_sft_trains_on(prompts: str, lab: bool) -> None:
    dialect, asked = Compact() if lab else chat(), []

    class Listens:
        tokenizer = dialect.tokenizer

        def generate(self, questions, keys, sampling, pasts=None, beginning=()):
            asked.extend(map(list, questions))
            raise Heard

    items = TASK.items("sft")[:40]
    keys = [f"{n}/{item.id}" for n, item in enumerate(items)]
    with pytest.raises(Heard):
        rollout(Listens(), dialect, TASK, items, keys, Sampling(), prompts=prompts)
    trained = {
        tuple(tokens[:start])
        for item in items
        for form in range(dialect.forms if prompts == "diverse" else 1)
        for tokens, start in [example(dialect, TASK, item, AsShown(form), prompts)]
    }
    assert {tuple(question) for question in asked} <= trained
    forms = {form_of(dialect, prompts, key) for key in keys}
    assert len(forms) > dialect.forms // 2 if prompts == "diverse" else forms == {0}


def test_the_day_in_a_template_does_not_depend_on_the_day() -> None:
    dialect = chat("llama")
    dated = dialect.tokenizer
    text = dated.decode(dialect.prompt(TASK.items("sft")[0]))
    assert "Today is 26 Jul 2024" in text
    dated.chat_template = tiny_models.HEADERS.replace(
        "date_string if date_string is defined else strftime_now('%d %b %Y')", "strftime_now('%d.%m.%Y')"
    )
    assert "Today is 26 Jul 2024" in dated.decode(Chat(dated, TASK).prompt(TASK.items("sft")[0]))


def test_a_tokenizer_without_an_end_is_refused() -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(tiny_models.core_tokenizer()))
    bare.chat_template = tiny_models.CHATML
    with pytest.raises(BadInput, match="end token is None"):
        dialect_for(bare, TASK)


def test_forms_differ_in_wording_order_and_fields_and_ask_the_same(tmp_path: Path) -> None:
    dialect, item = chat(), TASK.items("ood")[7]
    texts = [TASK.prompt(item, form) for form in range(TASK.forms)]
    assert len(set(texts)) == TASK.forms == dialect.forms
    for form, text in enumerate(texts):
        for part in (", ".join(item.payload.hand), "11", "12", "13", "24", "formula"):
            assert part in text, form
        answered = list(json.loads(TASK.expert(item, form)))
        assert answered == sorted(answered, key=lambda field, text=text: text.index(f'"{field}"'))


# Expert answers from a file -----------------------------------------------------------------------------------------


def record(question: str, reply: str, **more: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": reply}]
    return {"id": 1, "image": None, "conversations": turns, **more}


def test_sft_takes_the_references_own_file(tmp_path: Path) -> None:
    file, dialect = tmp_path / "gp-l.json", chat()
    pairs = [(f"Question {n}?", f'{{"formula": "{n}+1=24",}}') for n in range(5)]
    file.write_text(json.dumps([record(*pair) for pair in pairs]))
    known = {"expert_file": str(file), "expert_sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    rows = examples(dialect, SFTSettings(checkpoints=(4,), batch=8, **known), 3)
    seen = set()
    for tokens, labels in zip(rows["input_ids"], rows["labels"], strict=True):
        answer = [token for token, label in zip(tokens, labels, strict=True) if label >= 0]
        asked = tokens[: -len(answer)]
        (pair,) = [pair for pair in pairs if asked == dialect.question(pair[0])]
        assert answer == dialect.reply(pair[1])
        seen.add(pair)
    assert seen == set(pairs)
    with pytest.raises(BadInput, match="a lab model knows only its own"):
        examples(Compact(), SFTSettings(checkpoints=(4,), **known), 3)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        *((data, "Invalid JSON") for data in (b"{", b"[" * 100_000, b"\xff\xfe")),
        (b"{}", "the file: Input should be a valid array"),
        (b"[]", "at least 1 item"),
        (b"[1]", "0: Input should be"),
        (b"[{}]", "0.conversations: Field required"),
        (json.dumps([record("a", "")]).encode(), "0.conversations.1.value"),
        (
            json.dumps([record("a", "b"), record("a", "b") | {"conversations": []}]).encode(),
            "1.conversations",
        ),
        (
            json.dumps([{"conversations": [{"from": "gpt", "value": "a"}] * 2}]).encode(),
            "0.conversations.0.from: Input should be 'human'",
        ),
    ],
)
def test_a_file_of_another_form_is_one_line(data: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_bytes(data)
    with refused(said):
        expert.from_file(file, hashlib.sha256(data).hexdigest())


def test_a_file_is_known_by_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps([record("a", "b")]))
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(BadInput, match=f"has the hash {found}; expert_sha256 is needed"):
        expert.from_file(file, None)
    with pytest.raises(BadInput, match=f"has the hash {found}; expert_sha256 is 000000000000"):
        expert.from_file(file, "0" * 64)
    with pytest.raises(BadInput, match="No such file"):
        expert.from_file(tmp_path / "none.json", found)


# The book's notebooks ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "chapter",
    ["01_sft_forgets", *(pytest.param(name, marks=pytest.mark.long) for name in LATER_CHAPTERS)],
)
def test_a_notebook_runs_with_a_language_model_by_its_profile_alone(
    chapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_models.folder(tmp_path / "model", "qwen2")
    rl_starts = profile_of(folder).rl_starts
    unlogged = rl_starts.rl.model_copy(
        update={"log_kl": False, "kl_base": 0.0}
    )  # as every shipped profile of one has it
    profile = profile_of(
        folder,
        name="tiny-qwen",
        rl_starts=rl_starts.model_copy(update={"rl": unlogged}),
        evaluate=CLIMB.evaluate.model_copy(update={"splits": ("sft", "held_out", "ood")}),
        evaluated=(0, 3, 5),
        **{name: getattr(WHOLE, name) for name in ("rotation", "swaps", "protection", "healing")},
    )
    file = tmp_path / "tiny-qwen.yaml"
    file.write_text(to_yaml(profile))
    monkeypatch.setenv("RLHEALS_STORE", str(tmp_path / "store"))
    notebook = Path(__file__).parents[1] / "notebooks" / f"{chapter}.ipynb"
    made = tmp_path / "made.ipynb"
    assert cli.main(["notebook", str(notebook), "--profile", str(file), "--out", str(made)]) == 0
    cells = json.loads(made.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    shown = ["".join(output.get("data", {}).get("text/html", ())) for output in outputs]
    assert sum("svg" in html for html in shown) >= 4
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert "tiny-qwen" in made.read_text()
