"""The guard against loops at token 400 and 4,000, on speech and in a loop, beside vLLM's definition in Python.

The definition is computed as vLLM computes it: anew at every token. For information: no goals.
"""

import random
from collections.abc import Callable, Iterator, Sequence

from sampler import LoopGuard
from sampler.loops import LoopRule, LoopRules
from tests.benchmarks.clock import median_of_fresh
from tests.benchmarks.rows import Figure, Row
from tests.benchmarks.runner import Comparison

PLACES, ROUND = (400, 4_000), 100
RULES = {"all rules": LoopRules(), "exact": LoopRules((LoopRule(1, 64, 4),), low_entropy=None)}
"""The second ones are what vLLM can be asked for: patterns of 1 to 64 tokens, four copies."""


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


STREAMS: dict[str, Callable[[int], list[int]]] = {
    "speech": speech,
    "cycle of 7": lambda length: [*range(100, 107)] * (length // 7 + 1),
    "one token": lambda length: [5] * length,
}


def guard_at(rules: LoopRules, tokens: Sequence[int], place: int) -> Callable[[], int]:
    """In how many of the next 100 tokens the guard finds a loop."""
    guard = LoopGuard(rules)
    for token in tokens[:place]:
        guard.add(token)
    return lambda: sum(guard.add(token) is not None for token in tokens[place : place + ROUND])


def definition_at(tokens: Sequence[int], place: int) -> Callable[[], int]:
    """The same by the definition."""
    given = [tokens[: place + count] for count in range(1, ROUND + 1)]
    return lambda: sum(ends_with_copies(each, 1, 64, 4) for each in given)


def _call(work: Callable[[], int]) -> int:
    return work()


def both(*, quick: bool) -> Iterator[tuple[str, float]]:
    """Microseconds a token; what is timed is made anew for each round of 100."""
    for stream, place in ((stream, place) for stream in STREAMS for place in PLACES):
        tokens = STREAMS[stream](place + ROUND)
        for name, rules in RULES.items():
            make = lambda: guard_at(rules, tokens, place)  # noqa: B023, E731 - called before the loop goes on
            yield f"{name}, {stream}, token {place:,}", 1e6 / ROUND * median_of_fresh(make, _call, 10 if quick else 30)
        make = lambda: definition_at(tokens, place)  # noqa: B023, E731
        yield f"definition, {stream}, token {place:,}", 1e6 / ROUND * median_of_fresh(make, _call, 5 if quick else 10)


SIDES = {"both": both}


def _rows() -> Iterator[Row]:
    for where in (f"{stream}, token {place:,}" for stream in STREAMS for place in PLACES):
        definition = Figure("both", f"definition, {where}")
        yield Row(f"loop guard, {where}", Figure("both", f"exact, {where}"), "us", definition, "vLLM's definition")
        yield Row(f"loop guard, all rules, {where}", Figure("both", f"all rules, {where}"), "us")


COMPARISON = Comparison("loops", __name__, ("both",), tuple(_rows()))
