"""Chapter 06: the paper's effect on other tasks than cards."""
