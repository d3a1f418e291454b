"""An edit of a checkpoint: every tensor of the target, one at a time, with parts of the base put back where wanted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rlheals.errors import BadInput
from rlheals.weights.alignment import Pair
from rlheals.weights.architectures import Piece
from rlheals.weights.arrays import torch
from rlheals.weights.checkpoint import Checkpoint, require_same_tensors
from rlheals.weights.edits import Edit, edit_matrix, edit_pair
from rlheals.weights.selection import BLOCKS, Where


@dataclass(frozen=True)
class EditedPiece:
    """A weight matrix, or another tensor as a whole: what it was made of, and what it is now, in the target's type."""

    name: str
    pair: Pair
    after: torch.Tensor


@dataclass(frozen=True)
class Edited:
    """One tensor of the target, edited; pieces: those of it that were wanted, none where nothing was."""

    name: str
    after: torch.Tensor
    pieces: tuple[EditedPiece, ...] = ()


def edited(base: Checkpoint, target: Checkpoint, edit: Edit, where: Where = BLOCKS) -> Iterator[Edited]:
    """Every tensor of `target`, edited where wanted, one at a time, read once.

    Raises BadInput when the checkpoints are not of one model, when nothing is chosen, when an edit does not fit, or
    when a number is not finite, chosen or not.
    """
    require_same_tensors(base, target)
    chosen: dict[str, list[Piece]] = {}
    for piece in where.pieces(target).values():
        chosen.setdefault(piece.tensor, []).append(piece)
    for name in target.places:
        t = target.tensor(name)
        if not bool(torch.isfinite(t).all()):
            raise BadInput(f"checkpoint {target.source!r}: {name} holds numbers that are not finite")
        if name not in chosen:
            yield Edited(name, t)
            continue
        b = base.tensor(name)
        made = tuple(_edited_piece(piece, piece.of(b), piece.of(t), edit, where) for piece in chosen[name])
        after = made[0].after
        if not chosen[name][0].whole:
            after = t.clone()
            for piece, one in zip(chosen[name], made, strict=True):
                piece.put(after, one.after)
        yield Edited(name, after, made)


def _edited_piece(piece: Piece, b: torch.Tensor, t: torch.Tensor, edit: Edit, where: Where) -> EditedPiece:
    pair = Pair(b, t)
    if where.heads:
        after = where.by_head(piece, pair.b, pair.t, lambda b, t: edit_matrix(b, t, edit))
    else:
        after = edit_pair(pair, edit)
    return EditedPiece(piece.name, pair, after.to(t.dtype))


def apply(
    base: Checkpoint, target: Checkpoint, edit: Edit, where: Where = BLOCKS
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of `target` after the edit, as (name, tensor); arguments and errors are those of `edited`."""
    for one in edited(base, target, edit, where):
        yield one.name, one.after
