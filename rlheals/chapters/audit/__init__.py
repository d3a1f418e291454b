"""What the authors released, read and held against their paper."""
