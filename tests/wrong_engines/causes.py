"""Wrong engines whose cause has a name of its own, and right ones that such a name must not meet."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from sampler.engines.base import EVERYTHING, EngineInfo
from sampler.engines.reference.chain import ReferenceEngine
from sampler.requests import Batch, Context

from .chain import STAGES, Array, Call, log_softmax, softmax, top_k
from .engines import INFO, Miniature, OnlyDraws, OnlyProcesses, Processing, behind, with_order, with_stage
from .limits import Without
from .tables import DRAW, PROCESS, example, right_rows, spread, wrong_rows

REFERENCE = ReferenceEngine()
EVERY_STAGE = replace(INFO, supports=EVERYTHING)


@dataclass(frozen=True)
class Asked:
    """The reference, asked for what `change` makes of the rows: it has every stage."""

    change: Callable[[Batch], Batch]
    info: EngineInfo = EVERY_STAGE

    def process(self, logits, history, config, uncond_logits=None, *, context=None) -> Array:
        batch = Batch(np.asarray(logits), history, (config,) * len(logits), uncond_logits, context)
        return REFERENCE.evaluate(self.change(batch))[-1].scores.astype(np.float32)


# Keywords.


class ByKeyword:
    """Takes its arguments by keyword only."""

    info = INFO

    def process(self, *, logits, history, config, uncond_logits=None) -> Array:
        return Miniature().process(logits, history, config, uncond_logits)

    def draw(self, *, logits, history, config, n, seed, uncond_logits=None) -> Array:
        return Miniature().draw(logits, history, config, n, seed, uncond_logits)


class ByOtherKeywords:
    """Likewise, and calls them otherwise."""

    info = INFO

    def process(self, *, scores, ids, config, uncond=None) -> Array:
        return Miniature().process(scores, ids, config, uncond)


class DrawsByOtherKeywords:
    """Likewise, of draw() alone."""

    info = INFO

    def draw(self, *, row, ids, config, count, seed) -> Array:
        return Miniature().draw(row, ids, config, count, seed)


wrong_rows(
    "purity",
    "takes_other_keywords: process() takes its arguments by keyword only, under other names [N18].",
    ByOtherKeywords,
    {"offers": PROCESS},
    "draws_with_other_keywords: draw() takes its arguments by keyword only, under other names [N18].",
    DrawsByOtherKeywords,
    {"offers": DRAW, "stage": "draw"},
    says="uses its arguments by keyword only",
)


@dataclass(frozen=True)
class Probabilities(OnlyProcesses):
    """Returns the softmax of another engine's scores."""

    def process(self, *inputs) -> Array:
        return softmax(self.engine.process(*inputs)).astype(np.float32)


# Orders of engines without guidance.


@dataclass(frozen=True)
class DrawsWithout(OnlyDraws):
    """Draws, has no guidance and says so."""

    @property
    def info(self):
        return replace(self.engine.info, cfg=False)


def tempering_last():
    return with_order(lambda order: behind(order, "temperature", ("top_k", "top_p", "min_p")))


def tempering_first():
    its_order = ("temperature", "repetition_penalty", "top_p", "top_k", "min_p", "cfg", "alignment")
    return with_order(lambda order: tuple(stage for stage in its_order if stage in order))


FILTERED = example(temperature=2.5, top_p=0.7)

wrong_rows(
    "order",
    "without_guidance_tempers_last: filters come before temperature; it has no guidance [O01].",
    lambda: Without(tempering_last()),
    FILTERED,
    {"says": "'truncate, then temper': repetition_penalty > top_k > min_p > top_p > temperature", "offers": PROCESS},
    "without_guidance_tempers_first: temperature comes before the penalty; it has no guidance [O01].",
    lambda: Without(tempering_first()),
    example(temperature=2.5, top_k=8, top_p=0.5),
    {"says": "'temperature first': temperature > repetition_penalty > top_p > top_k > min_p", "offers": PROCESS},
    "draws_without_guidance_tempering_last: draws alone, filters before temperature; it has no guidance [O01].",
    lambda: DrawsWithout(tempering_last()),
    FILTERED,
    {"says": "'truncate, then temper': repetition_penalty > top_k > min_p > top_p > temperature", "offers": DRAW},
)


# Uniform numbers that equal a probability.


def up_to_and_with(batch: Batch) -> Batch:
    """XTC that also acts where its uniform number equals the probability."""
    if batch.context is None or batch.context.uniforms is None:
        return batch
    return replace(batch, context=batch.context._replace(uniforms=np.nextafter(batch.context.uniforms, -1)))


right_rows(
    "right_by_keyword: process() and draw() take their arguments by keyword only.",
    ByKeyword,
    "right_at_an_equal_uniform: XTC acts where the uniform number is at most its probability.",
    lambda: Asked(up_to_and_with),
)


# Answers in another form than scores.


def as_probabilities(process, *inputs) -> Array:
    return softmax(process(*inputs)).astype(np.float32)


def as_surprise(process, *inputs) -> Array:
    return -log_softmax(process(*inputs))


