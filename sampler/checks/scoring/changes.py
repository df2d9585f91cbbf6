"""Steps of a run as another engine's chain gets them: histories, logits and whole distributions that are changed."""

from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np
from scipy.special import logsumexp, softmax

from sampler.checks.scoring.other_chains import guided, penalised
from sampler.checks.scoring.score import Run
from sampler.config import SamplingConfig
from sampler.engines.base import Explains
from sampler.requests import Steps

Change = Callable[[Run, Steps], Steps]
"""From steps of a run to what the chain gets in their place."""

LEAST_PROBABILITY = 1e-12

REVIVED = 0.02
"""The share of draws from all ids, removed ones included."""


def places(steps: Steps) -> np.ndarray:
    """How many tokens of its run came before each step, (T,)."""
    assert steps.context is not None  # noqa: S101 - scored steps have one
    return steps.context.step


def late(run: Run, steps: Steps) -> Steps:  # noqa: ARG001
    """The history without its newest token, if it has one behind the prompt."""
    return _with_tokens(lambda tokens: tokens[:-1], steps)


def after_prompt(what: str, run: Run, steps: Steps) -> Steps:
    """The history behind ids that came before the speech."""
    size = steps.logits.shape[-1]
    seen = [token for token in run.prompts()[what] if token < size]
    return replace(steps, history=[[*seen, *ids] for ids in steps.history])


def every_occurrence(asked: SamplingConfig, run: Run, steps: Steps) -> Steps:  # noqa: ARG001
    """Guided logits of tokens that came n times, penalised n - 1 times; the chain does it once more."""
    scores, size = steps.logits.astype(np.float64), steps.logits.shape[-1]
    if steps.uncond_logits is not None and "cfg" in asked.active_stages():
        scores = guided(scores, steps.uncond_logits.astype(np.float64), asked)
    counts = np.stack([np.bincount([token for token in ids if token < size], minlength=size) for ids in steps.history])
    scores = penalised(scores, asked.repetition_penalty ** np.maximum(counts - 1, 0))
    return replace(steps, logits=scores.astype(np.float32), uncond_logits=None)


def penalised_first(penalty: float, run: Run, steps: Steps) -> Steps:  # noqa: ARG001
    """Conditional logits that have their penalty."""
    scores = steps.logits.astype(np.float64)
    scores = np.where(steps.in_history, penalised(scores, penalty), scores)
    return replace(steps, logits=scores.astype(np.float32))


def guided_probabilities(asked: SamplingConfig, run: Run, steps: Steps) -> Steps:  # noqa: ARG001
    """On the scale of the conditional logits, for the penalty."""
    if steps.uncond_logits is None:
        return steps
    cond, uncond = (softmax(rows.astype(np.float64), axis=-1) for rows in (steps.logits, steps.uncond_logits))
    mixed = np.log(np.maximum(guided(cond, uncond, asked), LEAST_PROBABILITY))
    scores = mixed + logsumexp(steps.logits, axis=-1, keepdims=True)
    return replace(steps, logits=scores.astype(np.float32), uncond_logits=None)


def revived(asked: SamplingConfig, reference: Explains, run: Run, steps: Steps) -> Steps:  # noqa: ARG001
    """What the chain draws, and any id in a share of the steps."""
    p = softmax(reference.last(steps.with_config(asked)).scores, axis=-1)
    scores = np.log((1 - REVIVED) * p + REVIVED / p.shape[-1])
    return replace(steps, logits=scores.astype(np.float32), uncond_logits=None)


def unconditional_at(place: Callable[[np.ndarray], np.ndarray], run: Run, steps: Steps) -> Steps:
    """With the unconditional logits of other steps of the run, by the number of tokens before them."""
    if steps.uncond_logits is None:
        return steps
    wanted, rows, start = place(places(steps)), np.empty_like(steps.uncond_logits), 0
    for others in run.steps(steps.configs[0]):
        if start > wanted.max():
            break
        found = np.flatnonzero((wanted >= start) & (wanted < start + len(others.tokens)))
        assert others.uncond_logits is not None  # noqa: S101 - as of the other steps of the run
        rows[found] = others.uncond_logits[wanted[found] - start]
        start += len(others.tokens)
    return replace(steps, uncond_logits=rows)


