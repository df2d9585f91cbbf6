"""What each check of `sampler check` tests, as a sentence for its report."""

from collections.abc import Mapping
from typing import Final

SENTENCES: Final[Mapping[str, str]] = {
    "scores": "The scores of `process` are those of the reference: the same tokens kept, the same distribution.",
    "writes-nothing": "`process` changes none of its arguments.",
    "keeps-its-answers": "A later call does not change the scores of an earlier one.",
    "first-call": "The first call gives the same scores as later ones.",
    "twice-the-same": "The same call gives the same scores twice.",
    "worker-thread": "A worker thread gets what the main thread gets.",
    "split-batch": "A row has the same scores alone and in a batch.",
    "other-batch-mates": "A row has the same scores whatever the other rows are.",
    "rows-in-another-order": "A row has the same scores in any place of the batch.",
    "permuted-vocabulary": "The scores do not depend on the numbers of the tokens.",
    "shifted-logits": "A constant added to all logits does not change the distribution.",
    "unusual-rows": "Rows with NaN, +inf or without any token are reported, not judged.",
    "ids-outside": "Ids outside the vocabulary in the history penalise no other token.",
    "support": "No token is drawn that the reference removes.",
    "frequencies": "Tokens are drawn as often as their probability says.",
    "greedy": "At temperature 0 every draw is the most likely token, the lowest id among equals.",
    "same-seed": "The same seed gives the same draws, another seed other ones.",
    "pairs": "Draws of one call are independent of each other.",
    "seeds": "Calls with different seeds are independent of each other.",
    "single-draws": "Calls of one draw each follow the distribution.",
    "single-pairs": "Calls of one draw with neighbouring seeds are independent of each other.",
    "ranks": "Over a whole vocabulary the rank of the drawn token has the right distribution.",
    "extreme-noise": "`pick` takes the largest sum of score and noise, however extreme the noise is.",
    "finite": "No predicted logit is NaN or +inf.",
    "repeatable": "The same tokens give the same logits, bit for bit, in a worker thread too.",
    "causal": "Later tokens do not change earlier logits.",
    "prefixes": "Fewer tokens give the first of the same logits.",
    "empty": "No tokens at all give the first row of logits.",
    "impossible": "Under the model, no run has a token that the chain removes.",
    "evidence": "The tokens of the runs are draws from the chain's distribution of the model's logits.",
    "winners": "With the suite's noise each token is the one that wins under the model, unless rounding may decide.",
    "protocol": "All ids are of the model's vocabulary, and a run has EOS at its end if and only if it says so.",
}
"""The pairs of draws at several distances share a sentence."""


def sentence(check: str) -> str:
    """What a check tests; empty for a check of another report."""
    return SENTENCES.get("pairs" if check.startswith("pairs-") else check, "")
