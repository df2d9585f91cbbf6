"""Right engines with answers of another type, with finite masks, or called in another way."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np

from sampler.checks.conformance.rows import bfloat16
from sampler.stages import STAGES

from .chain import LOWEST, Array, Call, penalized, softmax, unchanged
from .engines import INFO, Miniature, OnlyDraws, OnlyProcesses, Processing, WithoutPick
from .right_limits import saying
from .tables import Example, right_rows


def answering(change: Callable[[Array], Any], **info: Any) -> OnlyProcesses:
    """Right scores in another form."""
    return OnlyProcesses(saying(Processing(lambda process, *inputs: change(process(*inputs))), replace(INFO, **info)))


def torch() -> Any:
    """Imported where an engine needs it, as its users do."""
    import torch as module

    return module


class OnlyDlpack:
    """What DLPack alone reads."""

    def __init__(self, values: Array) -> None:
        self.values = values

    def __dlpack__(self, **more: Any) -> Any:
        return self.values.__dlpack__(**more)

    def __dlpack_device__(self) -> Any:
        return self.values.__dlpack_device__()


class OnlyArray:
    """What `__array__` alone reads, as JAX's arrays offer it."""

    def __init__(self, values: Array) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        return np.array(self.values, dtype=dtype)


def with_gradient(scores: Array) -> Any:
    return torch().from_numpy(scores).double().requires_grad_()


def every_other(scores: Array) -> Array:
    return np.repeat(scores, 2, axis=-1)[:, ::2]


right_rows(
    "right_in_torch: scores are a tensor of torch.",
    lambda: answering(lambda scores: torch().from_numpy(scores)),
    "right_in_torch_with_a_gradient: scores are a tensor in float64 that has a gradient.",
    lambda: answering(with_gradient),
    "right_in_torch_transposed: scores are a view of a transposed tensor, not contiguous.",
    lambda: answering(lambda scores: torch().from_numpy(np.ascontiguousarray(scores.T)).T),
    "right_in_a_list_of_tensors: scores are a list of one tensor for each row.",
    lambda: answering(lambda scores: list(torch().from_numpy(scores))),
    "right_in_mlx: scores are an array of MLX.",
    lambda: answering(mx.array),
    "right_through_dlpack: scores are an object that DLPack alone reads.",
    lambda: answering(OnlyDlpack),
    "right_through_array: scores are an object that `__array__` alone reads.",
    lambda: answering(OnlyArray),
    "right_with_float64_scores: scores are float64.",
    lambda: answering(lambda scores: scores.astype(np.float64)),
    "right_and_not_contiguous: scores are every other column of an array.",
    lambda: answering(every_other),
)

# Half precision: in and out are rounded to the precision that the engine states.


def rounded(rounding: Callable[[Array], Array], form: Callable[[Array], Any], dtype: str) -> OnlyProcesses:
    def change(process: Any, logits: Array, history: Any, config: Any, uncond: Array | None = None) -> Any:
        other = None if uncond is None else rounding(uncond)
        return form(process(rounding(logits), history, config, other))

    return OnlyProcesses(saying(Processing(change), replace(INFO, dtype=dtype)))


def to_bfloat16(values: Array) -> Array:
    return bfloat16(np.asarray(values, dtype=np.float64)).astype(np.float32)


def exact(inputs: Example) -> bool:
    """No input is within float32's reach of an engine of half precision."""
    return False


right_rows(
    "right_in_torch_bfloat16: computes on logits in bfloat16, says so, and answers with such a tensor.",
    lambda: rounded(to_bfloat16, lambda scores: torch().from_numpy(scores).bfloat16(), "bfloat16"),
    exact,
    "right_in_mlx_bfloat16: computes on logits in bfloat16, says so, and answers with such an array of MLX.",
    lambda: rounded(to_bfloat16, lambda scores: mx.array(scores).astype(mx.bfloat16), "bfloat16"),
    exact,
    "right_in_float16: computes on logits in float16, says so, and answers in float16.",
    lambda: rounded(
        lambda rows: rows.astype(np.float16).astype(np.float32), lambda scores: scores.astype(np.float16), "float16"
    ),
    exact,
)


def drawing(form: Callable[[Array], Any]) -> Any:
    """Draws the right tokens in another form."""

    class Drawing(Miniature):
        def draw(self, *inputs: Any, **more: Any) -> Any:
            return form(super().draw(*inputs, **more))

    return OnlyDraws(Drawing())


