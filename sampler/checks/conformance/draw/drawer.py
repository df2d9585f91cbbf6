"""Draw from the cells of the plan with an engine's own `draw`, and reject answers that are no valid draws."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from sampler.checks.conformance.asking import SMALL
from sampler.checks.conformance.comparison import Expected
from sampler.checks.conformance.draw.cells import DrawCell
from sampler.checks.conformance.draw.sets import TokenSets, sets_of
from sampler.checks.conformance.judge import Judge
from sampler.checks.conformance.probes import Probe, label
from sampler.checks.conformance.settings import NEUTRAL as OFF
from sampler.config import SamplingConfig
from sampler.engines.calls import Answer, Call, raise_refusal
from sampler.errors import Unsupported
from sampler.requests import Context
from sampler.stages import NEUTRAL

Tokens = NDArray[np.int64]
Array = NDArray[np.float64]


class NoDraws(Exception):
    """An engine gave no tokens, a wrong number of tokens, or tokens outside the vocabulary."""

    def __init__(self, message: str, *, failed: bool = False, stage: str = "draw") -> None:
        super().__init__(message)
        self.failed = failed
        self.stage = stage


@dataclass
class Drawn:
    """The draws of a cell. calls: tokens of each call, (calls, cell.chunk)."""

    cell: DrawCell
    expected: Expected
    calls: Tokens

    @property
    def tokens(self) -> Tokens:
        return self.calls.ravel()

    @property
    def counts(self) -> Tokens:
        return np.bincount(self.tokens, minlength=self.cell.probe.logits.shape[1])

    @property
    def probabilities(self) -> Array:
        """The reference's distribution, (V,)."""
        return np.asarray(softmax(self.expected.scores[0]))

    @cached_property
    def sets(self) -> TokenSets:
        """The sets of tokens whose frequencies are tested."""
        return sets_of(self.probabilities, self.cell.places)

    @property
    def variation(self) -> float:
        """Total variation between the frequencies and the reference's distribution, or the largest error of a set."""
        if self.cell.by_sets:
            return float(np.abs(self.sets.counts(self.tokens) / self.tokens.size - self.sets.probabilities).max())
        return float(np.abs(self.counts / self.counts.sum() - self.probabilities).sum() / 2)


@dataclass
class Drawer:
    """Draws with the engine's own `draw`. base: seed of the run."""

    judge: Judge
    base: int
    drawn: dict[str, Drawn] = field(default_factory=dict)
    ready: dict[Probe, tuple[SamplingConfig, Context | None]] = field(default_factory=dict)
    """The config and the context of each probe as the engine gets them."""

    def draw(self, probe: Probe, n: int, seed: int, *, thread: bool = False) -> Tokens:
        """N tokens of one call. Raises NoDraws and Unsupported."""
        if probe not in self.ready:
            config = self.judge.asked(probe.config, "draw")
            self.ready[probe] = config, self.judge.placed(probe, "draw").context
        config, context = self.ready[probe]
        uncond = probe.uncond_logits if self.judge.info.cfg else None  # it may reject the argument
        arguments = {
            "logits": self.judge.filled(probe.logits[0]),
            "history": probe.history[0],
            "config": config,
            "n": n,
            "seed": seed,
            "uncond_logits": None if uncond is None else self.judge.filled(uncond[0], 0.0),
        }
        answer = self.judge.client.ask(Call("draw", arguments, context, thread))
        try:
            return _tokens(answer, n, probe.logits.shape[1])
        except NoDraws as error:
            if answer.failure not in ("raised", "died", "hung"):
                raise
            raise NoDraws(f"{values_of(config)}{error}") from error

    def find_limits(self) -> None:
        """Find out by draws whether the engine takes another vocabulary than its own, for one without `process`."""
        size = self.judge.info.vocab_size
        if size is None or size == SMALL:
            return
        probe = Probe.of("limits", "small", OFF, np.zeros((1, SMALL), dtype=np.float32), [[1]], ("flat",))
        for width in (None, size):
            self.judge.width = width
            try:
                self.draw(probe, 1, 0)
            except NoDraws:
                continue
            except Unsupported:
                pass
            return
        self.judge.width = None

    def takes(self, probe: Probe) -> bool:
        """Whether the engine has the stages of a probe, and a vocabulary as large."""
        try:
            self.judge.asked(probe.config, "draw")
            self.judge.filled(probe.logits)
        except Unsupported:
            return False
        return True

    def asks(self, cell: DrawCell, *, shown: bool) -> bool:
        """Whether a cell is asked: of what only some engines have, what this one has. shown: it has `process`."""
        return not cell.further or (not (shown and cell.alone) and self.takes(cell.probe))

    def expected(self, probe: Probe) -> Expected:
        """The reference's answer to a probe as the engine is asked it. Raises Unsupported."""
        return self.judge.expect(self.judge.placed(probe, "draw").with_config(self.judge.asked(probe.config, "draw")))

    def cell(self, cell: DrawCell) -> Drawn:
        """All draws of a cell, cached."""
        if cell.name not in self.drawn:
            first = 1_000_003 * (self.base + 1)
            calls = [self.draw(cell.probe, cell.chunk, first + index) for index in range(cell.draws // cell.chunk)]
            self.drawn[cell.name] = Drawn(cell, self.expected(cell.probe), np.stack(calls))
        return self.drawn[cell.name]


def values_of(config: SamplingConfig) -> str:
    """The parameters that are on, as the beginning of a message."""
    off = [NEUTRAL[stage].items() for stage in config.active_stages()]
    knobs = [name for items in off for name, neutral in items if getattr(config, name) != neutral]
    knobs = ["temperature", *knobs] if config.greedy and "temperature" not in knobs else knobs
    shown = label({name: getattr(config, name) for name in sorted(knobs)})
    return f"{shown}: " if shown else ""


def _tokens(answer: Answer, n: int, size: int) -> Tokens:
    raise_refusal(answer)
    if answer.value is None:
        raise NoDraws(answer.message)
    if answer.wrote:
        raise NoDraws(f"draw() writes into {', '.join(answer.wrote)}", failed=True, stage="purity")
    if answer.value.shape != (n,):
        raise NoDraws(f"draw() gave tokens of shape {answer.value.shape}, expected ({n},)")
    tokens = answer.value
    if tokens.dtype.kind == "f" and not np.array_equal(tokens, np.round(tokens)):
        raise NoDraws(f"draw() gave {tokens[tokens != np.round(tokens)][0]}, expected ids of tokens")
    outside = tokens[(tokens < 0) | (tokens >= size)]
    if len(outside):
        hint = ": it may be a column that pads the vocabulary" if outside[0] >= size else ""
        raise NoDraws(f"draw() gave the token {outside[0]:.12g}, expected 0 to {size - 1}{hint}", failed=True)
    return tokens.astype(np.int64)
