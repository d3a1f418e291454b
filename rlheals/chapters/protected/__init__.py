"""Chapter 4: SFT with penalties on what may move."""
