"""Logs whose ids are not those of the model: of another vocabulary, or without some that may have been filtered out."""

import numpy as np
from scipy.special import softmax

from sampler.checks.scoring.named import Named
from sampler.checks.scoring.score import Score

UNLIKELY = 0.01
"""How often a log that has all ids of a right engine would be taken for a filtered one, at most."""

MOST_SHARE = 0.5
"""Of tokens that are impossible: with more of them the log tells nothing of what is missing."""

SHOWN = 3


def other_vocabulary(score: Score) -> Named | None:
    """Whether most runs have ids that the model has not."""
    largest = [max(run.tokens, default=0) for run in score.runs]
    if 2 * sum(one >= score.vocabulary for one in largest) <= len(largest):
        return None
    ids = f"ids up to {max(largest):,}, where the model has {score.vocabulary:,}"
    return Named("draw", f"tokens of another vocabulary: {ids}")


def filtered(score: Score) -> Named | None:
    """The ids that no run has, the last ones of the vocabulary or single ones, although the model draws them often.

    Each step misses an id with the chance 1 - p, so that none of E expected draws happens with at most exp(-E). An
    engine that never draws these ids looks the same.
    """
    if not 0 < len(score.impossible) <= MOST_SHARE * score.checked:
        return None
    expected, found = np.zeros(score.vocabulary), np.zeros(score.vocabulary, dtype=np.bool_)
    for steps in (steps for run in score.runs for steps in run.steps(score.config)):
        expected += softmax(score.reference.last(steps).scores, axis=-1).sum(axis=0)
        found[steps.tokens] = True
    ends = [end for end in score.eos_ids if end < score.vocabulary]
    expected[ends], found[ends] = 0.0, False
    enough = np.log(2 * score.vocabulary / UNLIKELY)  # for single ids, and for all ids from one on
    first = int(np.flatnonzero(found).max(initial=-1)) + 1
    often = np.flatnonzero(~found & (expected >= enough))
    if expected[first:].sum() >= enough:
        ids, count = f"ids from {first:,} on", expected[first:].sum()
    elif len(often):
        ids, count = f"token {', '.join(map(str, often[:SHOWN]))}", expected[often[:SHOWN]].sum()
    else:
        return None
    often_drawn = f"of which the model draws about {count:.0f} in {score.checked:,} tokens"
    return Named("draw", f"a log without {ids}, {often_drawn}: filtered out, or never drawn")
