"""Put probes to an engine within its limits: its vocabulary, its stages, one row at a time, no empty history."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from sampler.checks.conformance.probes import Probe
from sampler.checks.conformance.settings import ALL_ON, NEUTRAL
from sampler.config import SamplingConfig
from sampler.engines.base import EngineInfo
from sampler.engines.calls import Answer, Call, EngineClient, Method
from sampler.engines.capabilities import has_stage, in_its_words, needs_context, offered, trimmed
from sampler.engines.rules import RULES, Rules, rules_of
from sampler.errors import EngineFailure, Unsupported
from sampler.requests import Context, Logits
from sampler.stages import Stage
from sampler.statistics.distance import drawable

CLEAR_OF = 0.25
"""How far a uniform number is from the probability that it is compared with, in parts of 1 / rows."""

SMALL = 17
"""The vocabulary with which limits are found."""

SPARING = ("penalty_spares_eos", "filters_spare_eos")
"""Rules that need to know which ids are EOS."""


@dataclass
class Asker:
    """Sends probes to an engine. width: the only vocabulary it accepts; smaller rows are padded with removed tokens.

    row_by_row: it refuses several rows, so that each is asked alone. fills: it refuses an empty history, so that none
    is asked. disregarded: declared rules by which it is not judged.
    """

    client: EngineClient
    width: int | None = None
    row_by_row: bool = False
    fills: bool = False
    disregarded: frozenset[str] = frozenset()
    broken: set[Stage] = field(default_factory=set)
    """Stages that hung or ended the process whenever they were alone; they are not asked again."""

    @property
    def info(self) -> EngineInfo:
        return self.client.offer.info

    @property
    def rules(self) -> Rules:
        """Those that the engine declares, and those of its dialect."""
        rules = rules_of(self.info.dialect, self.info.rules)
        return {name: value for name, value in rules.items() if name not in self.disregarded}

    def takes_context(self, method: Method | None) -> bool:
        """Whether a method has the keyword `context`; None: `process`, or `draw` of an engine without it."""
        offer = self.client.offer
        return (method or ("process" if "process" in offer.methods else "draw")) in offer.contexts

    def asked(self, config: SamplingConfig, method: Method | None = None) -> SamplingConfig:
        """The config that the engine gets, without stages that it lacks. Raises Unsupported."""
        stopped = sorted(self.broken & config.active_stages())
        if stopped:
            message = f"not asked any more: {', '.join(stopped)} had no answer"
            raise Unsupported(message, reason="after_failure")
        offer = in_its_words(self.info, offered(self.info, trimmed(self.info, config)))
        if self.takes_context(method):
            return offer
        stage = needs_context(offer, self.rules)
        if stage:
            raise Unsupported(f"{stage} needs the keyword `context`, which {method or 'process'}() does not take")
        sparing = [name for name in SPARING if name in self.rules and offer.active_stages() & set(RULES[name].stages)]
        if sparing and not self.info.eos_ids:
            hint = f"{method or 'process'}() does not take `context` and info.eos_ids is empty"
            raise Unsupported(f"the rule {sparing[0]} needs EOS ids: {hint}")
        return offer

    def placed(self, probe: Probe, method: Method | None = None) -> Probe:
        """The rows with a context: half of their history is prompt, half was drawn, unless the probe says otherwise."""
        if probe.context is not None:
            return probe
        lengths = np.array([len(row) for row in probe.history], dtype=np.int64)
        prompts = lengths // 2 if probe.prompts is None else np.minimum(probe.prompts, lengths)
        uniforms = _uniforms(len(lengths), probe.config.xtc_probability)
        eos_ids = (self.takes_context(method) and probe.eos_ids) or self.info.eos_ids  # else it knows its own alone
        return replace(probe, context=Context(prompts, lengths - prompts, eos_ids, uniforms))

    def find_limits(self) -> None:
        """Find out which vocabulary the engine accepts, whether it takes several rows, and empty histories.

        An engine whose process ends or hangs tells nothing about its limits: it is not asked further here, so that the
        cells ask it and report that.
        """
        try:
            self._find_limits()
        except EngineFailure:
            self.width = None

    def _find_limits(self) -> None:
        if not self._answers([[1]]):
            self.width = self.info.vocab_size
            if self.width is None or not self._answers([[1]]):
                self.width = None
                return
        if not self._answers([[1], [1, 0]]):
            self.row_by_row = True
        self.fills = not (self._answers([[]]) and self._answers([[1], []]))

    def _answers(self, history: list[list[int]]) -> bool:
        """Whether rows of zeros with these histories get an answer that is neither an error nor a refusal."""
        config = NEUTRAL
        if has_stage(self.info, "repetition_penalty"):
            config = replace(config, repetition_penalty=ALL_ON["repetition_penalty"])
        rows = np.zeros((len(history), min(SMALL, self.width or SMALL)), dtype=np.float32)
        try:
            probe = Probe.of("limits", "small", self.asked(config), rows, history, ("flat",) * len(rows))
            answer = self.ask(probe)
        except Unsupported:
            return True
        if answer.failure in ("hung", "died", "given_up"):
            raise EngineFailure(answer.message)
        if len(rows) == 1 and self.info.vocab_size is not None:
            return answer.value is not None and answer.value.shape == rows.shape
        return answer.failure not in ("raised", "unsupported")

    def fitted(self, probe: Probe) -> Probe:
        """The probe without empty histories, if the engine refuses them."""
        return (probe.with_filled_histories() or probe) if self.fills else probe

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
        first, second = self.placed(probe), None if then is None else self.placed(then)
        if self.row_by_row and len(probe) > 1:
            places = [[row] for row in range(len(probe))]
            rows = (self.ask(first.only(at), thread=thread, then=second and second.only(at)) for at in places)
            return _joined(rows)
        call = replace(self._call(first), thread=thread, then=None if second is None else self._call(second))
        answer = self.client.ask(call)
        size = probe.logits.shape[1]
        if self.width is None or answer.value is None or answer.value.shape != (len(probe.logits), self.width):
            return answer
        if (drawable(answer.value)[:, size:] > -np.inf).any():
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
        return Call("process", arguments, probe.context)


def _joined(answers: Iterable[Answer]) -> Answer:
    """The answers to single rows as one, or the first that has no scores."""
    found: list[Answer] = []
    for answer in answers:
        if answer.value is None:
            return answer
        found.append(answer)
    wrote = tuple(dict.fromkeys(name for answer in found for name in answer.wrote))
    shapes = {answer.value.shape for answer in found if answer.value is not None}
    values: list[NDArray[np.float64]] = [answer.value for answer in found if answer.value is not None]
    if len(shapes) > 1 or len(values[0]) != 1:
        return replace(found[0], wrote=wrote)  # of a wrong shape, which the caller reports
    return Answer(np.concatenate(values), wrote=wrote)


def _uniforms(count: int, probability: float) -> NDArray[np.float64]:
    """Uniform numbers, evenly spread and away from a probability, as equality is a matter of taste: (count,)."""
    even = (np.arange(count) + 0.5) / count
    return np.where(np.abs(even - probability) < CLEAR_OF / count, even + CLEAR_OF / count, even)
