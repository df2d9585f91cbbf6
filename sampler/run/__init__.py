"""Run a matrix, an engine check or a token file; replay a verdict."""
