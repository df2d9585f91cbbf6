"""Tests of sampler; the folders say what they ask."""
