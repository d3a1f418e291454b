"""The model card of a lab base: what it is, how it was made, how to load it, and the hash of its weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from rlheals.display.markup import Table, to_markdown
from rlheals.engines.models import ModelSettings
from rlheals.errors import BadInput
from rlheals.training.adopt import WEIGHTS
from rlheals.training.pretrain import PretrainSettings

FRONT = """---
license: mit
library_name: transformers
tags: [card game, synthetic]
---"""


def model_card(folder: Path, settings: PretrainSettings, seed: int) -> str:
    """The card (README.md) of the base in a folder, from its `ability.json`, its weights and its settings.

    Raises BadInput when one of the two files is missing or not readable.
    """
    history = _history(folder / "ability.json")
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise BadInput(f"model {folder.name!r}: {WEIGHTS} is missing")
    data = weights.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    last = history[-1]
    rows = tuple(
        (f"{h['step']:,.0f}", f"{h['tokens']:,.0f}", f"{h['loss']:.3f}", f"{h['within_five']:.3f}")
        for h in history
    )
    shown = settings.model_dump(mode="json", exclude={"model"})
    blocks = [
        FRONT,
        f"# rlheals lab base, seed {seed}",
        f"A Llama-architecture language model that knows one card game and nothing else ({_shape(settings.model)}). It "
        "plays the part of an instruct model before fine-tuning: it solves the game for part of the hands, in a layout "
        "of its own.",
        *_purpose(seed),
        "## How it was made",
        f"By `rlheals pretrain --seed {seed}`, from a random start, on a synthetic corpus: rules for the face cards, "
        "hands, wrong attempts with feedback, correct answers. The rule J = 11, Q = 12, K = 13 never occurs in it. "
        + _stopping(settings)
        + f" That was after {last['step']:,.0f} steps.",
        Table(("step", "tokens", "loss (nats per token)", "panel solved within five"), rows),
        Table(("setting", "value"), tuple((f"`{name}`", str(value)) for name, value in shown.items())),
        "## Use",
        "```python\nfrom rlheals.engines.models import (SHIPPED_BASE, load, load_tokenizer)\n\n"
        "model, tokenizer = load(SHIPPED_BASE), load_tokenizer(SHIPPED_BASE)\n```"
        if seed == 0
        else "```bash\nrlheals evaluate --folder FOLDER\n```",
        "## What it is not for",
        "Anything but this experiment. It has a few dozen words and has seen no text by people.",
        "## Weights",
        f"`{WEIGHTS}`, {len(data):,} bytes, float32, sha256 `{digest}`.",
    ]
    return to_markdown(blocks)


def _history(file: Path) -> list[dict[str, float]]:
    try:
        history = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"model {file.parent.name!r}: {file.name} cannot be read ({str(error)[:80]})"
        ) from None
    fields = ("step", "tokens", "loss", "within_five")
    if not isinstance(history, list) or not history or not all(_is_record(one, fields) for one in history):
        raise BadInput(
            f"model {file.parent.name!r}: {file.name} is not a list of records with {', '.join(fields)}"
        )
    return history


def _is_record(one: object, fields: tuple[str, ...]) -> bool:
    return isinstance(one, dict) and all(isinstance(one.get(name), int | float) for name in fields)


def _shape(model: ModelSettings) -> str:
    return f"{model.layers} layers, width {model.hidden}, {model.heads} heads of {model.head_dim}, MLP {model.mlp}"


def _purpose(seed: int) -> list[str]:
    if seed != 0:
        return []
    return [
        "It ships with the package for development and for a reader's fresh run. The lab's settings were chosen on "
        "it, so it enters no verdict."
    ]


def _stopping(settings: PretrainSettings) -> str:
    if settings.ability is None:
        return f"Training uses all of its {settings.max_steps:,} steps."
    return (
        f"Training stops when a share of {settings.ability:g} of a fixed panel of {settings.panel_hands} hands, under "
        f"rules that are neither the ID nor the OOD rule, is solved within five attempts in either layout, or at step "
        f"{settings.max_steps:,}."
    )
