"""Speed as a ratio against a named peer: `python -m tests.benchmarks`, which is `tox -e bench`.

Ours and the peer run in processes of their own, in turn. `runner.py` starts them, `rows.py` makes ratios of what they
say, `__main__.py` lists the comparisons, one module each.
"""
