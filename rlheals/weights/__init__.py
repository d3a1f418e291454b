"""Checkpoints as lazy streams, linear algebra, nulls, spectra, edits."""
