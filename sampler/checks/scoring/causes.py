"""What makes the tokens of runs likeliest, of all that an engine may do otherwise."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax
from scipy.stats import binom, chi2, norm, poisson

from sampler.checks.scoring.alternatives import causes_alone, configs_in_part, looser_configs, other_configs
from sampler.checks.scoring.impossible import as_explained
from sampler.checks.scoring.knobs import Knob, difference, differing, estimated
from sampler.checks.scoring.missing import filtered, other_vocabulary
from sampler.checks.scoring.named import Named
from sampler.checks.scoring.score import Score
from sampler.checks.scoring.ways import FITTED, Way, changed_ways, spared_after, ways_in_part
from sampler.config import SamplingConfig

CANDIDATES = 3
"""The likeliest causes, each of which is named only if the runs do not reject it."""

UNLIKELY = 0.003
"""The false-alarm rate at which each of three tests rejects a cause: it takes less proof than to accuse an engine."""

LEAST_TOKENS = 200
"""Tokens from which sampling parameters are estimated, at least."""

TEMPERATURE, BY_EDGE, EDGE = "temperature", "temperature by the edge", "edge of the support"
"""Names of estimates."""

MOST_TOKENS = 600
"""Tokens from which the likeliest cause is chosen, or as many as were needed to reject."""

BEHIND = 15.0
"""Nats behind the third likeliest cause at which a cause is given up."""


NOTHING = Named("", "nothing")
FORGETFUL = Named("repetition_penalty", "a penalty that misses a part of the history")

PLACES = Named("draw", "the place of the drawn token in the sorted order in place of its id")
"""What comes of indices into sorted scores that are not mapped back to ids; so began this suite."""

LEAST_PLACES = 20
"""Tokens that have to be places of kept tokens, at least; by chance few ids are as small."""


class Explanation(NamedTuple):
    """The cause, if one is known. knobs: the parameters that differ, in a sentence. tokens: from how many of them."""

    cause: Named | None = None
    knobs: str = ""
    tokens: int = 0

    @property
    def text(self) -> str:
        said = f"it looks like {self.cause.text}" if self.cause else "none of the known causes explains it"
        return f"; {said}" + (f"; estimated from {self.tokens:,} tokens: {self.knobs}" if self.knobs else "")


NO_EXPLANATION = Explanation()


def plain(knobs: Sequence[Knob]) -> tuple[Knob, ...]:
    """The estimates with one temperature: that of the edge, which is sharper, if the other tokens agree with it.

    If they do not, min_p may be another one, and the edge itself is told.
    """
    found = {knob.name: knob for knob in knobs}
    one, other = found.get(TEMPERATURE), found.get(BY_EDGE)
    agree = one is not None and other is not None and one.low <= other.high and other.low <= one.high
    left_out = {TEMPERATURE, EDGE} if agree else {BY_EDGE}
    kept = (knob for knob in knobs if knob.name not in left_out)
    return tuple(replace(knob, name=TEMPERATURE) if knob.name == BY_EDGE else knob for knob in kept)


def estimated_configs(config: SamplingConfig, knobs: Sequence[Knob]) -> Iterator[tuple[Named, SamplingConfig]]:
    """The same chain with one estimated parameter that differs from what was asked for."""
    for knob in differing(knobs):
        value = round(knob.estimate, 3)
        match knob.name:
            case "CFG weight":
                yield Named("cfg", f"a guidance weight near {value:.3g}"), replace(config, cfg_weight=value)
            case "penalty":
                named = Named("repetition_penalty", f"a penalty near {value:.3g}")
                yield named, replace(config, repetition_penalty=value)
            case "temperature":
                yield Named("temperature", f"a temperature near {value:.3g}"), replace(config, temperature=value)


def explained(score: Score) -> Explanation:
    """Why the runs are no draws of the reference."""
    if (without := other_vocabulary(score) or filtered(score)) is not None:
        return Explanation(without)
    knobs = plain(estimated(score.config, score.steps)) if score.checked >= LEAST_TOKENS else ()
    cause = _cause(score, knobs)
    return Explanation(cause, "" if cause in score.runs[0].networks() else difference(knobs), score.checked)


def _cause(score: Score, knobs: Sequence[Knob]) -> Named | None:
    """What an engine does otherwise that makes these tokens likeliest and is not rejected itself."""
    if score.impossible and _are_places(score):
        return PLACES
    chains: dict[SamplingConfig, Way] = {}  # two rows of the tables may be one chain
    for named, config in (*looser_configs(score.config), *other_configs(score.config)):
        chains.setdefault(config, Way(named, config))
    ways = [*chains.values()]
    ways += [Way(named, config, cost=FITTED) for named, config in estimated_configs(score.config, knobs)]
    ended = (run.tokens for run in score.runs if run.tokens and run.tokens[-1] in score.eos_ids)
    shortest = min((len(tokens) - 1 for tokens in ended), default=0)
    ways += [Way(named, config) for named, config in causes_alone(score.config, score.eos_ids, shortest)]
    ways += [Way(named, score.config, named) for named in score.runs[0].networks()]
    ways += [*changed_ways(score), *ways_in_part(score, configs_in_part(score.config), MOST_TOKENS)]
    most = max(MOST_TOKENS, score.wagers.enough or 0)
    asked = _likelihoods(score, Way(NOTHING, score.config), most)
    best = _likeliest(score, ways, most, asked)
    bets = score.wagers.bets
    gained = best[0][0] - asked[-1] if best and asked and not score.impossible else math.inf
    found = score.wagers.names[bets.best]
    if bets.logs.max() > gained and bets.best < bets.count:  # larger errors are named where nothing else explains them
        return found
    causes = (
        way.named for _, way in best if not (_untypical(score, way) or _too_few(score, way) or _rejected(score, way))
    )
    if (cause := next(causes, None)) is not None:
        return cause
    larger_errors = found if score.wagers.rejected and bets.best >= bets.count else None
    return FORGETFUL if _misses_history(score) else larger_errors


def _are_places(score: Score) -> bool:
    """Whether every one of the first tokens is below the number of tokens that its step may keep."""
    first = [*islice(score.steps, 1)]
    tokens = sum(len(steps.tokens) for steps in first)
    kept = ((score.edges.bounds(steps)[1].sum(axis=-1), steps.tokens) for steps in first)
    return tokens >= LEAST_PLACES and all(bool((drawn < count).all()) for count, drawn in kept)


def _too_few(score: Score, way: Way) -> bool:
    """Whether there are fewer impossible tokens than draws of a cause would have, or less likely ones.

    By Fisher's method: -2 times the sum of the logarithms of their ranks is chi-squared.
    """
    expected, ranks, edges = 0.0, list[float](), (score.edges, *score.wider)[-1]
    right = way._replace(network=None, change=None, config=score.config)
    for run in score.runs:
        asked, drawn = right.of(run, score.config), way.of(run, score.config)
        for pair in zip(asked.steps(score.config), drawn.steps(way.config), strict=True):
            found = as_explained(*pair, edges)
            expected, ranks = expected + found.expected, ranks + found.ranks
    few = poisson.cdf(len(score.impossible), expected)
    deep = chi2.sf(-2 * np.log(ranks).sum(), 2 * len(ranks)) if ranks else 1.0
    return bool(min(few, deep) <= UNLIKELY)


def _misses_history(score: Score) -> bool:
    """Whether most impossible tokens came before and only the penalty removes them, more of them than comes again."""
    repeated = sum(int(steps.in_history[np.arange(len(steps.tokens)), steps.tokens].sum()) for steps in score.steps)
    spared, count = len(spared_after(score)), len(score.impossible)
    chance = binom.sf(spared - 1, count, repeated / score.checked)
    return bool(spared > count / 2 and chance <= UNLIKELY)


class _Likely(NamedTuple):
    """A way, and the log-likelihood of the tokens after each run if they were drawn in it."""

    totals: Sequence[float]
    way: Way


def _likeliest(score: Score, ways: Iterable[Way], most: int, asked: Sequence[float]) -> list[tuple[float, Way]]:
    """The CANDIDATES likeliest ways with the log-likelihoods of so many tokens, the likeliest first.

    asked: those of what was asked for, which a cause has to exceed, or empty.
    """
    best: list[_Likely] = []
    for way in ways:
        known = [asked, *(likely.totals for likely in best[CANDIDATES - 1 :])]
        least = max(known, key=lambda totals: max(totals[-1:], default=-math.inf))
        totals = _likelihoods(score, way, most, least)
        if totals:
            best = sorted([*best, _Likely(totals, way)], key=lambda likely: -likely.totals[-1])[:CANDIDATES]
    return [(likely.totals[-1], likely.way) for likely in best]


def _likelihoods(score: Score, way: Way, most: int, least: Sequence[float] = ()) -> list[float]:
    """The log-likelihood after each run if so many tokens were drawn in another way; empty if they cannot be.

    Runs with impossible tokens come first, since few ways make these possible. least: those of another way. One that
    falls too far behind it is given up, which spares forward passes.
    """
    totals, total, left = list[float](), -way.cost, most
    telling = {one.run for one in score.impossible}
    for run in sorted(score.runs, key=lambda run: run.name not in telling):
        for steps in way.of(run, score.config, most).steps(way.config):
            total += float(score.log_likelihoods(steps)[:left].sum())
            left = max(left - len(steps.tokens), 0)
            if total == -math.inf:
                return []
        if least and total <= least[len(totals)] - BEHIND:
            return []
        totals.append(total)
        if not left:
            break
    return totals


def _untypical(score: Score, way: Way) -> bool:
    """Whether the tokens are likelier or less likely than draws of a cause would be, by the law of large numbers."""
    surprise = variance = 0.0
    for run in score.runs:
        for steps in way.of(run, score.config).steps(way.config):
            logs = log_softmax(score.reference.last(steps, "generous").scores, axis=-1)
            own = logs[np.arange(len(logs)), steps.tokens]
            values = np.where(logs > -np.inf, logs, 0.0)
            mean = (np.exp(logs) * values).sum(axis=-1, keepdims=True)
            variance += float((np.exp(logs) * (values - mean) ** 2).sum())
            surprise += float((mean[:, 0] - own)[own > -np.inf].sum())
    return bool(2 * norm.sf(abs(surprise) / math.sqrt(variance)) <= UNLIKELY) if variance else False


def _rejected(score: Score, way: Way) -> bool:
    """Whether the same runs are rejected if they are scored as if they had been drawn in another way."""
    other = replace(
        score,
        config=way.config,
        alpha=UNLIKELY,
        networks=(),
        noise=False,
        checked=0,
        impossible=[],
        proof=None,
        wrong=[],
        runs=[],
    )
    for run in score.runs:
        other.add(way.of(run, score.config).until(lambda: other.decided))
        if other.decided:
            return True
    return False
