"""The chain: logits -> scores, stage by stage in the order of the config, on all rows at once."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, Protocol, Self

import mlx.core as mx
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sampler.chain.guidance import guide
from sampler.chain.history import penalized_tokens, read_history
from sampler.chain.knobs import Knobs
from sampler.chain.optional import OPTIONAL
from sampler.chain.penalties import penalize_repetition
from sampler.chain.survivors import FloatRows
from sampler.chain.temperature import keep_most_likely, temper
from sampler.chain.truncation import keep_min_p, keep_nucleus, keep_top_k
from sampler.config import SamplingConfig
from sampler.errors import LogitsError
from sampler.requests import Batch
from sampler.stages import Stage


class Intervention(Protocol):
    """What runs at the stage `alignment`: a change of B rows of scores by something outside the chain."""

    def apply(self, scores: mx.array) -> mx.array: ...

    def only(self, rows: Sequence[int]) -> Self: ...


def _guide(scores: FloatRows, batch: Batch, knobs: Knobs) -> FloatRows:
    return scores if batch.uncond_logits is None else guide(scores, batch.uncond_logits, knobs)


def _penalize(scores: FloatRows, batch: Batch, knobs: Knobs) -> FloatRows:
    seen = batch.seen
    if seen is None:
        seen = penalized_tokens(batch.history, batch.configs, scores.shape[-1])
    return penalize_repetition(scores, seen, knobs)


MAIN: Final[Mapping[Stage, Callable[[FloatRows, Batch, Knobs], FloatRows]]] = {
    "cfg": _guide,
    "alignment": lambda scores, batch, knobs: scores,
    "repetition_penalty": _penalize,
    "temperature": lambda scores, batch, knobs: temper(scores, knobs),
    "top_k": lambda scores, batch, knobs: keep_top_k(scores, knobs),
    "min_p": lambda scores, batch, knobs: keep_min_p(scores, knobs),
    "top_p": lambda scores, batch, knobs: keep_nucleus(scores, knobs),
}
"""The stages of the default order: scores (B, V) to scores; `alignment` is an intervention from outside."""


def apply_stage(stage: Stage, scores: FloatRows, batch: Batch, knobs: Knobs) -> FloatRows:
    """Apply one stage to scores (B, V); the identity if no row uses it."""
    if stage not in knobs.active:
        return scores
    if stage in MAIN:
        return MAIN[stage](scores, batch, knobs)
    return _rows(OPTIONAL[stage](mx.array(scores), batch))


class Scores(NamedTuple):
    """final: the scores to draw from. ranked: the same before temperature 0 kept a single token; both (B, V)."""

    final: mx.array
    ranked: mx.array


@np.errstate(over="ignore", invalid="ignore")  # `find_problems` reports what overflows
def run_chain(batch: Batch, intervention: Intervention | None = None) -> Scores:
    """Apply every stage in the order that the rows share; takes NumPy, unchecked. The input is never written."""
    scores, knobs = batch.logits, _knobs(tuple(batch.configs), batch.logits.shape[-1])
    for stage in knobs.order:
        if stage == "alignment" and intervention is not None:
            scores = _rows(intervention.apply(mx.array(scores)))
        scores = apply_stage(stage, scores, batch, knobs)
    ranked = mx.array(scores)
    if knobs.greedy.any():
        return Scores(mx.array(keep_most_likely(scores, knobs)), ranked)
    return Scores(ranked, ranked)


def _rows(values: mx.array | NDArray[Any]) -> NDArray[Any]:
    """An array as contiguous NumPy rows (B, V); shares MLX's memory where it is on the host."""
    return np.ascontiguousarray(np.asarray(values))


_knobs = functools.lru_cache(maxsize=256)(Knobs.of)


def run_rows(batch: Batch, intervention: Intervention | None = None) -> Scores:
    """Run the chain on rows of different configs; rows with the same order run together. Unchecked.

    Logits may be arrays of MLX. intervention: the stage `alignment`.
    """
    uncond = None if batch.uncond_logits is None else _rows(batch.uncond_logits)
    batch = replace(batch, logits=_rows(batch.logits), uncond_logits=uncond)
    groups = list(_groups(batch.configs, batch.logits.shape[-1]))
    if len(groups) == 1:
        return run_chain(batch, intervention)
    parts = [run_chain(batch.only(at), None if intervention is None else intervention.only(at)) for at in groups]
    final = _in_place([part.final for part in parts], groups)
    if all(part.ranked is part.final for part in parts):
        return Scores(final, final)
    return Scores(final, _in_place([part.ranked for part in parts], groups))


SCORES_AT_ONCE = 2**20
"""This many scores stay in a processor's caches from stage to stage."""


