"""An alternative is one mistake or dialect as a function of float64 scores; helpers that many of them share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from sampler.requests import Batch

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

IGNORED = "is accepted and ignored"

CLOSE = 1e-4
"""An answer within this total variation of an alternative counts as equal to it."""


def in_float64(batch: Batch) -> Batch:
    """The rows with logits in float64, as alternatives expect them."""
    uncond = None if batch.uncond_logits is None else batch.uncond_logits.astype(np.float64)
    return replace(batch, logits=batch.logits.astype(np.float64), uncond_logits=uncond)


def counts(batch: Batch, first: int = 0, last: int | None = None) -> Array:
    """How often each id occurs in a part of each history, (B, V)."""
    return counted(batch, [list(ids)[first:last] for ids in batch.history])


def counted(batch: Batch, histories: Sequence[Sequence[int]]) -> Array:
    """How often each id occurs in the given histories, (B, V)."""
    result = np.zeros(batch.logits.shape)
    for row, ids in enumerate(histories):
        inside = [token for token in ids if 0 <= token < batch.logits.shape[1]]
        np.add.at(result[row], np.array(inside, dtype=np.int64), 1.0)
    return result


def seen(batch: Batch) -> Mask:
    """Ids of the history, (B, V)."""
    return counts(batch) > 0


Change = Callable[[Batch], Array]
"""Rows with logits in float64 to scores, (B, V)."""


@dataclass(frozen=True)
class Alternative:
    """One mistake. up_to_ties: which of equal scores it keeps is undefined. stage: the stage to name."""

    stage: str
    explanation: str
    scores: Change
    up_to_ties: bool = False


def ignored(stage: str) -> tuple[Alternative, ...]:
    """A stage without effect."""
    return (Alternative(stage, IGNORED, lambda inputs: inputs.logits),)


def with_knob(change: Callable[[Array, float], Array], knob: str) -> Change:
    """An alternative that needs only the scores and one parameter."""
    return lambda inputs: change(inputs.logits, float(getattr(inputs.config, knob)))


def at_least(inputs: Batch) -> int:
    """The parameter min_tokens_to_keep."""
    return inputs.config.min_tokens_to_keep


def without(scores: Array, removed: Mask) -> Array:
    """Scores with some tokens removed."""
    return np.where(removed, -np.inf, scores)


def ranks(scores: Array) -> NDArray[np.int64]:
    """Rank of each token in its row, 0 for the most likely; the lower id first among equals."""
    return np.argsort(np.argsort(-scores, axis=-1, kind="stable"), axis=-1, kind="stable")


def largest(scores: Array, count: int) -> Array:
    """The count-th largest score of each row, (B, 1)."""
    return -np.sort(-scores, axis=-1)[:, min(count, scores.shape[1]) - 1][:, None]


def agreement(scores: Array, other: Array, *, up_to_ties: bool) -> Mask:
    """Rows on which two sets of scores mean the same distribution, up to a token at a threshold; (B,)."""
    usable = (other > -np.inf).any(axis=-1) & ~np.isnan(other).any(axis=-1) & ~(other == np.inf).any(axis=-1)
    usable &= (scores > -np.inf).any(axis=-1) & ~np.isnan(scores).any(axis=-1) & ~(scores == np.inf).any(axis=-1)
    result = np.zeros(len(scores), dtype=np.bool_)
    if usable.any():
        mine, theirs = softmax(scores[usable], axis=-1), softmax(other[usable], axis=-1)
        if up_to_ties:
            mine, theirs = np.sort(mine, axis=-1), np.sort(theirs, axis=-1)
        result[usable] = np.abs(mine - theirs).sum(axis=-1) / 2 <= CLOSE
    return result


def first_ids_of(kept: Array) -> Mask:
    """As many tokens as are kept, but the first ids: the mask of the sorted tokens was not mapped back."""
    count = (kept > -np.inf).sum(axis=-1, keepdims=True)
    return np.asarray(np.broadcast_to(np.arange(kept.shape[1])[None] < count, kept.shape))


def gathered(scores: Array, kept: Array) -> Array:
    """The mask of the sorted tokens, gathered by the sorting ids although it should be scattered."""
    ids = np.argsort(-scores, axis=-1, kind="stable")
    return without(scores, ~np.take_along_axis(np.take_along_axis(kept > -np.inf, ids, axis=-1), ids, axis=-1))


def misplaced(stage: str, right: Change) -> tuple[Alternative, ...]:
    """Mistakes with positions and ids that any filter can have. right: the correct filter."""
    losses: tuple[tuple[str, Callable[[int], Mask]], ...] = (
        ("the first id is never kept", lambda size: np.arange(size) == 0),
        ("the last id is never kept", lambda size: np.arange(size) == size - 1),
        ("ids beyond the last multiple of 32 are never kept", lambda size: np.arange(size) >= size // 32 * 32),
    )
    return (
        Alternative(
            stage,
            "the first ids are kept: the mask of the sorted tokens is not put back in its place",
            lambda i: without(i.logits, ~first_ids_of(right(i))),
        ),
        Alternative(
            stage,
            "other tokens are kept: the mask is gathered with the sorting ids, not scattered",
            lambda i: gathered(i.logits, right(i)),
        ),
        *(Alternative(stage, text, _unseen(right, lost)) for text, lost in losses),
        *(Alternative(stage, text, _removed_after(right, lost)) for text, lost in losses),
    )


def _unseen(right: Change, lost: Callable[[int], Mask]) -> Change:
    """A filter that treats some ids as removed ones."""

    def scores(inputs: Batch) -> Array:
        return right(replace(inputs, logits=without(inputs.logits, lost(inputs.logits.shape[1])[None])))

    return scores


def _removed_after(right: Change, lost: Callable[[int], Mask]) -> Change:
    """A filter whose mask never keeps some ids; the last token of a row stays."""

    def scores(inputs: Batch) -> Array:
        kept = right(inputs)
        places = np.broadcast_to(lost(kept.shape[1])[None], kept.shape)
        others = (~places & (kept > -np.inf)).any(axis=-1, keepdims=True)
        return without(kept, places & others)

    return scores