def above(asked: SamplingConfig, reference: Explains, run: Run, steps: Steps) -> Steps:  # noqa: ARG001
    """What min_p leaves if it is a bound of the probability itself, or the likeliest token."""
    scores = reference.last(steps.with_config(asked.without(["min_p"]))).scores
    p = softmax(scores, axis=-1)
    kept = (p >= asked.min_p) | (p == p.max(axis=-1, keepdims=True))
    return replace(steps, logits=np.where(kept, scores, -np.inf).astype(np.float32), uncond_logits=None)


def tempered(which: str, temperature: float, run: Run, steps: Steps) -> Steps:  # noqa: ARG001
    """The conditional or the unconditional logits divided by the temperature."""
    if which == "conditional":
        return replace(steps, logits=steps.logits / np.float32(temperature))
    uncond = steps.uncond_logits
    return replace(steps, uncond_logits=None if uncond is None else uncond / np.float32(temperature))


def learned_in_chunks(size: int, run: Run, steps: Steps) -> Steps:  # noqa: ARG001
    """The history without the tokens since the last multiple of so many."""
    return _with_tokens(lambda tokens: tokens[: len(tokens) // size * size], steps)


def forgotten_in_chunks(size: int, run: Run, steps: Steps) -> Steps:  # noqa: ARG001
    """The history of the tokens since the last multiple of so many alone."""
    return _with_tokens(lambda tokens: tokens[len(tokens) // size * size :], steps)


def the_first(size: int, run: Run, steps: Steps) -> Steps:  # noqa: ARG001
    """The history of so many first tokens alone."""
    return _with_tokens(lambda tokens: tokens[:size], steps)


def _with_tokens(change: Callable[[list[int]], list[int]], steps: Steps) -> Steps:
    """A history of what stands before the tokens, and of some of them."""
    pairs = zip(map(list, steps.history), places(steps).tolist(), strict=True)
    history = [ids[: len(ids) - place] + change(ids[len(ids) - place :]) for ids, place in pairs]
    return replace(steps, history=history)


def without_eos(eos_ids: Collection[int], size: int, run: Run, steps: Steps) -> Steps:  # noqa: ARG001
    """EOS after a multiple of so many tokens alone."""
    logits = steps.logits.copy()
    for token in eos_ids:
        logits[places(steps) % size > 0, token] = -np.inf
    return replace(steps, logits=logits)


def filtered_by(asked: SamplingConfig, kept: SamplingConfig, reference: Explains, run: Run, steps: Steps) -> Steps:  # noqa: ARG001
    """What one chain keeps, with the scores that another one gives: `asked` without its filters."""
    bounds = reference.last(steps.with_config(kept)).scores > -np.inf
    scores = reference.last(steps.with_config(asked)).scores
    return replace(steps, logits=np.where(bounds, scores, -np.inf).astype(np.float32), uncond_logits=None)


def without_top_choices(
    asked: SamplingConfig,
    share: float,
    least: float,
    reference: Explains,
    run: Run,  # noqa: ARG001
    steps: Steps,
) -> Steps:
    """XTC: in a share of the steps, of the tokens with a probability of `least` only the least likely one is left."""
    p = softmax(reference.last(steps.with_config(asked)).scores.astype(np.float64), axis=-1)
    top = p >= least
    removed = top & (p > np.where(top, p, np.inf).min(axis=-1, keepdims=True))
    left = np.where(removed, 0.0, p)
    mixed = (1 - share) * p + share * left / left.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        return replace(steps, logits=np.log(mixed).astype(np.float32), uncond_logits=None)
