"""Automatic one-line mutations of `sampler`, each judged by levels that were not told of it: `tox -e mutation`."""
