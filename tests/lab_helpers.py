"""Stand-ins and readers for the tests of the lab: an engine that follows a script, text from tokens, small studies."""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from rlheals.engines.hf import Generation, Past, Sampling
from rlheals.errors import BadInput
from rlheals.settings import Settings
from rlheals.stage import Tick, Work, no_tick
from rlheals.study.tables import Tables
from rlheals.tasks.base import END
from rlheals.tasks.general_points.cards import Rule
from rlheals.tasks.general_points.compact import Compact

Script = Callable[[str, int], list[int]]
"""(episode's key, attempt from 0) -> the tokens that the model is to say."""

# A profile that computes everything in seconds.
TINY = """name: tiny
about: For tests.
evaluated: [0, 2, 4]
rule_steps: [4]
rule_hands: 1
sft: {checkpoints: [0, 2, 4], batch: 4, loss_examples: 4}
evaluate: {hands: 4, attempts: 2}
"""


TIMED = ["seconds_rollout", "seconds_learning", "tokens_per_second", "peak_mb"]
"""Columns of RL's log that are never the same twice."""


def flip_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


HARMS: dict[str, Callable[[Path], object]] = {
    "cut in half": lambda file: os.truncate(file, file.stat().st_size // 2),
    "emptied": lambda file: os.truncate(file, 0),
    "a bit flipped": flip_bit,
    "another file of the same kind": lambda file: shutil.copyfile(
        next(
            one
            for one in sorted(file.parent.parent.rglob(f"*{file.suffix}"))
            if one.read_bytes() != file.read_bytes()
        ),
        file,
    ),
    "gone": lambda file: file.unlink(),
}
"""What happens to a kept file on disks that lie, in half-synchronised folders, by hand."""


class Killed(BaseException):
    """What a kill looks like from inside: nothing catches it."""


def dies_at(moment: int) -> Tick:
    """Progress of a process that is killed when so much is done."""

    def tick(done: int, total: int, unit: str) -> None:
        if done >= moment:
            raise Killed

    return tick


def diverging(patch: pytest.MonkeyPatch, at: int) -> None:
    """The step of AdamW with this number (from 1) leaves weights that are no numbers."""
    step, taken = torch.optim.AdamW.step, []

    def broken(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        taken.append(step(self, *args, **kwargs))
        if len(taken) == at:
            with torch.no_grad():
                self.param_groups[0]["params"][-1].fill_(math.nan)
        return taken[-1]

    patch.setattr(torch.optim.AdamW, "step", broken)


def optimizer_steps(patch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Of every step of AdamW from now on: its settings, and the norm of the gradient."""
    step, seen = torch.optim.AdamW.step, list[dict[str, Any]]()

    def noted(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        gradients = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
        seen.append({**self.param_groups[0], "norm": float(torch.cat(gradients).norm())})
        return step(self, *args, **kwargs)

    patch.setattr(torch.optim.AdamW, "step", noted)
    return seen


def work_in(
    folder: Path,
    settings: Settings,
    inputs: dict[str, Path] | None = None,
    seed: int = 1,
    tick: Tick = no_tick,
) -> Work:
    """What a stage is given, with `out` and `scratch` in a folder."""
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    chosen = settings.model_dump(mode="json")
    return Work(folder / "out", folder / "scratch", chosen, seed, inputs or {}, tick)


class FakeEngine:
    """An engine that says what a script wants, and remembers what it was asked."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, script: Script) -> None:
        self.tokenizer = tokenizer
        self.script = script
        self.calls: list[list[tuple[list[int], str]]] = []

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        keys: Sequence[str],
        sampling: Sampling,
        pasts: Sequence[Past | None] | None = None,
        beginning: Sequence[int] = (),
    ) -> list[Generation]:
        self.calls.append([(list(prompt), key) for prompt, key in zip(prompts, keys, strict=True)])
        made = []
        for key in keys:
            episode, _, attempt = key.rpartition("/")
            tokens = tuple(self.script(episode, int(attempt)))
            made.append(Generation(tokens, np.full(len(tokens), -0.5), np.full(len(tokens), 0.25)))
        return made

    def load_weights(self, file: Path) -> None:
        raise BadInput(f"no weights in {file.name}")


def weights_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same_weights(one: PreTrainedModel, other: PreTrainedModel) -> bool:
    """Whether two models have the same tensors, bit for bit."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def one_line(error: BaseException) -> str:
    """The message of an error for users, which has to be one line of readable length."""
    text = str(error)
    assert text
    assert "\n" not in text
    assert len(text) < 600, text
    return text


@contextmanager
def refused(*words: str, match: str | None = None) -> Iterator[None]:
    """What is done inside is bad input: refused on one line that has these words, or matches."""
    with pytest.raises(BadInput, match=match) as caught:
        yield
    said = one_line(caught.value)
    assert all(word in said for word in words), said


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def result_of(out: Path) -> dict[str, Any]:
    """All of an RL run's result that has to be the same when computed again."""
    files = {name: hashlib.sha256(data).hexdigest() for name, data in files_of(out).items()}
    log = pd.read_parquet(out / "log.parquet").drop(columns=TIMED)
    return {"log": log.to_dict("list"), "files": files | {"log.parquet": ""}}


@dataclass(frozen=True)
class Said:
    """One attempt inside a document: its words, whether in braces, the values and numbers in it, the feedback."""

    words: list[str]
    feedback: list[str]
    start: int

    @property
    def target(self) -> bool:
        return self.words[0] == "{"

    @property
    def values(self) -> tuple[int, ...]:
        stop = self.words.index("|" if self.target else "so")
        return tuple(int(word) for word in self.words[:stop] if word != "{")

    @property
    def formula(self) -> str:
        begin = self.words.index("|" if self.target else "so") + 1
        return " ".join(self.words[begin : self.words.index("=")])

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(int(number) for number in re.findall(r"\d+", self.formula))


@dataclass(frozen=True)
class Text:
    """A document of the lab, read back from its words only."""

    rule: Rule
    hand: tuple[str, ...]
    said: list[Said]


PROMPT_WORDS = 13


def read_text(dialect: Compact, tokens: list[int]) -> Text:
    """A document read independently of the code that wrote it: rule, hand, attempts with their feedback."""
    words = dialect.words(tokens)
    assert [words[i] for i in (0, 1, 3, 5, 7, 12)] == ["<s>", "J", "Q", "K", "cards", "answer"]
    rule = Rule(*(int(words[i]) for i in (2, 4, 6)))
    return Text(rule, tuple(words[8:12]), list(_attempts(words[PROMPT_WORDS:])))


def _attempts(words: list[str]) -> Iterator[Said]:
    at = 0
    while at < len(words):
        stop = words.index(END, at) + 1
        feedback = words[stop : stop + 3]
        yield Said(words[at:stop], feedback, PROMPT_WORDS + at)
        at = stop + len(feedback)


def study_of(
    accuracy: dict[int, dict[str, np.ndarray]],
    losses: dict[str, dict[int, float]] | None = None,
    either: dict[int, dict[str, np.ndarray]] | None = None,
    illegal: dict[int, np.ndarray] | None = None,
    seed: int = 1,
) -> Tables:
    """Tables made by hand: solved (bool per hand) by step and split, losses by set and step, one decode.

    `illegal[step]`: which OOD hands' first try could not be read.
    """
    frames = []
    for step, splits in accuracy.items():
        for split, solved in splits.items():
            lenient = (either or accuracy)[step][split]
            broken = illegal[step] if illegal and split == "ood" else np.zeros(len(solved), bool)
            frames.append(
                pd.DataFrame(
                    {
                        "item": [f"{split}/{index}" for index in range(len(solved))],
                        "split": split,
                        "face": True,
                        "solved_at": solved.astype("uint8"),
                        "solved_at_either": lenient.astype("uint8"),
                        "first": np.where(broken, "illegal_formula", np.where(solved, "correct", "partial")),
                        "first_layout": "target",
                        "first_values_right": True,
                        "first_values_as_id": False,
                        "seed": seed,
                        "step": step,
                        "decode": 0,
                    }
                )
            )
    loss_rows = [
        {"step": step, "set": name, "loss": loss, "seed": seed}
        for name, by_step in (losses or {}).items()
        for step, loss in by_step.items()
    ]
    empty = pd.DataFrame({"seed": pd.Series(dtype=int)})
    return Tables(
        episodes=pd.concat(frames, ignore_index=True),
        categories=empty,
        rules=empty,
        losses=pd.DataFrame(loss_rows, columns=["step", "set", "loss", "seed"]),
        bases=pd.DataFrame([{"seed": seed, "base_step": 600, "ability": 0.5}]),
    )
