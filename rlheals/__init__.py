"""rlheals: the backing package of a reproducible paper, "RL fine-tuning heals OOD forgetting in SFT"."""

import os

__version__ = "0.1.0"

# One thread per process: shared cores make a second thread slower, not faster, and one thread gives the same bits.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
