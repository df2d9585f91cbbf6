"""Checks of `process`, `draw` and `predict` against the reference."""
