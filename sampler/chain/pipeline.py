"""The chain: logits -> scores, stage by stage in the order of the config, on all rows at once."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import mlx.core as mx
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sampler.chain.guidance import guide
from sampler.chain.history import Past, Rows, window
from sampler.chain.knobs import Knobs
from sampler.chain.optional import FURTHER
from sampler.chain.penalties import count_tokens, penalize_repetition
from sampler.chain.survivors import FloatRows
from sampler.chain.temperature import keep_most_likely, temper
from sampler.chain.truncation import keep_min_p, keep_nucleus, keep_top_k
from sampler.config import SamplingConfig, Stage
from sampler.errors import ConfigError, LogitsError


class Intervention(Protocol):
    """What stands at the stage `alignment`: a change of B rows of scores that lies outside of the chain."""

    def apply(self, scores: mx.array) -> mx.array:
        """Scores (B, V), changed or not."""
        ...

    def only(self, rows: Sequence[int]) -> Self:
        """The same for some of the rows."""
        ...


@dataclass(frozen=True)
class Inputs:
    """What the stages of B rows read: seen (B, V) bool, uncond_logits (B, V) float32 or None, both of NumPy.

    rows: what further stages read; None where nobody has said what lies behind the rows. intervention: what the stage
    `alignment` does; None where it is the identity.
    """

    knobs: Knobs
    seen: NDArray[np.bool_]
    uncond_logits: FloatRows | None
    rows: Rows | None = None
    intervention: Intervention | None = None


def apply_stage(stage: Stage, scores: FloatRows, inputs: Inputs) -> FloatRows:
    """Apply one stage to scores (B, V); the identity where no row uses it. `alignment` is an intervention."""
    knobs = inputs.knobs
    if stage not in knobs.active:
        return scores
    match stage:
        case "cfg":
            return scores if inputs.uncond_logits is None else guide(scores, inputs.uncond_logits, knobs)
        case "repetition_penalty":
            return penalize_repetition(scores, inputs.seen, knobs)
        case "temperature":
            return temper(scores, knobs)
        case "top_k":
            return keep_top_k(scores, knobs)
        case "min_p":
            return keep_min_p(scores, knobs)
        case "top_p":
            return keep_nucleus(scores, knobs)
        case _:
            return scores


def apply_further(stage: Stage, scores: FloatRows, inputs: Inputs) -> FloatRows:
    """Apply one further stage to scores (B, V); the identity where no row uses it."""
    if stage not in inputs.knobs.active:
        return scores
    if inputs.rows is None:
        raise ConfigError(f"{stage} is on and the past is missing", hint="give run_rows the past of its rows")
    return _rows(FURTHER[stage](mx.array(scores), inputs.rows))


class Scores(NamedTuple):
    """final: what is drawn from. ranked: the same before temperature 0 kept a single token; both (B, V)."""

    final: mx.array
    ranked: mx.array


@np.errstate(over="ignore", invalid="ignore")  # what overflows is refused by name, in `find_problems`
def run_chain(logits: FloatRows, inputs: Inputs) -> Scores:
    """Apply every stage in order; float32 (B, V) of NumPy in, unchecked. The input is never written."""
    scores = logits
    for stage in inputs.knobs.order:
        if stage == "alignment" and inputs.intervention is not None:
            scores = _rows(inputs.intervention.apply(mx.array(scores)))
        scores = (apply_further if stage in FURTHER else apply_stage)(stage, scores, inputs)
    ranked = mx.array(scores)
    if inputs.knobs.greedy.any():
        return Scores(mx.array(keep_most_likely(scores, inputs.knobs)), ranked)
    return Scores(ranked, ranked)


def _rows(values: mx.array | NDArray[Any]) -> NDArray[Any]:
    """What NumPy sees of an array, (B, V) in one piece; MLX's own memory where it lies on the host."""
    return np.ascontiguousarray(np.asarray(values))


_knobs = functools.lru_cache(maxsize=256)(Knobs.of)


def run_rows(
    logits: mx.array | FloatRows,
    seen: mx.array | NDArray[np.bool_],
    configs: Sequence[SamplingConfig],
    uncond_logits: mx.array | FloatRows | None = None,
    past: Past | None = None,
    intervention: Intervention | None = None,
) -> Scores:
    """Run the chain on rows of different configs; rows that share an order go together. Unchecked, and at once.

    seen: bool (B, V), what the repetition penalty sees. past: what further stages look back on. intervention: the
    stage `alignment`.
    """
    rows, marks = _rows(logits), _rows(seen)
    uncond = None if uncond_logits is None else _rows(uncond_logits)
    groups = list(_groups(configs, rows.shape[-1]))
    if len(groups) == 1:
        context = None if past is None else Rows(configs, past)
        knobs = _knobs(tuple(configs), rows.shape[-1])
        return run_chain(rows, Inputs(knobs, marks, uncond, context, intervention))
    parts = []
    for at in groups:
        part_uncond = None if uncond is None else uncond[at]
        part_past = None if past is None else past.only(at)
        part_change = None if intervention is None else intervention.only(at)
        part_configs = [configs[row] for row in at]
        parts.append(run_rows(rows[at], marks[at], part_configs, part_uncond, part_past, part_change))
    final = _in_place([part.final for part in parts], groups)
    if all(part.ranked is part.final for part in parts):
        return Scores(final, final)
    return Scores(final, _in_place([part.ranked for part in parts], groups))


