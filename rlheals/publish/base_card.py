"""A lab base for others: its files, and a model card that says what it is, how it was made, and how to load it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from rlheals.display.markup import Table, to_markdown
from rlheals.store.files import whole
from rlheals.store.runs import Run, digest_of
from rlheals.training.adopt import WEIGHTS
from rlheals.training.pretrain import PretrainSettings

TEMPLATE = Path(__file__).with_name("base_card.md")
FIELDS = ("step", "tokens", "loss", "within_five")


def copy_base(run: Run, out: Path, settings: PretrainSettings, seed: int) -> None:
    """Write the base of a run of pretraining, its history and its card into the new folder `out`."""
    with whole(out) as folder:
        shutil.copytree(run.path / "base", folder, dirs_exist_ok=True)
        shutil.copy(run.file("ability.json"), folder)
        (folder / "README.md").write_text(model_card(folder, settings, seed), encoding="utf-8")


def model_card(folder: Path, settings: PretrainSettings, seed: int) -> str:
    """The card (README.md) of the base in a folder, from its `ability.json`, its weights and its settings."""
    weights = digest_of(folder / WEIGHTS)
    history = json.loads((folder / "ability.json").read_text(encoding="utf-8"))
    rows = [[float(record[name]) for name in FIELDS] for record in history]
    head = ("step", "tokens", "loss (nats per token)", "panel: success@5")
    lines = tuple((f"{s:,.0f}", f"{t:,.0f}", f"{loss:.3f}", f"{solved:.3f}") for s, t, loss, solved in rows)
    shown = settings.model_dump(mode="json", exclude={"model"}).items()
    card = ModelCard.from_template(
        ModelCardData(license="mit", library_name="transformers", tags=["card game", "synthetic"]),
        template_path=str(TEMPLATE),
        seed=seed,
        shape=settings.model,
        settings=settings,
        last_step=f"{rows[-1][0]:,.0f}",
        history=to_markdown([Table(head, lines)]).strip(),
        shown=to_markdown([Table(("setting", "value"), tuple((f"`{k}`", str(v)) for k, v in shown))]).strip(),
        file=WEIGHTS,
        weights=weights,
    )
    return f"{card}\n"
