"""Looks into folders of weights."""
