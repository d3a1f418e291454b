"""What chapter 04 measures: accuracies of edited checkpoints beside those of the checkpoints they are made of."""

from __future__ import annotations

import pandas as pd

from rlheals.chapters.edits.runs import ANCHOR, EditTables
from rlheals.chapters.rows import only, solved_shares

TARGETS = {
    "restore": ("late", "peak"),
    "swap": ("rl", "late"),
    "lend": ("start", "rl"),
    "other": ("late", "other-peak"),
}
"""Of each kind: the checkpoint that is edited, and the one it is edited with."""
FAMILIES = {
    "values": "singular values", "left": "left singular vectors", "right": "right singular vectors",
    "directions": "singular vectors", "triples": "singular triples", "subspace": "singular subspace",
    "rollback": "rollback", "interpolate": "interpolation", "partial": "partial rollback",
    "random": "random singular vectors", "noise": "noise", "released": "released edit",
}  # fmt: skip
WORDS = {"kind": object, "edit": object, "where": object}
"""Columns that say which edit it is, and their type."""


def accuracy(tables: EditTables, split: str = "ood") -> pd.DataFrame:
    """Columns seed, kind, edit, where, value, n: share of n hands solved."""
    rows = only(tables.effects, split=split).astype(WORDS)
    return solved_shares(rows, ["seed", *WORDS]).reset_index()


def effects(tables: EditTables, split: str = "ood") -> pd.DataFrame:
    """One row per edited checkpoint: its accuracy, that of its target and of the other one, sizes of the edit.

    Columns seed, kind, edit, where, family, value, n, target, other, effect (value - target), size (|edit| /
    |distance|), left (distance left over / distance), kl_target.
    """
    found = accuracy(tables, split)
    anchors = only(found, kind=ANCHOR).set_index(["seed", "edit"])["value"]
    table = found[found["kind"] != ANCHOR].copy()
    for at, column in enumerate(("target", "other")):
        names = table["kind"].map({kind: of[at] for kind, of in TARGETS.items()})
        table[column] = anchors.reindex(pd.MultiIndex.from_arrays([table["seed"], names])).to_numpy()
    place = ["seed", *WORDS]
    joined = table.join(tables.sizes.astype(WORDS).set_index(place), on=place)
    joined["family"] = joined["edit"].str.extract(r"^([a-z]+)", expand=False)
    joined["effect"] = joined["value"] - joined["target"]
    joined["size"] = joined["edit_norm"] / joined["distance"]
    joined["left"] = joined["left"] / joined["distance"]
    columns = ["family", "value", "n", "target", "other", "effect", "size", "left"]
    return joined[[*place, *columns, "kl_origin", "kl_target"]]
