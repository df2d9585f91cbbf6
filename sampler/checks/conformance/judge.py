"""Send one call of `process` to an engine and compare the answer with the reference."""

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from sampler.checks.conformance.asking import Asker
from sampler.checks.conformance.comparison import VARIATION, Comparison, Expected, unseen_at
from sampler.checks.conformance.dialects import acting, ruled_counts
from sampler.checks.conformance.probes import Probe
from sampler.engines.base import Evaluation, Explains
from sampler.engines.calls import Answer, raise_refusal

Array = NDArray[np.float64]

Blame = Literal["purity", "batch"] | None


@dataclass
class Judge(Asker):
    """Compares an engine's answers. reference: has its rules. tolerance: total variation allowed beyond rounding.

    rounding: relative error of the engine's scores beyond float32's.
    """

    reference: Explains = field(kw_only=True)
    tolerance: float = 0.0
    known: dict[Probe, Expected] = field(default_factory=dict)
    rounding: float = 0.0
    strict: bool = False
    """Whether a difference at exact ties or an exact mass counts as wrong; so it does where rules are declared."""

    def expect(self, probe: Probe) -> Expected:
        """The reference's answer, cached."""
        found = self.known.get(probe)
        if found is None:
            found = self.known[probe] = self._expect(probe)
        return found

    def _expect(self, probe: Probe) -> Expected:
        placed = self.placed(probe)
        must, may, final = self.reference.bounds(placed)
        counts, rounding = probe.counts, self.rounding
        if acting(self.rules, probe.config):
            counts, rounding = ruled_counts(self.rules, probe, final.kept, rounding)
            if probe.kept is not None and probe.config.greedy:
                must = may = final.kept
        elif probe.kept is not None:
            must = may = probe.kept
            final = replace(final, scores=np.where(probe.kept, probe.logits.astype(np.float64), -np.inf))
        unseen = unseen_at(probe.config)
        best = final.scores.argmax(axis=-1)[:, None]
        reach = final.error + np.take_along_axis(final.error, best, axis=-1)
        must = must & (final.scores >= np.take_along_axis(final.scores, best, axis=-1) - unseen + reach)
        tolerance = VARIATION + self.tolerance + _rounding(final)
        return Expected(must, may, final.scores, tolerance, counts, rounding, unseen)

    def disregarding(self, rule: str) -> "Judge":
        """Judges by HuggingFace's rule where the engine declares another one."""
        rules = {name: value for name, value in self.rules.items() if name != rule}
        return replace(self, reference=self.reference.with_rules(rules), disregarded=frozenset({rule}), known={})

    def compare(self, probe: Probe) -> Comparison:
        """Send a probe and compare the answer with the reference. Raises Unsupported where the engine does."""
        probe = self.fitted(probe)
        answer = self.ask(probe)
        raise_refusal(answer)
        return Comparison(self.placed(probe), self.expect(probe), answer, _unusable(answer, probe.logits.shape))

    def blame(self, comparison: Comparison) -> Blame:
        """Find out whether wrong rows are right alone, or right at a second call."""
        if comparison.failure:
            return None
        rows = np.flatnonzero(comparison.wrong)[:3].tolist()
        if not self.compare(comparison.probe).wrong[rows].all():
            return "purity"
        if len(comparison.probe.logits) == 1:
            return None
        alone = [self.compare(comparison.probe.only([row])) for row in rows]
        return None if any(comparison.wrong.any() for comparison in alone) else "batch"


def _rounding(state: Evaluation) -> Array:
    """Upper bound on the total variation from rounding of the scores: sum of p times error; (B,).

    If every score is off by e, the worst case is half of the mass up and half down: tanh(e) / 2, half of the bound.
    """
    left = np.where(state.kept.any(axis=-1, keepdims=True), state.scores, 0.0)
    return np.asarray(np.minimum(1.0, (softmax(left, axis=-1) * state.error).sum(axis=-1)))


def _unusable(answer: Answer, shape: tuple[int, ...]) -> str:
    if answer.failure:
        return answer.message
    assert answer.value is not None  # noqa: S101 - no failure
    if answer.value.shape != shape:
        return f"scores of shape {answer.value.shape}, expected {shape}"
    return ""
