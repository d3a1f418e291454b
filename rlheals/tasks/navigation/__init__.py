"""Navigation: follow printed directions through a town, and say turns in the words that are listed."""
