"""Angles and decompositions of weight matrices: the public name of `rlheals.weights.linalg`."""

from rlheals.weights.linalg import *  # noqa: F403
