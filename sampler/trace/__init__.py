"""Inspect one run: the model's attention when it drew each token."""
