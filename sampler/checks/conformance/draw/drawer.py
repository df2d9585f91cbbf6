"""Draw from the cells of the plan with an engine's own `draw`, and reject answers that are no valid draws."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from sampler.checks.conformance.comparison import Expected
from sampler.checks.conformance.draw.plan import CHUNK, DRAWS, DrawCell
from sampler.checks.conformance.judge import Judge
from sampler.checks.conformance.probes import Probe
from sampler.config import SamplingConfig
from sampler.engines.calls import Answer, Call, raise_refusal
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
    """The draws of a cell. calls: tokens of each call, (calls, CHUNK)."""

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

    @property
    def variation(self) -> float:
        """Total variation between the frequencies and the reference's distribution."""
        return float(np.abs(self.counts / self.counts.sum() - self.probabilities).sum() / 2)


@dataclass
class Drawer:
    """Draws with the engine's own `draw`. base: seed of the run."""

    judge: Judge
    base: int
    drawn: dict[str, Drawn] = field(default_factory=dict)

    def draw(self, probe: Probe, n: int, seed: int, *, thread: bool = False) -> Tokens:
        """N tokens of one call. Raises NoDraws and Unsupported."""
        config = self.judge.asked(probe.config, "draw")
        uncond = probe.uncond_logits if self.judge.info.cfg else None  # it may reject the argument
        arguments = {
            "logits": self.judge.filled(probe.logits[0]),
            "history": probe.history[0],
            "config": config,
            "n": n,
            "seed": seed,
            "uncond_logits": None if uncond is None else self.judge.filled(uncond[0], 0.0),
        }
        answer = self.judge.client.ask(Call("draw", arguments, self.judge.placed(probe, "draw").context, thread))
        try:
            return _tokens(answer, n, probe.logits.shape[1])
        except NoDraws as error:
            if answer.failure not in ("raised", "died", "hung"):
                raise
            raise NoDraws(f"{_values(config)}{error}") from error

    def cell(self, cell: DrawCell) -> Drawn:
        """All draws of a cell, cached."""
        if cell.name not in self.drawn:
            first = 1_000_003 * (self.base + 1)
            calls = [self.draw(cell.probe, CHUNK, first + index) for index in range(DRAWS // CHUNK)]
            probe = cell.probe.with_config(self.judge.asked(cell.probe.config, "draw"))
            self.drawn[cell.name] = Drawn(cell, self.judge.expect(probe), np.stack(calls))
        return self.drawn[cell.name]


def _values(config: SamplingConfig) -> str:
    """The parameters that are on, as the beginning of a message."""
    knobs = [name for stage in config.active_stages() for name in NEUTRAL[stage]]
    knobs = ["temperature", *knobs] if config.greedy and "temperature" not in knobs else knobs
    shown = ", ".join(f"{name}={getattr(config, name)}" for name in sorted(knobs))
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
