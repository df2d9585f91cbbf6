"""Checks of level `draw`: what is drawn, how often, and what must come out."""
