"""The guard at token 400 and at token 4,000, on speech and in a loop; vLLM's definition beside it, asked as vLLM asks.

Each round gives 100 tokens: divide by 100 for the cost of one.
"""

import random
from collections.abc import Sequence

import pytest

from sampler import LoopGuard
from sampler.loops import LoopRule, LoopRules

ROUND = 100
EXACT = LoopRules((LoopRule(1, 64, 4),), low_entropy=None)
"""What vLLM can be asked for: patterns of 1 to 64 tokens, four copies."""


def ends_with_copies(tokens: Sequence[int], smallest: int, largest: int, count: int) -> bool:
    """The definition of vLLM's three parameters: every size anew at every token, up to the first difference."""
    for size in range(smallest, largest + 1):
        if size * count > len(tokens):
            return False
        if all(tokens[-place] == tokens[-place - size] for place in range(1, size * (count - 1) + 1)):
            return True
    return False


def speech(length: int) -> list[int]:
    """A Markov chain over 2,000 tokens, one in 64 doubled."""
    rng = random.Random(0)
    followers = [[rng.randrange(2_000) for _ in range(8)] for _ in range(2_000)]
    tokens = [0]
    while len(tokens) < length:
        tokens.append(tokens[-1] if rng.random() < 1 / 64 else rng.choice(followers[tokens[-1]]))
    return tokens


STREAMS = {
    "speech": speech,
    "cycle of 7": lambda length: [*range(100, 107)] * (length // 7 + 1),
    "one token": lambda length: [5] * length,
}


@pytest.mark.benchmark(group="loops")
@pytest.mark.parametrize("place", [400, 4_000])
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("rules", [LoopRules(), EXACT], ids=["all rules", "exact"])
def test_guard(benchmark, rules, stream, place):
    tokens = STREAMS[stream](place + ROUND)

    def setup():
        guard = LoopGuard(rules)
        for token in tokens[:place]:
            guard.add(token)
        return (guard,), {}

    def told(guard: LoopGuard) -> int:
        return sum(guard.add(token) is not None for token in tokens[place : place + ROUND])

    assert benchmark.pedantic(told, setup=setup, rounds=30) == (0 if stream == "speech" else ROUND)


@pytest.mark.benchmark(group="loops")
@pytest.mark.parametrize("place", [400, 4_000])
@pytest.mark.parametrize("stream", STREAMS)
def test_definition(benchmark, stream, place):
    tokens = STREAMS[stream](place + ROUND)
    given = [tokens[: place + count] for count in range(1, ROUND + 1)]

    def told() -> int:
        return sum(ends_with_copies(each, 1, 64, 4) for each in given)

    assert benchmark.pedantic(told, rounds=10) == (0 if stream == "speech" else ROUND)
