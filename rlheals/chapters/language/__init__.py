"""Chapter 07: a real language model, by the estimators of the other chapters, beside the lab."""
