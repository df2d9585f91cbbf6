"""Automatic one-line mutations of `sampler/chain/`, each judged by `sampler check core`: `tox -e mutation`."""
