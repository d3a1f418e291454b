"""Pretraining, SFT, protected SFT."""
