"""Rebuild Finch: everything that needs torch or espeak-ng."""
