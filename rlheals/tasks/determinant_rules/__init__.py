"""The determinant of two rows as one of twelve stated rules, for the lab."""
