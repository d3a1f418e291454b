"""What a profile needs, and whether it fits this machine."""
