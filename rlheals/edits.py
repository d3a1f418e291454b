"""Edits of checkpoints: the public name of `rlheals.weights.edits`."""

from rlheals.weights.edits import *  # noqa: F403