right_rows(
    "right_with_int32_tokens: tokens are int32.",
    lambda: drawing(lambda tokens: tokens.astype(np.int32)),
    "right_with_uint32_tokens: tokens are uint32, as MLX's argmax gives them.",
    lambda: drawing(lambda tokens: tokens.astype(np.uint32)),
    "right_with_a_list_of_tokens: tokens are a list of Python's integers.",
    lambda: drawing(np.ndarray.tolist),
    "right_with_tokens_of_torch: tokens are a tensor.",
    lambda: drawing(lambda tokens: torch().from_numpy(tokens)),
)

# Masks that no draw reaches.


def masking(mask: Callable[[Array], Any]) -> WithoutPick:
    """Removed tokens have a finite score at the end of the chain."""

    def change(process: Any, *inputs: Any) -> Array:
        scores = process(*inputs)
        return np.where(scores > LOWEST, scores, mask(scores)).astype(np.float32)

    return WithoutPick(Processing(change))


def masked_at_the_start(mask: float) -> WithoutPick:
    """Removed logits become finite before guidance, and go through the whole chain."""

    def change(process: Any, logits: Array, *rest: Any) -> Array:
        return process(np.where(logits > LOWEST, logits, np.float32(mask)), *rest)

    return WithoutPick(Processing(change))


def masked_at_each_stage(mask: float) -> WithoutPick:
    """Every stage that removes a token gives it a finite score, which later stages change."""

    class Masks(Miniature):
        def process(self, logits: Array, history: Any, config: Any, uncond_logits: Array | None = None) -> Array:
            call = Call(history, config, uncond_logits)
            scores = np.array(logits, dtype=np.float32)
            with np.errstate(all="ignore"):
                for name in config.order:
                    after = self.stages[name](scores, call)
                    scores = np.where(after > LOWEST, after, np.float32(mask))
                return self.stages["greedy"](scores, call) if config.greedy else scores

    return WithoutPick(Masks())


right_rows(
    "right_with_a_mask_of_100_nats: removed tokens are 100 nats below the best.",
    lambda: masking(lambda scores: scores.max(axis=-1, keepdims=True) - 100),
    "right_with_a_mask_of_81_nats: removed tokens are 81 nats below the best.",
    lambda: masking(lambda scores: scores.max(axis=-1, keepdims=True) - 81),
    "right_with_a_mask_of_65504: removed tokens have the smallest float16.",
    lambda: masking(lambda scores: np.float32(-65_504)),
    "right_with_the_smallest_float: removed tokens have the smallest float32.",
    lambda: masking(lambda scores: np.finfo(np.float32).min),
    "right_with_a_mask_of_1e9: removed tokens have the score -1e9.",
    lambda: masking(lambda scores: np.float32(-1e9)),
    "right_masked_before_guidance: removed logits become -10,000 before guidance.",
    lambda: masked_at_the_start(-1e4),
    "right_masked_with_the_smallest_float_before_guidance: removed logits become the smallest float32 before guidance.",
    lambda: masked_at_the_start(float(np.finfo(np.float32).min)),
    "right_masked_before_tempering: each stage that removes a token gives it -10,000, before or after tempering.",
    lambda: masked_at_each_stage(-1e4),
    "right_masked_with_1e9_at_each_stage: each stage that removes a token gives it -1e9.",
    lambda: masked_at_each_stage(-1e9),
)

# Other ways to be called.


class AnyArguments(Miniature):
    """Takes anything, and needs the context."""

    def process(self, *inputs: Any, **more: Any) -> Array:
        if more["context"].step is None:
            raise ValueError("no step in the context")
        return super().process(*inputs)

    def draw(self, *inputs: Any, **more: Any) -> Array:
        if more["context"].step is None:
            raise ValueError("no step in the context")
        return Miniature().draw(*inputs)


def one_row(process: Any, logits: Array, *rest: Any) -> Array:
    if np.shape(logits)[0] != 1:
        raise ValueError(f"expected (1, V), got {np.shape(logits)}")
    return process(logits, *rest)


def gathered(call: Call, row: int, size: int) -> list[int]:
    """An empty list has no type, which torch's gather refuses."""
    index = torch().tensor([token for token in call.history[row] if token < size])
    return torch().arange(size).gather(0, index).unique().tolist()


def refuses_empty(process: Any, logits: Array, history: Any, *rest: Any) -> Array:
    if not all(len(ids) for ids in history):
        raise IndexError("a history without ids")
    return process(logits, history, *rest)


def printing(process: Any, *inputs: Any) -> Array:
    print("processing", flush=True)  # noqa: T201
    return process(*inputs)


