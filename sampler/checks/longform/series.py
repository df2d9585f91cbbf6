"""Scalars of every step from tokens alone: repetition, rarity, and which side a token indicates.

They must not depend on which side a run came from, or the ranks of runs would not be exchangeable. Repetition needs
one run alone. Rarity comes from the other runs of both sides together. A direction has to know the sides: it is learnt
on one half of the runs and scores the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sampler.checks.longform.runs import TokenRun, TwoSides

Array = NDArray[np.float64]
Ids = NDArray[np.int64]
Side = list[list[Array]]

LOOKBACK = 100
"""A token is a repetition if it is among this many before it."""

OWN_SHARE = 0.9
"""Weight of a token's frequency in its own text; the rest is the weight of its frequency in all texts."""

LEAST_MARGIN = 20.0
"""Larger margins count as this one: no error could have changed the choice."""


@dataclass(frozen=True)
class Series:
    """A scalar of each step before EOS of every run, by side, text and run. share: of runs that are scored."""

    name: str
    unit: str
    engine: Side
    reference: Side
    share: float = 1.0


def of_runs(name: str, unit: str, sides: TwoSides, steps: Callable[[TokenRun], Array]) -> Series:
    """A series computed from each run alone; EOS is left out."""
    return Series(name, unit, *sides.of_runs(lambda run: steps(run)[: run.length]))


def repetitions(tokens: Ids) -> Array:
    """1 where the token is among the LOOKBACK before it, else 0: (T,)."""
    order = np.argsort(tokens, kind="stable")
    distance = np.full(len(tokens), LOOKBACK + 1)
    same = np.flatnonzero(tokens[order][1:] == tokens[order][:-1])
    distance[order[same + 1]] = order[same + 1] - order[same]
    return (distance <= LOOKBACK).astype(np.float64)


def surprisal(run: TokenRun) -> Array:
    """Minus the logarithm of the probability, in nats; a float of an engine may be a little below 0."""
    assert run.logprobs is not None  # noqa: S101 - only used if both sides have it
    return np.maximum(0.0, -run.logprobs)


def log_rank(run: TokenRun) -> Array:
    """Logarithm of 1 + rank: a mean of ranks would depend on a few tokens of the far tail."""
    assert run.rank is not None  # noqa: S101
    return np.log1p(run.rank)


def bounded_margin(run: TokenRun) -> Array:
    """The margin, at most LEAST_MARGIN."""
    assert run.margin is not None  # noqa: S101
    return np.minimum(run.margin, LEAST_MARGIN)


def entropies(run: TokenRun) -> Array:
    """The entropy as it was recorded."""
    assert run.entropy is not None  # noqa: S101
    return run.entropy


class Coded:
    """Tokens of all runs as numbers from 0, the engine's runs first within each text."""

    def __init__(self, sides: TwoSides) -> None:
        self.runs = [(*mine, *theirs) for mine, theirs in zip(sides.engine, sides.reference, strict=True)]
        self.firsts = [len(mine) for mine in sides.engine]
        everything = [run.spoken for runs in self.runs for run in runs]
        known, codes = np.unique(np.concatenate([*everything, np.empty(0, dtype=np.int64)]), return_inverse=True)
        self.size = max(1, len(known))
        parts = iter(np.split(codes, np.cumsum([len(tokens) for tokens in everything])[:-1]))
        self.tokens = [[next(parts) for _ in runs] for runs in self.runs]

    def pairs(self, tokens: Ids) -> Ids:
        """A number for each token together with its predecessor; the first token has none."""
        before = np.concatenate([[-1], tokens[:-1]])[: len(tokens)]
        return np.asarray((before + 1) * self.size + tokens)

    def by_side(self, values: list[list[Array]]) -> tuple[Side, Side]:
        """Split the values of all runs into those of the engine and of the reference."""
        engine = [some[:first] for some, first in zip(values, self.firsts, strict=True)]
        reference = [some[first:] for some, first in zip(values, self.firsts, strict=True)]
        return engine, reference


