"""Determinants of matrices of whole numbers: of two rows, then of three."""
