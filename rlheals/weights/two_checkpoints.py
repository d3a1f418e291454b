"""Two checkpoints of anybody's: compare them, or put parts of one back into the other."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from tqdm import tqdm

from rlheals.engines.weight_files import is_gguf
from rlheals.errors import BadInput
from rlheals.settings import validated
from rlheals.store.files import refuse_used, whole
from rlheals.weights import checkpoint, report, spectra_stage
from rlheals.weights.adapter import opened, refuse_adapter
from rlheals.weights.alignment import Pair
from rlheals.weights.checkpoint import Checkpoint
from rlheals.weights.edit_parser import parse
from rlheals.weights.edited import edited
from rlheals.weights.linalg import Bases, decompose, principal_angles
from rlheals.weights.selection import Where
from rlheals.weights.spectra import CHANGE, START, NullName, Spectra, part_of
from rlheals.weights.spectra_stage import SpectraSettings

NULLS: tuple[str, ...] = get_args(NullName)


def compare_checkpoints(
    before: str,
    after: str,
    asked: dict[str, Any],
    out: Path | None,
    cache: Path | None = None,
    reference: str | None = None,
) -> dict[str, Any]:
    """Spectra of two checkpoints; with `out` tables, figures and a page are written there.

    asked: fields of `SpectraSettings`, None for the default; cache: folder that keeps the decompositions of the first
    (or of the reference), for the next comparison with it; reference: a third checkpoint from which both are seen.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    settings = validated(SpectraSettings, given, "spectra")
    if out is not None:
        refuse_used(out)
    with tqdm(desc="spectra", disable=None, leave=False, dynamic_ncols=True) as bar:

        def tick(done: int, total: int, unit: str) -> None:
            bar.total, bar.unit = total, unit
            bar.update(done - bar.n)

        for whole_one in (before, reference or before):
            refuse_adapter(whole_one)
        first = Checkpoint(before)
        second = opened(after, first)
        bases = None if cache is None else Bases(cache)
        third = None if reference is None else Checkpoint(reference)
        found = spectra_stage.compare(first, second, settings, tick, "spectra", bases, third)
    measured = set(found.matrices["tensor"])
    notes = [*dict.fromkeys([*first.notes, *second.notes, *(third.notes if third else ())])]
    notes += [*_too_large(found, settings.ks), *checkpoint.said(first.left_out(measured), "measured")]
    if out is not None:
        with whole(out) as folder:
            report.write(found, settings, before, after, folder, reference, notes)
    angles = spectra_stage.summary(found, [START, *(name for name in settings.nulls if settings.draws)])
    change = found.matrices[(found.matrices["what"] == CHANGE) & (found.matrices["head"] == -1)]
    sizes = change.groupby("kind", sort=False)[["relative_change", "value_change_mean"]].mean()
    unsplit = found.matrices[found.matrices["head"] == -1]
    intruders = unsplit.groupby(["kind", "what"], sort=False)["intruders"].mean().unstack("what")
    return {
        "before": before,
        "after": after,
        "reference": reference,
        "angles": json.loads(angles.to_json(orient="records")),
        "relative_change": {
            str(kind): {"size": _finite(row.iloc[0]), "values": _finite(row.iloc[1])}
            for kind, row in sizes.iterrows()
        },
        "intruders": {str(kind): float(mean) for kind, mean in intruders[CHANGE].items()},
        "intruders_null": {str(kind): float(mean) for kind, mean in intruders.get("gaussian", {}).items()},
        "notes": notes,
        "out": None if out is None else str(out),
        "page": None if out is None else str(out / report.PAGE),
    }


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
            f"target {target!r}: a GGUF file can be the base only; what is edited was trained, and unquantised"
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
