"""Chapter 1: what SFT gains and forgets."""
