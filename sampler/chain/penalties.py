"""Penalties on tokens that were drawn before."""

from collections.abc import Sequence
from numbers import Integral

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.chain.knobs import Knobs
from sampler.errors import LogitsError


def penalize_repetition(scores: mx.array, seen: mx.array, knobs: Knobs) -> mx.array:
    """Divide positive and multiply negative scores of seen tokens by the penalty; seen is bool (B, V).

    Source: RepetitionPenaltyLogitsProcessor of transformers; arXiv:1909.05858 (CTRL), section 4.1, whose one formula
    for both signs is the bug that HuggingFace mended.
    """
    penalty = knobs.repetition_penalty
    return mx.where(seen, mx.where(scores < 0, scores * penalty, scores / penalty), scores)


def seen_tokens(histories: Sequence[Sequence[int]], vocab_size: int) -> NDArray[np.bool_]:
    """Which ids each row's history contains: bool (B, V).

    Ids beyond the vocabulary have no score and are passed over, as HuggingFace does; a negative id is a LogitsError.
    """
    lengths = [len(history) for history in histories]
    rows = np.repeat(np.arange(len(histories)), lengths)
    ids = np.array([token for history in histories for token in history] or [0])[: sum(lengths)]
    if ids.dtype.kind not in "iu":
        ids = np.array([_token_id(token, row) for row, history in enumerate(histories) for token in history])
    if ids.min(initial=0) < 0:
        first = int(np.argmax(ids < 0))
        raise LogitsError(f"the history of row {rows[first]} contains {ids[first]}", hint="token ids are 0 or more")
    inside = ids < vocab_size
    seen = np.zeros((len(histories), vocab_size), dtype=np.bool_)
    seen[rows[inside], ids[inside]] = True
    return seen


def _token_id(token: object, row: int) -> int:
    """A token id as far as it fits into 64 bits. Raises LogitsError for what is no integer."""
    if isinstance(token, bool) or not isinstance(token, Integral):
        raise LogitsError(f"the history of row {row} contains {token!r}", hint="token ids are integers")
    return max(-1, min(int(token), 2**62))
