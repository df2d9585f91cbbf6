"""Right scores in a wrong form, from an engine that breaks, or at the price of something that was lent."""

import os
import threading
import time

import numpy as np

from .chain import STAGES, Call, penalized, seen, softmax
from .engines import OnlyProcesses, Processing, WithoutPick, with_memory, with_stage
from .tables import PROCESS, example, wrong, wrong_rows

PENALTY = "repetition_penalty"


def without_pick(change) -> WithoutPick:
    return WithoutPick(Processing(change))


def only_process(change) -> OnlyProcesses:
    return OnlyProcesses(Processing(change))


def with_nan(process, *inputs):
    scores = process(*inputs)
    scores[np.arange(len(scores)), scores.argmin(axis=-1)] = np.nan
    return scores


def nan_for_removed(process, *inputs):
    scores = process(*inputs).astype(np.float64)
    return np.where(np.isfinite(scores), scores, np.nan)


def nothing(process, logits, *rest):
    logits[:] = process(logits, *rest)


def padded(process, logits, *rest):
    missing = -logits.shape[-1] % 32
    return np.pad(process(logits, *rest), [(0, 0), (0, missing)], constant_values=-np.inf)


def trembling():
    generator = np.random.default_rng(1)
    return Processing(lambda process, *inputs: (process(*inputs) * generator.uniform(0.99, 1.01)).astype(np.float32))


def breaking(process, *inputs):
    raise RuntimeError("the device went away")


def hanging(process, *inputs):
    while True:
        time.sleep(60)


@wrong("purity", of=without_pick)
def scores_overwrite_the_logits(process, logits, *rest):
    """Fault: scores are right, and written over the logits that were lent [P18]."""
    logits[:] = process(logits, *rest)
    return logits.copy()


@wrong("purity", of=without_pick)
def penalty_writes_into_the_logits(process, logits, history, config, uncond=None):
    """Fault: the penalty works in place on a view of the logits; the second call penalises again [P18]."""
    scores = process(logits, history, config, uncond)
    logits[:] = penalized()(logits, Call(history, config, uncond))
    return scores


@wrong("purity", example(np.ones((1, 5)), uncond=np.zeros((1, 5)), cfg_weight=0.5), of=without_pick)
def guidance_writes_into_the_unconditional_logits(process, logits, history, config, uncond=None):
    """Fault: the difference of guidance is formed in place, in the unconditional logits [P18]."""
    scores = process(logits, history, config, uncond)
    if uncond is not None:
        np.subtract(logits, uncond, out=uncond)
    return scores


@wrong("purity", of=without_pick)
def history_grows(process, logits, history, *rest):
    """Fault: the most likely token is appended to the history that was lent [P18]."""
    scores = process(logits, history, *rest)
    for ids, row in zip(history, scores, strict=True):
        ids.append(int(row.argmax()))
    return scores


@wrong("purity", also=(PENALTY,))
def penalty_remembers_earlier_calls():
    """Fault: ids of earlier calls are penalised too, the state is kept [P18]."""
    known: set[int] = set()

    def select(call: Call, row: int, size: int) -> list[int]:
        ids = sorted(known | set(seen(call, row, size)))
        known.update(call.history[row])
        return [token for token in ids if token < size]

    return with_stage(repetition_penalty=penalized(select))


@wrong("purity", also=(PENALTY,), of=with_memory)
def first_call_differs(kept, process, logits, history, config, uncond=None):
    """Fault: the first call compiles, and does so without the penalty [R01]."""
    kept["calls"] = kept.get("calls", 0) + 1
    return process(logits, [[] for _ in history] if kept["calls"] == 1 else history, config, uncond)


@wrong("purity", of=with_memory)
def every_other_call_differs(kept, process, logits, history, config, uncond=None):
    """Fault: calls take turns between two buffers, and the second one has no last stage [R01]."""
    kept["calls"] = kept.get("calls", 0) + 1
    active = [stage for stage in config.order if stage in config.active_stages()]
    return process(logits, history, config.without(active[-1:]) if kept["calls"] % 2 == 0 else config, uncond)


@wrong("purity", seen=PROCESS, of=with_memory)
def scores_lie_in_one_buffer(buffers, process, *inputs):
    """Fault: calls of one shape return the same array, and the next call overwrites what the last one gave [P18]."""
    scores = process(*inputs)
    buffer = buffers.setdefault(scores.shape, scores)
    buffer[:] = scores
    return buffer


@wrong("purity", seen=(), also=(PENALTY,), of=with_memory)
def two_threads_meet(shared, process, logits, history, config, uncond=None):
    """Fault: a call leaves its history on the engine and reads it a little later; a second thread changes it [R10]."""
    shared["history"] = history
    time.sleep(0.002)
    return process(logits, shared["history"], config, uncond)


@wrong("purity", also=("temperature",))
def thread_has_no_temperature():
    """Fault: knobs live in the thread that loaded the engine; in another one the temperature is 1 [R02]."""
    home = threading.get_ident()
    stage = STAGES["temperature"]
    return with_stage(temperature=lambda s, call: stage(s, call) if threading.get_ident() == home else s)


wrong_rows(
    "purity",
    "scores_tremble: another 1 % of noise lies on the scores at each call [R03].",
    trembling,
    {"also": ("precision",)},
    "scores_have_a_nan: the least likely score of every row is NaN [S08].",
    lambda: only_process(with_nan),
    {"offers": PROCESS},
    "scores_are_float64_with_nan: scores are float64, and NaN stands for removed tokens [S08].",
    lambda: only_process(nan_for_removed),
    {"offers": PROCESS},
    "scores_are_integers: scores come as int32, without their fractions [S05].",
    lambda: only_process(lambda process, *inputs: np.maximum(process(*inputs), -1e6).astype(np.int32)),
    {"offers": PROCESS, "also": ("precision",)},
    "scores_are_nothing: process() works in place and returns None [P18].",
    lambda: only_process(nothing),
    {"offers": PROCESS},
    "scores_lose_an_axis: a single row comes back as (V,), not (1, V) [N09].",
    lambda: only_process(lambda process, *inputs: np.squeeze(process(*inputs))),
    {"offers": PROCESS},
    "scores_are_transposed: scores are (V, B) [N09].",
    lambda: only_process(lambda process, *inputs: process(*inputs).T),
    {"offers": PROCESS},
    "scores_are_padded: rows are filled up to a multiple of 32 and not cut again [S07].",
    lambda: only_process(padded),
    {"offers": PROCESS},
    "scores_have_an_epsilon: scores are log(p + 1e-10), so that no token is ever removed, only unlikely [S01].",
    lambda: Processing(lambda process, *inputs: np.log(softmax(process(*inputs)) + 1e-10).astype(np.float32)),
    {"stage": "draw", "also": ("purity", "top_k", "min_p", "top_p")},
    "breaks: every call is a RuntimeError [N16].",
    lambda: Processing(breaking),
    "hangs: every call sleeps for ever [R10].",
    lambda: Processing(hanging),
    "exits: every call ends the whole program [S07].",
    lambda: Processing(lambda process, *inputs: os._exit(3)),
)


@wrong("purity", example(np.zeros((1, 2)), top_p=0.5), of=Processing)
def vocabulary_of_two_fails(process, logits, *rest):
    """Fault: a vocabulary of fewer than four tokens is an error [T07]."""
    if np.shape(logits)[-1] < 4:
        raise ValueError("kth out of bounds")
    return process(logits, *rest)
