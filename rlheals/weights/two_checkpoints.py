"""Two checkpoints of anybody's: compare them, or put parts of one back into the other."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pandas as pd
from tqdm import tqdm

from rlheals.engines.weight_files import is_gguf
from rlheals.errors import BadInput
from rlheals.settings import validated
from rlheals.store.files import refuse_used, whole
from rlheals.weights import checkpoint, spectra_stage
from rlheals.weights.adapter import opened, refuse_adapter
from rlheals.weights.alignment import Pair
from rlheals.weights.arrays import torch
from rlheals.weights.checkpoint import Checkpoint
from rlheals.weights.edit_parser import parse
from rlheals.weights.edited import edited
from rlheals.weights.linalg import Bases, decompose, principal_angles
from rlheals.weights.selection import Where
from rlheals.weights.spectra import CHANGE, START, NullName, Spectra, part_of
from rlheals.weights.spectra_stage import SpectraSettings

NULLS: tuple[str, ...] = get_args(NullName)


@dataclass(frozen=True)
class Comparison:
    """Two checkpoints beside null models. spectra: the tables; notes: what was not measured, and why."""

    before: str
    after: str
    reference: str | None
    settings: SpectraSettings
    spectra: Spectra
    notes: tuple[str, ...]

    @property
    def angles(self) -> pd.DataFrame:
        """Mean angles in degrees by kind of matrix, side and size of the subspace, with those of the null models."""
        return spectra_stage.summary(
            self.spectra, [START, *(name for name in self.settings.nulls if self.settings.draws)]
        )

    def report(self, out: str | Path) -> Path:
        """Tables, figures and a page in a new folder; returns the page. Needs the extra `report`."""
        from rlheals.weights import report

        refuse_used(Path(out))
        with whole(Path(out)) as folder:
            report.write(
                self.spectra, self.settings, self.before, self.after, folder, self.reference, self.notes
            )
        return Path(out) / report.PAGE

    def facts(self) -> dict[str, Any]:
        """Angles, sizes and intruder dimensions by kind, as JSON types."""
        matrices = self.spectra.matrices[self.spectra.matrices["head"] == -1]
        sizes = matrices[matrices["what"] == CHANGE].groupby("kind", sort=False)
        intruders = matrices.groupby(["kind", "what"], sort=False)["intruders"].mean().unstack("what")
        return {
            "before": self.before,
            "after": self.after,
            "reference": self.reference,
            "angles": json.loads(self.angles.to_json(orient="records")),
            "relative_change": {
                str(kind): {"size": _finite(row.iloc[0]), "values": _finite(row.iloc[1])}
                for kind, row in sizes[["relative_change", "value_change_mean"]].mean().iterrows()
            },
            "intruders": {str(kind): float(mean) for kind, mean in intruders[CHANGE].items()},
            "intruders_null": {
                str(kind): float(mean) for kind, mean in intruders.get("gaussian", {}).items()
            },
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        return f"{self.before} -> {self.after}\n{self.angles.round(2).to_string(index=False)}"


def compare_checkpoints(
    before: str | Path,
    after: str | Path,
    *,
    reference: str | Path | None = None,
    kinds: Sequence[str] | None = None,
    ks: Sequence[int] | None = None,
    nulls: Sequence[str] | None = None,
    draws: int = 20,
    heads: int = 0,
    key_value_heads: int = 0,
    unrelated: bool = False,
    cache: Path | None = None,
) -> Comparison:
    """Singular values and vectors of two checkpoints of one architecture, or of a checkpoint and a LoRA adapter of it.

    Each is a .safetensors or .gguf file, a folder, or a hub id. reference: a third checkpoint that both are compared
    with; kinds: of matrices, such as "q"; ks: sizes of subspaces; nulls, draws: null models; heads, key_value_heads:
    every head as a matrix of its own; unrelated: accept matrices that have nothing in common; cache: folder that
    keeps the decompositions of the first (or of the reference) for the next comparison with it. Defaults are those of
    `SpectraSettings`. Raises BadInput with one line.

    >>> from rlheals import compare_checkpoints
    >>> base = "rlheals/base/model.safetensors"
    >>> found = compare_checkpoints(base, base, kinds=["q"], ks=[4], draws=0)
    >>> sorted(found.angles["side"]), float(found.angles["change"].max().round(3))
    (['left', 'right'], 0.0)
    """
    asked = {"kinds": kinds, "ks": ks, "nulls": nulls, "draws": draws, "heads": heads}
    asked |= {"key_value_heads": key_value_heads, "unrelated": unrelated}
    given = {name: value for name, value in asked.items() if value is not None}
    settings = validated(SpectraSettings, given, "spectra")
    first_name, second_name = str(before), str(after)
    third_name = None if reference is None else str(reference)
    with tqdm(desc="spectra", disable=None, leave=False, dynamic_ncols=True) as bar:

        def tick(done: int, total: int, unit: str) -> None:
            bar.total, bar.unit = total, unit
            bar.update(done - bar.n)

        for whole_one in (first_name, third_name or first_name):
            refuse_adapter(whole_one)
        first = Checkpoint(first_name)
        second = opened(second_name, first)
        bases = None if cache is None else Bases(cache)
        third = None if third_name is None else Checkpoint(third_name)
        found = spectra_stage.compare(first, second, settings, tick, "spectra", bases, third)
    measured = set(found.matrices["tensor"])
    notes = [*dict.fromkeys([*first.notes, *second.notes, *(third.notes if third else ())])]
    notes += [*_too_large(found, settings.ks), *checkpoint.said(first.left_out(measured), "measured")]
    return Comparison(first_name, second_name, third_name, settings, found, tuple(notes))


def edit_checkpoint(base: str, target: str, edit: str, where: str, out: Path) -> dict[str, Any]:
    """The target with parts of the base put back, written into a new folder; one row per edited tensor.

    Configuration and tokenizer are copied from the target's folder, so that the result can be loaded as a model.
    """
    chosen, at = parse(edit), Where.parse(where)
    refuse_used(out)
    for source in (base, target):
        refuse_adapter(source)
    if is_gguf(target):
        raise BadInput(
            f"target {target!r}: a GGUF file can only be the base; edited weights have to be unquantised"
        )
    first, second = Checkpoint(base), Checkpoint(target)
    rows: list[dict[str, Any]] = []

    def told() -> Iterator[tuple[str, torch.Tensor]]:
        stream = edited(first, second, chosen, at)
        total = len(second.places)
        for one in tqdm(stream, desc="edit", total=total, unit="tensor", disable=None, leave=False):
            rows.extend(_row(piece.name, piece.pair, piece.after) for piece in one.pieces)
            yield one.name, one.after

    with whole(out) as folder:
        files = checkpoint.write(told(), folder)
        checkpoint.copy_beside(Path(target), folder)
        left = second.left_out([row["tensor"] for row in rows])
        notes = [*dict.fromkeys([*first.notes, *second.notes]), *checkpoint.said(left, "edited")]
        facts = {
            "base": base,
            "target": target,
            "edit": str(chosen),
            "where": str(at),
            "tensors": rows,
            "notes": notes,
        }
        (folder / "edit.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return {**facts, "out": str(out), "files": files}


def _too_large(found: Spectra, ks: Sequence[int]) -> list[str]:
    """A line for every k that some matrices have too few singular vectors for."""
    there = found.matrices.drop_duplicates(["tensor", "head"])
    smaller = {k: int((there[["rows", "columns"]].min(axis=1) <= k).sum()) for k in ks}
    return [
        f"k = {k}: left out of {n} matrices with no more singular values" for k, n in smaller.items() if n
    ]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _row(name: str, pair: Pair, after: torch.Tensor) -> dict[str, Any]:
    """Sizes in units of the tensor before, None where it is zero; mean angle (degrees) of the leading quarter to the
    base, then and now, of matrices."""
    made = after.to(torch.float64)
    size = float(pair.t.norm()) or math.nan
    row: dict[str, Any] = {
        "tensor": name,
        "change": _finite(float((made - pair.t).norm()) / size),
        "distance_before": _finite(float((pair.b - pair.t).norm()) / size),
        "distance_after": _finite(float((pair.b - made).norm()) / size),
        "angle_before": None,
        "angle_after": None,
    }
    if made.ndim == 2:
        k = int(part_of(pair.rank, 4))
        for key, other in (("angle_before", pair.target), ("angle_after", decompose(made))):
            sides = [
                principal_angles(pair.other.side(s)[:, :k], other.side(s)[:, :k]) for s in ("left", "right")
            ]
            row[key] = math.degrees(float(torch.stack(sides).mean()))
    return row
