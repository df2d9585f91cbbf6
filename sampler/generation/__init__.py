"""Requests in, generations out: blocks of slots over the T3 core."""
