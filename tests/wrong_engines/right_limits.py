"""Right engines that lack something, and those that meet logits from which no token can be drawn."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sampler.engines.base import EngineInfo
from sampler.errors import LogitsError, Unsupported

from .chain import STAGES, Array, Call, keep, penalized, run
from .engines import INFO, Miniature, OnlyProcesses, with_stage
from .tables import right

ITS_ORDER = ("cfg", "alignment", "repetition_penalty", "top_k", "top_p", "min_p", "temperature")


@dataclass
class Refusing(Miniature):
    """Says what it lacks, or raises Unsupported. refuses: what a config asks for that it cannot, else empty."""

    refuses: Callable[[Any], str] = lambda config: ""

    def process(self, logits, history, config, uncond_logits=None) -> Array:
        if self.refuses(config):
            raise Unsupported(self.refuses(config))
        return super().process(logits, history, config, uncond_logits)


@right
def right_of_one_order():
    """No lie: has one order, temperature last, says so, and refuses others."""
    info = replace(INFO, orders=(ITS_ORDER,))
    return Refusing(info=info, refuses=lambda config: "" if config.order == ITS_ORDER else f"order {config.order}")


@right
def right_that_keeps_to_its_order():
    """No lie: has one order, says so, and keeps to it whatever it is asked for."""
    return Miniature(info=replace(INFO, orders=(ITS_ORDER,)), rewrite=lambda config: replace(config, order=ITS_ORDER))


@right
def right_without_top_k():
    """No lie: has no top_k, and says so."""
    supports = frozenset({"cfg", "repetition_penalty", "temperature", "min_p", "top_p", "min_tokens_to_keep"})
    return Miniature({**STAGES, "top_k": lambda scores, call: scores}, info=replace(INFO, supports=supports))


@right
def right_without_guidance():
    """No lie: has no guidance, and says so."""
    return Miniature({**STAGES, "cfg": lambda scores, call: scores}, info=replace(INFO, cfg=False))


@right
def right_that_refuses_knobs():
    """No lie: says nothing beforehand, and raises Unsupported for min_p and for min_tokens_to_keep above 1."""

    def refuses(config) -> str:
        return "min_p" if config.min_p else "min_tokens_to_keep" if config.min_tokens_to_keep > 1 else ""

    return Refusing(refuses=refuses)


@right
def right_that_needs_the_context():
    """No lie: process() and draw() have the further keyword `context`, and check it against the history."""
    return WithContext()


class WithContext(Miniature):
    """Counts ids by the context."""

    def process(self, logits, history, config, uncond_logits=None, *, context) -> Array:
        if (context.prompt_length + context.step).tolist() != [len(ids) for ids in history]:
            raise ValueError(f"context {context} for histories of {[len(ids) for ids in history]}")
        return run(logits, Call(history, config, uncond_logits), self.stages)

    def draw(self, logits, history, config, n, seed, uncond_logits=None, *, context) -> Array:
        if int(np.sum(context.prompt_length) + np.sum(context.step)) != len(history):
            raise ValueError(f"context {context} for a history of {len(history)}")
        return Miniature().draw(logits, history, config, n, seed, uncond_logits)


@right
def right_of_one_vocabulary():
    """No lie: knows 1,000 tokens, says so, and raises ValueError for any other number."""

    class OfOneVocabulary(Miniature):
        def process(self, logits, history, config, uncond_logits=None) -> Array:
            if np.shape(logits)[-1] != 1_000:
                raise ValueError(f"expected 1000 logits a row, got {np.shape(logits)[-1]}")
            return super().process(logits, history, config, uncond_logits)

    return OfOneVocabulary(info=EngineInfo(name="miniature", version="1", vocab_size=1_000))


class Checking(Miniature):
    """Looks for rows that no token can be drawn from. answer: what to do about them."""

    def __init__(self, answer: Callable[[Array], Array]) -> None:
        super().__init__()
        self.answer = answer

    def process(self, logits, history, config, uncond_logits=None) -> Array:
        rows = np.asarray(logits)
        bad = ~(np.isfinite(rows).any(axis=-1)) | np.isnan(rows).any(axis=-1) | (rows == np.inf).any(axis=-1)
        scores = super().process(logits, history, config, uncond_logits)
        if bad.any():
            scores[bad] = self.answer(scores[bad])
        return scores


def refuse(error: type[Exception]) -> Callable[[Array], Array]:
    def answer(rows: Array) -> Array:
        raise error("NaN, +inf or nothing left in the logits")

    return answer


@right
def right_with_a_logits_error():
    """No lie: a row of NaN, +inf or nothing is a LogitsError."""
    return Checking(refuse(LogitsError))


@right
def right_with_a_value_error():
    """No lie: a row of NaN, +inf or nothing is a ValueError."""
    return Checking(refuse(ValueError))


@right
def right_with_token_0_for_nan():
    """No lie: a row of NaN, +inf or nothing is answered with token 0 alone."""
    return Checking(lambda rows: keep(np.zeros_like(rows), np.arange(rows.shape[-1])[None] == 0))


@right
def right_with_nan_for_nan():
    """No lie: a row of NaN, +inf or nothing is answered with NaN."""
    return Checking(lambda rows: np.full_like(rows, np.nan))


@right
def right_without_draws():
    """No lie: processes, and leaves drawing to others."""
    return OnlyProcesses(Miniature())


@right
def right_that_refuses_foreign_ids():
    """No lie: an id beyond the vocabulary, which no chain needs to know, is an IndexError."""
    return with_stage(repetition_penalty=penalized(lambda call, row, size: sorted(set(call.history[row]))))
