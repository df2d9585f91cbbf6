"""Ways to draw that may explain runs: another chain, another network, or steps that are changed before the chain."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp, softmax

from sampler.checks.scoring.named import Named
from sampler.checks.scoring.other_chains import guided, penalised
from sampler.checks.scoring.score import Run, Score
from sampler.config import SamplingConfig
from sampler.engines.base import Explains
from sampler.requests import Steps

Change = Callable[[Run, Steps], Steps]
"""From steps of a run to what the chain gets in their place."""

LEAST_PROBABILITY = 1e-12

REVIVED = 0.02
"""The share of draws from all ids, removed ones included."""

FITTED = 3.0
"""Nats by which a fitted value has to be likelier than one that was in the table before."""


class Way(NamedTuple):
    """Something that an engine may do otherwise. cost: in nats, of values that come from the same tokens.

    change: of the steps. border: the config is the way's from this step on, or before it if `early`, else the asked
    one.
    """

    named: Named
    config: SamplingConfig
    network: Named | None = None
    cost: float = 0.0
    change: Change | None = None
    border: int | None = None
    early: bool = False

    def of(self, run: Run, asked: SamplingConfig, first: int | None = None) -> Run:
        """A run as one that was drawn in this way, or so many of its first tokens."""
        other = run.under(self.network, first)
        if self.change is not None:
            other = other.changed(partial(self.change, run))
        if self.border is None:
            return other
        return replace(other, steps=lambda config: self._in_part(other.steps(asked), config))

    def _in_part(self, blocks: Iterable[Steps], config: SamplingConfig) -> Iterator[Steps]:
        for steps in blocks:
            late = _places(steps) >= (self.border or 0)
            for rows, is_own in ((np.flatnonzero(~late), self.early), (np.flatnonzero(late), not self.early)):
                if len(rows):
                    part = steps.only(rows.tolist())
                    yield part.with_config(config) if is_own else part


def changed_ways(score: Score) -> Iterator[Way]:
    """Those that change what the chain gets."""
    config = score.config
    on = config.active_stages()
    if "repetition_penalty" in on:
        yield from _penalties(config, score.runs[0].prompts())
    if {"cfg", "temperature"} <= on:
        for which in ("conditional", "unconditional"):
            named = Named("temperature", f"a temperature of the {which} logits alone")
            yield Way(named, config.without(["temperature"]), change=partial(_tempered, which, config.temperature))
    if "cfg" in on:
        named = Named("cfg", "guidance of probabilities in place of logits")
        yield Way(named, config.without(["cfg"]), change=partial(_guided_probabilities, config))
        named = Named("cfg", "the unconditional logits of the first step at every step")
        yield Way(named, config, change=partial(_unconditional_at, lambda places: 0 * places))
        named = Named("cfg", "the unconditional logits of the step before")
        yield Way(named, config, change=partial(_unconditional_at, lambda places: np.maximum(places - 1, 0)))
    without = config.without(on)
    if "min_p" in on:
        named = Named("min_p", f"a min_p of the whole probability: {config.min_p:g}, not {config.min_p:g} of the best")
        yield Way(named, without, change=partial(_above, config, score.edges))
    named = Named("draw", "tokens that the filters removed, each as likely as any other")
    yield Way(named, without, change=partial(_revived, config, score.edges))


def _penalties(config: SamplingConfig, prompts: Iterable[str]) -> Iterator[Way]:
    def named(text: str) -> Named:
        return Named("repetition_penalty", text)

    yield Way(named("a penalty that learns each token one step late"), config, change=_late)
    for what in prompts:
        yield Way(named(f"a penalty that sees {what}"), config, change=partial(_after_prompt, what))
    order = config.order
    if "cfg" not in order or order.index("cfg") < order.index("repetition_penalty"):
        text, without = "a penalty of every occurrence of a token", config.without(["cfg"])
        yield Way(named(text), without, change=partial(_every_occurrence, config))
    if "cfg" in config.active_stages():
        without = config.without(["repetition_penalty"])
        text = "a penalty of the conditional logits before guidance"
        yield Way(named(text), without, change=partial(_penalised_first, config.repetition_penalty))


def ways_in_part(score: Score, chains: Iterable[tuple[Named, SamplingConfig]], most: int) -> Iterator[Way]:
    """Other chains from a step on, or up to one: the step that makes so many tokens likeliest."""
    asked = _by_step(score, score.config, most)
    before, after = _sums(asked)
    for named, config in chains:
        other_before, other_after = _sums(_by_step(score, config, most))
        cost = math.log(2 * len(asked))
        for early, total in ((False, before + other_after), (True, other_before + after)):
            inner = total[1:-1]
            if len(inner) and inner.max() > -np.inf:
                border = int(inner.argmax()) + 1
                text = f"{named.text} before step {border}" if early else f"{named.text} from step {border} on"
                yield Way(named._replace(text=text), config, cost=FITTED + cost, border=border, early=early)


def _sums(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of values (S,) the sums before and from each of S + 1 borders on."""
    return np.append(0.0, np.cumsum(values)), np.append(np.cumsum(values[::-1])[::-1], 0.0)


