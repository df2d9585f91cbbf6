"""Ways to draw that may explain runs: another chain, another network, or steps that are changed before the chain."""

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from sampler.checks.scoring import changes
from sampler.checks.scoring.alternatives import FILTERS
from sampler.checks.scoring.changes import Change
from sampler.checks.scoring.named import Named
from sampler.checks.scoring.score import Run, Score
from sampler.config import SamplingConfig
from sampler.requests import Steps
from sampler.stages import Stage

CHUNKS = (8, 10, 16, 20, 25, 32, 40, 50, 64)
"""Tokens after which an engine may hand over what it has."""

FRAMES = (2, 3, 4, 5, 6, 8, 10, 16, 25)

XTC = ((0.5, 0.1), (0.5, 0.05), (0.1, 0.1))
"""Probability and threshold: those of llama.cpp's documentation, and gentler ones."""

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
            late = changes.places(steps) >= (self.border or 0)
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
        window = min(spared_after(score), default=0) - 1
        if window > 0:
            named = Named("repetition_penalty", f"a penalty that looks back on at most {window} tokens")
            yield Way(named, replace(config, penalty_window=window), cost=FITTED)
    if "cfg" in on:
        yield from _guided(config)
    if filters := on & FILTERS:
        yield from _filtered(score, filters)
    for size in FRAMES if score.eos_ids else ():
        named = Named("stop", f"EOS after a multiple of {size} tokens alone")
        yield Way(named, config, change=partial(changes.without_eos, score.eos_ids, size))
    for share, least in XTC if "xtc_probability" not in on else ():
        named = Named("xtc_probability", f"XTC of {share:g} from {least:g} on, where none was asked for")
        change = partial(changes.without_top_choices, config, share, least, score.edges)
        yield Way(named, config.without(on), change=change)
    named = Named("draw", "tokens that the filters removed, each as likely as any other")
    yield Way(named, config.without(on), change=partial(changes.revived, config, score.edges))


def spared_after(score: Score) -> list[int]:
    """How long ago each drawn token came last that is impossible, and that the penalty alone removes."""
    found, without = list[int](), score.config.without(["repetition_penalty"])
    for steps in score.steps:
        rows = np.arange(len(steps.tokens))
        kept, free = (score.edges.bounds(one)[1][rows, steps.tokens] for one in (steps, steps.with_config(without)))
        for row in np.flatnonzero(steps.in_history[rows, steps.tokens] & ~kept & free).tolist():
            found.append([*reversed(steps.history[row])].index(steps.tokens[row]) + 1)
    return found


def _guided(config: SamplingConfig) -> Iterator[Way]:
    named = Named("cfg", "guidance of probabilities in place of logits")
    yield Way(named, config.without(["cfg"]), change=partial(changes.guided_probabilities, config))
    named = Named("cfg", "the unconditional logits of the first step at every step")
    yield Way(named, config, change=partial(changes.unconditional_at, lambda places: 0 * places))
    named = Named("cfg", "the unconditional logits of the step before")
    yield Way(named, config, change=partial(changes.unconditional_at, lambda places: np.maximum(places - 1, 0)))
    for which in ("conditional", "unconditional") if "temperature" in config.active_stages() else ():
        named = Named("temperature", f"a temperature of the {which} logits alone")
        change = partial(changes.tempered, which, config.temperature)
        yield Way(named, config.without(["temperature"]), change=change)


def _filtered(score: Score, filters: Collection[Stage]) -> Iterator[Way]:
    config, reference = score.config, score.edges
    on = config.active_stages()
    if "min_p" in on:
        named = Named("min_p", f"a min_p of the whole probability: {config.min_p:g}, not {config.min_p:g} of the best")
        yield Way(named, config.without(on), change=partial(changes.above, config, reference))
    stages = {"cfg": "guidance", "repetition_penalty": "the penalty", "temperature": "the temperature"}
    for stage, text in stages.items():
        if stage in on:
            chosen, drawn = config.without([stage]), config.without(filters)
            for named, keeps, draws in (
                (Named(stage, f"filters before {text}"), chosen, drawn),
                (Named(stage, f"{text} in the filters alone"), config, drawn.without([stage])),
            ):
                yield Way(named, config.without(on), change=partial(changes.filtered_by, draws, keeps, reference))


def _penalties(config: SamplingConfig, prompts: Iterable[str]) -> Iterator[Way]:
    def named(text: str) -> Named:
        return Named("repetition_penalty", text)

    yield Way(named("a penalty that learns each token one step late"), config, change=changes.late)
    for size in CHUNKS:
        text = f"a penalty that learns tokens in chunks of {size}"
        yield Way(named(text), config, change=partial(changes.learned_in_chunks, size))
        text = f"a penalty that forgets all tokens at each multiple of {size}"
        yield Way(named(text), config, change=partial(changes.forgotten_in_chunks, size))
        text = f"a penalty that sees the first {size} tokens alone"
        yield Way(named(text), config, change=partial(changes.the_first, size))
    for what in prompts:
        yield Way(named(f"a penalty that sees {what}"), config, change=partial(changes.after_prompt, what))
    order = config.order
    if "cfg" not in order or order.index("cfg") < order.index("repetition_penalty"):
        text, without = "a penalty of every occurrence of a token", config.without(["cfg"])
        yield Way(named(text), without, change=partial(changes.every_occurrence, config))
    if "cfg" in config.active_stages():
        without = config.without(["repetition_penalty"])
        text = "a penalty of the conditional logits before guidance"
        yield Way(named(text), without, change=partial(changes.penalised_first, config.repetition_penalty))


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
            np.add.at(sums, changes.places(steps), score.log_likelihoods(steps))
            left -= len(steps.tokens)
        if left <= 0:
            break
    return sums
