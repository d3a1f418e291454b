"""Intervals, bootstrap, verdicts."""
