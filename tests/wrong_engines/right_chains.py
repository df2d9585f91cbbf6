"""Right engines whose chain looks different."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from .chain import (
    LOWEST,
    STAGES,
    Array,
    Call,
    log_softmax,
    mixed,
    nucleus,
    ranked,
    run,
    scaled,
    softmax,
    tempered,
)
from .engines import Miniature, OnlyProcesses, with_config, with_stage
from .tables import right


@right
def right_miniature():
    """No lie: the chain that the wrong engines change."""
    return Miniature()


@right
def right_by_log_softmax_first():
    """No lie: scores are log-probabilities before they are divided, once no penalty or guidance is to come."""

    def stage(scores: Array, call: Call) -> Array:
        ready = not call.to_come("cfg", "repetition_penalty") and call.config.temperature > 0
        return tempered()(log_softmax(scores) if ready else scores, call)

    return with_stage(temperature=stage)


class Finishing(Miniature):
    """Scores that are changed at the end. change: of scores that are right."""

    def __init__(self, change: Callable[[Array], Array]) -> None:
        super().__init__()
        self.change = change

    def process(self, logits, history, config, uncond_logits=None) -> Array:
        with np.errstate(all="ignore"):
            return self.change(super().process(logits, history, config, uncond_logits))


@right
def right_in_log_probabilities():
    """No lie: what comes back is normalised, so that exp gives probabilities."""
    return Finishing(log_softmax)


@right
def right_with_a_constant_a_row():
    """No lie: each row of scores is shifted, so that its largest is 3."""
    return Finishing(lambda scores: scores - scores.max(axis=-1, keepdims=True) + np.float32(3))


@right
def right_in_fortran_order():
    """No lie: scores come in Fortran order and cannot be written to."""

    def change(scores: Array) -> Array:
        scores = np.asfortranarray(scores)
        scores.flags.writeable = False
        return scores

    return Finishing(change)


@right
def right_in_a_list():
    """No lie: scores are lists of numbers, no array."""
    return OnlyProcesses(Finishing(np.ndarray.tolist))


@right
def right_with_a_large_negative_score():
    """No lie: what is removed has the score -10,000 in place of minus infinity, and no draw can see that."""
    return OnlyProcesses(Finishing(lambda scores: np.maximum(scores, np.float32(-10_000))))


class InSortedSpace(Miniature):
    """Filters run on sorted scores, which are put back at the end."""

    def process(self, logits, history, config, uncond_logits=None) -> Array:
        scores = np.array(logits, dtype=np.float32)
        by_id = ("cfg", "alignment", "repetition_penalty")
        first = next((at for at, stage in enumerate(config.order) if stage not in by_id), len(config.order))
        ahead, rest = config.order[:first], config.order[first:]
        if set(by_id) & set(rest):  # what is done by id cannot be done to sorted scores
            return super().process(logits, history, config, uncond_logits)
        scores = run(scores, Call(history, replace(config, order=ahead), uncond_logits), STAGES)
        ids = np.argsort(-scores, axis=-1, kind="stable")
        calls = Call([[] for _ in scores], replace(config, order=rest))
        kept = run(np.take_along_axis(scores, ids, axis=-1), calls, STAGES)
        np.put_along_axis(scores, ids, kept, axis=-1)
        return scores


@right
def right_in_sorted_space():
    """No lie: filters see the scores from the largest to the smallest, which go back to their places at the end."""
    return InSortedSpace()


@right
def right_with_top_k_before_temperature():
    """No lie: top_k comes before temperature where nothing stands between them; a positive factor keeps the ranks."""

    def rewrite(config):
        order = list(config.order)
        at = next((i for i in range(1, len(order)) if order[i - 1 : i + 1] == ["temperature", "top_k"]), 0)
        if at:
            order[at - 1], order[at] = order[at], order[at - 1]
        return replace(config, order=tuple(order))

    return with_config(rewrite)


@right
def right_row_by_row():
    """No lie: one row after the other."""

    class RowByRow(Miniature):
        def process(self, logits, history, config, uncond_logits=None) -> Array:
            others = [None] * len(logits) if uncond_logits is None else [row[None] for row in uncond_logits]
            rows = zip(logits, history, others, strict=True)
            one = super().process
            return np.concatenate([one(row[None], [ids], config, other) for row, ids, other in rows])

    return RowByRow()


@right
def right_in_four_threads():
    """No lie: rows are shared out to threads, and come back in their order."""

    class InThreads(Miniature):
        def process(self, logits, history, config, uncond_logits=None) -> Array:
            others = [None] * len(logits) if uncond_logits is None else [row[None] for row in uncond_logits]
            one = super().process
            with ThreadPoolExecutor(4) as pool:
                rows = pool.map(lambda row, ids, other: one(row[None], [ids], config, other), logits, history, others)
                return np.concatenate(list(rows))

    return InThreads()


@right
def right_with_doubles():
    """No lie: float64 throughout, and float32 at the end."""

    class WithDoubles(Miniature):
        def process(self, logits, history, config, uncond_logits=None) -> Array:
            return run_in_float64(np.asarray(logits, dtype=np.float64), history, config, uncond_logits)

    return WithDoubles()


def run_in_float64(scores: Array, history: Any, config: Any, uncond: Array | None) -> Array:
    """Every stage written once more, in float64."""
    call = Call(history, config, uncond)
    with np.errstate(all="ignore"):
        for stage in config.order:
            if stage == "cfg" and uncond is not None:
                base = scores if config.cfg_convention == "conditional" else uncond.astype(np.float64)
                guided = base + config.cfg_weight * (scores - uncond)
                scores = np.where(scores > LOWEST, guided, LOWEST)
            elif stage == "repetition_penalty":
                seen = np.array([np.isin(np.arange(scores.shape[-1]), list(ids)) for ids in history])
                scores = np.where(seen, scaled(scores, config.repetition_penalty), scores)
            elif stage == "temperature" and config.temperature > 0:
                scores = scores / config.temperature
            elif stage in ("top_k", "min_p", "top_p"):
                scores = STAGES[stage](scores, call)
        scores = STAGES["greedy"](scores, call) if config.greedy else scores
        return scores.astype(np.float32)


@right
def right_by_masks():
    """No lie: filters only keep account of what is removed, and minus infinity is filled in after each."""

    def stage(scores: Array, call: Call) -> Array:
        if call.config.min_p == 0:
            return scores
        p = softmax(scores)
        removed = p < call.config.min_p * p.max(axis=-1, keepdims=True)
        least = ranked(scores, min(call.config.min_tokens_to_keep, scores.shape[-1]))
        first = np.argsort(np.argsort(-scores, axis=-1, kind="stable"), axis=-1) < call.config.min_tokens_to_keep
        result = scores.copy()
        result[removed & ~((scores >= least) & first)] = LOWEST
        return result

    return with_stage(min_p=stage)


@right
def right_with_other_ties():
    """No lie: among equal scores at the crossing of top_p the highest ids are kept, not the lowest."""
    other = nucleus()

    def stage(scores: Array, call: Call) -> Array:
        return other(scores[:, ::-1], call)[:, ::-1]

    return with_stage(top_p=stage)


@right
def right_from_the_unconditional_base():
    """No lie: u + (1 + w)(c - u), which is c + w (c - u), in float64 because of the cancellation."""
    wide = np.float64
    return with_stage(cfg=mixed(lambda c, u, w: u.astype(wide) + (1 + wide(w)) * (c.astype(wide) - u.astype(wide))))


@right
def right_with_a_memory():
    """No lie: answers are kept and given again to the same question, as copies."""

    class WithMemory(Miniature):
        def process(self, logits, history, config, uncond_logits=None) -> Array:
            rows = [np.asarray(each).tobytes() for each in (logits, uncond_logits) if each is not None]
            question = (*rows, logits.shape, tuple(map(tuple, history)), str(config), uncond_logits is None)
            if question not in answers:
                if len(answers) > 16:
                    answers.clear()
                answers[question] = super().process(logits, history, config, uncond_logits)
            return answers[question].copy()

    answers: dict[Any, Array] = {}
    return WithMemory()
