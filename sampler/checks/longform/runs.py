"""A run of tokens in a form that any port can write, and runs of two sides, text by text."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sampler.engines.base import Generation, StopReason
from sampler.errors import Unsupported

Array = NDArray[np.float64]
T = TypeVar("T")

ENDED: tuple[StopReason, ...] = ("eos", "forced_eos")
"""Stop reasons of runs whose last token is EOS."""

NO_TEXT_IN_COMMON = "no text has runs on both sides"

SCALARS = ("logprobs", "entropy", "rank", "margin")
"""Optional measures of every step."""

STEPS = (*SCALARS, "position")
"""The same, and the place in the text that was read."""


@dataclass(frozen=True)
class TokenRun:
    """One run. text: the id of its prompt. tokens: without BOS, with EOS iff stop_reason is eos or forced_eos.

    Tokens below 0 were left out of a log.

    Of each step, float64 (T,), or None if not recorded: logprobs, natural logarithm of the probability of the drawn
    token after all stages, at most 0; entropy of that distribution in nats; rank, how many tokens were more likely;
    margin, score + noise minus that of the runner-up, inf if only one token was left. expected: the length of the
    text's speech, in tokens without EOS. position: int64 (T,), the place in the text that each step reads, from 0 to
    text_length - 1 (`positions`), or None if not recorded. text_length: pieces of the text in the engine's
    tokenization, including those that mark its beginning and its end.
    """

    text: str
    tokens: tuple[int, ...]
    stop_reason: StopReason
    logprobs: Array | None = field(default=None, compare=False)
    entropy: Array | None = field(default=None, compare=False)
    rank: Array | None = field(default=None, compare=False)
    margin: Array | None = field(default=None, compare=False)
    expected: float | None = None
    position: NDArray[np.int64] | None = field(default=None, compare=False)
    text_length: int | None = None

    @property
    def ended(self) -> bool:
        return self.stop_reason in ENDED

    @property
    def length(self) -> int:
        return len(self.tokens) - (1 if self.ended and self.tokens else 0)

    @cached_property
    def spoken(self) -> NDArray[np.int64]:
        return np.array(self.tokens[: self.length], dtype=np.int64)


def positions(attention: NDArray[np.floating]) -> NDArray[np.int64]:
    """The place of the text with most attention of the aligned heads together: (pairs, T, S) -> int64 (T,).

    The lowest of equal places. Raises ValueError for another shape, and if there are no heads or no text.
    """
    if attention.ndim != 3 or 0 in (attention.shape[0], attention.shape[2]):
        raise ValueError(f"attention of shape {attention.shape} (expected (pairs, steps, text) with pairs and text)")
    return np.asarray(attention.mean(axis=0, dtype=np.float64).argmax(axis=1), dtype=np.int64)


def token_run(text: str, generation: Generation, expected: float | None = None) -> TokenRun:
    """The run of a generation; its record gives positions, and the scalars that it has for every token."""
    tokens = tuple(int(token) for token in generation.tokens)
    record = generation.record
    if record is None:
        return TokenRun(text, tokens, generation.stop_reason, expected=expected)
    logprobs, entropy, rank, margin = (
        np.asarray(values, dtype=np.float64) if len(values) == len(tokens) else None
        for values in (record.logprob, record.entropy, record.rank, record.margin)
    )
    run = TokenRun(text, tokens, generation.stop_reason, logprobs, entropy, rank, margin, expected)
    if record.attention is None:
        return run
    attention = np.asarray(record.attention)
    return replace(run, position=positions(attention), text_length=attention.shape[2])


@dataclass(frozen=True)
class TwoSides:
    """Runs of the texts that both sides have, in the order of the engine's file; others: texts of only one side."""

    texts: tuple[str, ...]
    engine: tuple[tuple[TokenRun, ...], ...]
    reference: tuple[tuple[TokenRun, ...], ...]
    others: tuple[str, ...] = ()

    @classmethod
    def of(cls, engine: Sequence[TokenRun], reference: Sequence[TokenRun]) -> "TwoSides":
        mine, theirs = by_text(engine), by_text(reference)
        texts = tuple(text for text in mine if text in theirs)
        others = tuple(text for text in {**mine, **theirs} if text not in texts)
        return cls(texts, tuple(mine[text] for text in texts), tuple(theirs[text] for text in texts), others)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Runs of the engine and of the reference, for each text."""
        return [(len(one), len(other)) for one, other in zip(self.engine, self.reference, strict=True)]

    @property
    def count(self) -> int:
        return sum(one + other for one, other in self.sizes)

    def all_runs(self) -> Iterator[TokenRun]:
        for side in (self.engine, self.reference):
            for runs in side:
                yield from runs

    def of_runs(self, value: Callable[[TokenRun], T]) -> tuple[list[list[T]], list[list[T]]]:
        """A value of each run, by text, on both sides."""
        engine, reference = ([[value(run) for run in runs] for runs in side] for side in (self.engine, self.reference))
        return engine, reference


def by_text(runs: Iterable[TokenRun]) -> dict[str, tuple[TokenRun, ...]]:
    """Runs of each text, in their order."""
    found: dict[str, list[TokenRun]] = {}
    for run in runs:
        found.setdefault(run.text, []).append(run)
    return {text: tuple(some) for text, some in found.items()}


def not_recorded(sides: TwoSides, name: str, lacks: Callable[[TokenRun], bool]) -> Unsupported | None:
    """Why the two sides cannot be compared by a recorded quantity, or None."""
    if not sides.texts:
        return Unsupported(NO_TEXT_IN_COMMON, reason="no_common_text")
    lacking = [
        side
        for side, texts in (("engine", sides.engine), ("reference", sides.reference))
        if any(lacks(run) for runs in texts for run in runs)
    ]
    if not lacking:
        return None
    return Unsupported(f"{name!r} was not recorded by the {' nor by the '.join(lacking)}", reason="not_recorded")


def shown_texts(texts: Sequence[str], most: int = 3) -> str:
    """A few ids for a message."""
    named = ", ".join(repr(text) for text in texts[:most])
    return f"{named} and {len(texts) - most} more" if len(texts) > most else named


def end_tokens(runs: Iterable[TokenRun]) -> dict[int, int]:
    """Tokens that end at least a twentieth of the ended runs, with their counts: candidates for EOS."""
    last = Counter(run.tokens[-1] for run in runs if run.ended and run.tokens and run.tokens[-1] >= 0)
    total = last.total()
    return {token: count for token, count in last.most_common() if 20 * count >= total}
