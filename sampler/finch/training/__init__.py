"""Rebuilding Finch: all that needs torch or espeak-ng."""
