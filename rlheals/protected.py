"""SFT with a penalty inside singular subspaces: the public name of `rlheals.training.protected`."""

from rlheals.training.protected import *  # noqa: F403