SCORES_AT_ONCE = 2**20
"""So many scores stay in a processor's caches from stage to stage."""


def _groups(configs: Sequence[SamplingConfig], vocab_size: int) -> Iterator[list[int]]:
    """Rows that go together: they share an order, and are not too many for the caches."""
    most = max(1, SCORES_AT_ONCE // vocab_size)
    for order in dict.fromkeys(config.order for config in configs):
        rows = [row for row, config in enumerate(configs) if config.order == order]
        yield from (rows[start : start + most] for start in range(0, len(rows), most))


def _in_place(parts: list[mx.array], groups: list[list[int]]) -> mx.array:
    """Rows of all groups, in the order in which they came."""
    places = [row for rows in groups for row in rows]
    whole = mx.concatenate(parts)
    return whole if places == sorted(places) else whole[mx.array(np.argsort(places))]


def penalized_tokens(past: Past, configs: Sequence[SamplingConfig], vocab_size: int) -> NDArray[np.bool_]:
    """Which ids the repetition penalty of each row sees, as far back as its penalty_window: bool (B, V)."""
    pairs = zip(past.histories, configs, strict=True)
    return count_tokens([window(history, config.penalty_window) for history, config in pairs], vocab_size) > 0


def find_problems(
    logits: mx.array | FloatRows, scores: mx.array | FloatRows, uncond_logits: mx.array | FloatRows | None = None
) -> NDArray[np.int32]:
    """Per row: 0 fine, 1 NaN or +inf in the logits, 2 nothing left or NaN after the chain; int32 (B,)."""
    inputs = [logits] if uncond_logits is None else [logits, uncond_logits]
    unusable = ~np.logical_and.reduce([_finite_or_removed(rows) for rows in inputs])
    nothing = (np.asarray(scores).max(axis=-1) == -np.inf) | ~_finite_or_removed(scores)
    return np.where(unusable, 1, np.where(nothing, 2, 0)).astype(np.int32)


def _finite_or_removed(rows: mx.array | FloatRows) -> NDArray[np.bool_]:
    """Which rows have neither NaN, which is below nothing, nor +inf: bool (B,)."""
    below: NDArray[np.bool_] = np.all(np.asarray(rows) < np.inf, axis=-1)
    return below


def raise_problems(problems: NDArray[np.int32], configs: Sequence[SamplingConfig]) -> None:
    """Raise LogitsError for the first row that `find_problems` marked."""
    if not problems.any():
        return
    row = int(np.argmax(problems > 0))
    if problems[row] == 1:
        raise LogitsError(
            f"the logits of row {row} contain NaN or +inf", hint="-inf removes a token; nothing else may be infinite"
        )
    raise LogitsError(
        f"no token is left in row {row} after the chain, or a score overflowed",
        hint=f"all logits of the row are -inf, or the knobs are extreme: {configs[row]}",
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
    """Turn logits into the scores from whose softmax the next token is drawn.

    logits, uncond_logits: (B, V) of MLX (bfloat16 too) or NumPy, computed in float32; the inputs are never written.
    history: B lists of the ids so far. config: one for all rows, or one for each. What follows is for further stages,
    one number for all rows or (B,): prompt_length, how many ids of the history were given and not generated; step, how
    many were generated, else all after the prompt; eos_ids, which min_new_tokens removes; uniforms, numbers from 0 to 1
    for XTC (`NoiseKey.uniform`).
    Returns float32 (B, V), -inf = removed. Raises LogitsError for NaN, +inf, a row without any token, a negative id in
    the history, or shapes that do not fit; ids of the history beyond the vocabulary are passed over. Raises
    ConfigError for a knob that needs what is not given.
    """
    rows = _float_rows(logits, "logits")
    uncond = None if uncond_logits is None else _float_rows(uncond_logits, "uncond_logits")
    if uncond is not None and uncond.shape != rows.shape:
        raise LogitsError(f"uncond_logits have shape {uncond.shape}", hint=f"expected that of the logits, {rows.shape}")
    configs = [config] * rows.shape[0] if isinstance(config, SamplingConfig) else list(config)
    for name, count in (("history", len(history)), ("config", len(configs))):
        if count != rows.shape[0]:
            raise LogitsError(f"{name} has {count} rows", hint=f"the logits have {rows.shape[0]}")
    past = Past.of(history, prompt_length, step, eos_ids, uniforms)
    seen = penalized_tokens(past, configs, rows.shape[1])
    scores = run_rows(rows, seen, configs, uncond, past).final
    raise_problems(find_problems(rows, scores, uncond), configs)
    return scores


def as_float32(values: mx.array | ArrayLike) -> mx.array:
    """Any array, of MLX (bfloat16 too) or NumPy, as a float32 array of MLX."""
    if isinstance(values, mx.array):
        return values.astype(mx.float32)
    try:
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, and is refused as that
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
