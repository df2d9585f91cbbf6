"""A small chain in NumPy float32, of stages that can be exchanged one by one, straight from the definitions.

A stage is a function of the scores (B, V) and of the call; a fault exchanges one of them, or a part of one: whom the
penalty selects and what it does to them, and which tokens a filter keeps.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sampler.config import SamplingConfig

Array = np.ndarray
LOWEST = -np.inf


@dataclass
class Call:
    """What a stage may look at. states: the scores before each stage that has run, by its name."""

    history: Sequence[Sequence[int]]
    config: SamplingConfig
    uncond: Array | None = None
    context: object = None
    states: dict[str, Array] = field(default_factory=dict)

    def to_come(self, *stages: str) -> bool:
        """Whether one of some stages stands in the order and has not begun."""
        return any(stage in self.config.order and stage not in self.states for stage in stages)


Stage = Callable[[Array, Call], Array]
Stages = Mapping[str, Stage]


def run(logits: Array, call: Call, stages: Stages) -> Array:
    """Scores after every stage of the order: float32 (B, V)."""
    with np.errstate(all="ignore"):
        scores = np.array(logits, dtype=np.float32)
        for name in call.config.order:
            call.states[name] = scores
            scores = stages[name](scores, call)
        return stages["greedy"](scores, call) if call.config.greedy else scores


def unchanged(scores: Array, call: Call) -> Array:
    return scores


def keep(scores: Array, kept: Array) -> Array:
    """Remove what is not kept."""
    return np.where(kept, scores, np.float32(LOWEST))


def log_softmax(scores: Array) -> Array:
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return (shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))).astype(np.float32)


def softmax(scores: Array, dtype: type = np.float64) -> Array:
    weights = np.exp((scores - scores.max(axis=-1, keepdims=True)).astype(dtype))
    return weights / weights.sum(axis=-1, keepdims=True)


# Guidance.


def mixed(change: Callable[[Array, Array, float], Array]) -> Stage:
    """Guidance by a formula of conditional and unconditional logits and the weight."""

    def stage(scores: Array, call: Call) -> Array:
        if call.uncond is None:
            return scores
        formula = change if call.config.cfg_convention == "conditional" else from_unconditional
        result = formula(scores, np.asarray(call.uncond, dtype=np.float32), np.float32(call.config.cfg_weight))
        return keep(result.astype(np.float32), scores > LOWEST)

    return stage


def from_conditional(cond: Array, uncond: Array, weight: float) -> Array:
    return cond + weight * (cond - uncond)


def from_unconditional(cond: Array, uncond: Array, weight: float) -> Array:
    return uncond + weight * (cond - uncond)


# The penalty: whom it selects, and what it does to them.

Select = Callable[[Call, int, int], Iterable[int]]
Change = Callable[[Array, float], Array]


def distinct(ids: Iterable[int], size: int) -> list[int]:
    return sorted({token for token in ids if 0 <= token < size})


def seen(call: Call, row: int, size: int) -> list[int]:
    """Every id of the row's history once; ids beyond the vocabulary are none of them."""
    return distinct(call.history[row], size)


def scaled(scores: Array, penalty: float) -> Array:
    return np.where(scores < 0, scores * penalty, scores / penalty)


def penalized(select: Select = seen, change: Change = scaled) -> Stage:
    """For each id that `select` names, as often as it names it, the score that `change` makes of it."""

    def stage(scores: Array, call: Call) -> Array:
        penalty = np.float32(call.config.repetition_penalty)
        if penalty == 1:
            return scores
        scores = scores.copy()
        for row in range(len(scores)):
            ids = list(select(call, row, scores.shape[-1]))
            if len(set(ids)) == len(ids):
                scores[row, ids] = change(scores[row, ids], penalty)
            else:
                for token in ids:
                    scores[row, token] = change(scores[row, token], penalty)
        return scores

    return stage


# Temperature.


