"""Samplers of MLX packages, called as their own loops call them."""
