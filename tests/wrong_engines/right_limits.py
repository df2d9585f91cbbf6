"""Right engines that lack something, and those that meet logits from which no token can be drawn."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from sampler.engines.base import EngineInfo
from sampler.errors import LogitsError, Unsupported
from sampler.stages import STAGES

from .chain import Array, Call, keep, penalized, run, unchanged
from .engines import INFO, Miniature, OnlyProcesses, Processing, with_order, with_stage
from .tables import right, right_rows

ITS_ORDER = ("cfg", "alignment", "repetition_penalty", "top_k", "top_p", "min_p", "temperature")


def refusing(refuses: Callable[[Any], str], info: EngineInfo = INFO) -> Processing:
    """Raises Unsupported. refuses: what a config asks for that the engine cannot do, else empty."""

    def change(process, logits, history, config, uncond) -> Array:
        if refuses(config):
            raise Unsupported(refuses(config))
        return process(logits, history, config, uncond)

    return saying(Processing(change), info)


def saying(engine: Miniature, info: EngineInfo) -> Any:
    """The engine with another description of itself."""
    engine.info = info
    return engine


ORDERED = replace(INFO, orders=(ITS_ORDER,))
WITHOUT_TOP_K = frozenset({"cfg", "repetition_penalty", "temperature", "min_p", "top_p", "min_tokens_to_keep"})

right_rows(
    "right_of_one_order: has one order, temperature last, says so, and refuses others.",
    lambda: refusing(lambda config: "" if config.order == ITS_ORDER else f"order {config.order}", ORDERED),
    "right_that_keeps_to_its_order: has one order, says so, and keeps to it whatever it is asked for.",
    lambda: Miniature(info=ORDERED, rewrite=lambda config: replace(config, order=ITS_ORDER)),
    "right_that_completes_the_order: a stage that the order leaves out runs at the end, and is never on where it does.",
    lambda: with_order(lambda stages: (*stages, *(stage for stage in STAGES if stage not in stages))),
    "right_without_top_k: has no top_k, and says so.",
    lambda: saying(with_stage(top_k=unchanged), replace(INFO, supports=WITHOUT_TOP_K)),
    "right_without_guidance: has no guidance, and says so.",
    lambda: saying(with_stage(cfg=unchanged), replace(INFO, cfg=False)),
)


@right(of=refusing)
def right_that_refuses_knobs(config) -> str:
    """No fault: says nothing beforehand, and raises Unsupported for min_p and for min_tokens_to_keep above 1."""
    return "min_p" if config.min_p else "min_tokens_to_keep" if config.min_tokens_to_keep > 1 else ""


class WithContext(Miniature):
    """process() and draw() have the further keyword, and check it against the history."""

    def process(self, logits, history, config, uncond_logits=None, *, context) -> Array:
        if (context.prompt_length + context.step).tolist() != [len(ids) for ids in history]:
            raise ValueError(f"context {context} for histories of {[len(ids) for ids in history]}")
        return run(logits, Call(history, config, uncond_logits), self.stages)

    def draw(self, logits, history, config, n, seed, uncond_logits=None, *, context) -> Array:
        if int(np.sum(context.prompt_length) + np.sum(context.step)) != len(history):
            raise ValueError(f"context {context} for a history of {len(history)}")
        return Miniature().draw(logits, history, config, n, seed, uncond_logits)


def of_one_vocabulary(process, logits, *rest):
    if np.shape(logits)[-1] != 1_000:
        raise ValueError(f"expected 1000 logits a row, got {np.shape(logits)[-1]}")
    return process(logits, *rest)


def checking(answer: Callable[[Array], Array]) -> Processing:
    """Checks for rows that no token can be drawn from. answer: what to do about them."""

    def change(process, logits, *rest) -> Array:
        rows = np.asarray(logits)
        bad = ~(np.isfinite(rows).any(axis=-1)) | np.isnan(rows).any(axis=-1) | (rows == np.inf).any(axis=-1)
        scores = process(logits, *rest)
        if bad.any():
            scores[bad] = answer(scores[bad])
        return scores

    return Processing(change)


def refuse(error: type[Exception]) -> Callable[[Array], Array]:
    def answer(rows: Array) -> Array:
        raise error("NaN, +inf or nothing left in the logits")

    return answer


right_rows(
    "right_that_needs_the_context: process() and draw() have and need the further keyword `context`.",
    WithContext,
    "right_of_one_vocabulary: knows 1,000 tokens, says so, and raises ValueError for any other number.",
    lambda: saying(Processing(of_one_vocabulary), replace(INFO, vocab_size=1_000)),
    "right_with_a_logits_error: a row of NaN, +inf or nothing is a LogitsError.",
    lambda: checking(refuse(LogitsError)),
    "right_with_a_value_error: a row of NaN, +inf or nothing is a ValueError.",
    lambda: checking(refuse(ValueError)),
    "right_with_token_0_for_nan: a row of NaN, +inf or nothing is answered with token 0 alone.",
    lambda: checking(lambda rows: keep(np.zeros_like(rows), np.arange(rows.shape[-1])[None] == 0)),
    "right_with_nan_for_nan: a row of NaN, +inf or nothing is answered with NaN.",
    lambda: checking(lambda rows: np.full_like(rows, np.nan)),
    "right_without_draws: processes, and leaves drawing to others.",
    lambda: OnlyProcesses(Miniature()),
    "right_that_refuses_foreign_ids: an id beyond the vocabulary, which no chain needs to know, is an IndexError.",
    lambda: with_stage(repetition_penalty=penalized(lambda call, row, size: sorted(set(call.history[row])))),
    lambda inputs: all(max(ids, default=0) < inputs.logits.shape[1] for ids in inputs.history),
)
