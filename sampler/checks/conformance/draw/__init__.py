"""Checks of level `draw`: which tokens are drawn, how often, and whether seeds work."""
