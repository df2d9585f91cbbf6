"""Whether runs of one text are independent: frozen noise or equal seeds give the same run again.

With log-probabilities the check is exact and needs no reference: two independent runs are equal, and as improbable
as exp(-L) or more, with a probability of at most exp(-L), so with N pairs one equal pair of long runs is proof. With
reference runs it is enough to count runs that occur more than once in their text, on either side.
"""

import math
from collections import Counter
from collections.abc import Sequence

from sampler.checks.longform.rates import marked_finding
from sampler.checks.longform.runs import TokenRun, TwoSides, by_text
from sampler.checks.verdict import SHARE_OF_RUNS, Finding
from sampler.statistics.judgement import MISS_RATE, Judgement

SHARE = 0.5
"""`passed` requires that this share of repeated runs, or of repeated pairs of runs, would be detected."""


def distinct(runs: Sequence[TokenRun], sides: TwoSides | None, alpha: float, detect: float = SHARE) -> Finding:
    """Equal runs of one text, by their own probabilities if recorded, else in comparison with the reference's."""
    if runs and all(run.logprobs is not None for run in runs):
        return by_probability(runs, alpha, detect)
    if sides is None or not sides.texts:
        repeated = _repeated(runs)
        why = f"{repeated} of {len(runs)} runs repeat another one of their text; without 'logprobs' or reference runs"
        message = f"{why} nothing says how many may"
        return Finding.skipped("generate", "seed", "no_reference", message, len(runs), alpha=alpha)
    return beside_reference(sides, alpha, detect)


def by_probability(runs: Sequence[TokenRun], alpha: float, detect: float = SHARE) -> Finding:
    """Whether equal runs of a text are too improbable to be chance. The statistic is -log10 p, the bound -log10 alpha.

    p is the number of pairs times the probability of the least likely repeated run. The detectable difference is a
    probability that a pair is equal: floor(m / 2) pairs of a text's m runs that are long enough to be proof are
    independent.
    """
    texts = by_text(runs)
    pairs = sum(math.comb(len(some), 2) for some in texts.values())
    surprise, text, times = max((_least_likely_twice(some) for some in texts.values()), default=(0.0, "", 0))
    p_value = min(1.0, math.exp(math.log(pairs) - surprise)) if pairs and times else 1.0
    statistic, bound = 0.0 - math.log10(max(p_value, 1e-300)), -math.log10(alpha)
    proof = math.log(max(1, pairs) / alpha)
    independent = sum(sum(_surprise(run) > proof for run in some) // 2 for some in texts.values())
    seen = -math.expm1(math.log(MISS_RATE) / independent) if independent else 1.0
    message = f"{_repeated(runs)} of {len(runs)} runs repeat another one of their text"
    if times:
        message += f"; text {text!r} has {times} equal runs of probability exp(-{surprise:.0f}); p = {p_value:.2g}"
    judged = Judgement(statistic, bound, len(runs), p_value)
    if not judged.rejected and seen <= detect:
        message += f"; detects at least {seen:.1%} equal pairs"
    elif not judged.rejected:
        shown = f">= {seen:.0%} equal pairs" if seen < 1 else "nothing"
        message = f"too few runs of one text, or too short ones (detects {shown}, {detect:.0%} is required); {message}"
    return Finding.of_test(
        "generate", "seed", judged, message, alpha=alpha, detectable=seen, required=detect, unit=SHARE_OF_RUNS
    )


def beside_reference(sides: TwoSides, alpha: float, detect: float = SHARE) -> Finding:
    """Whether more, or fewer, of the engine's runs are repeated than of the reference's."""
    engine, reference = [], []
    for mine, theirs in zip(sides.engine, sides.reference, strict=True):
        times = Counter(run.tokens for run in (*mine, *theirs))
        engine.append(sum(times[run.tokens] > 1 for run in mine))
        reference.append(sum(times[run.tokens] > 1 for run in theirs))
    return marked_finding(sides, engine, reference, "seed", "repeat another one of their text", alpha, detect)


def _repeated(runs: Sequence[TokenRun]) -> int:
    times = Counter((run.text, run.tokens) for run in runs)
    return sum(count for count in times.values() if count > 1)


def _least_likely_twice(runs: Sequence[TokenRun]) -> tuple[float, str, int]:
    """The repeated runs of one text: the largest surprise, the text, the count; without any the count is 0."""
    times = Counter(run.tokens for run in runs)
    twice = [(_surprise(run), run.text, times[run.tokens]) for run in runs if times[run.tokens] > 1]
    return max(twice, default=(0.0, "", 0))


def _surprise(run: TokenRun) -> float:
    return 0.0 if run.logprobs is None else max(0.0, -float(run.logprobs.sum()))
