"""Engines behind one set of small protocols; `base` has the protocols, the other files one engine each."""
