"""The page that plays in the reader's browser: its JavaScript against the package."""

from __future__ import annotations

import base64
import html
import json
import random
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save as safetensors
from safetensors.torch import load_file
from safetensors.torch import save as torch_safetensors

from rlheals.engines.hf import Sampling, open_engine
from rlheals.engines.models import SHIPPED_BASE
from rlheals.evaluation.rollout import rollout
from rlheals.tasks.base import END, Protocol_, Verdict
from rlheals.tasks.general_points.cards import LABELS, OOD_RULE, Rule, all_hands, item_of
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.prompts import WORDS
from rlheals.tasks.general_points.solver import canonical_solution, solutions, solvable
from rlheals.tasks.general_points.task import SPLITS, GeneralPoints
from rlheals.tasks.general_points.verifier import formula_of, judge

ROOT = Path(__file__).resolve().parents[2]
PLAY = ROOT / "book/_static/play"
NODE = shutil.which("node")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--host-resolver-rules=MAP * ~NOTFOUND"]  # fmt: skip
SCRIPTS = ("model.js", "task.js")

Runs = Callable[[str, Any], Any]


def browser(page: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A page opened by Chromium without any network, and its document as it is then."""
    home = f"--user-data-dir={page.parent / 'browser'}"
    command = [str(CHROMIUM), *FLAGS, home, *more, "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture
def javascript(tmp_path: Path) -> Runs:
    """Runs the body of a JavaScript function of `input` with the page's scripts loaded: what it returns."""
    if NODE is None and CHROMIUM is None:
        pytest.skip("neither node nor Chromium is here to run JavaScript")

    def run(body: str, given: Any) -> Any:
        call = f"JSON.stringify(((input) => {{{body}}})({json.dumps(given)}))"
        if NODE is not None:
            loads = "".join(f"require({json.dumps(str(PLAY / name))});" for name in SCRIPTS)
            script = tmp_path / "run.js"
            script.write_text(f"const Play = globalThis.Play ??= {{}};{loads}process.stdout.write({call});")
            done = subprocess.run([NODE, str(script)], capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr[-2000:]
            return json.loads(done.stdout)
        loads = "".join(f'<script src="{(PLAY / name).as_uri()}"></script>' for name in SCRIPTS)
        (tmp_path / "run.js").write_text(f"document.querySelector('pre').textContent = {call}")
        page = tmp_path / "run.html"
        page.write_text(
            f'<!doctype html><meta charset=utf-8><body><pre></pre>{loads}<script src="run.js"></script>'
        )
        done = browser(page)
        found = re.search(r"<pre>(.+)</pre>", done.stdout, flags=re.S)
        assert found, done.stdout[:500] + done.stderr[-2000:]
        return json.loads(html.unescape(found[1]))

    return run


def faces(rule: Rule) -> dict[str, int]:
    return {"J": rule.jack, "Q": rule.queen, "K": rule.king}


def said(verdict: Verdict) -> list[Any]:
    return [verdict.category, verdict.reward, verdict.feedback, verdict.read_as]


# --- the verifier

JUDGE = """return input.map(([formula, hand, rule]) => {
  const found = Play.judge(formula, hand, rule);
  return [found.category, found.reward, found.feedback, found.read_as];
});"""
READ = """return input.map(([words, hand, rule, protocol]) => {
  const read = Play.readAnswer(words, protocol), found = Play.judge(read.formula, hand, rule);
  return [read.layout, read.stated, found.category, found.reward, found.feedback, found.read_as];
});"""


PIECES = [
    *"+-*/()0123456789= .,^%'\\é𝟛−×\n\t\x85\x00", "**", "//", "1/0", "(1-1)", "=24", "__import__", "(" * 18, "9" * 14,
    "9" * 130, "007", "1e3", "0x1",
]  # fmt: skip


def hostile(random: random.Random) -> str:
    """A formula with things done to it that models, people and attackers do."""
    values = [random.choice([1, 2, 3, 5, 8, 10, 11, 13]) for _ in range(4)]
    formula = canonical_solution(tuple(values)) if solvable(tuple(values)) else "+".join(map(str, values))
    for _ in range(random.randrange(4)):
        at = random.randrange(len(formula) + 1)
        piece = random.choice(PIECES)
        formula = random.choice([
            formula[:at] + piece + formula[at:], formula[:at] + formula[at + 1 :], formula[:at], piece + formula,
        ])  # fmt: skip
    return formula


def hands_of(random: random.Random) -> tuple[tuple[str, ...], Rule]:
    return tuple(random.choice(LABELS) for _ in range(4)), Rule(*(random.randint(1, 13) for _ in range(3)))


def test_expert_replies_of_all_splits_are_judged_alike(javascript: Runs, task: GeneralPoints) -> None:
    items = {(item.id, item.payload): item for split in SPLITS for item in task.items(split)}
    assert len(items) > 3000
    asked, wanted = [], []
    for item in items.values():
        reply = task.expert(item)
        asked.append((formula_of(reply), item.payload.hand, faces(item.payload.rule)))
        wanted.append(said(task.grade(item, reply)))
    assert {one[0] for one in wanted} == {"correct"}
    assert javascript(JUDGE, asked) == wanted


def test_wrong_and_hostile_formulas_are_judged_alike(javascript: Runs) -> None:
    seeded, asked, wanted = random.Random(24), [], []
    for number in range(2000):
        hand, rule = hands_of(seeded)
        values, ood = rule.values(hand), OOD_RULE.values(hand)
        formula: str | None = hostile(seeded)
        if number % 4 == 0 and solvable(values):  # near misses: of the hand's own values
            formula = canonical_solution(values).replace(seeded.choice("+-*/"), seeded.choice("+-*/"), 1)
        elif number % 4 == 1 and solvable(ood):
            formula = canonical_solution(ood)
        elif number % 4 == 2 and solvable(values):
            formula = seeded.choice(solutions(values))
            formula = formula[: seeded.randrange(14)] if seeded.random() < 0.5 else formula.rstrip(")")
        elif number % 100 == 3:
            formula = None
        asked.append((formula, hand, faces(rule)))
        wanted.append(said(judge(formula, hand, rule)))
    kinds = {one[0] for one in wanted}
    assert kinds == {"correct", "partial", "no_solution", "wrong_number", "wrong_rule", "illegal_formula"}
    assert javascript(JUDGE, asked) == wanted


def test_the_number_of_solutions_is_that_of_the_package(javascript: Runs) -> None:
    """A verdict says how far a solution can begin like the formula: so every solution counts."""
    values = sorted({tuple(sorted(OOD_RULE.values(hand))) for hand in all_hands()})[::9]
    found = javascript("return input.map((values) => Play.solutions(values));", values)
    assert [sorted(one) for one in found] == [list(solutions(one)) for one in values]


def test_answers_in_words_are_read_alike(javascript: Runs, task: GeneralPoints, dialect: Compact) -> None:
    seeded, asked, wanted = random.Random(7), [], []
    protocols: tuple[Protocol_, Protocol_] = ("target", "either")
    for _ in range(2000):
        hand, rule = hands_of(seeded)
        values = rule.values(hand)
        formula = canonical_solution(values) if solvable(values) else "1+2"
        words = dialect.words(dialect.answer(values, formula, seeded.choice(["target", "plain"])))
        for _ in range(seeded.randrange(4)):
            at = seeded.randrange(len(words))
            words[at : at + seeded.randrange(2)] = seeded.choice(
                [[seeded.choice(WORDS)], [], [END], words[at:]]
            )
            words = words or [END]
        protocol = seeded.choice(protocols)
        reply = dialect.read([dialect._ids[word] for word in words], protocol)
        verdict = task.grade(item_of(hand, rule), reply.text)
        asked.append((words, hand, faces(rule), protocol))
        wanted.append([reply.layout, list(reply.stated), *said(verdict)])
    assert {one[0] for one in wanted} == {"target", "plain", "none"}
    assert javascript(READ, asked) == wanted


def test_what_people_type_is_read_alike(javascript: Runs) -> None:
    texts = [" 8 ÷ (3 − 8 ÷ 3)\n", "3x8", "3X8·1", "\x853–1", "\x1c 4 \u3000", "\ufeff4", "", "  "]
    assert javascript("return input.map(Play.typed);", texts) == [formula_of(text) for text in texts]


# --- the model

OPENED = "const checkpoint = Play.open(input.checkpoint);"
PLAYED = (
    OPENED
    + """return input.asked.map(([hand, rule]) => Play.episode(checkpoint, hand, rule, input.protocol).map((one) => ({
  tokens: one.tokens, category: one.verdict.category, feedback: one.verdict.feedback,
  logprobs: one.p.map((p, at) => Math.log(p[one.tokens[at]])),
})));"""
)


def checkpoint(weights: bytes) -> dict[str, Any]:
    """The shipped base as the page's scripts open it, with other weights."""
    vocabulary = json.loads((SHIPPED_BASE / "tokenizer.json").read_text())["model"]["vocab"]
    config = json.loads((SHIPPED_BASE / "config.json").read_text())
    return {"config": config, "vocabulary": vocabulary, "weights": base64.b64encode(weights).decode()}


@pytest.mark.parametrize(("split", "count", "protocol"), [("held_out", 261, "either"), ("ood", 60, "target")])
def test_episodes_are_those_of_the_package_token_by_token(
    javascript: Runs, task: GeneralPoints, split: str, count: int, protocol: Protocol_
) -> None:
    items = task.items(split)[:count]
    assert len(items) == count
    engine = open_engine(SHIPPED_BASE)
    dialect = Compact(engine.tokenizer)
    keys = [item.id for item in items]
    episodes = rollout(engine, dialect, task, items, keys, Sampling(temperature=0), protocol=protocol)
    assert sum(len(one.attempts) == 5 for one in episodes) >= 50
    weights = (SHIPPED_BASE / "model.safetensors").read_bytes()
    asked = [(item.payload.hand, faces(item.payload.rule)) for item in items]
    given = {"checkpoint": checkpoint(weights), "asked": asked, "protocol": protocol}
    found = javascript(PLAYED, given)
    for item, episode, here in zip(items, episodes, found, strict=True):
        wanted = [list(attempt.generation.tokens) for attempt in episode.attempts]
        assert [one["tokens"] for one in here] == wanted, item.id
        verdicts = [(attempt.verdict.category, attempt.verdict.feedback) for attempt in episode.attempts]
        assert [(one["category"], one["feedback"]) for one in here] == verdicts, item.id
        for one, attempt in zip(here, episode.attempts, strict=True):
            np.testing.assert_allclose(one["logprobs"], attempt.generation.logprobs, atol=2e-4)


# --- weights

TENSORS = """const read = Play.readSafetensors(Play.decodeBase64(input));
return [...read].map(([name, { shape, data }]) => [name, shape, [...data]]);"""


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_every_float_comes_out_as_it_was_written(javascript: Runs, dtype: str) -> None:
    import torch

    numbers = torch.tensor([0.0, -0.0, 1.0, -1.5, 6e-8, 6.1e-5, 65504.0, 0.1, -3.14159]).to(
        getattr(torch, dtype)
    )
    written = torch_safetensors({"a": numbers, "b": numbers.clone().reshape(3, 3)})
    found = javascript(TENSORS, base64.b64encode(written).decode())
    assert {name: shape for name, shape, _ in found} == {"a": [9], "b": [3, 3]}
    for _, _, data in found:
        assert data == numbers.float().tolist()


def good() -> bytes:
    return safetensors({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, dtype=np.float32)})


def headed(header: Any, data: bytes = bytes(16)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(**changed: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **changed}}


DAMAGED = {
    "nothing": (b"", "cut off"),
    "half": (good()[: len(good()) // 2], "damaged|cut off"),
    "one byte less": (good()[:-1], "cut off"),
    "bytes more": (good() + b"more", "leave bytes over"),
    "a header longer than the file": (struct.pack("<Q", 2**62) + good()[8:], "does not fit"),
    "no JSON": (headed(b"{nonsense"), "no JSON"),
    "no text": (headed(b"\xff\xfe{}"), "no JSON"),
    "a list": (headed([1]), "no table"),
    "an unknown type": (headed(entry(dtype="I64")), "a as I64"),
    "a type of every object": (headed(entry(dtype="constructor")), "a as constructor"),
    "no entry": (headed({"a": None}), "a as undefined"),
    "a shape that is none": (headed(entry(shape=[-2, -2])), "not readable"),
    "another shape": (headed(entry(shape=[3, 2])), "does not fit its shape"),
    "offsets backwards": (headed(entry(data_offsets=[16, 0])), "does not fit its shape"),
    "offsets behind the end": (headed(entry(data_offsets=[8, 24])), "cut off"),
    "two in one place": (headed(entry() | {"b": entry()["a"]}), "overlap"),
    "not a number": (headed(entry(), struct.pack("<4f", 1, 2, float("nan"), 4)), "not finite"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_weights_are_refused_with_a_sentence(javascript: Runs, name: str) -> None:
    weights, reason = DAMAGED[name]
    refused = javascript(
        "try { Play.readSafetensors(Play.decodeBase64(input)); return null; }"
        "catch (error) { return [error instanceof Play.Trouble, error.message]; }",
        base64.b64encode(weights).decode(),
    )
    assert refused[0] is True
    assert re.search(reason, refused[1])
    assert re.fullmatch(r"The weights .{10,120}\.", refused[1])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda held: held.pop("lm_head.weight"), "lack lm_head.weight"),
        (lambda held: held.update({"lm_head.bias": held["model.norm.weight"].clone()}), "hold lm_head.bias"),
        (
            lambda held: held.update({"lm_head.weight": held["lm_head.weight"].mT.contiguous()}),
            "do not fit: lm_head",
        ),
    ],
)
def test_weights_of_another_model_are_refused(
    javascript: Runs, change: Callable[[Any], Any], reason: str
) -> None:
    held = load_file(SHIPPED_BASE / "model.safetensors")
    change(held)
    given = checkpoint(torch_safetensors(held))
    refused = javascript(
        "try { Play.open(input); } catch (error) { return [error instanceof Play.Trouble, error.message]; }",
        given,
    )
    assert refused[0] is True
    assert reason in refused[1]


def test_a_word_that_the_model_does_not_have_is_a_sentence(javascript: Runs) -> None:
    given = {"checkpoint": checkpoint((SHIPPED_BASE / "model.safetensors").read_bytes())}
    body = (
        f"{OPENED} try {{ checkpoint.tokenizer.encode('joker'); }} catch (error) {{ return error.message; }}"
    )
    assert javascript(body, given) == 'The model has no word "joker".'
