"""Drawing and text that know no chapter."""
