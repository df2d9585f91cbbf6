"""Speed as a ratio against a named peer; run with `pytest tests/benchmarks --benchmark-enable`."""
