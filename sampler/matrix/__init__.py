"""Matrices: hand-written TOML files and the cells that they span."""
