"""Files of a run: written atomically, validated when read."""
