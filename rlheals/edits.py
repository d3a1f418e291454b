"""Edits of checkpoints: the public name of `rlheals.weights.edits` and of the text that describes them."""

from rlheals.weights.checkpoint import Checkpoint
from rlheals.weights.edit_parser import parse
from rlheals.weights.edited import apply
from rlheals.weights.edits import EDITS, Edit, edit_matrix
from rlheals.weights.selection import Part, Where

__all__ = ["EDITS", "Checkpoint", "Edit", "Part", "Where", "apply", "edit_matrix", "parse"]