wrong_rows(
    "purity",
    "returns_probabilities: process() returns the softmax of its scores [S09].",
    lambda: Processing(as_probabilities),
    {"says": "these look like probabilities"},
    "returns_probabilities_of_wrong_scores: likewise, and top_k keeps one token too many [S09].",
    lambda: Probabilities(with_stage(top_k=top_k(lambda call: call.config.top_k + 1))),
    {"says": "these look like probabilities", "offers": PROCESS},
    "returns_negative_log_probabilities: process() returns the surprisals of its tokens [S09].",
    lambda: Processing(as_surprise),
    {"says": "these look like negative log-probabilities", "seen": PROCESS},
)


# Columns that pad a vocabulary and compete.


def padded(multiple: int, value: float = 0.0):
    """The right chain on rows that are padded to a multiple with columns of one logit, and cut again."""

    def change(process, logits, history, config, uncond) -> Array:
        wide = [(0, 0), (0, -np.shape(logits)[-1] % multiple)]
        rows = np.pad(logits, wide, constant_values=np.float32(value))
        other = None if uncond is None else np.pad(uncond, wide, constant_values=np.float32(value))
        return process(rows, history, config, other)[:, : np.shape(logits)[-1]]

    return OnlyProcesses(Processing(change))


def padded_stage(name: str, multiple: int):
    """Likewise, of one stage alone."""

    def stage(scores: Array, call: Call) -> Array:
        wide = np.pad(scores, [(0, 0), (0, -scores.shape[-1] % multiple)])
        return STAGES[name](wide, call)[:, : scores.shape[-1]]

    return OnlyProcesses(with_stage(**{name: stage}))


LOW = example(spread(25, -9, -1), top_k=5)

wrong_rows(
    "purity",
    "padding_to_64_competes: a vocabulary padded to a multiple of 64 keeps the padding in every filter [S07].",
    lambda: padded(64),
    "padding_to_128_competes: likewise, to a multiple of 128 [S07].",
    lambda: padded(128),
    "padding_to_8_competes: likewise, to a multiple of 8 [S07].",
    lambda: padded(8),
    "padding_competes_in_top_p: a vocabulary padded to a multiple of 64, in top_p alone [S07].",
    lambda: padded_stage("top_p", 64),
    {"stage": "top_p", "shows": example(spread(25, -9, -1), top_p=0.7)},
    "padding_competes_in_top_k: a vocabulary padded to a multiple of 128, in top_k alone [S07].",
    lambda: padded_stage("top_k", 128),
    {"stage": "top_k"},
    shows=LOW,
    offers=PROCESS,
    says="padding columns compete",
)


# Windows of penalties, and whether the prompt is counted.


def with_history(select: Callable[..., list[int]]) -> Callable[[Batch], Batch]:
    """Another history for the penalties. select: from prompt, drawn ids and window."""

    def change(batch: Batch) -> Batch:
        if batch.context is None:
            return batch
        prompts = batch.context.prompt_length.tolist()
        parts = [(list(ids)[:prompt], list(ids)[prompt:]) for ids, prompt in zip(batch.history, prompts, strict=True)]
        chosen = [select(prompt, drawn, batch.config.penalty_window) for prompt, drawn in parts]
        return replace(batch, history=chosen)

    return change


def window(change: Callable[[int], int]) -> Callable[[Batch], Batch]:
    """Another window than the caller's, where there is one."""

    def changed(batch: Batch) -> Batch:
        size = batch.config.penalty_window
        return batch.with_config(replace(batch.config, penalty_window=change(size))) if size else batch

    return changed


def of_stage(name: str, change: Callable[[Batch], Batch]) -> Asked:
    """The reference with a change that is seen where one stage is on."""
    return Asked(lambda batch: change(batch) if name in batch.config.active_stages() else batch)


def counting_all(batch: Batch) -> Batch:
    """The prompt counts as drawn."""
    if batch.context is None:
        return batch
    lengths = np.array([len(ids) for ids in batch.history], dtype=np.int64)
    return replace(batch, context=batch.context._replace(prompt_length=np.zeros_like(lengths), step=lengths))


def of_prompt(prompt: list[int], drawn: list[int], window: int) -> list[int]:
    return prompt[-window:] if window else [*prompt, *drawn]


def oldest(prompt: list[int], drawn: list[int], window: int) -> list[int]:
    return [*prompt, *drawn][:window] if window else [*prompt, *drawn]


def oldest_drawn(prompt: list[int], drawn: list[int], window: int) -> list[int]:
    return [*prompt, *(drawn[:window] if window else drawn)]


def newest_drawn(prompt: list[int], drawn: list[int], window: int) -> list[int]:
    return [*prompt, *drawn[-1:]] if window else [*prompt, *drawn]


