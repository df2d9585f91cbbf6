"""What reference runs say of a log that is compared with them."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, islice, pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sampler.checks.longform.log.edits import Fix
from sampler.checks.longform.log.faults import body, common_prefix, repeats
from sampler.checks.longform.runs import TokenRun, end_tokens

Ids = NDArray[np.int64]

CHANCE: Final = 1e-3
"""How probable it may be that all runs of one side begin in a way and none of the other's, if both are alike."""

CLEARER: Final = 0.7
"""Nats by which an id of a shifted log must be more likely, in the mean, after the shift."""

LEAST_IDS: Final = 15
"""Different ids of a log that tell by how much it is shifted."""

LONG: Final = 4
"""Tokens that few runs have in common by more than chance, if the user says that they have."""

OFTEN: Final = 200
"""The most frequent ids of both sides, whose differences are tried."""

PAIRS: Final = 2_000
"""Neighbours of a log that tell the same, where the reference has nearly all ids."""

BEYOND: Final = 0.1
"""The share of tokens beyond the largest id of the reference, of which right logs have next to none."""


PAIRED: Final = np.array([2**31, 1], dtype=np.int64)
"""What makes one number of two ids."""


class Counts(NamedTuple):
    """How often each of some numbers comes. keys: in order; values: of each."""

    keys: Ids
    values: Ids

    @classmethod
    def of_all(cls, counts: Mapping[int, int]) -> "Counts":
        keys = np.array(sorted(counts), dtype=np.int64)
        return cls(keys, np.array([counts[key] for key in keys.tolist()], dtype=np.int64))

    def of(self, numbers: Ids) -> Ids:
        """Of each number; 0 for one that never comes."""
        places = np.searchsorted(self.keys, numbers).clip(max=len(self.keys) - 1)
        return np.where(self.keys[places] == numbers, self.values[places], 0)


