"""The page that plays in the reader's browser: its JavaScript against the package."""

from __future__ import annotations

import base64
import json
import random
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from play_page import HELP, Runs, driven, needs_chromium, page_with, served
from safetensors.numpy import save as safetensors
from safetensors.torch import load_file
from safetensors.torch import save as torch_safetensors

from rlheals.book import mosaic, play
from rlheals.chapters.sft.runs import SFTChapter
from rlheals.engines import models
from rlheals.engines.hf import HFEngine, Sampling, open_engine
from rlheals.engines.models import SHIPPED_BASE
from rlheals.errors import BadInput
from rlheals.evaluation.rollout import rollout
from rlheals.store.store import Store
from rlheals.tasks.base import END, Protocol_, Verdict
from rlheals.tasks.general_points.cards import ID_RULE, LABELS, OOD_RULE, Rule, all_hands, item_of
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.prompts import WORDS
from rlheals.tasks.general_points.solver import canonical_solution, solutions, solvable
from rlheals.tasks.general_points.task import SPLITS, GeneralPoints
from rlheals.tasks.general_points.verifier import formula_of, judge


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


@pytest.mark.parametrize(("split", "count", "protocol"), [("ood", 60, "either"), ("ood", 20, "target")])
def test_episodes_are_those_of_the_package_token_by_token(
    javascript: Runs, task: GeneralPoints, split: str, count: int, protocol: Protocol_
) -> None:
    items = task.items(split)[:count]
    assert len(items) == count
    engine = open_engine(SHIPPED_BASE)
    dialect = Compact(engine.tokenizer)
    keys = [item.id for item in items]
    episodes = rollout(engine, dialect, task, items, keys, Sampling(temperature=0), protocol=protocol)
    assert sum(len(one.attempts) == 5 for one in episodes) >= 5
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


def test_damaged_weights_are_refused_with_a_sentence(javascript: Runs) -> None:
    found = javascript(
        """return input.map((weights) => {
          try { Play.readSafetensors(Play.decodeBase64(weights)); return null; }
          catch (error) { return [error instanceof Play.Trouble, error.message]; }
        });""",
        [base64.b64encode(weights).decode() for weights, _ in DAMAGED.values()],
    )
    for (name, (_, reason)), refused in zip(DAMAGED.items(), found, strict=True):
        assert refused is not None, name
        assert refused[0] is True, name
        assert re.search(reason, refused[1]), name
        assert re.fullmatch(r"The weights .{10,120}\.", refused[1]), name


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


# --- checkpoints for the page


