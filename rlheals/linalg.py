"""Angles and decompositions of weight matrices: the public name of `rlheals.weights.linalg`."""

from rlheals.weights.linalg import Decomposition, Overlap, decompose, orthonormal, principal_angles

__all__ = ["Decomposition", "Overlap", "decompose", "orthonormal", "principal_angles"]
