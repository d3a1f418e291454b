"""Model folders and cards for others."""
