"""Send one call of `process` to an engine and compare the answer with the reference."""

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from sampler.checks.conformance.comparison import UNSEEN, VARIATION, Comparison, Expected
from sampler.checks.conformance.dialects import DIALECTS, STRICT
from sampler.checks.conformance.probes import Probe
from sampler.checks.conformance.settings import NEUTRAL
from sampler.config import SamplingConfig
from sampler.engines.base import EngineInfo, Evaluation, Explains
from sampler.engines.calls import Answer, Call, EngineClient, raise_refusal
from sampler.engines.capabilities import offered, trimmed
from sampler.errors import Unsupported
from sampler.requests import Context, Logits
from sampler.stages import Stage

Array = NDArray[np.float64]

Blame = Literal["purity", "batch"] | None

CLEAR_OF = 0.25
"""How far a uniform number is from the probability that it is compared with, in parts of 1 / rows."""


@dataclass
class Judge:
    """Sends probes to an engine and compares. tolerance: total variation allowed beyond rounding."""

    client: EngineClient
    reference: Explains
    tolerance: float = 0.0
    known: dict[Probe, Expected] = field(default_factory=dict)
    width: int | None = None
    """The only vocabulary size the engine accepts; smaller rows are padded with removed tokens."""

    rounding: float = 0.0
    """Relative error of the engine's scores beyond float32's."""

    strict: bool = False
    """Whether a difference at exact ties or an exact mass counts as wrong."""

    broken: set[Stage] = field(default_factory=set)
    """Stages that hung or ended the process whenever they were alone; they are not asked again."""

    @property
    def info(self) -> EngineInfo:
        return self.client.offer.info

    def asked(self, config: SamplingConfig) -> SamplingConfig:
        """The config that the engine gets, without stages that it lacks. Raises Unsupported."""
        stopped = sorted(self.broken & config.active_stages())
        if stopped:
            message = f"not asked any more: {', '.join(stopped)} had no answer"
            raise Unsupported(message, reason="after_failure")
        return offered(self.info, trimmed(self.info, config))

    def expect(self, probe: Probe) -> Expected:
        """The reference's answer, cached."""
        found = self.known.get(probe)
        if found is None:
            found = self.known[probe] = self._expect(probe)
        return found

    def _expect(self, probe: Probe) -> Expected:
        must, may, final = self.reference.bounds(self.placed(probe))
        if probe.kept is not None:
            must = may = probe.kept
            final = replace(final, scores=np.where(probe.kept, probe.logits.astype(np.float64), -np.inf))
        must = must & (final.scores >= final.scores.max(axis=-1, keepdims=True) - UNSEEN)
        tolerance = VARIATION + self.tolerance + _rounding(final)
        return Expected(must, may, final.scores, tolerance, probe.counts, self._unfiltered(probe), self.rounding)

    def _unfiltered(self, probe: Probe) -> Array | None:
        if not DIALECTS.get(self.info.dialect or "", STRICT).ties_are_open:
            return None
        config = probe.config.without(["top_k", "min_p", "top_p"])
        if config.greedy:
            return None
        return self.reference.evaluate(self.placed(probe).with_config(config))[-1].scores

    def placed(self, probe: Probe) -> Probe:
        """The rows with a context: half of their history is prompt, half was drawn, unless the probe says otherwise."""
        lengths = np.array([len(row) for row in probe.history], dtype=np.int64)
        prompts = lengths // 2 if probe.prompts is None else np.minimum(probe.prompts, lengths)
        uniforms = _uniforms(len(lengths), probe.config.xtc_probability)
        eos_ids = probe.eos_ids or self.info.eos_ids
        return replace(probe, context=Context(prompts, lengths - prompts, eos_ids, uniforms))

    def find_width(self) -> None:
        """Find out whether an engine of a stated vocabulary accepts others."""
        size = self.info.vocab_size
        if size is None:
            return
        probe = Probe.of("width", "V=17", NEUTRAL, np.zeros((1, 17), dtype=np.float32), [[]], ("flat",))
        try:
            answer = self.ask(probe.with_config(self.asked(probe.config)))
        except Unsupported:
            return
        if answer.value is None or answer.value.shape != (1, 17):
            self.width = size

    def filled(self, rows: Logits, value: float = -np.inf) -> Logits:
        """Rows (..., V) padded to the engine's vocabulary. Raises Unsupported for larger ones."""
        missing = 0 if self.width is None else self.width - rows.shape[-1]
        if missing < 0:
            raise Unsupported(f"{self.info.name} takes vocabularies of {self.width} alone")
        if missing == 0:
            return rows
        widths = [(0, 0)] * (rows.ndim - 1) + [(0, missing)]
        return np.pad(rows, widths, constant_values=np.float32(value))

    def ask(self, probe: Probe, *, thread: bool = False, then: Probe | None = None) -> Answer:
        """Send a probe unchanged; then: another one, sent while the answer is held."""
        second = None if then is None else self._call(then)
        answer = self.client.ask(replace(self._call(probe), thread=thread, then=second))
        size = probe.logits.shape[1]
        if self.width is None or answer.value is None or answer.value.shape != (len(probe.logits), self.width):
            return answer
        if (answer.value[:, size:] > -np.inf).any():
            return replace(answer, value=None, failure="type", message="tokens whose logits are -inf have scores")
        return replace(answer, value=answer.value[:, :size])

    def _call(self, probe: Probe) -> Call:
        uncond = probe.uncond_logits if self.info.cfg else None  # an engine without guidance may reject the argument
        arguments = {
            "logits": self.filled(probe.logits),
            "history": probe.history,
            "config": probe.config,
            "uncond_logits": None if uncond is None else self.filled(uncond, 0.0),
        }
        return Call("process", arguments, self.placed(probe).context)

    def compare(self, probe: Probe) -> Comparison:
        """Send a probe and compare the answer with the reference. Raises Unsupported where the engine does."""
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


def _uniforms(count: int, probability: float) -> Array:
    """Uniform numbers, evenly spread and away from a probability, as equality is a matter of taste: (count,)."""
    even = (np.arange(count) + 0.5) / count
    return np.where(np.abs(even - probability) < CLEAR_OF / count, even + CLEAR_OF / count, even)


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