def tempered(read: Callable[[float], float] = float) -> Stage:
    """Scores divided by what `read` makes of the temperature; 0 is left to the end of the chain."""

    def stage(scores: Array, call: Call) -> Array:
        temperature = call.config.temperature
        return scores if temperature == 0 else scores / np.float32(read(temperature))

    return stage


def keep_best(scores: Array, call: Call) -> Array:
    """Only the lowest id among the maxima is left."""
    return keep(scores, np.arange(scores.shape[-1])[None] == scores.argmax(axis=-1)[:, None])


# Filters.


def ranked(scores: Array, rank: int) -> Array:
    """The rank-th largest score of each row, from 1: (B, 1)."""
    return -np.partition(-scores, rank - 1, axis=-1)[:, rank - 1 : rank]


def most_likely(scores: Array, count: int) -> Array:
    """The `count` most likely tokens of each row, the lower id first among equals: bool (B, V)."""
    if count >= scores.shape[-1]:
        return np.ones(scores.shape, dtype=bool)
    return back(order(scores), np.arange(scores.shape[-1])[None] < count)


def order(scores: Array) -> Array:
    """Ids from the most to the least likely: (B, V)."""
    return np.argsort(-scores, axis=-1, kind="stable")


def back(ids: Array, values: Array) -> Array:
    """Values in the order of ids, put back where they belong."""
    result = np.empty(ids.shape, dtype=values.dtype)
    np.put_along_axis(result, ids, np.broadcast_to(values, ids.shape), axis=-1)
    return result


def top_k(count: Callable[[Call], int] | None = None) -> Stage:
    """Scores below the k-th largest are removed, with another k where `count` reads one from the call."""

    def stage(scores: Array, call: Call) -> Array:
        k = max(call.config.top_k, call.config.min_tokens_to_keep) if count is None else count(call)
        if call.config.top_k == 0 or k >= scores.shape[-1]:
            return scores
        return keep(scores, scores >= ranked(scores, k))

    return stage


def spared(scores: Array, call: Call) -> Array:
    """What min_p must not remove: the most likely tokens."""
    count = call.config.min_tokens_to_keep
    return scores == scores.max(axis=-1, keepdims=True) if count == 1 else most_likely(scores, count)


def min_p(
    kept: Callable[[Array, float], Array] = lambda scores, p: scores - scores.max(axis=-1, keepdims=True) >= np.log(p),
    spare: Callable[[Array, Call], Array] = spared,
) -> Stage:
    """Tokens that are less likely than min_p times the most likely one are removed."""

    def stage(scores: Array, call: Call) -> Array:
        if call.config.min_p == 0:
            return scores
        return keep(scores, kept(scores, np.float32(call.config.min_p)) | spare(scores, call))

    return stage


Mass = Callable[[Array, Call], Array]
Decide = Callable[[Array, Array, float], Array]


def probabilities(scores: Array, call: Call) -> Array:
    """Of what is left, renormalised."""
    return softmax(scores)


def reaches(before: Array, mass: Array, top_p: float) -> Array:
    """A token stays while those before it do not reach top_p."""
    return before < top_p


def nucleus(decide: Decide = reaches, mass: Mass = probabilities, *, spare: bool = True) -> Stage:
    """top_p. decide: from the mass before each token and its own, most likely first, which ones stay."""

    def stage(scores: Array, call: Call) -> Array:
        if call.config.top_p == 1:
            return scores
        ids = order(scores)
        weights = np.take_along_axis(mass(scores, call), ids, axis=-1)
        kept = decide(np.cumsum(weights, axis=-1) - weights, weights, call.config.top_p)
        if spare:
            kept = kept | (np.arange(scores.shape[-1]) < call.config.min_tokens_to_keep)
        return keep(scores, back(ids, kept))

    return stage


STAGES: Stages = {
    "cfg": mixed(from_conditional),
    "alignment": unchanged,
    "repetition_penalty": penalized(),
    "temperature": tempered(),
    "top_k": top_k(),
    "min_p": min_p(),
    "top_p": nucleus(),
    "greedy": keep_best,
}