def _by_step(score: Score, config: SamplingConfig, most: int) -> np.ndarray:
    """The log-likelihood of the first tokens of the runs by their step, (S,)."""
    sums, left = np.zeros(max(len(run.tokens) for run in score.runs)), most
    for run in score.runs:
        for steps in run.steps(config):
            np.add.at(sums, _places(steps), score.log_likelihoods(steps))
            left -= len(steps.tokens)
        if left <= 0:
            break
    return sums


def _places(steps: Steps) -> np.ndarray:
    """How many tokens of its run came before each step, (T,)."""
    assert steps.context is not None  # noqa: S101 - scored steps have one
    return steps.context.step


def _late(run: Run, steps: Steps) -> Steps:  # noqa: ARG001
    """The history without its newest token, if it has one behind the prompt."""
    pairs = zip(steps.history, _places(steps).tolist(), strict=True)
    return replace(steps, history=[ids[:-1] if place else ids for ids, place in pairs])


def _after_prompt(what: str, run: Run, steps: Steps) -> Steps:
    size = steps.logits.shape[-1]
    seen = [token for token in run.prompts()[what] if token < size]
    return replace(steps, history=[[*seen, *ids] for ids in steps.history])


def _every_occurrence(asked: SamplingConfig, run: Run, steps: Steps) -> Steps:  # noqa: ARG001
    """Guided logits of tokens that came n times, penalised n - 1 times; the chain does it once more."""
    scores, size = steps.logits.astype(np.float64), steps.logits.shape[-1]
    if steps.uncond_logits is not None and "cfg" in asked.active_stages():
        scores = guided(scores, steps.uncond_logits.astype(np.float64), asked)
    counts = np.stack([np.bincount([token for token in ids if token < size], minlength=size) for ids in steps.history])
    scores = penalised(scores, asked.repetition_penalty ** np.maximum(counts - 1, 0))
    return replace(steps, logits=scores.astype(np.float32), uncond_logits=None)


def _penalised_first(penalty: float, run: Run, steps: Steps) -> Steps:  # noqa: ARG001
    scores = steps.logits.astype(np.float64)
    scores = np.where(steps.in_history, penalised(scores, penalty), scores)
    return replace(steps, logits=scores.astype(np.float32))


def _guided_probabilities(asked: SamplingConfig, run: Run, steps: Steps) -> Steps:  # noqa: ARG001
    """On the scale of the conditional logits, for the penalty."""
    if steps.uncond_logits is None:
        return steps
    cond, uncond = (softmax(rows.astype(np.float64), axis=-1) for rows in (steps.logits, steps.uncond_logits))
    mixed = np.log(np.maximum(guided(cond, uncond, asked), LEAST_PROBABILITY))
    scores = mixed + logsumexp(steps.logits, axis=-1, keepdims=True)
    return replace(steps, logits=scores.astype(np.float32), uncond_logits=None)


def _revived(asked: SamplingConfig, reference: Explains, run: Run, steps: Steps) -> Steps:  # noqa: ARG001
    p = softmax(reference.last(steps.with_config(asked)).scores, axis=-1)
    scores = np.log((1 - REVIVED) * p + REVIVED / p.shape[-1])
    return replace(steps, logits=scores.astype(np.float32), uncond_logits=None)


def _unconditional_at(place: Callable[[np.ndarray], np.ndarray], run: Run, steps: Steps) -> Steps:
    """With the unconditional logits of other steps of the run, by the number of tokens before them."""
    if steps.uncond_logits is None:
        return steps
    wanted, rows, start = place(_places(steps)), np.empty_like(steps.uncond_logits), 0
    for others in run.steps(steps.configs[0]):
        if start > wanted.max():
            break
        found = np.flatnonzero((wanted >= start) & (wanted < start + len(others.tokens)))
        assert others.uncond_logits is not None  # noqa: S101 - as of the other steps of the run
        rows[found] = others.uncond_logits[wanted[found] - start]
        start += len(others.tokens)
    return replace(steps, uncond_logits=rows)


def _above(asked: SamplingConfig, reference: Explains, run: Run, steps: Steps) -> Steps:  # noqa: ARG001
    """What min_p leaves if it is a bound of the probability itself, or the likeliest token."""
    scores = reference.last(steps.with_config(asked.without(["min_p"]))).scores
    p = softmax(scores, axis=-1)
    kept = (p >= asked.min_p) | (p == p.max(axis=-1, keepdims=True))
    return replace(steps, logits=np.where(kept, scores, -np.inf).astype(np.float32), uncond_logits=None)


def _tempered(which: str, temperature: float, run: Run, steps: Steps) -> Steps:  # noqa: ARG001
    if which == "conditional":
        return replace(steps, logits=steps.logits / np.float32(temperature))
    uncond = steps.uncond_logits
    return replace(steps, uncond_logits=None if uncond is None else uncond / np.float32(temperature))
