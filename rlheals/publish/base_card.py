"""A lab base for others: its files, and a model card that says what it is, how it was made, and how to load it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from huggingface_hub import ModelCardData

from rlheals.display.markup import Block, Table, to_markdown
from rlheals.errors import BadInput
from rlheals.store.files import whole
from rlheals.store.runs import Run, digest_of
from rlheals.training.adopt import WEIGHTS
from rlheals.training.pretrain import PretrainSettings

FIELDS = ("step", "tokens", "loss", "within_five")


def copy_base(run: Run, out: Path, settings: PretrainSettings, seed: int) -> None:
    """Write the base of a run of pretraining, its history and its card into the new folder `out`."""
    with whole(out) as folder:
        shutil.copytree(run.path / "base", folder, dirs_exist_ok=True)
        shutil.copy(run.file("ability.json"), folder)
        (folder / "README.md").write_text(model_card(folder, settings, seed), encoding="utf-8")


def model_card(folder: Path, settings: PretrainSettings, seed: int) -> str:
    """The card (README.md) of the base in a folder, from its `ability.json`, its weights and its settings.

    Raises BadInput when one of the two files is missing or not readable.
    """
    try:
        weights = digest_of(folder / WEIGHTS)
        history = json.loads((folder / "ability.json").read_text(encoding="utf-8"))
        rows = [[float(record[name]) for name in FIELDS] for record in history]
        last = rows[-1]
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        wanted = f"{WEIGHTS}, and ability.json, a list of records with {', '.join(FIELDS)}"
        raise BadInput(
            f"model {folder.name!r}: needed are {wanted} ({type(error).__name__}: {error})"
        ) from None
    shape = settings.model
    front = ModelCardData(license="mit", library_name="transformers", tags=["card game", "synthetic"])
    blocks: list[Block] = [
        f"---\n{front.to_yaml()}\n---",
        f"# rlheals lab base, seed {seed}",
        f"A Llama-architecture language model that knows one card game and nothing else ({shape.layers} layers, width "
        f"{shape.hidden}, {shape.heads} heads of {shape.head_dim}, MLP {shape.mlp}). It plays the part of an instruct "
        "model before fine-tuning: it solves the game for part of the hands, in a format of its own.",
    ]
    if seed == 0:
        blocks.append(
            "It ships with the package for development and for a reader's fresh run. The lab's settings were chosen on "
            "it, so it enters no verdict."
        )
    shown = settings.model_dump(mode="json", exclude={"model"})
    code = "from rlheals.engines.models import SHIPPED_BASE, load, load_tokenizer"
    use = f"python\n{code}\n\nmodel, tokenizer = load(SHIPPED_BASE), load_tokenizer(SHIPPED_BASE)"
    blocks += [
        "## How it was made",
        f"By `rlheals pretrain --seed {seed}`, from a random start, on a synthetic corpus: rules for the face cards, "
        "hands, wrong attempts with feedback, correct answers. The rule J = 11, Q = 12, K = 13 never occurs in it. "
        f"{_stopping(settings)} That was after {last[0]:,.0f} steps.",
        Table(
            ("step", "tokens", "loss (nats per token)", "panel: success@5"),
            tuple((f"{s:,.0f}", f"{t:,.0f}", f"{loss:.3f}", f"{solved:.3f}") for s, t, loss, solved in rows),
        ),
        Table(("setting", "value"), tuple((f"`{name}`", str(value)) for name, value in shown.items())),
        "## Use",
        f"```{use if seed == 0 else 'bash' + chr(10) + 'rlheals evaluate --folder FOLDER'}\n```",
        "## What it is not for",
        "Anything but this experiment. It has a few dozen words and has seen no text by people.",
        "## Weights",
        f"`{WEIGHTS}`, {weights.bytes:,} bytes, float32, sha256 `{weights.sha256}`.",
    ]
    return to_markdown(blocks)


def _stopping(settings: PretrainSettings) -> str:
    if settings.ability is None:
        return f"Training uses all of its {settings.max_steps:,} steps."
    return (
        f"Training stops when success@5 with feedback (format-agnostic) on a fixed panel of {settings.panel_hands} "
        f"hands, under rules that are neither the ID nor the OOD rule, reaches {settings.ability:g}, or at step "
        f"{settings.max_steps:,}."
    )
