"""The history of the rows of a batch: ids, how many were given and how many drawn, a uniform number for each row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sampler.chain.penalties import token_ids
from sampler.config import SamplingConfig
from sampler.errors import LogitsError


@dataclass(frozen=True)
class Past:
    """The past of B rows. histories: int64 arrays of any length, ids >= 0; prompt_length, step: int64 (B,).

    eos_ids: which ids end a text. uniforms: float64 (B,), uniform numbers in (0, 1), or None.
    """

    histories: Sequence[NDArray[np.int64]]
    prompt_length: NDArray[np.int64]
    step: NDArray[np.int64]
    eos_ids: tuple[int, ...] = ()
    uniforms: NDArray[np.float64] | None = None

    @classmethod
    def of(
        cls,
        histories: Sequence[Sequence[int]],
        prompt_length: ArrayLike = 0,
        step: ArrayLike | None = None,
        eos_ids: Sequence[int] = (),
        uniforms: ArrayLike | None = None,
    ) -> "Past":
        """Read what a caller gives: one number for all rows, or one for each.

        Without `step` everything after the prompt was drawn. Raises LogitsError naming what does not fit.
        """
        ids = token_ids(histories)
        lengths = np.array([len(row) for row in ids], dtype=np.int64)
        given = _column("prompt_length", prompt_length, lengths)
        if (given > lengths).any():
            row = int(np.argmax(given > lengths))
            raise LogitsError(f"prompt_length = {given[row]} in row {row}", hint=f"its history has {lengths[row]} ids")
        drawn = lengths - given if step is None else _column("step", step, lengths)
        wrong = [token for token in eos_ids if int(token) < 0]
        if wrong:
            raise LogitsError(f"eos_ids contain {wrong[0]}", hint="token ids are 0 or more")
        return cls(ids, given, drawn, tuple(int(token) for token in eos_ids), _read_uniforms(uniforms, len(ids)))

    def only(self, rows: Sequence[int]) -> "Past":
        """The past of some rows."""
        at = np.array(rows)
        histories = [self.histories[row] for row in rows]
        uniforms = None if self.uniforms is None else self.uniforms[at]
        return Past(histories, self.prompt_length[at], self.step[at], self.eos_ids, uniforms)


@dataclass(frozen=True)
class Rows:
    """What a further stage reads: the config and the past of each of B rows."""

    configs: Sequence[SamplingConfig]
    past: Past

    def column(self, read: Callable[[SamplingConfig], Any], dtype: type[np.generic] = np.float32) -> mx.array:
        """One value of each row: (B, 1)."""
        return mx.array(np.array([read(config) for config in self.configs], dtype=dtype)[:, None])

    def generated(self) -> list[NDArray[np.int64]]:
        """Ids of each row that were drawn, as far back as its penalty_window sees."""
        past = zip(self.configs, self.past.histories, self.past.prompt_length, strict=True)
        return [window(history[given:], config.penalty_window) for config, history, given in past]


def window(history: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """The last `size` ids, all of them for 0."""
    return history[-size:] if size else history


def _column(name: str, values: ArrayLike, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    column = np.asarray(values)
    if column.dtype.kind not in "iu" or column.shape not in ((), lengths.shape) or (column < 0).any():
        raise LogitsError(
            f"{name} = {values!r} does not fit", hint=f"expected integers >= 0, one or {len(lengths)} of them"
        )
    return np.broadcast_to(column, lengths.shape).astype(np.int64)


def _read_uniforms(uniforms: ArrayLike | None, rows: int) -> NDArray[np.float64] | None:
    if uniforms is None:
        return None
    read = np.asarray(uniforms, dtype=np.float64)
    if read.shape != (rows,) or not ((read >= 0) & (read <= 1)).all():
        raise LogitsError(
            f"uniforms = {uniforms!r} do not fit", hint=f"expected {rows} numbers from 0 to 1, one for each row"
        )
    return read
