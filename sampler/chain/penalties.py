"""The repetition penalty on tokens of the history."""

from collections.abc import Sequence
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from sampler.chain.knobs import Knobs
from sampler.chain.survivors import FloatRows
from sampler.errors import LogitsError
from sampler.runtime.compiled import compiled

_BEYOND = 2**62
"""Stands for ids that do not fit into 64 bits: it is beyond every vocabulary."""


def penalize_repetition(scores: FloatRows, seen: NDArray[np.bool_], knobs: Knobs) -> FloatRows:
    """Divide positive and multiply negative scores of seen tokens by the penalty; seen is bool (B, V).

    Source: RepetitionPenaltyLogitsProcessor of transformers; arXiv:1909.05858 (CTRL), section 4.1. The paper's formula
    is the same for both signs, a bug that HuggingFace fixed.
    """
    return _penalize(scores, seen, knobs.repetition_penalty[:, 0])


@compiled
def _penalize(scores: FloatRows, seen: NDArray[np.bool_], penalties: NDArray[np.float32]) -> FloatRows:
    penalized = scores.copy()
    for row, penalty in enumerate(penalties):
        for token in range(scores.shape[1]):
            if seen[row, token]:
                score = scores[row, token]
                penalized[row, token] = score * penalty if score < 0 else score / penalty
    return penalized


def count_tokens(histories: Sequence[NDArray[np.int64]], vocab_size: int) -> NDArray[np.int64]:
    """How often each row's history contains each id: int64 (B, V).

    Ids beyond the vocabulary have no score and are ignored, as HuggingFace does.
    """
    counts = [np.bincount(ids[ids < vocab_size], minlength=vocab_size) for ids in histories]
    return np.array(counts, dtype=np.int64).reshape(-1, vocab_size)


def token_ids(histories: Sequence[Sequence[int] | NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """Each row's history as int64. Raises LogitsError for a non-integer and for a negative id."""
    rows = []
    for row, history in enumerate(histories):
        ids = np.asarray(history if isinstance(history, np.ndarray) else list(history) or [0])[: len(history)]
        if ids.dtype.kind not in "iu":
            ids = np.array([_token_id(token, row) for token in history])
        if ids.min(initial=0) < 0:
            raise LogitsError(f"the history of row {row} contains {ids[ids < 0][0]}", hint="token ids are 0 or more")
        rows.append((np.minimum(ids, _BEYOND) if ids.itemsize == 8 else ids).astype(np.int64))
    return rows


def _token_id(token: object, row: int) -> int:
    """A token id, clipped to 64 bits. Raises LogitsError for a non-integer."""
    if isinstance(token, bool) or not isinstance(token, Integral):
        raise LogitsError(f"the history of row {row} contains {token!r}", hint="token ids are integers")
    return max(-1, min(int(token), _BEYOND))