def _groups(configs: Sequence[SamplingConfig], vocab_size: int) -> Iterator[list[int]]:
    """Rows that run together: they share an order and fit into the caches."""
    most = max(1, SCORES_AT_ONCE // vocab_size)
    for order in dict.fromkeys(config.order for config in configs):
        rows = [row for row, config in enumerate(configs) if config.order == order]
        yield from (rows[start : start + most] for start in range(0, len(rows), most))


def _in_place(parts: list[mx.array], groups: list[list[int]]) -> mx.array:
    """The rows of all groups in their original order."""
    places = [row for rows in groups for row in rows]
    whole = mx.concatenate(parts)
    return whole if places == sorted(places) else whole[mx.array(np.argsort(places))]


def find_problems(
    logits: mx.array | FloatRows, scores: mx.array | FloatRows, uncond_logits: mx.array | FloatRows | None = None
) -> NDArray[np.int32]:
    """Per row: 0 fine, 1 NaN or +inf in the logits, 2 nothing left or NaN after the chain; int32 (B,)."""
    inputs = [logits] if uncond_logits is None else [logits, uncond_logits]
    unusable = ~np.logical_and.reduce([_finite_or_removed(rows) for rows in inputs])
    nothing = (np.asarray(scores).max(axis=-1) == -np.inf) | ~_finite_or_removed(scores)
    return np.where(unusable, 1, np.where(nothing, 2, 0)).astype(np.int32)


def _finite_or_removed(rows: mx.array | FloatRows) -> NDArray[np.bool_]:
    """Rows without +inf and NaN (NaN compares as not below): bool (B,)."""
    below: NDArray[np.bool_] = np.all(np.asarray(rows) < np.inf, axis=-1)
    return below


def raise_problems(problems: NDArray[np.int32], configs: Sequence[SamplingConfig]) -> None:
    """Raise LogitsError for the first row in which `find_problems` found one."""
    if not problems.any():
        return
    row = int(np.argmax(problems > 0))
    if problems[row] == 1:
        raise LogitsError(
            f"the logits of row {row} contain NaN or +inf", hint="-inf removes a token; nothing else may be infinite"
        )
    raise LogitsError(
        f"no token is left in row {row} after the chain, or a score overflowed",
        hint=f"all logits of the row are -inf, or the sampling parameters are extreme: {configs[row]}",
    )


def process(
    logits: mx.array | ArrayLike,
    history: Sequence[Sequence[int]],
    config: SamplingConfig | Sequence[SamplingConfig],
    uncond_logits: mx.array | ArrayLike | None = None,
    *,
    prompt_length: ArrayLike = 0,
    step: ArrayLike | None = None,
    eos_ids: Sequence[int] = (),
    uniforms: ArrayLike | None = None,
) -> mx.array:
    """Turn logits into the scores whose softmax is the distribution of the next token.

    logits, uncond_logits: (B, V) of MLX (bfloat16 too) or NumPy, computed in float32; the inputs are never written.
    history: B lists of the ids so far. config: one for all rows, or one per row. The others are for optional stages,
    one number for all rows or (B,): prompt_length, how many ids of the history belong to the prompt; step, how many
    were generated, by default all after the prompt; eos_ids, which min_new_tokens removes; uniforms, numbers from 0 to
    1 for XTC (`NoiseKey.uniform`).
    Returns float32 (B, V), -inf = removed. Raises LogitsError for NaN, +inf, a row without any token, a negative id in
    the history, or shapes that do not fit; ids of the history beyond the vocabulary are ignored. Raises ConfigError for
    a parameter that needs a missing argument.
    """
    rows: Any = _float_rows(logits, "logits")
    uncond: Any = None if uncond_logits is None else _float_rows(uncond_logits, "uncond_logits")
    if uncond is not None and uncond.shape != rows.shape:
        raise LogitsError(f"uncond_logits have shape {uncond.shape}", hint=f"expected that of the logits, {rows.shape}")
    configs = [config] * rows.shape[0] if isinstance(config, SamplingConfig) else list(config)
    for name, count in (("history", len(history)), ("config", len(configs))):
        if count != rows.shape[0]:
            raise LogitsError(f"{name} has {count} rows", hint=f"the logits have {rows.shape[0]}")
    ids, context = read_history(history, prompt_length, step, eos_ids, uniforms)
    scores = run_rows(Batch(rows, ids, configs, uncond, context)).final
    raise_problems(find_problems(rows, scores, uncond), configs)
    return scores


def as_float32(values: mx.array | ArrayLike) -> mx.array:
    """Any array, MLX (bfloat16 too) or NumPy, as a float32 array of MLX."""
    if isinstance(values, mx.array):
        return values.astype(mx.float32)
    try:
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, which is refused later
            return mx.array(np.asarray(values, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise LogitsError(
            f"logits of type {type(values).__name__} are no array of numbers: {error}",
            hint="expected an array of MLX or NumPy; turn others to float32 first",
        ) from error


def _float_rows(values: mx.array | ArrayLike, name: str) -> mx.array:
    rows = as_float32(values)
    if rows.ndim != 2 or 0 in rows.shape:
        raise LogitsError(
            f"{name} have shape {tuple(rows.shape)}", hint="expected (rows, vocabulary), neither of them 0"
        )
    return rows
