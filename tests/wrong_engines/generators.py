"""Streams of tokens: wrong ones of one fault each, and right ones that repeat themselves as speech does.

Each takes any source of tokens and changes it. A stream is endless; a test cuts it off.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, cycle, islice, repeat
from typing import Any

import numpy as np

from tests.wrong_engines.tables import flat

Tokens = Iterator[int]
Change = Callable[[Tokens, np.random.Generator], Tokens]


@dataclass(frozen=True)
class WrongStream:
    """A wrong stream and what is to be found out about it.

    kinds: of the loops that may be reported first; period: of the longest loop, None for few tokens in turn; tokens:
    how many it needs until it can be detected.
    """

    change: Change
    kinds: tuple[str, ...]
    period: int | None
    tokens: int = 400


def onset(rng: np.random.Generator) -> int:
    """How many tokens go well before the fault."""
    return int(rng.integers(40, 120))


def looping(tokens: Tokens, rng: np.random.Generator, period: int) -> Tokens:
    """After a while the last `period` tokens again and again; the last of them is exchanged if it comes twice."""
    before = list(islice(tokens, onset(rng) + period))
    pattern = before[-period:]
    if pattern[-1] in pattern[:-1]:
        pattern[-1] = next(token for token in before if token not in pattern)
    return chain(before[:-period], cycle(pattern))


def loops(tokens: Tokens, rng: np.random.Generator, period: int, share: float = 0.0) -> Tokens:
    """A loop; a share of its tokens is replaced by others."""
    loop = looping(tokens, rng, period)
    return (next(tokens) if rng.random() < share else token for token in loop) if share else loop


def loops_and_goes_on(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    return chain(islice(looping(tokens, rng, 7), 200), tokens)


def pauses_for_two_seconds(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    before = list(islice(tokens, onset(rng)))
    return chain(before, repeat(before[-1], 50), tokens)


def babbles_with_3_tokens(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    before = list(islice(tokens, onset(rng)))
    few = list(dict.fromkeys(before))[:3]
    return chain(before, (few[int(rng.integers(3))] for _ in count()))


def drifts_to_few_tokens(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    before = list(islice(tokens, onset(rng)))
    yield from before
    some = list(dict.fromkeys(before))
    for step in count():
        yield some[int(rng.integers(max(2, int(len(some) * 0.99**step))))]


def wrong_streams(*items: Any) -> dict[str, WrongStream]:
    """From rows "name: fault", change, a dict of what is to be found out."""
    return {name: WrongStream(change, **found) for name, _, (change, found) in flat(*items)}


CYCLE = ("cycle", "near_cycle")
WRONG_STREAMS = wrong_streams(
    "repeats_one_token: after a while one token for ever, as the port that repeated 6405 from token 50 on.",
    partial(loops, period=1),
    {"kinds": ("run",), "period": 1},
    "loops_over_2_tokens: after a while two tokens in turn.",
    partial(loops, period=2),
    {"kinds": ("cycle",), "period": 2},
    "loops_over_3_tokens: after a while three tokens in turn.",
    partial(loops, period=3),
    {"kinds": ("cycle",), "period": 3},
    "loops_over_7_tokens: after a while a syllable of seven tokens again and again.",
    partial(loops, period=7),
    {"kinds": ("cycle",), "period": 7},
    "loops_over_16_tokens: after a while a word of 16 tokens again and again.",
    partial(loops, period=16),
    {"kinds": CYCLE, "period": 16},
    "loops_over_64_tokens: after a while a phrase of 64 tokens again and again.",
    partial(loops, period=64),
    {"kinds": CYCLE, "period": 64},
    "repeats_one_token_with_noise: after a while one token, and in one place of twenty another.",
    partial(loops, period=1, share=0.05),
    {"kinds": ("run", "near_cycle"), "period": 1},
    "loops_over_3_tokens_with_noise: after a while three tokens in turn, and in one place of ten another.",
    partial(loops, period=3, share=0.1),
    {"kinds": CYCLE, "period": 3},
    "loops_over_7_tokens_with_noise: after a while a syllable of seven tokens, and in one place of twenty another.",
    partial(loops, period=7, share=0.05),
    {"kinds": CYCLE, "period": 7},
    "loops_over_16_tokens_with_noise: after a while a word of 16 tokens, and in one place of ten another.",
    partial(loops, period=16, share=0.1),
    {"kinds": CYCLE, "period": 16},
    "loops_over_64_tokens_with_noise: after a while a phrase of 64 tokens, and in one place of twenty another.",
    partial(loops, period=64, share=0.05),
    {"kinds": CYCLE, "period": 64, "tokens": 600},
    "loops_and_goes_on: after a while a syllable of seven tokens for three seconds, then speech again.",
    loops_and_goes_on,
    {"kinds": ("cycle",), "period": 7},
    "pauses_for_two_seconds: in the middle of speech one token 50 times, a pause that nobody makes.",
    pauses_for_two_seconds,
    {"kinds": ("run",), "period": 1},
    "babbles_with_3_tokens: after a while three tokens in any order, as breath or noise is.",
    babbles_with_3_tokens,
    {"kinds": ("low_entropy",), "period": None},
    "drifts_to_few_tokens: with every step fewer tokens are in use, until two are left.",
    drifts_to_few_tokens,
    {"kinds": ("low_entropy", "near_cycle", "run"), "period": None, "tokens": 800},
)


def inserting(insert: Callable[[list[int], np.random.Generator], list[int]]) -> Change:
    """Now and then something is said in between; insert: from the last 40 tokens to what follows them."""

    def change(tokens: Tokens, rng: np.random.Generator) -> Tokens:
        while True:
            before = list(islice(tokens, int(rng.integers(40, 80))))
            yield from before
            yield from insert(before[-40:], rng)

    return change


def repeats_phrases(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    phrase = list(islice(tokens, 15))
    return inserting(lambda before, rng: phrase)(tokens, rng)


RIGHT_STREAMS: dict[str, Change] = {
    # Silence is one token, up to eight times in a row.
    "pauses_of_up_to_8_tokens": inserting(lambda before, rng: [6_405] * int(rng.integers(2, 9))),
    # A vowel is held for 20 tokens, nearly a second.
    "sustains_a_sound": inserting(lambda before, rng: before[-1:] * 20),
    # Silence is two tokens in turn, up to five times.
    "pauses_in_two_tokens": inserting(lambda before, rng: [4_218, 4_299] * int(rng.integers(2, 6))),
    # One phrase of 15 tokens is said again and again, with other words in between.
    "repeats_phrases": repeats_phrases,
    # A refrain of 20 tokens is sung twice in a row.
    "sings_a_refrain_twice": inserting(lambda before, rng: before[-20:]),
    # A number of 12 tokens is said three times in a row, as in "one, one, one".
    "says_numbers_thrice": inserting(lambda before, rng: before[-12:] * 2),
    # A small vocabulary, of which all is in use.
    "speaks_with_12_tokens": lambda tokens, rng: (token % 12 for token in tokens),
    # One token in ten comes twice in a row.
    "doubles_tokens": lambda tokens, rng: (t for token in tokens for t in [token] * (2 if rng.random() < 0.1 else 1)),
}
