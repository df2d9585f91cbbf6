"""Tokens under the distributions that a reference gives: whether each may be drawn, and was drawn from them."""
