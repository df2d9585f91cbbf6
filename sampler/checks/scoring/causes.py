"""What makes the tokens of runs likeliest, of all that an engine may do otherwise."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.stats import binom, poisson

from sampler.checks.scoring.alternatives import causes_alone, looser_configs, other_configs
from sampler.checks.scoring.impossible import expected_impossible
from sampler.checks.scoring.knobs import Knob, difference, differing, estimated
from sampler.checks.scoring.missing import filtered, other_vocabulary
from sampler.checks.scoring.named import Named
from sampler.checks.scoring.score import Score
from sampler.config import SamplingConfig

CANDIDATES = 3
"""The likeliest causes, each of which is named only if the runs do not reject it."""

UNLIKELY = 0.01
"""The false-alarm rate at which runs reject a cause: to name one takes less proof than to accuse an engine."""

FITTED = 3.0
"""Nats by which a fitted value has to be likelier than one that was in the table before."""

LEAST_TOKENS = 200
"""Tokens from which sampling parameters are estimated, at least."""

TEMPERATURE, BY_EDGE, EDGE = "temperature", "temperature by the edge", "edge of the support"
"""Names of estimates."""

MOST_TOKENS = 600
"""Tokens from which the likeliest cause is chosen."""


class Way(NamedTuple):
    """Something that an engine may do otherwise. fitted: its value comes from the same tokens."""

    named: Named
    config: SamplingConfig
    network: Named | None = None
    fitted: bool = False


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
    steps = (steps for run in score.runs for steps in run.steps(score.config))
    knobs = plain(estimated(score.config, steps)) if score.checked >= LEAST_TOKENS else ()
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
    ways += [Way(named, config, fitted=True) for named, config in estimated_configs(score.config, knobs)]
    ended = (run.tokens for run in score.runs if run.tokens and run.tokens[-1] in score.eos_ids)
    shortest = min((len(tokens) - 1 for tokens in ended), default=0)
    ways += [Way(named, config) for named, config in causes_alone(score.config, score.eos_ids, shortest)]
    ways += [Way(named, score.config, named) for named in score.runs[0].networks()]
    likelihoods = [_likelihood(score, way) for way in ways]
    bets = score.wagers.bets
    gained = max(likelihoods) - _likelihood(score, Way(NOTHING, score.config)) if not score.impossible else math.inf
    found = score.wagers.names[bets.best]
    if bets.logs.max() > gained and bets.best < bets.count:  # larger errors are named where nothing else explains them
        return found
    best = sorted(range(len(ways)), key=lambda at: -likelihoods[at])[:CANDIDATES]
    likely = (ways[at] for at in best if likelihoods[at] > -math.inf)
    causes = (way.named for way in likely if not _too_few(score, way) and not _under(score, way).decided)
    larger_errors = found if score.wagers.rejected and bets.best >= bets.count else None
    return next(causes, FORGETFUL if _misses_history(score) else larger_errors)


def _are_places(score: Score) -> bool:
    """Whether every one of the first tokens is below the number of tokens that its step may keep."""
    first = [steps for run in score.runs for steps in run.steps(score.config)][:1]
    tokens = sum(len(steps.tokens) for steps in first)
    kept = ((score.edges.bounds(steps)[1].sum(axis=-1), steps.tokens) for steps in first)
    return tokens >= LEAST_PLACES and all(bool((drawn < count).all()) for count, drawn in kept)


def _too_few(score: Score, way: Way) -> bool:
    """Whether there are fewer impossible tokens than draws of a cause would have."""
    expected, edges = 0.0, (score.edges, *score.wider)[-1]
    for run in score.runs:
        pairs = zip(run.steps(score.config), run.under(way.network).steps(way.config), strict=True)
        expected += sum(expected_impossible(*pair, edges) for pair in pairs)
    return bool(poisson.cdf(len(score.impossible), expected) <= UNLIKELY)


def _misses_history(score: Score) -> bool:
    """Whether most impossible tokens came before and only the penalty removes them, more of them than comes again."""
    spared = repeated = 0
    without = score.config.without(["repetition_penalty"])
    for steps in (steps for run in score.runs for steps in run.steps(score.config)):
        rows = np.arange(len(steps.tokens))
        again, kept = (of[rows, steps.tokens] for of in (steps.in_history, score.edges.bounds(steps)[1]))
        free = score.edges.bounds(steps.with_config(without))[1][rows, steps.tokens]
        spared, repeated = spared + int((again & ~kept & free).sum()), repeated + int(again.sum())
    count = len(score.impossible)
    chance = binom.sf(spared - 1, count, repeated / score.checked)
    return bool(spared > count / 2 and chance <= UNLIKELY)


def _likelihood(score: Score, way: Way) -> float:
    """The log-likelihood of the first tokens if they were drawn in another way, -inf if one cannot be."""
    total, left = -FITTED if way.fitted else 0.0, MOST_TOKENS
    for run in score.runs:
        for steps in run.under(way.network, MOST_TOKENS).steps(way.config):
            total += score.log_likelihood(steps)
            left -= len(steps.tokens)
            if left <= 0 or total == -math.inf:
                return total
    return total


def _under(score: Score, way: Way) -> Score:
    """The same runs scored as if they had been drawn in another way."""
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
        other.add(run.under(way.network).until(lambda: other.decided))
        if other.decided:
            break
    return other
