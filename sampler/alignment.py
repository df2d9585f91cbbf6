"""Does the speech still follow its text? The AlignmentStreamAnalyzer of Chatterbox, for many rows at once.

It reads from the attention of a few heads where in the text the speech is. It suppresses EOS until the text was
read, and forces EOS in a run that hangs at the end, goes back or repeats a token. Source:
`models/t3/inference/alignment_stream_analyzer.py` of chatterbox-tts 0.1.0 to 0.1.7. Upstream keeps the whole attention
map and sums over it at every step; the running sums here make the cost of a step independent of its index.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, get_args

import mlx.core as mx
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sampler.errors import ConfigError

LARGE: Final = 2.0**15
"""The score of a forced EOS; its negative is the score of all other tokens and of a suppressed EOS."""

FINDING: Final = 'docs/findings.md, "Texts of up to five ids crash the analyzer"'
FLAGS: Final = ("long_tail", "alignment_repetition", "token_repetition", "suppressed")
ShortTexts = Literal["guard", "crash"]


@dataclass(frozen=True)
class AnalyzerConfig:
    """The constants of one analyzer; the defaults are those of 0.1.3 to 0.1.7, except `short_texts`.

    S is the number of text ids, start and stop included; a column is one of them, a row the attention of one step.
    Raises ConfigError for a value out of range.
    """

    jump_back: int = 4
    """>= 1; the position follows the attention only if it moves forward by more than -jump_back columns ..."""
    jump_ahead: int = 7
    """>= 1; ... and by less than jump_ahead columns."""
    monotonic: bool = True
    """Whether attention beyond column t counts as 0 at step t, the first being 0."""
    end_columns: int = 3
    """>= 0; the text is complete once the position is at S - end_columns."""
    tail_columns: int = 3
    """>= 1; `long_tail` watches this many of the last columns."""
    tail_threshold: float = 5.0
    """>= 0; forces EOS once a watched column got this much attention since the text was complete. 0 is off."""
    skipped_columns: int = 5
    """>= 0; `alignment_repetition` leaves out this many of the last columns."""
    repetition_threshold: float = 5.0
    """>= 0; forces EOS once the largest values of the other columns, summed likewise, exceed it. 0 is off."""
    equal_tokens: int = 2
    """2 or more; forces EOS once this many consecutive tokens are equal. 0 is off."""
    tracked_tokens: int = 3
    """>= 0; `equal_tokens` has no effect before this many tokens, BOS included."""
    suppress: bool = True
    """Whether EOS is suppressed while the attention is before column S - end_columns."""
    suppress_above: int = 5
    """>= 0; only for texts with S above this."""
    force_wins: bool = True
    """Whether a forced EOS stays where it is suppressed at the same step."""
    short_texts: ShortTexts = "guard"
    """For S <= skipped_columns no column is left. guard: no `alignment_repetition`. crash: an error, as upstream."""

    def __post_init__(self) -> None:
        for name, (kind, fits, expected) in _RANGES.items():
            value = getattr(self, name)
            is_kind = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
            if not is_kind or not fits(value):
                raise ConfigError(f"{name} = {value!r} is out of range", hint=f"expected {expected}")


def _at_least(least: int) -> tuple[Any, Any, str]:
    return int, lambda value: value >= least, f"an integer >= {least}"


_SWITCH: Final = (bool, lambda value: True, "true or false")
_THRESHOLD: Final = (int | float, lambda value: 0 <= value < LARGE, "a number >= 0 (0 is off)")
_RANGES: Final[dict[str, tuple[Any, Any, str]]] = {
    "jump_back": _at_least(1),
    "jump_ahead": _at_least(1),
    "monotonic": _SWITCH,
    "end_columns": _at_least(0),
    "tail_columns": _at_least(1),
    "tail_threshold": _THRESHOLD,
    "skipped_columns": _at_least(0),
    "repetition_threshold": _THRESHOLD,
    "equal_tokens": (int, lambda value: value == 0 or value >= 2, "2 or more, or 0 (off)"),
    "tracked_tokens": _at_least(0),
    "suppress": _SWITCH,
    "suppress_above": _at_least(0),
    "force_wins": _SWITCH,
    "short_texts": (str, lambda value: value in get_args(ShortTexts), f"one of {', '.join(get_args(ShortTexts))}"),
}


@dataclass(frozen=True)
class Decisions:
    """The decisions of an analyzer about B rows at one step; every array is (B,).

    long_tail, alignment_repetition, token_repetition: why EOS is forced. suppressed: EOS is removed. forced: EOS is the
    only token left. crashed: upstream raises an exception here. position: int64, the text column read last. complete:
    the text was read to its end.
    """

    long_tail: NDArray[np.bool_]
    alignment_repetition: NDArray[np.bool_]
    token_repetition: NDArray[np.bool_]
    suppressed: NDArray[np.bool_]
    forced: NDArray[np.bool_]
    crashed: NDArray[np.bool_]
    complete: NDArray[np.bool_]
    position: NDArray[np.int64]
    eos_id: int

    def flags(self, row: int) -> str:
        """Names of the flags that are set in a row, joined by `+`; empty if there are none."""
        return "+".join(name for name in FLAGS if getattr(self, name)[row])

    def only(self, rows: Sequence[int]) -> "Decisions":
        arrays = {item.name: getattr(self, item.name)[list(rows)] for item in fields(self) if item.name != "eos_id"}
        return Decisions(**arrays, eos_id=self.eos_id)

    def apply(self, scores: mx.array) -> mx.array:
        """Change scores (B, V): a suppressed EOS becomes -32768; where forced, EOS 32768 and the rest -32768."""
        forcing = self.long_tail | self.alignment_repetition | self.token_repetition
        if not (forcing.any() or self.suppressed.any()):
            return scores
        is_eos = mx.arange(scores.shape[-1])[None] == self.eos_id
        held_back = mx.array(self.suppressed & ~self.forced)[:, None] & is_eos
        scores = mx.where(mx.array(forcing)[:, None], mx.where(is_eos, LARGE, -LARGE), scores)
        return mx.where(held_back, -LARGE, scores)


class AlignmentStreamAnalyzer:
    """The state of `width` rows; upstream has one object per utterance.

    Attention is read on the host, which needs the token of each step anyway (docs/decisions.md, "Alignment").
    """

    def __init__(self, config: AnalyzerConfig, width: int, eos_id: int) -> None:
        self.config, self.eos_id = config, eos_id
        self._steps, self._length, self._position, self._run = (np.zeros(width, dtype=np.int64) for _ in range(4))
        self._token = np.full(width, -1)
        self._complete = np.zeros(width, dtype=np.bool_)
        # In float64: upstream's float32 sum of about twenty values differs by rounding, 1e-6 at most.
        self._tail, self._repetition = np.zeros((width, config.tail_columns)), np.zeros(width)

    def start(self, row: int, text_length: int) -> None:
        """Begin a new utterance in a row. text_length: S, with start and stop."""
        if text_length < 1:
            raise ConfigError(f"a text of {text_length} ids", hint="expected 1 or more")
        for state in (self._steps, self._position, self._run, self._complete, self._tail, self._repetition):
            state[row] = 0
        self._length[row], self._token[row] = text_length, -1

    def step(
        self, rows: Sequence[int], attention: Sequence[Sequence[mx.array | ArrayLike]], tokens: Sequence[int]
    ) -> Decisions:
        """Process one step of some rows.

        attention: for each row and head, the newest queries' attention to the text: (S,), or (queries, S) for the first
        chunk, of which the last query counts (upstream's other BOS row decides nothing); MLX or NumPy, >= 0. tokens:
        the last token of each row, BOS at the first step. Raises ConfigError for attention of another length than S.
        """
        at = np.asarray(rows)
        mean = self._mean(rows, attention)
        follows = mean.argmax(axis=-1)
        moved = follows - self._position[at]
        near = (-self.config.jump_back < moved) & (moved < self.config.jump_ahead)
        self._position[at] = np.where(near, follows, self._position[at])
        was_complete, end = self._complete[at], self._length[at] - self.config.end_columns
        self._add(at[was_complete], mean[was_complete])  # the row that completes a text is not summed
        self._complete[at] |= self._position[at] >= end
        self._steps[at] += 1
        token_repetition = self._track(at, np.asarray(tokens))
        suppressed = (follows < end) & (self._length[at] > self.config.suppress_above) & self.config.suppress
        return self._decide(at, token_repetition, suppressed)

    def _mean(self, rows: Sequence[int], attention: Sequence[Sequence[mx.array | ArrayLike]]) -> NDArray[np.float32]:
        """Mean over the heads, 0 beyond a row's text and beyond its monotonic mask: float32 (B, widest)."""
        lengths = self._length[list(rows)]
        heads = np.zeros((len(attention[0]), len(rows), lengths.max()), dtype=np.float32)
        for index, (row, of_heads) in enumerate(zip(rows, attention, strict=True)):
            for head, values in enumerate(of_heads):
                newest = _newest(values)
                if len(newest) != self._length[row]:
                    hint = f"it was started with {self._length[row]}"
                    raise ConfigError(f"the attention of row {row} covers {len(newest)} text ids", hint=hint)
                heads[head, index, : len(newest)] = newest
        mean: NDArray[np.float32] = heads[0]
        for values in heads[1:]:  # in sequence, which reproduces upstream's mean to the last bit
            mean = mean + values
        mean = np.divide(mean, len(heads), dtype=np.float32)
        if self.config.monotonic:
            mean[np.arange(mean.shape[-1]) > self._steps[list(rows)][:, None]] = 0
        return mean

    def _add(self, at: NDArray[np.int64], mean: NDArray[np.float32]) -> None:
        """Add the attention of complete texts to the running sums."""
        columns = np.arange(mean.shape[-1])
        last = self._length[at][:, None] - np.arange(self.config.tail_columns, 0, -1)
        watched = np.take_along_axis(mean, np.maximum(last, 0), axis=-1)
        self._tail[at] += np.where(last >= 0, watched, 0)
        others = columns < (self._length[at] - self.config.skipped_columns)[:, None]
        self._repetition[at] += np.max(mean, axis=-1, where=others, initial=0)

    def _track(self, at: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Count equal tokens and return whether their number forces EOS."""
        self._run[at] = np.where(tokens == self._token[at], self._run[at] + 1, 1)
        self._token[at] = tokens
        enough = (self._run[at] >= self.config.equal_tokens) & (self._steps[at] >= self.config.tracked_tokens)
        return enough & (self.config.equal_tokens > 0)

    def _decide(
        self, at: NDArray[np.int64], token_repetition: NDArray[np.bool_], suppressed: NDArray[np.bool_]
    ) -> Decisions:
        config, complete = self.config, self._complete[at]
        short = self._length[at] <= config.skipped_columns
        long_tail = complete & (self._tail[at].max(axis=-1) >= config.tail_threshold) & (config.tail_threshold > 0)
        repeats = complete & (self._repetition[at] > config.repetition_threshold) & (config.repetition_threshold > 0)
        forcing = long_tail | repeats | token_repetition
        return Decisions(
            long_tail=long_tail,
            alignment_repetition=repeats,
            token_repetition=token_repetition,
            suppressed=suppressed,
            forced=forcing & (config.force_wins | ~suppressed),
            crashed=complete & short & (config.short_texts == "crash") & (config.repetition_threshold > 0),
            complete=complete,
            position=self._position[at],
            eos_id=self.eos_id,
        )


def crash_message(text_length: int) -> str:
    """The message for a row that is `crashed`."""
    return f"the analyzer of chatterbox-tts raises an IndexError here: the text has {text_length} ids ({FINDING})"


def _newest(values: mx.array | ArrayLike) -> NDArray[np.float32]:
    """The last query's row of one head, (queries, S) or (S,); without a copy where possible."""
    if isinstance(values, mx.array) and values.dtype != mx.float32:
        values = values.astype(mx.float32)  # NumPy has no bfloat16
    found = np.asarray(values, dtype=np.float32)
    return found[-1] if found.ndim == 2 else found
