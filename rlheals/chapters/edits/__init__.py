"""Chapter 4: parts of one checkpoint put back into another."""
