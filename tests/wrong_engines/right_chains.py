"""Right engines whose chain looks different."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from .chain import LOWEST, STAGES, Array, Call, log_softmax, mixed, ranked, run, scaled, softmax, tempered
from .engines import Miniature, OnlyProcesses, Processing, stage_at, with_config, with_memory, with_stage
from .tables import right, right_rows


@right
def right_miniature():
    """No fault: the chain that the wrong engines change."""
    return Miniature()


@right(of=stage_at("temperature"))
def right_by_log_softmax_first(scores: Array, call: Call) -> Array:
    """No fault: scores are log-probabilities before they are divided, once no penalty or guidance is to come."""
    ready = not call.to_come("cfg", "repetition_penalty") and call.config.temperature > 0
    return tempered()(log_softmax(scores) if ready else scores, call)


def finishing(change: Callable[[Array], Array]) -> Processing:
    """Scores that are right are changed at the end."""
    return Processing(lambda process, *inputs: change(process(*inputs)))


right_rows(
    "right_in_log_probabilities: what comes back is normalised, so that exp gives probabilities.",
    lambda: finishing(log_softmax),
    "right_with_a_constant_a_row: each row of scores is shifted, so that its largest is 3.",
    lambda: finishing(lambda scores: scores - scores.max(axis=-1, keepdims=True) + np.float32(3)),
)


@right(of=finishing)
def right_in_fortran_order(scores: Array) -> Array:
    """No fault: scores come in Fortran order and cannot be written to."""
    scores = np.asfortranarray(scores)
    scores.flags.writeable = False
    return scores


right_rows(
    "right_in_a_list: scores are lists of numbers, no array.",
    lambda: OnlyProcesses(finishing(np.ndarray.tolist)),
    "right_with_a_large_negative_score: "
    "a removed token has the score -10,000, which no draw can tell from minus infinity.",
    lambda: OnlyProcesses(finishing(lambda scores: np.maximum(scores, np.float32(-10_000)))),
)


@right(of=Processing)
def right_in_sorted_space(process, logits, history, config, uncond):
    """No fault: filters see the scores from the largest to the smallest, which go back to their places at the end."""
    by_id = ("cfg", "alignment", "repetition_penalty")
    first = next((at for at, stage in enumerate(config.order) if stage not in by_id), len(config.order))
    ahead, rest = config.order[:first], config.order[first:]
    if set(by_id) & set(rest):  # what is done by id cannot be done to sorted scores
        return process(logits, history, config, uncond)
    scores = run(np.array(logits, dtype=np.float32), Call(history, replace(config, order=ahead), uncond), STAGES)
    ids = np.argsort(-scores, axis=-1, kind="stable")
    calls = Call([[] for _ in scores], replace(config, order=rest))
    np.put_along_axis(scores, ids, run(np.take_along_axis(scores, ids, axis=-1), calls, STAGES), axis=-1)
    return scores


@right(of=with_config)
def right_with_top_k_before_temperature(config):
    """No fault: top_k comes before temperature where nothing stands between them; a positive factor keeps the ranks."""
    order = list(config.order)
    at = next((i for i in range(1, len(order)) if order[i - 1 : i + 1] == ["temperature", "top_k"]), 0)
    if at:
        order[at - 1], order[at] = order[at], order[at - 1]
    return replace(config, order=tuple(order))


def rows(logits: Array, history: Any, uncond: Array | None) -> Iterator[tuple[Any, ...]]:
    others = [None] * len(logits) if uncond is None else [row[None] for row in uncond]
    return ((row[None], [ids], other) for row, ids, other in zip(logits, history, others, strict=True))


@right(of=Processing)
def right_row_by_row(process, logits, history, config, uncond):
    """No fault: one row after the other."""
    return np.concatenate([process(row, ids, config, other) for row, ids, other in rows(logits, history, uncond)])


@right(of=Processing)
def right_in_four_threads(process, logits, history, config, uncond):
    """No fault: rows are shared out to threads, and come back in their order."""
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda row: process(*row[:2], config, row[2]), rows(logits, history, uncond))
        return np.concatenate(list(answers))


@right(of=Processing)
def right_with_doubles(process, logits, history, config, uncond):
    """No fault: float64 throughout, and float32 at the end."""
    return run_in_float64(np.asarray(logits, dtype=np.float64), history, config, uncond)


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


@right(of=stage_at("min_p"))
def right_by_masks(scores: Array, call: Call) -> Array:
    """No fault: filters only keep account of what is removed, and minus infinity is filled in after each."""
    p = softmax(scores)
    removed = p < call.config.min_p * p.max(axis=-1, keepdims=True)
    least = ranked(scores, min(call.config.min_tokens_to_keep, scores.shape[-1]))
    first = np.argsort(np.argsort(-scores, axis=-1, kind="stable"), axis=-1) < call.config.min_tokens_to_keep
    result = scores.copy()
    result[removed & ~((scores >= least) & first)] = LOWEST
    return result


@right(of=stage_at("top_p"))
def right_with_other_ties(scores: Array, call: Call) -> Array:
    """No fault: among equal scores at the crossing of top_p the highest ids are kept, not the lowest."""
    return STAGES["top_p"](scores[:, ::-1], call)[:, ::-1]


@right
def right_from_the_unconditional_base():
    """No fault: u + (1 + w)(c - u), which is c + w (c - u), in float64 because of the cancellation."""
    wide = np.float64
    return with_stage(cfg=mixed(lambda c, u, w: u.astype(wide) + (1 + wide(w)) * (c.astype(wide) - u.astype(wide))))


@right(of=with_memory)
def right_with_a_memory(answers, process, logits, history, config, uncond):
    """No fault: answers are kept and given again to the same question, as copies."""
    arrays = [np.asarray(each).tobytes() for each in (logits, uncond) if each is not None]
    question = (*arrays, logits.shape, tuple(map(tuple, history)), str(config), uncond is None)
    if question not in answers:
        if len(answers) > 16:
            answers.clear()
        answers[question] = process(logits, history, config, uncond)
    return answers[question].copy()
