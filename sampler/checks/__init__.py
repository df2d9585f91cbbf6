"""Checks: engine and case in, verdict out; they use the protocols of engines and no particular engine."""
