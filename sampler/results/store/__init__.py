"""Files of a run: written whole, validated when read."""
