"""Whether teacher-forced logits are consistent: finite, repeatable, and independent of later tokens."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sampler.checks.verdict import Finding, Outcome
from sampler.engines.base import EngineInfo
from sampler.engines.calls import Call, EngineClient, raise_refusal
from sampler.errors import Unsupported

Array = NDArray[np.float64]
PROMPT = "The harbour is quiet tonight."
COUNT = 24

CLOSE = 1e-3
"""Tolerance of a logit, relative and absolute, for float32 passes of different lengths."""


class NoLogits(Exception):
    """An engine gave no logits, or logits of a wrong shape."""


@dataclass(frozen=True)
class Predictor:
    """Asks an engine for the logits of random tokens of its vocabulary."""

    client: EngineClient
    seed: int

    @property
    def info(self) -> EngineInfo:
        return self.client.offer.info

    def tokens(self, edition: int = 0) -> list[int]:
        """Ids of the vocabulary without BOS and EOS, different in each edition. Raises Unsupported without a size."""
        size = self.info.vocab_size
        if size is None:
            raise Unsupported(f"{self.info.name} does not say how large its vocabulary is")
        special = {self.info.bos_id, *self.info.eos_ids}
        ids = [token for token in range(size) if token not in special]
        return [int(token) for token in np.random.default_rng([self.seed, edition]).choice(ids, COUNT)]

    def predict(self, tokens: list[int], *, thread: bool = False) -> Array:
        """Logits of every step, (1 or 2, len + 1, V). Raises NoLogits and Unsupported."""
        answer = self.client.ask(Call("predict", {"prompt": PROMPT, "tokens": tokens}, thread=thread))
        raise_refusal(answer)
        if answer.value is None:
            raise NoLogits(answer.message)
        steps, size = len(tokens) + 1, self.info.vocab_size
        expected = (2, steps, size) if self.info.cfg else (steps, size)
        if answer.value.shape != expected:
            raise NoLogits(f"predict() gave logits of shape {answer.value.shape}, expected {expected}")
        return answer.value.astype(np.float64).reshape((2 if self.info.cfg else 1), steps, -1)


def finite(predictor: Predictor) -> Finding:
    """No logit is NaN or +inf."""
    logits = predictor.predict(predictor.tokens())
    bad = int((np.isnan(logits) | (logits == np.inf)).sum())
    return _found("purity", logits.size, f"{bad} of {logits.size:,} logits are NaN or +inf", bad, 0.0)


def repeatable(predictor: Predictor) -> Finding:
    """The same tokens give the same bits, in a worker thread too."""
    tokens = predictor.tokens()
    first, second = predictor.predict(tokens), predictor.predict(tokens, thread=True)
    worst = _furthest(first, second)
    return _found("purity", first.size, f"a second call, in a worker thread: logits differ by {worst:.2g}", worst, 0.0)


def causal(predictor: Predictor) -> Finding:
    """Later tokens change no logit."""
    tokens = predictor.tokens()
    half = COUNT // 2
    others = [*tokens[:half], *predictor.tokens(edition=1)[half:]]
    first, second = predictor.predict(tokens), predictor.predict(others)
    return _close(first[:, : half + 1], second[:, : half + 1], "position", "other tokens later")


def prefixes(predictor: Predictor) -> Finding:
    """Fewer tokens give the first of the same rows, which a cache relies on."""
    tokens = predictor.tokens()
    whole, part = predictor.predict(tokens), predictor.predict(tokens[: COUNT // 3])
    return _close(whole[:, : part.shape[1]], part, "cache", "a third of the tokens")


def empty(predictor: Predictor) -> Finding:
    """No tokens give one row, equal to the first of any other tokens."""
    whole, none = predictor.predict(predictor.tokens()), predictor.predict([])
    return _close(whole[:, :1], none, "cache", "no tokens at all")


def _close(first: Array, second: Array, stage: str, what: str) -> Finding:
    allowed = CLOSE * (1 + np.abs(first))
    excess = float(np.max(np.abs(first - second) / allowed))
    step = int(np.unravel_index(np.argmax(np.abs(first - second) / allowed), first.shape)[1])
    message = f"{what}: step {step} differs by {_furthest(first[:, step], second[:, step]):.2g}"
    return _found(stage, first.size, message, excess, 1.0)


def _furthest(first: Array, second: Array) -> float:
    return float(np.nan_to_num(np.abs(first - second), nan=np.inf).max())


def _found(stage: str, n: int, message: str, statistic: float, bound: float) -> Finding:
    outcome: Outcome = "failed" if statistic > bound else "passed"
    return Finding("predict", stage, outcome, n, message, float(statistic), bound)


CHECKS: tuple[tuple[str, Callable[[Predictor], Finding]], ...] = (
    ("finite", finite),
    ("repeatable", repeatable),
    ("causal", causal),
    ("prefixes", prefixes),
    ("empty", empty),
)
"""By name, in the order in which they run."""
