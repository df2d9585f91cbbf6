"""Checks: engine and case in, verdict out; they know the protocols of engines and no particular engine."""
