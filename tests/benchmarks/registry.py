"""All comparisons, in the order in which they run."""

from tests.benchmarks import analyzer, chain, finch, full_size, growth, loops, matrices
from tests.benchmarks.runner import Comparison

COMPARISONS: tuple[Comparison, ...] = (
    chain.COMPARISON,
    analyzer.COMPARISON,
    loops.COMPARISON,
    finch.COMPARISON,
    growth.COMPARISON,
    matrices.COMPARISON,
    full_size.COMPARISON,
)
