"""Streams of tokens: wrong ones of one lie each, and right ones that repeat themselves as speech does.

Each takes any source of tokens and changes it. The docstring names the lie. A stream is endless; a test cuts it off.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, count, cycle, islice, repeat

import numpy as np

Tokens = Iterator[int]
Change = Callable[[Tokens, np.random.Generator], Tokens]


@dataclass(frozen=True)
class WrongStream:
    """A wrong stream and what is to be found out about it.

    kinds: of the loops that may be told first; period: of the longest loop, None for few tokens in turn; tokens: how
    many it needs until it can be told.
    """

    change: Change
    kinds: tuple[str, ...]
    period: int | None
    tokens: int


WRONG_STREAMS: dict[str, WrongStream] = {}
RIGHT_STREAMS: dict[str, Change] = {}


def wrong_stream(*kinds: str, period: int | None, tokens: int = 400) -> Callable[[Change], Change]:
    """Put a stream into the table of wrong ones."""

    def register(change: Change) -> Change:
        assert change.__name__ not in WRONG_STREAMS
        WRONG_STREAMS[change.__name__] = WrongStream(change, kinds, period, tokens)
        return change

    return register


def right_stream(change: Change) -> Change:
    """Put a stream into the table of right ones."""
    assert change.__name__ not in RIGHT_STREAMS
    RIGHT_STREAMS[change.__name__] = change
    return change


def onset(rng: np.random.Generator) -> int:
    """How many tokens go well before the lie."""
    return int(rng.integers(40, 120))


def looping(tokens: Tokens, rng: np.random.Generator, period: int) -> Tokens:
    """After a while the last `period` tokens again and again; the last of them is exchanged if it comes twice."""
    before = list(islice(tokens, onset(rng) + period))
    pattern = before[-period:]
    if pattern[-1] in pattern[:-1]:
        pattern[-1] = next(token for token in before if token not in pattern)
    return chain(before[:-period], cycle(pattern))


def noisy(loop: Tokens, tokens: Tokens, rng: np.random.Generator, share: float) -> Tokens:
    """A share of the tokens is replaced by others."""
    return (next(tokens) if rng.random() < share else token for token in loop)


@wrong_stream("run", period=1)
def repeats_one_token(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """Lie: after a while one token for ever, as the port that repeated 6405 from token 50 on."""
    return looping(tokens, rng, 1)


@wrong_stream("cycle", period=2)
def loops_over_2_tokens(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """Lie: after a while two tokens in turn."""
    return looping(tokens, rng, 2)


@wrong_stream("cycle", period=3)
def loops_over_3_tokens(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """Lie: after a while three tokens in turn."""
    return looping(tokens, rng, 3)


@wrong_stream("cycle", period=7)
def loops_over_7_tokens(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """Lie: after a while a syllable of seven tokens again and again."""
    return looping(tokens, rng, 7)


@wrong_stream("cycle", "near_cycle", period=16)
def loops_over_16_tokens(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """Lie: after a while a word of 16 tokens again and again."""
    return looping(tokens, rng, 16)


@wrong_stream("cycle", "near_cycle", period=64)
def loops_over_64_tokens(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """Lie: after a while a phrase of 64 tokens again and again."""
    return looping(tokens, rng, 64)


@wrong_stream("run", "near_cycle", period=1)
def repeats_one_token_with_noise(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """Lie: after a while one token, and in one place of twenty another."""
    return noisy(looping(tokens, rng, 1), tokens, rng, 0.05)


@wrong_stream("cycle", "near_cycle", period=3)
def loops_over_3_tokens_with_noise(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """Lie: after a while three tokens in turn, and in one place of ten another."""
    return noisy(looping(tokens, rng, 3), tokens, rng, 0.1)


@wrong_stream("cycle", "near_cycle", period=7)
def loops_over_7_tokens_with_noise(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """Lie: after a while a syllable of seven tokens, and in one place of twenty another."""
    return noisy(looping(tokens, rng, 7), tokens, rng, 0.05)


@wrong_stream("cycle", "near_cycle", period=16)
def loops_over_16_tokens_with_noise(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """Lie: after a while a word of 16 tokens, and in one place of ten another."""
    return noisy(looping(tokens, rng, 16), tokens, rng, 0.1)


@wrong_stream("cycle", "near_cycle", period=64, tokens=600)
def loops_over_64_tokens_with_noise(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """Lie: after a while a phrase of 64 tokens, and in one place of twenty another."""
    return noisy(looping(tokens, rng, 64), tokens, rng, 0.05)


@wrong_stream("cycle", period=7)
def loops_and_goes_on(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """Lie: after a while a syllable of seven tokens for three seconds, then speech again."""
    return chain(islice(looping(tokens, rng, 7), 200), tokens)


@wrong_stream("run", period=1)
def pauses_for_two_seconds(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """Lie: in the middle of speech one token 50 times, a pause that nobody makes."""
    before = list(islice(tokens, onset(rng)))
    return chain(before, repeat(before[-1], 50), tokens)


@wrong_stream("low_entropy", period=None)
def babbles_with_3_tokens(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """Lie: after a while three tokens in any order, as breath or noise is."""
    before = list(islice(tokens, onset(rng)))
    few = list(dict.fromkeys(before))[:3]
    return chain(before, (few[int(rng.integers(3))] for _ in count()))


@wrong_stream("low_entropy", "near_cycle", "run", period=None, tokens=800)
def drifts_to_few_tokens(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """Lie: with every step fewer tokens are in use, until two are left."""
    before = list(islice(tokens, onset(rng)))
    yield from before
    some = list(dict.fromkeys(before))
    for step in count():
        yield some[int(rng.integers(max(2, int(len(some) * 0.99**step))))]


def with_inserts(tokens: Tokens, rng: np.random.Generator, insert: Callable[[list[int]], list[int]]) -> Tokens:
    """Now and then something is said in between; insert: from the last 40 tokens to what follows them."""
    while True:
        before = list(islice(tokens, int(rng.integers(40, 80))))
        yield from before
        yield from insert(before[-40:])


@right_stream
def pauses_of_up_to_8_tokens(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """No lie: silence is one token, up to eight times in a row."""
    return with_inserts(tokens, rng, lambda before: [6_405] * int(rng.integers(2, 9)))


@right_stream
def sustains_a_sound(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """No lie: a vowel is held for 20 tokens, nearly a second."""
    return with_inserts(tokens, rng, lambda before: before[-1:] * 20)


@right_stream
def pauses_in_two_tokens(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """No lie: silence is two tokens in turn, up to five times."""
    return with_inserts(tokens, rng, lambda before: [4_218, 4_299] * int(rng.integers(2, 6)))


@right_stream
def repeats_phrases(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """No lie: one phrase of 15 tokens is said again and again, with other words in between."""
    phrase = list(islice(tokens, 15))
    return with_inserts(tokens, rng, lambda before: phrase)


@right_stream
def sings_a_refrain_twice(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """No lie: a refrain of 20 tokens is sung twice in a row."""
    return with_inserts(tokens, rng, lambda before: before[-20:])


@right_stream
def says_numbers_thrice(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """No lie: a number of 12 tokens is said three times in a row, as in "one, one, one"."""
    return with_inserts(tokens, rng, lambda before: before[-12:] * 2)


@right_stream
def speaks_with_12_tokens(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """No lie: a small vocabulary, of which all is in use."""
    return (token % 12 for token in tokens)


@right_stream
def doubles_tokens(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """No lie: one token in ten comes twice in a row."""
    return (each for token in tokens for each in [token] * (2 if rng.random() < 0.1 else 1))
