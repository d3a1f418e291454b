"""Chapter 2: RL after SFT."""