@dataclass(frozen=True)
class ByRuns:
    """Known of right runs: what the reference runs have. asked: fixes that the user has named, for few runs too."""

    reference: Sequence[TokenRun]
    whose: str = "the reference"
    asked: Collection[Fix] = ()
    needs_eos: bool = True

    @cached_property
    def counts(self) -> Counter[int]:
        """How often each id comes."""
        return Counter(token for run in self.reference for token in run.tokens if token >= 0)

    @cached_property
    def eos_ids(self) -> Collection[int]:
        ended = sum(run.ended for run in self.reference)
        found = end_tokens(self.reference)
        return tuple(found) if found and 10 * sum(found.values()) >= 9 * ended else ()

    @cached_property
    def pairs(self) -> Counter[tuple[int, int]]:
        """How often each id comes behind each other one."""
        return Counter(pair for run in self.reference for pair in pairwise(run.tokens))

    @cached_property
    def firsts(self) -> dict[str, Counter[int]]:
        """How often each id is the first one, by text."""
        found: dict[str, Counter[int]] = {}
        for run in self.reference:
            found.setdefault(run.text, Counter()).update(run.tokens[:1])
        return found

    def _behind(self, before: int, token: int) -> float:
        """How likely an id comes behind another one, in nats."""
        return math.log((self.pairs[before, token] + 0.5) / (self.counts[before] + 0.5 * len(self.counts)))

    def _begins(self, text: str, token: int) -> float:
        """How likely an id is the first one of a text, in nats."""
        counts = self.firsts.get(text) or self.counts
        return math.log((counts[token] + 0.5) / (counts.total() + 0.5 * len(self.counts)))

    def offset(self, runs: Sequence[TokenRun]) -> int:
        first = len(common_prefix(runs)) if len({run.tokens for run in runs}) > 1 else 0
        bodies = [[token for token in body(run.tokens, first) if token >= 0] for run in runs]
        mine = Counter(token for tokens in bodies for token in tokens)
        if len(mine) < LEAST_IDS or not self.counts:
            return 0
        often = [[token for token, _ in of.most_common(OFTEN)] for of in (mine, self.counts)]
        shifts = Counter(one - other for one in often[0] for other in often[1])
        tried = [0, *(shift for shift, _ in shifts.most_common(OFTEN) if shift)]
        ids = np.array(list(mine), dtype=np.int64)
        pairs = np.array(list(islice(chain.from_iterable(map(pairwise, bodies)), PAIRS)), dtype=np.int64)
        for fit in (partial(self._fit, ids), partial(self._fit_of_pairs, pairs.reshape(-1, 2))):
            found = {shift: fit(shift) for shift in tried}
            best, *others = sorted(found, key=found.__getitem__, reverse=True)
            if found[best] > found[others[0] if best == 0 else 0] + CLEARER:
                return best
        return 0

    def _fit(self, ids: Ids, shift: int) -> float:
        """The mean logarithm of how often the reference has each of the ids, less a shift."""
        return float(np.log(self._singly.of(ids - shift) + 0.5).mean())

    def _fit_of_pairs(self, pairs: Ids, shift: int) -> float:
        """How likely ids (n, 2) come behind each other, less a shift: in the mean, in nats."""
        before = self._singly.of(pairs[:, 0] - shift) + 0.5 * len(self.counts)
        return float(np.log((self._paired.of((pairs - shift) @ PAIRED) + 0.5) / before).mean()) if len(pairs) else 0.0

    @cached_property
    def _singly(self) -> "Counts":
        return Counts.of_all(self.counts)

    @cached_property
    def _paired(self) -> "Counts":
        return Counts.of_all({one * PAIRED[0] + other: count for (one, other), count in self.pairs.items()})

    def foreign(self, runs: Sequence[TokenRun], prefix: Sequence[int]) -> int:
        telling = self._is_telling(runs)
        first, lead = prefix[0], 0
        if first not in self.counts and (telling or "bos" in self.asked):
            lead = repeats(prefix)
        rest = tuple(prefix[lead:])
        long = telling or ("prefix" in self.asked and len(rest) >= LONG and len({run.tokens for run in runs}) > 1)
        if not long or len(rest) < 2 or any(run.tokens[:2] == rest[:2] for run in self.reference):
            return lead
        best = max(range(lead + 1, len(prefix) + 1), key=lambda count: (self._cut(runs, prefix, count), count))
        return best if len(set(prefix[:best])) > 1 else lead

    def _is_telling(self, runs: Sequence[TokenRun]) -> bool:
        """Whether all runs begin alike, and none of the reference does, by more than chance; by common text."""
        mine, theirs = _different(runs), _different(self.reference)
        if not set(mine) & set(theirs):
            mine, theirs = Counter({"": mine.total()}), Counter({"": theirs.total()})
        ways = sum(math.log(math.comb(count + theirs[text], count)) for text, count in mine.items())
        return ways >= -math.log(CHANCE)

    def _cut(self, runs: Sequence[TokenRun], prefix: Sequence[int], count: int) -> float:
        """How likely runs begin behind so many tokens, in nats: what is before may be anything."""
        anything = -math.log(len(self.counts))
        before = sum(max(anything, self._behind(*pair)) for pair in pairwise(prefix[:count]))
        found = 0.0
        for run in runs:
            behind = pairwise(run.tokens[count : len(prefix) + 1])
            found += before + self._begins(run.text, run.tokens[count]) + sum(self._behind(*pair) for pair in behind)
        return found

    @cached_property
    def largest(self) -> int:
        return max(self.counts, default=-1)

    def is_beyond(self, token: int) -> bool:
        return token > self.largest

    def vocabulary(self, runs: Sequence[TokenRun]) -> str:
        ids = beyond_all(runs, self.largest, BEYOND)
        return f"ids go up to {ids:,}, those of {self.whose} to {self.largest:,}" if ids else ""


def beyond_all(runs: Sequence[TokenRun], largest: int, share: float) -> int:
    """The largest id, if more than a share of the tokens, and a token of most runs, are above `largest`; else 0."""
    most = [max(run.tokens, default=0) for run in runs]
    beyond = sum(token > largest for run in runs for token in run.tokens)
    is_common = 2 * sum(token > largest for token in most) > len(runs)
    return max(most) if is_common and beyond > share * sum(len(run.tokens) for run in runs) else 0


def _different(runs: Sequence[TokenRun]) -> Counter[str]:
    """How many different runs each text has."""
    return Counter(text for text, _ in {(run.text, run.tokens) for run in runs})
