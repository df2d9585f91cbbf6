"""The history of the rows of a batch: ids, lengths of prompt and generated part, a uniform number per row."""

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sampler.chain.penalties import count_tokens, token_ids
from sampler.config import SamplingConfig
from sampler.errors import ConfigError, LogitsError
from sampler.requests import Batch, Context
from sampler.stages import STAGES


def read_history(
    histories: Sequence[Sequence[int]],
    prompt_length: ArrayLike = 0,
    step: ArrayLike | None = None,
    eos_ids: Sequence[int] = (),
    uniforms: ArrayLike | None = None,
) -> tuple[list[NDArray[np.int64]], Context]:
    """Validate the history as a caller gives it; each value is one number for all rows, or one per row.

    Without `step` all ids after the prompt count as drawn. Raises LogitsError naming the value that does not fit.
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
    return ids, Context(given, drawn, tuple(int(token) for token in eos_ids), _read_uniforms(uniforms, len(ids)))


def column(batch: Batch, read: Callable[[SamplingConfig], Any], dtype: type[np.generic] = np.float32) -> mx.array:
    """One value of each row: (B, 1)."""
    return mx.array(np.array([read(config) for config in batch.configs], dtype=dtype)[:, None])


def context_of(batch: Batch) -> Context:
    """Prompt lengths and steps of the rows. Raises ConfigError if an optional stage needs them and they are missing."""
    if batch.context is None:
        stage = next(iter(batch.config.active_stages() - set(STAGES)), "a penalty_window")
        raise ConfigError(f"{stage} is on and the history is missing", hint="give run_rows the context of its rows")
    return batch.context


def generated(batch: Batch) -> list[NDArray[np.int64]]:
    """Ids of each row that were drawn, limited to its penalty_window."""
    rows = zip(batch.configs, batch.history, context_of(batch).prompt_length, strict=True)
    return [window(np.asarray(ids)[given:], config.penalty_window) for config, ids, given in rows]


def penalized_tokens(
    histories: Sequence[NDArray[np.int64]], configs: Sequence[SamplingConfig], vocab_size: int
) -> NDArray[np.bool_]:
    """Which ids the repetition penalty of each row applies to, limited to its penalty_window: bool (B, V)."""
    pairs = zip(histories, configs, strict=True)
    return count_tokens([window(history, config.penalty_window) for history, config in pairs], vocab_size) > 0


def window(history: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """The last `size` ids; all of them if it is 0."""
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
