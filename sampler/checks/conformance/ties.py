"""Differences that only exact ties or an exact mass can show: a dialect, not a mistake, unless the run is strict."""

from dataclasses import replace

import numpy as np

from sampler.checks.conformance.comparison import Comparison
from sampler.checks.conformance.judge import Judge
from sampler.checks.conformance.probes import Mask, Probe
from sampler.errors import Unsupported
from sampler.stages import of_kind

APART = 1e-3
"""By how much equal logits are moved apart, relative to 1 + |logit|: far beyond float32, far below what matters."""

FILTERS = of_kind("tail", "head")

AT_TIES = "dialect at ties"
"""How such a difference is called."""


def without_ties(judge: Judge, comparison: Comparison) -> Comparison:
    """The comparison, whose rows that differ at ties alone are not wrong."""
    tied = at_ties(judge, comparison)
    return replace(comparison, tied=tied) if tied.any() else comparison


def at_ties(judge: Judge, comparison: Comparison) -> Mask:
    """Rows that keep other tokens only because of exact ties or an exact mass, (B,).

    A tied token, or one at an exact threshold, has to be among those that differ, and the engine has to be right on
    the same row with its logits moved apart.
    """
    candidates = _keeps_others(comparison)
    if candidates.any():
        candidates &= _has_ties(judge, comparison)
    if candidates.any():
        try:
            again = judge.compare(moved_apart(comparison.probe))
        except Unsupported:
            return np.zeros_like(candidates)
        candidates &= ~again.wrong
    return candidates


def _keeps_others(comparison: Comparison) -> Mask:
    """Wrong rows in which a filter, or temperature 0, keeps some tokens and only their choice is wrong."""
    config = comparison.probe.config
    if comparison.failure or not (config.greedy or config.active_stages() & FILTERS):
        return np.zeros(len(comparison.probe.logits), dtype=np.bool_)
    keeps = (comparison.scores > -np.inf).any(axis=-1)
    within = comparison.variation <= comparison.expected.tolerance
    return np.asarray(comparison.wrong & keeps & ~comparison.broken & within)


def _has_ties(judge: Judge, comparison: Comparison) -> Mask:
    """Rows in which one of the tokens that differ equals another one before the filters, or all is exact."""
    probe, expected = comparison.probe, comparison.expected
    if probe.kept is not None or probe.counts is not None:
        return np.ones(len(probe.logits), dtype=np.bool_)
    kept = comparison.scores > -np.inf
    outside = (expected.must & ~kept) | (kept & ~expected.may)
    config = replace(probe.config.without(sorted(FILTERS)), temperature=probe.config.temperature or 1.0)
    unfiltered = judge.reference.evaluate(judge.placed(probe).with_config(config))[-1].scores
    return np.array([_twins(scores, ids) for scores, ids in zip(unfiltered, outside, strict=True)], dtype=np.bool_)


def _twins(scores: np.ndarray, chosen: Mask) -> bool:
    """Whether some chosen score occurs more than once."""
    values, count = np.unique(scores[scores > -np.inf], return_counts=True)
    return bool(np.isin(scores[chosen], values[count > 1]).any())


def moved_apart(probe: Probe) -> Probe:
    """The same rows with every logit moved by a random little, so that none equals another."""
    rng = np.random.default_rng([len(probe.name), probe.logits.shape[1]])
    by = APART * rng.uniform(-1, 1, probe.logits.shape)
    with np.errstate(invalid="ignore"):
        logits = np.where(probe.logits > -np.inf, probe.logits + by * (1 + np.abs(probe.logits)), -np.inf)
    name = f"{probe.name}, without ties"
    return replace(probe, logits=logits.astype(np.float32), name=name, kept=None, counts=None)
