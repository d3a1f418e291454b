"""rlheals: the backing package of a reproducible paper, "RL fine-tuning heals OOD forgetting in SFT"."""

__version__ = "0.1.0"
