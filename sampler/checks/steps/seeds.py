"""Whether another seed gives other tokens: a cache that answers by prompt forgets it."""

from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from sampler.checks.steps.coverage import common_start
from sampler.checks.steps.evidence import Evidence
from sampler.checks.steps.recorded import recorded_steps
from sampler.checks.steps.records import records
from sampler.checks.verdict import Finding
from sampler.engines.base import Generation
from sampler.errors import Unsupported

ALPHA: Final = 1e-9
"""A run that begins as another one did, with less than this probability, is no coincidence. For a right engine the
probability of such a beginning is at most this: it is that of the one beginning that the first run has."""

DETERMINISTIC: Final = 0.999
"""Above this probability of its only outcome a run is as good as greedy."""


def seeds(evidence: Evidence) -> Finding:
    """The prompt of request 0 with another seed and other noise: other tokens, or a coincidence that is likely.

    The statistic is the probability under the chain of the tokens that both runs begin with.
    """
    other = evidence.reseeded
    first = evidence.alone or evidence.generations[0]
    if other is None or not first.tokens or not other.tokens:
        return Finding.skipped("generate", "seed", "not_recorded", "request 0 drew no token")
    count, shared = len(first.tokens), common_start(first.tokens, other.tokens)
    same = first.tokens == other.tokens
    if evidence.requests[0].config.greedy:
        return _greedy(evidence, count, shared, same=same)
    logs = _log_probabilities(evidence, _beginning(first, shared))
    probability = float(np.exp(np.nansum(logs)))
    begin = f"another seed and other noise gave {'the same' if same else 'the same first'} {shared} tokens"
    said = f"{begin}, which the chain's distribution does with probability {probability:.1g}"
    figures: dict[str, Any] = {"statistic": probability, "bound": ALPHA, "alpha": ALPHA, "p_value": probability}
    believed = probability > ALPHA or not _refuted(evidence)
    if probability <= ALPHA and believed:
        return Finding("generate", "seed", "failed", count, said, **figures, request=0)
    if not same:
        message = f"another seed gave other tokens from step {shared} on"
        return Finding("generate", "seed", "passed", count, message, **figures)
    if probability >= DETERMINISTIC and not np.isnan(logs).any():
        return Finding("generate", "seed", "passed", count, f"{begin}: the chain leaves only these", **figures)
    message = f"{said}: too likely to tell" if believed else f"{begin}, and the records do not tell how likely that is"
    more = {**figures, "reason": "too_few", "required": ALPHA, "detectable": probability}
    return Finding("generate", "seed", "inconclusive", count, message, **more)


def _refuted(evidence: Evidence) -> bool:
    """Whether the recorded logits are not those that the tokens were drawn from."""
    try:
        return records(evidence).outcome == "failed"
    except Unsupported:
        return False


def _greedy(evidence: Evidence, count: int, shared: int, *, same: bool) -> Finding:
    if same:
        message = f"another seed gave the same {count} tokens, as it must at temperature 0"
        return Finding("generate", "seed", "passed", count, message)
    message = f"at temperature 0 another seed gave other tokens from step {shared} on"
    if evidence.exact:
        return Finding("generate", "seed", "failed", count, message, request=0)
    return Finding("generate", "seed", "inconclusive", count, message, reason="suspicious")


def _beginning(generation: Generation, count: int) -> Generation:
    """The first tokens of a run, with their record."""
    record = generation.record
    if record is not None:
        logits = None if record.logits is None else record.logits[:count]
        record = replace(record, logits=logits, flags=record.flags[:count], logprob=record.logprob[:count])
    return Generation(generation.tokens[:count], "length", record)


def _log_probabilities(evidence: Evidence, generation: Generation) -> NDArray[np.float64]:
    """Log-probability of each token under the chain and the recorded logits, else as the engine says.

    NaN where neither is recorded, and where the chain removes the token, which is for other checks to judge.
    """
    result = np.full(len(generation.tokens), np.nan)
    record = generation.record
    if record is not None and record.logits is None and len(record.logprob) == len(result):
        said = np.asarray(record.logprob, dtype=np.float64)
        return np.where(np.isfinite(said), np.minimum(said, 0.0), np.nan)
    own = replace(
        evidence, requests=evidence.requests[:1], generations=[generation], known={}, noise={}, judged={}, findings={}
    )
    for steps in recorded_steps(own):
        rows = np.arange(len(steps.tokens))
        values = log_softmax(evidence.reference.evaluate(steps)[-1].scores, axis=-1)[rows, steps.tokens]
        places = [len(history) - len(evidence.prefix) for history in steps.history]
        result[places] = np.where(np.isfinite(values), values, np.nan)
    return result