def warming_up() -> Processing:
    warm: list[bool] = []

    def change(process: Any, *inputs: Any) -> Array:
        if not warm:
            time.sleep(0.3)
            warm.append(True)
        return process(*inputs)

    return Processing(change)


def consistent(process: Any, logits: Array, history: Any, config: Any, *rest: Any) -> Array:
    left_out = [stage for stage in STAGES if stage not in config.order]
    if config.without(left_out) != config or config.cfg_convention != "conditional" or config.penalty_window:
        raise ValueError(f"{config} says two things")
    return process(logits, history, config, *rest)


def few_stages(process: Any, logits: Array, history: Any, config: Any, *rest: Any) -> Array:
    unknown = set(config.order) - {"temperature", "top_k"}
    if unknown:
        raise KeyError(min(unknown))
    return process(logits, history, config, *rest)


def has_no_empty_history(inputs: Example) -> bool:
    return all(inputs.history)


right_rows(
    "right_with_any_arguments: takes *args and **kwargs, and needs the context.",
    AnyArguments,
    "right_for_one_row: takes one row at a time, and raises for more.",
    lambda: Processing(one_row),
    lambda inputs: len(inputs.logits) == 1,
    "right_for_one_row_with_a_history: takes one row at a time, and raises for an empty history.",
    lambda: OnlyProcesses(
        Processing(lambda process, *inputs: refuses_empty(lambda *given: one_row(process, *given), *inputs))
    ),
    lambda inputs: len(inputs.logits) == 1 and has_no_empty_history(inputs),
    "right_without_empty_histories: raises for an empty history.",
    lambda: OnlyProcesses(Processing(refuses_empty)),
    has_no_empty_history,
    "right_by_gather: the penalty gathers the ids with torch, which refuses an empty history.",
    lambda: OnlyProcesses(Miniature({**Miniature().stages, "repetition_penalty": penalized(gathered)})),
    has_no_empty_history,
    "right_that_prints: writes a line to stdout in each call.",
    lambda: OnlyProcesses(Processing(printing)),
    "right_that_warms_up: the first call takes long.",
    warming_up,
    "right_that_refuses_contradictions: raises where a config says two things, or has a field that it does not name.",
    lambda: OnlyProcesses(Processing(consistent)),
    "right_with_two_stages: names temperature and top_k, and raises for an order with any other stage.",
    lambda: OnlyProcesses(
        saying(Processing(few_stages), replace(INFO, supports=frozenset({"temperature", "top_k"}), cfg=False))
    ),
    lambda inputs: inputs.logits.shape[1] == 2,
)

# Typical-p, with its ties either way; and a stage that needs the context, of an engine without it.


def typical(keeps_all: bool) -> Callable[[Array, Call], Array]:
    def stage(scores: Array, call: Call) -> Array:
        if call.config.typical_p == 1:
            return scores
        result = scores.copy()
        for row in result:
            p = softmax(row[None])[0]
            with np.errstate(divide="ignore", invalid="ignore"):
                surprise = -np.log(p)
                distance = np.abs(surprise - np.nansum(np.where(p > 0, p * surprise, 0.0)))
            ids = np.argsort(distance, kind="stable")
            before = np.cumsum(p[ids]) - p[ids]
            kept = np.zeros(len(row), dtype=bool)
            kept[ids[(before < call.config.typical_p) | (np.arange(len(ids)) < call.config.min_tokens_to_keep)]] = True
            if keeps_all:
                kept |= distance <= distance[kept].max()
            row[~kept] = LOWEST
        return result

    return stage


def with_typical(keeps_all: bool) -> Any:
    stages = {**Miniature().stages, "typical_p": typical(keeps_all)}
    supports = frozenset({*STAGES, "min_tokens_to_keep", "typical_p"})
    return OnlyProcesses(Miniature(stages, info=replace(INFO, supports=supports)))


def without_context() -> Any:
    off = dict.fromkeys(("min_new_tokens", "frequency_penalty"), unchanged)
    return OnlyProcesses(
        Miniature({**Miniature().stages, **off}, info=replace(INFO, supports=frozenset({*STAGES, *off})))
    )


right_rows(
    "right_with_every_tie_of_typical_p: all tokens as typical as the crossing one stay.",
    lambda: with_typical(True),
    "right_with_some_ties_of_typical_p: of equally typical tokens only as many stay as the mass needs.",
    lambda: with_typical(False),
    "right_without_the_context: names stages that need the context, and has no such keyword.",
    without_context,
)