IDS = list(range(24))
HALF = Context(np.array([12]), np.array([12]), (0, 24))
WINDOWED = example(history=IDS, context=HALF, repetition_penalty=1.5, penalty_window=5)
OFTEN = example(history=list(range(12)) * 2, context=HALF, frequency_penalty=0.5, penalty_window=5)
ONCE = example(history=[*range(6), *range(6), *range(12, 24)], context=HALF, presence_penalty=0.5, penalty_window=5)
PROMPT = example(history=IDS, context=HALF, frequency_penalty=0.5, presence_penalty=0.5)
EARLY = example(history=[3, 5, 7], context=Context(np.array([2]), np.array([1]), (0, 24)), min_new_tokens=2)

wrong_rows(
    "repetition_penalty",
    "window_is_one_too_long: penalty_window holds one id too many [P06].",
    lambda: Asked(window(lambda size: size + 1)),
    {"says": "the window is one id too long"},
    "window_is_one_too_short: penalty_window holds one id too few [P06].",
    lambda: Asked(window(lambda size: size - 1)),
    {"says": "the window is one id too short"},
    "window_is_ignored: penalty_window is accepted, and the whole history is penalised [P06].",
    lambda: Asked(window(lambda size: 0)),
    {"says": "penalty_window is accepted and ignored"},
    "window_holds_the_oldest: penalty_window cuts the history at the wrong end [P06].",
    lambda: of_stage("repetition_penalty", with_history(oldest)),
    {"says": "the window holds the oldest ids"},
    "window_lies_over_the_prompt: penalty_window is taken of the prompt alone [P06].",
    lambda: of_stage("repetition_penalty", with_history(of_prompt)),
    {"says": "the window lies over the prompt alone"},
    shows=WINDOWED,
    offers=PROCESS,
)
wrong_rows(
    "frequency_penalty",
    "frequency_counts_the_prompt: the prompt is counted as drawn [P07].",
    lambda: of_stage("frequency_penalty", counting_all),
    {"says": "the prompt is counted", "shows": PROMPT},
    "frequency_window_holds_the_oldest: of what was drawn the oldest ids are counted [P06].",
    lambda: of_stage("frequency_penalty", with_history(oldest_drawn)),
    {"says": "the window holds the oldest ids"},
    "presence_counts_the_newest_alone: of the window only the newest id is counted [P06].",
    lambda: of_stage("presence_penalty", with_history(newest_drawn)),
    {"says": "the window counts the newest id alone", "shows": ONCE, "stage": "presence_penalty"},
    "presence_counts_the_prompt: the prompt is counted as drawn [P07].",
    lambda: of_stage("presence_penalty", counting_all),
    {"says": "the prompt is counted", "shows": PROMPT, "stage": "presence_penalty"},
    "min_new_tokens_is_one_short: EOS may be drawn one step too early [E01].",
    lambda: Asked(lambda batch: batch.with_config(replace(batch.config, min_new_tokens=shorter(batch.config)))),
    {"says": "EOS is let through one step too early", "shows": EARLY, "stage": "min_new_tokens"},
    shows=OFTEN,
    offers=PROCESS,
)


def shorter(config):
    return max(0, config.min_new_tokens - 1)


# Values that make an engine raise.


def raising(refused: Callable[..., bool], error: type[Exception] = ValueError):
    """The right chain, which raises where `refused` says so of logits, history and config."""

    def change(process, logits, history, config, uncond) -> Array:
        if refused(np.asarray(logits), history, config):
            raise error("cannot do this")
        return process(logits, history, config, uncond)

    return OnlyProcesses(Processing(change))


wrong_rows(
    "temperature",
    "raises_at_one_temperature: temperature 0.3 is an error [T05].",
    lambda: raising(lambda logits, history, config: config.temperature == 0.3),
    example(temperature=0.3),
    {"says": "raises for temperature=0.3: ValueError: cannot do this"},
    "raises_at_temperature_0: temperature 0 is a division by zero [T05].",
    lambda: raising(lambda logits, history, config: config.greedy, ZeroDivisionError),
    example(temperature=0.0),
    {"says": "raises for temperature=0.0: ZeroDivisionError"},
    "raises_where_top_k_is_the_vocabulary: top_k of the vocabulary or more is out of range [N14].",
    lambda: raising(lambda logits, history, config: config.top_k >= logits.shape[-1], IndexError),
    example(top_k=30),
    {"says": "raises for a top_k of the vocabulary or more: IndexError", "stage": "top_k"},
    "raises_at_min_p_1: min_p of 1 is an error [T06].",
    lambda: raising(lambda logits, history, config: config.min_p == 1),
    example(min_p=1.0),
    {"says": "raises for min_p=1.0", "stage": "min_p"},
    "raises_at_one_length: a history of 81 ids is an error [N14].",
    lambda: raising(lambda logits, history, config: any(len(ids) == 81 for ids in history)),
    example(history=[3] * 81, temperature=0.5),
    {"says": "raises for a history of 81 ids", "stage": "purity"},
    "raises_for_two_tokens: a vocabulary of 2 tokens is an error [N14].",
    lambda: raising(lambda logits, history, config: logits.shape[-1] == 2),
    example(spread(2), temperature=0.5),
    {"says": "raises for a vocabulary of 2 tokens", "stage": "purity"},
    offers=PROCESS,
)