def written(scripts: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The index, and checkpoints by key, from the scripts that the page loads."""
    index = json.loads(scripts[play.INDEX].removeprefix("Play.index = ").removesuffix(";\n"))
    found = {}
    for entry in index["checkpoints"]:
        call = scripts[entry["file"]].removeprefix("Play.arrived(").removesuffix(");\n")
        found[entry["key"]] = json.loads(f"[{call}]")[1]
    return index, found


def rl_left_out(store: Store, tmp_path: Path) -> Store:
    """The same runs without those of RL, in a store of their own."""
    for run in (store.root / "runs").iterdir():
        if json.loads((run / "manifest.json").read_text())["stage"] != "rl":
            (tmp_path / "runs").mkdir(exist_ok=True)
            (tmp_path / "runs" / run.name).symlink_to(run)
    return Store(tmp_path)


def test_checkpoints_are_the_runs_weights_with_their_evaluations(
    javascript: Runs, played: SFTChapter, shared: Store
) -> None:
    scripts = play.files(played, shared)
    index, checkpoints = written(scripts)
    assert (index["profile"], index["seed"]) == ("spin", 1)
    assert list(checkpoints) == ["base", "sft-peak", "sft-end", "rl-3", "rl-5"]
    chosen = {one.key: one for one in play.checkpoints(played, shared)}
    for entry in index["checkpoints"]:
        packed, folder = checkpoints[entry["key"]], chosen[entry["key"]].folder
        halves = {
            name: value.half().float() for name, value in load_file(folder / "model.safetensors").items()
        }
        for name, shape, data in javascript(TENSORS, packed["weights"]):
            assert (tuple(shape), data) == (tuple(halves[name].shape), halves[name].flatten().tolist())
        assert set(WORDS) < set(javascript("return Play.open(input).tokenizer.list;", packed))
    # the shares are those that the evaluation wrote down itself
    for run in (one for one in played.runs if one.manifest.stage == "evaluate"):
        said = json.loads((run.path / "summary.json").read_text())
        step = run.manifest.settings["folder"]
        for entry in index["checkpoints"]:
            if (
                "ood" in said
                and chosen[entry["key"]].folder.name == step
                and not entry["key"].startswith("rl")
            ):
                ood = entry["solved"]["either"]["OOD"]
                assert ood["hands"] == said["ood"]["hands"]
                assert ood["first"] == pytest.approx(said["ood"]["first_try_either"], abs=1e-4)
                assert ood["within"] == pytest.approx(said["ood"]["within_five_either"], abs=1e-4)


def test_without_rl_in_the_store_there_is_sft_alone(
    played: SFTChapter, shared: Store, tmp_path: Path
) -> None:
    _, checkpoints = written(play.files(played, rl_left_out(shared, tmp_path)))
    assert list(checkpoints) == ["base", "sft-peak", "sft-end"]


def test_a_study_of_something_else_has_a_sentence_in_place_of_weights(
    played: SFTChapter, shared: Store
) -> None:
    profile = played.profile.model_copy(update={"task": "navigation"})
    index, checkpoints = written(play.files(replace(played, profile=profile), shared))
    assert checkpoints == {}
    assert index["note"].endswith("cannot be played here: they are not models of the lab that play cards.")


def test_weights_that_a_page_cannot_hold_are_refused(tmp_path: Path, tiny_folder: Path) -> None:
    file = tiny_folder / "model.safetensors"
    held = load_file(file)
    held["lm_head.weight"][0, 0] = 1e6
    file.write_bytes(torch_safetensors(held))
    with pytest.raises(BadInput, match=r"^lm_head.weight of tiny leaves the range of float16$"):
        play.packed(tiny_folder)
    held["lm_head.weight"] = torch.zeros(2001, 2000)
    file.write_bytes(torch_safetensors(held))
    with pytest.raises(BadInput, match=r"^tiny has [\d,]+ weights, a page loads at most 1,500,000$"):
        play.packed(tiny_folder)


# --- the page in a browser


def with_base() -> dict[str, str]:
    """The scripts of the shipped base alone."""
    solved = {"either": {"OOD": {"hands": 796, "first": 0.05, "within": 0.2}}, "target": {}}
    entry = {"key": "base", "title": "Base", "file": "base.js", "bytes": 500000, "solved": solved}
    index = {"note": "", "temperature": 0.7, "attempts": 5, "checkpoints": [entry]}
    packed = json.dumps(play.packed(SHIPPED_BASE))
    scripts = {
        play.INDEX: f"Play.index = {json.dumps(index)};",
        "base.js": f'Play.arrived("base", {packed});',
    }
    return scripts | {mosaic.INDEX: ""}


def test_a_checkpoint_of_the_lab_is_about_half_a_megabyte() -> None:
    assert 0.4e6 < len(json.dumps(play.packed(SHIPPED_BASE))) < 0.6e6


@needs_chromium
def test_in_a_browser_a_known_hand_has_the_known_answer(tmp_path: Path, task: GeneralPoints) -> None:
    engine = HFEngine(models.load(SHIPPED_BASE).half().float(), models.load_tokenizer(SHIPPED_BASE), 16)
    dialect = Compact(engine.tokenizer)
    item = item_of(("8", "10", "10", "Q"), OOD_RULE)  # not the one that the page begins with
    (episode,) = rollout(engine, dialect, task, [item], ["k"], Sampling(temperature=0), protocol="either")
    drive = f"""{HELP}(async () => {{
      await until(() => told()?.startsWith("Play loads 1 checkpoints"));
      choose(["8", "10", "10", "Q", 11, 12, 13]);
      press("Play");
      await until(() => told().includes("8 10 10 Q"));
      const shown = (one) => all(one).map((each) => each.textContent);
      const hand = {{ codes: shown("li code"), feedback: shown(".play-feedback"), cards: shown(".play-card"),
        shares: shown(".play-shares"), told: told() }};
      choose(["A", "A", "A", "A"]);
      press("Play");
      await until(() => told().includes("A A A A"));
      const unsolvable = told();
      choose(["8", "10", "10", "Q", 10, 10, 10]);
      find("input[type=text]").value = "(10 − 8) × 10 + 10 = 24";
      find("input[type=text]").form.requestSubmit();
      const own = find(".play-own-verdict").textContent;
      choose(["2", "3", "8", "J", 11, 12, 13]);
      press("Census of 100 hands");
      await until(() => find(".play-bar svg"));
      const census = find(".play-bar svg").getAttribute("aria-label"), legend = find("figcaption").textContent;
      done({{ hand, unsolvable, own, census, legend }});
    }})();"""
    page = page_with(tmp_path, with_base(), drive)
    with served(tmp_path) as address:
        found = driven(page, f"{address}/book/play.html")
        assert found["loaded"]
        assert all(one.startswith(address) for one in found["loaded"]), found["loaded"]
    assert found["troubles"] == []
    hand = found["hand"]
    assert hand["codes"] == [json.loads(attempt.reply.text)["formula"] for attempt in episode.attempts]
    for shown, attempt in zip(hand["feedback"], episode.attempts, strict=True):
        assert shown.startswith(attempt.verdict.feedback)
    first = episode.attempts[0]
    for at, (card, value) in enumerate(zip(hand["cards"], first.reply.stated, strict=True)):
        share = 100 * float(np.exp(first.generation.logprobs[at]))
        (said,) = re.findall(r"p = ([\d.]+)", card)
        assert f"reads {value}" in card
        assert float(said) == pytest.approx(share, abs=0.51)
    solved = f": solved in attempt {episode.solved_at}" if episode.solved_at else ": not solved in 5 attempts"
    assert solved in hand["told"]
    assert "796 OOD hands" in hand["shares"][0]
    assert found["unsolvable"].startswith("No formula makes 24 from A A A A")
    own = judge("(10 - 8) * 10 + 10", item.payload.hand, ID_RULE)
    assert found["own"] == f"{own.feedback} (values right, not 24, reward -1)"
    assert re.fullmatch(r"Base: first attempt \d+ of 100, within 5 attempts \d+ of 100", found["census"])
    assert found["legend"].startswith("100 hands with a face card, J = 11")


@needs_chromium
@pytest.mark.parametrize(
    ("scripts", "said"),
    [
        ({}, "The list of checkpoints did not arrive"),
        (
            {play.INDEX: 'Play.index = {"note": "Of something else.", "checkpoints": []};'},
            "There are no weights here",
        ),
        ({**with_base(), "base.js": "Play.arrived('base', {"}, "is damaged: it holds no weights"),
        ({play.INDEX: with_base()[play.INDEX]}, r"\(base.js\) did not arrive"),
        ({**with_base(), "base.js": 'Play.arrived("base", {"weights": ""});'}, "cannot be read"),
    ],
)
def test_in_a_browser_what_is_missing_is_a_sentence(
    tmp_path: Path, scripts: dict[str, str], said: str
) -> None:
    drive = f"""{HELP}(async () => {{
      await until(() => told());
      if (told().startsWith("Play loads")) press("Play");
      await until(() => !told().startsWith("Loading") && !told().startsWith("Play loads"));
      done({{ page: document.getElementById("play-lab").textContent }});
    }})();"""
    found = driven(page_with(tmp_path, scripts, drive))
    assert re.search(said, found["page"])
    assert not any("TypeError" in one or "ReferenceError" in one for one in found["troubles"])
