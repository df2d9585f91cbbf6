"""Samplers of packages for MLX, called as their own loops call them."""
