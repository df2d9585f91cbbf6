"""Whole generations: blocks, stopping, and how good the embedded model is."""
