"""Hands and rules: the public name of `rlheals.tasks.general_points.cards`."""

from rlheals.tasks.general_points.cards import *  # noqa: F403
