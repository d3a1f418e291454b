"""Runs by content hash: whole or absent, checked when read."""
