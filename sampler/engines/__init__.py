"""Engines behind a set of small protocols; `base` has the protocols, each other file one engine."""
