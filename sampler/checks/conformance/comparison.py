"""Compare an engine's answer with the reference: which rows are wrong, and a description of the difference."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from sampler.checks.conformance.probes import Mask, Probe
from sampler.checks.verdict import some_ids
from sampler.config import SamplingConfig
from sampler.engines.calls import Answer
from sampler.statistics.distance import UNSEEN, drawable, total_variation

Array = NDArray[np.float64]

VARIATION = 1e-5
"""Total variation that float32 rounding can cause between two correct chains, in addition to its effect on scores."""

FAR = 25.0
FLAT = 0.1
"""Scores that differ by less, more than FAR nats below the best, look like a finite mask."""


HOT = 2.5
"""Above this temperature a mask that was deep enough before tempering still counts as one."""


def unseen_at(config: SamplingConfig) -> float:
    """How many nats below the best a token counts as removed, at the end of the chain."""
    hot = "temperature" in config.active_stages() and config.temperature > HOT
    return UNSEEN * HOT / config.temperature if hot else UNSEEN


@dataclass(frozen=True, eq=False)
class Expected:
    """The reference's answer to a probe. must, may: bool (B, V); scores: float64; tolerance: total variation (B,)."""

    must: Mask
    may: Mask
    scores: Array
    tolerance: Array
    counts: NDArray[np.int64] | None
    rounding: float = 0.0
    """Relative tolerance of `counts`: lower precision does not add equal probabilities exactly."""

    unseen: float = UNSEEN
    """How many nats below the best a token counts as removed."""

    def other_count(self, kept: Mask) -> Mask:
        """Rows that keep a wrong number of equal tokens, (B,). Those that no draw can reach may be among them."""
        if self.counts is None:
            return np.zeros(len(kept), dtype=np.bool_)
        allowed = np.ceil(self.counts * self.rounding)
        unseen = ((self.scores > -np.inf) & (drawable(self.scores, self.unseen) == -np.inf)).sum(axis=-1)
        excess = kept.sum(axis=-1) - self.counts
        return np.asarray((excess > allowed) | (excess < -allowed - unseen))


@dataclass(frozen=True, eq=False)
class Comparison:
    """One answer and what was expected. failure: why there are no scores to compare."""

    probe: Probe
    expected: Expected
    answer: Answer
    failure: str = ""
    tied: Mask | None = None
    """Rows (B,) that differ only because of exact ties, which are not counted as wrong."""

    @property
    def at_ties(self) -> Mask:
        """Rows (B,) that differ at ties alone."""
        return np.zeros(len(self.probe.logits), dtype=np.bool_) if self.tied is None else self.tied

    @cached_property
    def scores(self) -> Array:
        """The engine's scores, float64 (B, V); -inf for tokens that cannot be drawn."""
        assert self.answer.value is not None  # noqa: S101 - only used without a failure
        return drawable(self.answer.value, self.expected.unseen)

    @cached_property
    def broken(self) -> Mask:
        return np.asarray((np.isnan(self.scores) | (self.scores == np.inf)).any(axis=-1))

    @cached_property
    def variation(self) -> Array:
        """Total variation on the tokens that both keep, (B,)."""
        both = self.expected.must & (self.scores > -np.inf) & ~self.broken[:, None]
        result = np.zeros(len(both))
        rows = both.any(axis=-1)
        if rows.any():
            mine, other = (np.where(both, scores, -np.inf)[rows] for scores in (self.scores, self.expected.scores))
            result[rows] = total_variation(mine, other)
        return result

    @cached_property
    def wrong(self) -> Mask:
        """Rows that differ from the reference by more than it allows, (B,)."""
        if self.failure:
            return np.ones(len(self.probe.logits), dtype=np.bool_)
        kept = self.scores > -np.inf
        others = ((self.expected.must & ~kept) | (kept & ~self.expected.may)).any(axis=-1)
        others |= self.expected.other_count(kept)
        wrong = self.broken | others | (self.variation > self.expected.tolerance)
        return np.asarray(wrong & ~self.at_ties)

    @property
    def distance(self) -> float:
        """The largest total variation of a row, over all of its tokens; 1 without scores."""
        return 1.0 if self.failure else float(self.total.max())

    @cached_property
    def total(self) -> Array:
        """Total variation between the engine's and the reference's distribution, (B,); 1 for rows without scores."""
        mine = np.where(self.broken[:, None], 0.0, self.scores)
        result = np.ones(len(mine))
        rows = ~self.broken & (mine > -np.inf).any(axis=-1) & (self.expected.scores > -np.inf).any(axis=-1)
        if rows.any():
            result[rows] = total_variation(mine[rows], self.expected.scores[rows])
        return result

    def mask_depth(self, row: int) -> float | None:
        """How many nats below the best the wrongly kept tokens lie, if they have one score as under a finite mask."""
        scores = self.scores[row]
        more = scores[(scores > -np.inf) & ~self.expected.may[row]]
        if len(more) == 0 or self.broken[row] or np.ptp(more) > FLAT or more.max() > scores.max() - FAR:
            return None
        return float(scores.max() - more.max())

    def describe_mask(self, row: int) -> str:
        """Describe a row whose removed tokens can be drawn."""
        ids = np.flatnonzero((self.scores[row] > -np.inf) & ~self.expected.may[row])
        return (
            f"the removed tokens {some_ids(ids)} are {self.mask_depth(row):.3g} nats below the best, where draws reach "
            f"them; removed is -inf, or more than {self.expected.unseen:.3g} nats below"
        )

    def describe(self, row: int) -> str:
        """Describe a wrong row: the kept tokens as sets first, then the worst token and the tolerance."""
        name = f"{self.probe.name}, row {row} ({self.probe.kinds[row]})"
        if self.failure:
            return f"{self.probe.name}: {self.failure}"
        ours, theirs = self.scores[row], self.expected.scores[row]
        if self.broken[row]:
            bad = np.flatnonzero(np.isnan(ours) | (ours == np.inf))
            return f"{name}: {len(bad)} scores are NaN or +inf, {some_ids(bad)}"
        kept = ours > -np.inf
        more = np.flatnonzero(kept & ~self.expected.may[row])
        less = np.flatnonzero(self.expected.must[row] & ~kept)
        sets = [f"it {verb} {some_ids(ids)}" for verb, ids in (("keeps also", more), ("removes", less)) if len(ids)]
        if not sets and self.expected.counts is not None and kept.sum() != self.expected.counts[row]:
            sets = [f"it keeps {kept.sum()} of equal tokens, {self.expected.counts[row]} are expected"]
        if self.mask_depth(row) is not None:
            return f"{name}: {self.describe_mask(row)}"
        if sets:
            return (
                f"{name}: {' and '.join(sets)}; it keeps {kept.sum()} tokens, the reference {(theirs > -np.inf).sum()}"
            )
        mine, other = softmax(ours), softmax(theirs)
        token = int(np.argmax(np.abs(mine - other)))
        return (
            f"{name}: the same tokens are kept, token {token} has p = {mine[token]:.6g} instead of {other[token]:.6g} "
            f"(total variation {self.variation[row]:.2g}, allowed {self.expected.tolerance[row]:.2g})"
        )