def unusual(coded: Coded, *, pairs: bool) -> tuple[Side, Side]:
    """Minus the logarithm of a token's frequency in the other runs of its text (pairs: after its predecessor).

    A tenth of the weight is the frequency in all other runs, so that no frequency is 0.
    """
    everywhere = np.bincount(np.concatenate([run for some in coded.tokens for run in some]), minlength=coded.size)
    return coded.by_side([_unusual_of_text(coded, some, everywhere, pairs=pairs) for some in coded.tokens])


def _unusual_of_text(coded: Coded, runs: Sequence[Ids], everywhere: Ids, *, pairs: bool) -> list[Array]:
    keys = [coded.pairs(run) if pairs else run for run in runs]
    contexts = [key // coded.size if pairs else np.zeros_like(key) for key in keys]
    events, bases = _others(keys), _others(contexts)
    result = []
    for run, event, base in zip(runs, events, bases, strict=True):
        own = np.bincount(run, minlength=coded.size)
        rest = (everywhere - own + 0.5) / (everywhere.sum() - len(run) + coded.size / 2)
        result.append(-np.log(OWN_SHARE * event / np.maximum(1, base) + (1 - OWN_SHARE) * rest[run]))
    return result


def _others(keys: Sequence[Ids]) -> list[Ids]:
    """How often each key occurs in the other runs."""
    lengths = [len(key) for key in keys]
    _, codes, counts = np.unique(np.concatenate(keys), return_inverse=True, return_counts=True)
    result = []
    for code in np.split(codes, np.cumsum(lengths)[:-1]):
        own = np.bincount(code, minlength=len(counts))
        result.append((counts - own)[code])
    return result


def is_scored(text: int, run: int) -> bool:
    """Whether a run is scored or learnt from; they alternate by its place in its text and the text's in the file."""
    return (text + run) % 2 == 1


def pointing(coded: Coded, *, pairs: bool) -> tuple[Side, Side]:
    """Log odds that a token (pairs: with its predecessor) is the engine's, learnt on one half, of the other half.

    Counts of each side are smoothed by as many pseudo-counts as there are different tokens, in proportion to the counts
    of both. Source: Monroe, Colaresi and Quinn 2008, "Fightin' words", section 3.3, as log ratios of frequencies. Texts
    have the same weight on both sides.
    """
    keys = [[coded.pairs(run) if pairs else run for run in runs] for runs in coded.tokens]
    learnt = [
        [[run for place, run in enumerate(side) if not is_scored(text, place)] for side in (runs[:first], runs[first:])]
        for text, (runs, first) in enumerate(zip(keys, coded.firsts, strict=True))
    ]
    known, weights = _log_odds(learnt, coded.size)
    engine, reference = coded.by_side([[_look_up(run, known, weights) for run in runs] for runs in keys])
    return _scored(engine), _scored(reference)


def _scored(side: Side) -> Side:
    return [[run for place, run in enumerate(runs) if is_scored(text, place)] for text, runs in enumerate(side)]


def _log_odds(learnt: Sequence[Sequence[Sequence[Ids]]], strength: float) -> tuple[Ids, Array]:
    """Sorted keys with their log odds. learnt: by text, side and run."""
    usable = [(mine, theirs) for mine, theirs in learnt if mine and theirs]
    if not usable:
        return np.empty(0, dtype=np.int64), np.empty(0)
    flat = [(side, 1 / len(runs), run) for pair in usable for side, runs in enumerate(pair) for run in runs]
    known, codes = np.unique(np.concatenate([run for _, _, run in flat]), return_inverse=True)
    counts = np.zeros((2, len(known)))
    runs_of_a_side = len(flat) / 2 / len(usable)
    ends = np.cumsum([len(run) for *_, run in flat])
    for (side, weight, _), code in zip(flat, np.split(codes, ends[:-1]), strict=True):
        counts[side] += weight * runs_of_a_side * np.bincount(code, minlength=len(known))
    prior = strength * counts.sum(axis=0) / max(1.0, counts.sum())
    smooth = (counts + prior) / (counts.sum(axis=1, keepdims=True) + strength)
    return known, np.log(smooth[0]) - np.log(smooth[1])


def _look_up(keys: Ids, known: Ids, weights: Array) -> Array:
    """The weight of each key, 0 for unknown ones."""
    if not len(known):
        return np.zeros(len(keys))
    places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[places] == keys, weights[places], 0.0)
