"""Inputs that no generation has: rows without a distribution, and ids outside the vocabulary."""

from dataclasses import replace

import numpy as np

from sampler.checks.conformance.comparison import VARIATION, Comparison
from sampler.checks.conformance.diagnosis.alternatives import STRAY_IDS, agreement, in_float64
from sampler.checks.conformance.judge import Judge
from sampler.checks.conformance.probes import Maker, Probe
from sampler.checks.conformance.settings import NEUTRAL
from sampler.checks.verdict import Finding, some_ids
from sampler.engines.calls import Answer, refusal
from sampler.errors import Unsupported


def unusual_rows(judge: Judge) -> Finding:
    """Report how rows without a distribution are handled. Only a hang or crash is a failure."""
    rows = {"NaN": np.nan, "+inf": np.inf, "every token removed": -np.inf}
    seen: list[str] = []
    for name, value in rows.items():
        logits = np.zeros((1, 9), dtype=np.float32)
        logits[0, :] = value if value == -np.inf else logits[0]
        logits[0, 4] = value
        probe = Probe.of("unusual rows", name, NEUTRAL, logits, [[]], (name,))
        try:
            probe = judge.fitted(probe.with_config(judge.asked(NEUTRAL)))
        except Unsupported as error:
            return Finding.skipped("process", "purity", error)
        answer = judge.ask(probe)
        refused = refusal(answer)
        if refused is not None:
            return Finding.skipped("process", "purity", refused)
        if answer.failure in ("hung", "died"):
            return Finding("process", "purity", "errored", len(seen), f"{name}: {answer.message}")
        seen.append(f"{name}: {_in_words(answer)}")
    return Finding("process", "purity", "passed", len(seen), f"reported, not judged: {'; '.join(seen)}")


def _in_words(answer: Answer) -> str:
    if answer.value is None:
        return f"refused ({answer.message})"
    scores = answer.value.ravel()
    if np.isnan(scores).any():
        return f"{int(np.isnan(scores).sum())} scores are NaN"
    return f"keeps {some_ids(np.flatnonzero(scores > -np.inf))}"


def strange_ids(judge: Judge, seed: int) -> Finding:
    """Ids outside the vocabulary have no score and must not penalise other tokens. Rejecting them is fine."""
    stage = "repetition_penalty"
    config = replace(NEUTRAL, repetition_penalty=2.0)
    probe = Maker("ids outside the vocabulary", seed).make("V=17", config, 17, ("ordinary", "zeros", "positive"))
    probe = replace(probe, history=[[5, 17, 40], [6_561], [17, 3, 3]])
    try:
        comparison = judge.compare(probe.with_config(judge.asked(config)))
    except Unsupported as error:
        return Finding.skipped("process", stage, error)
    inside = replace(comparison.probe, history=[[token for token in ids if token < 17] for ids in probe.history])
    if comparison.answer.failure == "raised":
        if judge.ask(replace(inside, history=[ids or [0] for ids in inside.history])).failure:
            return Finding("process", stage, "errored", 0, comparison.failure)
        return Finding("process", stage, "passed", 3, f"refuses ids outside the vocabulary: {comparison.failure}")
    if comparison.failure:
        return Finding("process", stage, "errored", 0, comparison.failure)
    if not comparison.wrong.any():
        return Finding("process", stage, "passed", 3, "ids outside the vocabulary are ignored", 0.0, VARIATION)
    if judge.compare(inside).wrong[comparison.wrong].any():
        message = "the same rows are wrong without ids outside the vocabulary"
        return Finding.skipped("process", stage, "after_failure", message)
    message = _of_stray_ids(comparison)
    return Finding("process", stage, "failed", 3, message, comparison.distance, VARIATION)


def _of_stray_ids(comparison: Comparison) -> str:
    """Describe the effect of ids outside the vocabulary."""
    probe = comparison.probe
    rows = in_float64(replace(probe, uncond_logits=None))
    for known in STRAY_IDS:
        if agreement(comparison.scores, known.scores(rows), up_to_ties=False).all():
            return known.explanation
    row = int(np.argmax(comparison.wrong))
    return f"ids outside the vocabulary change other tokens: {comparison.describe(row)}"
