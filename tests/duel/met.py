"""Model equality testing (arXiv 2410.20247) with its own package: MMD with the Hamming kernel, two samples of runs.

Its p-values come from permutations, of which nobody makes 1e6: the upper tail is that of a Pearson III distribution
with the mean, variance and skewness of 500 permutations of runs of one text. Where no number of runs is enough, the
number is extrapolated: the statistic in units of its standard deviation grows as the number of runs.
"""

from typing import NamedTuple

import numpy as np
from model_equality_testing.distribution import CompletionSample
from model_equality_testing.tests import mmd_hamming
from scipy.stats import pearson3, skew

from sampler.checks.longform.runs import TokenRun
from tests.duel.tokens import ALPHA

PERMUTATIONS, SEEN = 500, 1e-3
"""Runs are extrapolated if the p-value of all is at most SEEN."""

PADDING = -1


class Figure(NamedTuple):
    """Tokens of the engine until it is rejected; measured, or extrapolated."""

    tokens: int | None
    extrapolated: bool = False


def completions(runs: list[TokenRun], length: int) -> np.ndarray:
    rows = [[*run.tokens[:length], *[PADDING] * (length - len(run.tokens))] for run in runs]
    return np.array(rows, dtype=np.int64).reshape(-1, length)


class Comparison:
    """As many runs of each text on both sides."""

    def __init__(self, runs: list[TokenRun], reference: list[TokenRun]) -> None:
        texts = list(dict.fromkeys(run.text for run in reference))
        length = max(len(run.tokens) for run in [*runs, *reference])
        self.prompts = [np.array([texts.index(run.text) for run in side]) for side in (runs, reference)]
        self.rows = [completions(side, length) for side in (runs, reference)]
        self.texts = len(texts)

    @property
    def statistic(self) -> float:
        sides = (CompletionSample(*side, self.texts) for side in zip(self.prompts, self.rows, strict=True))
        return float(mmd_hamming(*sides))

    def permuted(self) -> np.ndarray:
        """The statistic after permutations within each text: (PERMUTATIONS,)."""
        rng, prompts, rows = np.random.default_rng(0), np.concatenate(self.prompts), np.concatenate(self.rows)
        kernel = np.stack([(row == rows).mean(axis=-1) for row in rows]) * (prompts[:, None] == prompts)
        np.fill_diagonal(kernel, 0)
        mine = np.arange(len(rows)) < len(self.rows[0])
        chosen = np.empty((len(rows), PERMUTATIONS))
        for text in range(self.texts):
            places = np.flatnonzero(prompts == text)
            chosen[places] = rng.permuted(np.tile(mine[places], (PERMUTATIONS, 1)), axis=1).T
        return mmd(kernel, prompts, chosen)

    @property
    def deviation(self) -> tuple[float, float]:
        """The statistic in standard deviations of the null, and how many are rejected at ALPHA."""
        null = self.permuted()
        return (self.statistic - null.mean()) / null.std(), float(pearson3.isf(ALPHA, skew(null)))


def mmd(kernel: np.ndarray, prompts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The statistic of mmd_hamming for several choices of the first side, (N, P), from a kernel without diagonal."""
    same = (prompts[:, None] == prompts) & ~np.eye(len(prompts), dtype=np.bool_)

    def within(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return (one * (kernel @ other)).sum(axis=0) / (one * (same @ other)).sum(axis=0)

    rest = 1 - chosen
    return within(chosen, chosen) - 2 * within(chosen, rest) + within(rest, rest)


def tokens_to_reject(runs: list[TokenRun], reference: list[TokenRun], texts: int) -> Figure:
    """Of runs in the order of their seeds, each text once a seed."""
    total = min(len(runs), len(reference)) // texts
    numbers = sorted({number for number in (2, 3, 4, 6, 8, 11, 16, 22) if number < total} | {total})
    for number in numbers:
        count = number * texts
        found, needed = Comparison(runs[:count], reference[:count]).deviation
        tokens = sum(len(run.tokens) for run in runs[:count])
        if found >= needed:
            return Figure(tokens)
    return Figure(round(tokens * needed / found), extrapolated=True) if found >= seen(needed) else Figure(None)


def seen(needed: float) -> float:
    """Deviations of a p-value of SEEN, about in the ratio of the normal quantiles."""
    from scipy.stats import norm

    return needed * norm.isf(SEEN) / norm.isf(ALPHA)
