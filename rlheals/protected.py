"""SFT with a penalty inside singular subspaces: the public name of `rlheals.training.protected`."""

from rlheals.training.protected import ProtectedSettings, kl_from_base, subspaces

__all__ = ["ProtectedSettings", "kl_from_base", "subspaces"]
