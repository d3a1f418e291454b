"""Dialects, the one multi-turn rollout, evaluation, KL."""
