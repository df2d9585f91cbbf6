"""The same work as `tox -e bench` in one process, for a quick look: `pytest tests/benchmarks --benchmark-enable`."""

import pytest

from tests.benchmarks import chain, loops


@pytest.mark.benchmark(group="chain, 8 x 8,194")
@pytest.mark.parametrize("library", chain.STEPS)
@pytest.mark.parametrize("top_p", [0.95, 1.0])
def test_chain(benchmark, library, top_p):
    tokens = benchmark(chain.STEPS[library](8, 8_194, top_p))
    assert tokens.shape == (8,)
    assert ((tokens >= 0) & (tokens < 8_194)).all()


@pytest.mark.benchmark(group="loops, 100 tokens")
@pytest.mark.parametrize("place", loops.PLACES)
@pytest.mark.parametrize("stream", loops.STREAMS)
@pytest.mark.parametrize("rules", loops.RULES)
def test_guard(benchmark, rules, stream, place):
    tokens = loops.STREAMS[stream](place + loops.ROUND)
    setup = lambda: ((loops.guard_at(loops.RULES[rules], tokens, place),), {})  # noqa: E731
    found = benchmark.pedantic(lambda work: work(), setup=setup, rounds=10)
    assert found == (0 if stream == "speech" else loops.ROUND)
