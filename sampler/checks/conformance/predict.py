"""Whether teacher-forced logits are consistent, and those of another engine.

Consistent: finite, repeatable, and independent of later tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sampler.checks.verdict import Finding, Outcome
from sampler.engines.base import EngineInfo
from sampler.engines.calls import Call, EngineClient, raise_refusal
from sampler.errors import Unsupported
from sampler.statistics.distance import total_variation

Array = NDArray[np.float64]
PROMPT = "The harbour is quiet tonight."
COUNT = 24

TEXTS = (PROMPT, "No miller in Venice has ever examined so many medals!", "They sold the pepper.")
"""What another engine is compared on."""

TOLERANCES: Final = {
    "float64": (1e-3, 1e-4),
    "float32": (1e-3, 1e-4),
    "float16": (0.05, 0.006),
    "bfloat16": (0.25, 0.05),
}
"""By precision: largest total variation of a position, and the mean of all positions, that two engines may have, of
which one is as coarse. Half precision: some times what Finch has beside float32 (0.006 and 0.002; 0.04 and 0.012)."""

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

    def predict(self, tokens: list[int], prompt: str = PROMPT, *, thread: bool = False) -> Array:
        """Logits of every step, (1 or 2, len + 1, V). Raises NoLogits and Unsupported."""
        answer = self.client.ask(Call("predict", {"prompt": prompt, "tokens": tokens}, thread=thread))
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


def compared(mine: Predictor, other: Predictor, allowed: float = 0.0) -> Finding:
    """Two engines give the same distributions, position by position, within the tolerance of the coarser precision.

    allowed: total variation beyond that. Raises NoLogits, and Unsupported where they cannot be compared.
    """
    names = mine.info.name, other.info.name
    if mine.info.vocab_size != other.info.vocab_size:
        sizes = f"{mine.info.vocab_size} tokens, {names[1]} {other.info.vocab_size}"
        raise Unsupported(f"{names[0]} has a vocabulary of {sizes}: logits cannot be compared", reason="no_reference")
    dtypes = {predictor.info.dtype for predictor in (mine, other)}
    unknown = sorted(dtypes - set(TOLERANCES))
    if unknown:
        raise Unsupported(f"there is no tolerance for {unknown[0]}", reason="no_reference")
    largest, mean = (max(TOLERANCES[dtype][place] for dtype in dtypes) + allowed for place in (0, 1))
    variation = np.stack([_variation(mine, other, edition, text) for edition, text in enumerate(TEXTS)])
    worst, average = float(variation.max()), float(variation.mean())
    message = f"total variation from {other.info.name}: at most {worst:.2g}, {average:.2g} on average"
    if worst <= largest and average <= mean:
        message += f", within {largest:.2g} and {mean:.2g}"
        return Finding("predict", "precision", "passed", variation.size, message, worst, largest, detectable=largest)
    beyond = variation > (largest if worst > largest else mean)
    step = int(np.flatnonzero(beyond.any(axis=(0, 1)))[0])
    text, row = np.argwhere(beyond[:, :, step])[0]
    which = "unconditional" if row else "conditional"
    message += (
        f" ({largest:.2g} and {mean:.2g} are allowed); first at position {step} of {TEXTS[text]!r}, {which} logits: "
        f"{variation[text, row, step]:.2g}"
    )
    stage = "cfg" if not beyond[:, 0].any() else "position" if step else "precision"
    statistic, bound = (worst, largest) if worst > largest else (average, mean)
    return Finding("predict", stage, "failed", variation.size, message, statistic, bound, detectable=largest)


def _variation(mine: Predictor, other: Predictor, edition: int, text: str) -> Array:
    """Total variation of every position: (1 or 2, steps); 1 where a logit is NaN."""
    tokens = mine.tokens(edition)
    logits = mine.predict(tokens, text), other.predict(tokens, text)
    rows = min(map(len, logits))
    return np.nan_to_num(total_variation(logits[0][:rows], logits[1][:rows]), nan=1.0)


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
