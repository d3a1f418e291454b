"""Chapter 3: what moves in the weights."""
