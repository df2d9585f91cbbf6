"""Reads files from outside without trust: what is no file, no text or not of its schema is refused in a line."""
