"""rlheals: the backing package of a reproducible paper, "RL fine-tuning heals OOD forgetting in SFT".

For models of your own: `census` (any model on any task), `CensusCallback` (the same inside a trainer) and
`compare_checkpoints` (spectra of two checkpoints).
"""

import os
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# One thread per process: shared cores make a second thread slower, not faster, and one thread gives the same bits.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

_PLACES = {
    "CensusCallback": "rlheals.evaluation.callback",
    "census": "rlheals.evaluation.census",
    "compare_checkpoints": "rlheals.weights.two_checkpoints",
}
__all__ = [*_PLACES]


def __getattr__(name: str) -> Any:
    """Names of `__all__`, imported when they are asked for, since torch takes seconds."""
    if name not in _PLACES:
        raise AttributeError(f"module 'rlheals' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
