"""Matrices: hand-written TOML files and their cells."""
