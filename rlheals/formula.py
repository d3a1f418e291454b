"""Exact evaluation of formulas: the public name of `rlheals.tasks.general_points.formula`."""

from rlheals.tasks.general_points.formula import *  # noqa: F403
