"""From what failed to its most likely cause."""
