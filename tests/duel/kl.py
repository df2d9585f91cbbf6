"""Kullback-Leibler divergence of the engine's logits, as llama-perplexity --kl-divergence has it: needs logits."""

from collections.abc import Sequence

import numpy as np
from scipy.special import log_softmax


def divergences(logits: np.ndarray, reference: np.ndarray) -> np.ndarray | None:
    """Of each step, the mean of the rows: (T, rows, V) twice -> (T,). None if the engine recorded other steps."""
    if logits.shape != reference.shape:
        return None
    theirs, own = (log_softmax(values.astype(np.float64), axis=-1) for values in (reference, logits))
    with np.errstate(invalid="ignore"):
        terms = np.where(theirs > -np.inf, np.exp(theirs) * (theirs - own), 0.0)
    return np.maximum(terms.sum(axis=-1).mean(axis=-1), 0.0)


def all_divergences(spoken: Sequence) -> np.ndarray | None:
    """Those of a set in order, None if a run of it has none."""
    found = [one.divergences for one in spoken]
    return None if any(one is None for one in found) else np.concatenate(found)
