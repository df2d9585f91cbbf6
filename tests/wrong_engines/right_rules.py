"""Right engines that declare a rule or a dialect, and follow it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sampler.engines.base import EngineInfo
from sampler.engines.rules import DIALECTS
from sampler.stages import STAGES as NAMES

from .chain import LOWEST, STAGES, Array, Call, Stage, distinct, keep, min_p, most_likely, nucleus, penalized, softmax
from .engines import INFO, Miniature, OnlyProcesses, WithoutPick, with_stage
from .right_limits import saying
from .tables import right_rows

EOS = 6


def declaring(engine: Any, **fields: Any) -> Any:
    """The engine with rules or a dialect in its info."""
    return WithoutPick(saying(engine, replace(INFO, **fields)))


def with_rule(rule: str, value: Any = True, info: EngineInfo = INFO, **stages: Stage) -> Any:
    return WithoutPick(saying(with_stage(**stages), replace(info, rules={rule: value})))


# The stages by rule.


def exactly_k(scores: Array, call: Call) -> Array:
    if call.config.top_k == 0:
        return scores
    return keep(scores, most_likely(scores, max(call.config.top_k, call.config.min_tokens_to_keep)))


def on_top_p(stage: Stage) -> Stage:
    return lambda scores, call: scores if call.config.top_p == 1 else stage(scores, call)


def every_tie(scores: Array, call: Call) -> Array:
    kept = STAGES["top_p"](scores, call)
    last = np.where(kept > LOWEST, kept, np.inf).min(axis=-1, keepdims=True)
    return np.where(scores >= last, scores, LOWEST)


def of_the_total(scores: Array, call: Call) -> Array:
    return min_p(lambda rows, share: softmax(rows) >= share)(scores, call)


def window(size: int) -> Stage:
    return penalized(lambda call, row, vocabulary: distinct(call.history[row][-size:], vocabulary))


def each_time(call: Call, row: int, size: int) -> list[int]:
    return [token for token in call.history[row] if token < size]


def spared_by_the_penalty(call: Call, row: int, size: int) -> list[int]:
    return [token for token in distinct(call.history[row], size) if token != EOS]


def sparing(stage: Stage) -> Stage:
    """The filter leaves EOS as it was."""

    def change(scores: Array, call: Call) -> Array:
        result = stage(scores, call).copy()
        if scores.shape[-1] > EOS:
            result[:, EOS] = scores[:, EOS]
        return result

    return change


SPARING = {name: sparing(STAGES[name]) for name in ("top_k", "min_p", "top_p")}
WITH_EOS = replace(INFO, eos_ids=(EOS,))


def the_highest(scores: Array, call: Call) -> Array:
    best = scores.shape[-1] - 1 - scores[:, ::-1].argmax(axis=-1)
    return keep(scores, np.arange(scores.shape[-1])[None] == best[:, None])


def every_maximum(scores: Array, call: Call) -> Array:
    return keep(scores, scores == scores.max(axis=-1, keepdims=True))


class KnowsThePrompt(Miniature):
    """The penalty leaves the prompt out."""

    def process(self, logits: Array, history: Any, config: Any, uncond_logits: Any = None, *, context: Any) -> Array:
        starts = context.prompt_length.tolist()
        drawn = [list(ids)[start:] for ids, start in zip(history, starts, strict=True)]
        return super().process(logits, drawn, config, uncond_logits)


def frequency(scores: Array, call: Call) -> Array:
    result = scores.copy()
    for row, ids in enumerate(call.history):
        inside = [token for token in ids if token < scores.shape[-1]]
        np.add.at(result[row], inside, -np.float32(call.config.frequency_penalty))
    return result


def in_order(order: Sequence[str], **stages: Stage) -> Miniature:
    return Miniature({**STAGES, **stages}, rewrite=lambda config: replace(config, order=tuple(order)))


def last(config: Any) -> Any:
    rest = tuple(stage for stage in config.order if stage != "temperature")
    return replace(config, order=(*rest, "temperature") if "temperature" in config.order else rest)


MLX_LM = DIALECTS["mlx-lm"].order
EXCEEDS = nucleus(lambda before, mass, top_p: before <= top_p)
DROPPED = nucleus(lambda before, mass, top_p: before + mass <= top_p + 1e-12)
PROMPT_COUNTS = replace(INFO, supports=frozenset({*NAMES, "min_tokens_to_keep", "frequency_penalty"}))

right_rows(
    "right_with_exactly_k: top_k keeps exactly k at ties, and says so.",
    lambda: with_rule("top_k_ties", "exact", top_k=exactly_k),
    "right_beyond_the_mass: top_p goes on until the mass exceeds it, and says so.",
    lambda: with_rule("top_p_crossing", "exceeds", top_p=on_top_p(EXCEEDS)),
    "right_within_the_mass: top_p drops the token that crosses, and says so.",
    lambda: with_rule("top_p_crossing", "dropped", top_p=on_top_p(DROPPED)),
    "right_with_every_tie_of_top_p: top_p keeps every tie with its last token, and says so.",
    lambda: with_rule("top_p_ties", "all", top_p=on_top_p(every_tie)),
    "right_with_an_absolute_min_p: min_p is a threshold by itself, as declared.",
    lambda: with_rule("min_p_relative_to", "total", min_p=of_the_total),
    "right_with_a_window_of_64: the penalty sees the last 64 ids, as declared.",
    lambda: with_rule("penalty_window", 64, repetition_penalty=window(64)),
    "right_with_a_window_of_20: the penalty sees the last 20 ids, as declared in a set of names.",
    lambda: declaring(with_stage(repetition_penalty=window(20)), rules=frozenset({"penalty_window=20"})),
    "right_once_for_each_occurrence: the penalty acts for each occurrence, as declared.",
    lambda: with_rule("penalty_counts", repetition_penalty=penalized(each_time)),
    "right_without_the_prompt: the penalty leaves the prompt out, as declared.",
    lambda: OnlyProcessesInContext(saying(KnowsThePrompt(), replace(INFO, rules={"penalty_prompt": "excluded"}))),
    "right_with_the_prompt: the frequency penalty counts the prompt, as declared.",
    lambda: OnlyProcesses(
        saying(with_stage(frequency_penalty=frequency), replace(PROMPT_COUNTS, rules={"penalty_prompt": "included"}))
    ),
    "right_that_never_penalizes_eos: the penalty leaves EOS alone, as declared.",
    lambda: with_rule("penalty_spares_eos", info=WITH_EOS, repetition_penalty=penalized(spared_by_the_penalty)),
    "right_that_never_removes_eos: no filter removes EOS, as declared.",
    lambda: with_rule("filters_spare_eos", info=WITH_EOS, **SPARING),
    "right_with_temperature_last: temperature comes last whatever the order says, as declared.",
    lambda: declaring(Miniature(rewrite=last), rules={"temperature_last"}),
    "right_with_the_highest_id: at temperature 0 the highest id of the maxima is left, as declared.",
    lambda: with_rule("greedy_ties", "highest", greedy=the_highest),
    "right_with_every_maximum: at temperature 0 every maximum is left, as declared.",
    lambda: with_rule("greedy_ties", "every", greedy=every_maximum),
    "right_as_mlx_lm: has the dialect of mlx-lm, and lists no order.",
    lambda: declaring(in_order(MLX_LM, top_k=exactly_k, top_p=on_top_p(every_tie)), dialect="mlx-lm"),
    "right_as_llama_cpp: has the dialect of llama.cpp.",
    lambda: declaring(in_order(DIALECTS["llama.cpp"].order, top_k=exactly_k), dialect="llama.cpp"),
    "right_as_transformers: has the order of transformers, and says so.",
    lambda: declaring(in_order(DIALECTS["transformers"].order), dialect="transformers"),
    "right_with_the_penalty_last: has a named order, and says so.",
    lambda: declaring(in_order(DIALECTS["penalty last"].order), dialect="penalty last"),
    "right_in_an_unknown_dialect: declares a dialect that nobody knows, and is HuggingFace's.",
    lambda: declaring(Miniature(), dialect="of my own"),
)


class OnlyProcessesInContext(OnlyProcesses):
    """process() has the further keyword."""

    def process(self, logits: Array, history: Any, config: Any, uncond_logits: Any = None, *, context: Any) -> Array:
        return self.engine.process(logits, history, config, uncond_logits, context=context)
