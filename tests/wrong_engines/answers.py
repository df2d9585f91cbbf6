"""Right scores in a wrong form, from an engine that breaks, or at the price of something that was lent."""

import os
import threading
import time

import numpy as np

from .chain import STAGES, Array, Call, penalized, seen, softmax
from .engines import Miniature, OnlyProcesses, WithoutPick
from .tables import PLAIN, PROCESS, example, wrong

PENALTY = "repetition_penalty"


class Answering(Miniature):
    """process() whose answer is changed. change: of the right process and its inputs."""

    def __init__(self, change) -> None:
        super().__init__()
        self.change = change

    def process(self, logits, history, config, uncond_logits=None):
        return self.change(super().process, logits, history, config, uncond_logits)


def only_process(change) -> OnlyProcesses:
    return OnlyProcesses(Answering(change))


@wrong("purity")
def scores_overwrite_the_logits():
    """Lie: scores are right, and written over the logits that were lent [P18]."""

    def change(process, logits, *rest):
        logits[:] = process(logits, *rest)
        return logits.copy()

    return WithoutPick(Answering(change))


@wrong("purity")
def penalty_writes_into_the_logits():
    """Lie: the penalty works in place on a view of the logits; the second call penalises again [P18]."""

    def change(process, logits, history, config, uncond=None):
        call = Call(history, config, uncond)
        with np.errstate(all="ignore"):
            scores = process(logits, history, config, uncond)
            logits[:] = penalized()(logits, call)
        return scores

    return WithoutPick(Answering(change))


@wrong("purity", example(np.ones((1, 5)), uncond=np.zeros((1, 5)), cfg_weight=0.5))
def guidance_writes_into_the_unconditional_logits():
    """Lie: the difference of guidance is formed in place, in the unconditional logits [P18]."""

    def change(process, logits, history, config, uncond=None):
        scores = process(logits, history, config, uncond)
        if uncond is not None:
            np.subtract(logits, uncond, out=uncond)
        return scores

    return WithoutPick(Answering(change))


@wrong("purity")
def history_grows():
    """Lie: the most likely token is appended to the history that was lent [P18]."""

    def change(process, logits, history, *rest):
        scores = process(logits, history, *rest)
        for ids, row in zip(history, scores, strict=True):
            ids.append(int(row.argmax()))
        return scores

    return WithoutPick(Answering(change))


@wrong("purity", also=(PENALTY,))
def penalty_remembers_earlier_calls():
    """Lie: ids of earlier calls are penalised too, the state is kept [P18]."""
    known: set[int] = set()

    def select(call: Call, row: int, size: int) -> list[int]:
        ids = sorted(known | set(seen(call, row, size)))
        known.update(call.history[row])
        return [token for token in ids if token < size]

    return Miniature({**STAGES, PENALTY: penalized(select)})


@wrong("purity", also=(PENALTY,))
def first_call_differs():
    """Lie: the first call compiles, and does so without the penalty [R01]."""
    calls: list[int] = []

    def change(process, logits, history, config, uncond=None):
        calls.append(1)
        return process(logits, [[] for _ in history] if len(calls) == 1 else history, config, uncond)

    return Answering(change)


@wrong("purity")
def every_other_call_differs():
    """Lie: calls take turns between two buffers, and the second one has no last stage [R01]."""
    calls: list[int] = []

    def change(process, logits, history, config, uncond=None):
        calls.append(1)
        active = [stage for stage in config.order if stage in config.active_stages()]
        return process(logits, history, config.without(active[-1:]) if len(calls) % 2 == 0 else config, uncond)

    return Answering(change)


@wrong("purity", seen=PROCESS)
def scores_lie_in_one_buffer():
    """Lie: calls of one shape return the same array, and the next call overwrites what the last one gave [P18]."""
    buffers: dict[tuple[int, ...], Array] = {}

    def change(process, *inputs):
        scores = process(*inputs)
        buffer = buffers.setdefault(scores.shape, scores)
        buffer[:] = scores
        return buffer

    return Answering(change)


@wrong("purity", seen=(), also=(PENALTY,))
def two_threads_meet():
    """Lie: a call leaves its history on the engine and reads it a little later; a second thread changes it [R10]."""
    shared: dict[str, object] = {}

    def change(process, logits, history, config, uncond=None):
        shared["history"] = history
        time.sleep(0.002)
        return process(logits, shared["history"], config, uncond)

    return Answering(change)


@wrong("purity", also=("temperature",))
def thread_has_no_temperature():
    """Lie: knobs live in the thread that loaded the engine; in another one the temperature is 1 [R02]."""
    home = threading.get_ident()
    stage = STAGES["temperature"]
    return Miniature({**STAGES, "temperature": lambda s, call: stage(s, call) if threading.get_ident() == home else s})


@wrong("purity", also=("precision",))
def scores_tremble():
    """Lie: another 1 % of noise lies on the scores at each call [R03]."""
    generator = np.random.default_rng(1)
    return Answering(lambda process, *inputs: (process(*inputs) * generator.uniform(0.99, 1.01)).astype(np.float32))


@wrong("purity", offers=PROCESS)
def scores_have_a_nan():
    """Lie: the least likely score of every row is NaN [S08]."""

    def change(process, *inputs):
        scores = process(*inputs)
        scores[np.arange(len(scores)), scores.argmin(axis=-1)] = np.nan
        return scores

    return only_process(change)


@wrong("purity", offers=PROCESS)
def scores_are_float64_with_nan():
    """Lie: scores are float64, and NaN stands for removed tokens [S08]."""

    def change(process, *inputs):
        scores = process(*inputs).astype(np.float64)
        return np.where(np.isfinite(scores), scores, np.nan)

    return only_process(change)


@wrong("purity", offers=PROCESS, also=("precision",))
def scores_are_integers():
    """Lie: scores come as int32, without their fractions [S05]."""
    return only_process(lambda process, *inputs: np.maximum(process(*inputs), -1e6).astype(np.int32))


@wrong("purity", offers=PROCESS)
def scores_are_nothing():
    """Lie: process() works in place and returns None [P18]."""

    def change(process, logits, *rest):
        logits[:] = process(logits, *rest)

    return only_process(change)


@wrong("purity", offers=PROCESS)
def scores_lose_an_axis():
    """Lie: a single row comes back as (V,), not (1, V) [N09]."""
    return only_process(lambda process, *inputs: np.squeeze(process(*inputs)))


@wrong("purity", offers=PROCESS)
def scores_are_transposed():
    """Lie: scores are (V, B) [N09]."""
    return only_process(lambda process, *inputs: process(*inputs).T)


@wrong("purity", offers=PROCESS)
def scores_are_padded():
    """Lie: rows are filled up to a multiple of 32 and not cut again [S07]."""

    def change(process, *inputs):
        scores = process(*inputs)
        return np.pad(scores, [(0, 0), (0, -scores.shape[-1] % 32)], constant_values=-np.inf)

    return only_process(change)


@wrong("draw", also=("purity", "top_k", "min_p", "top_p"))
def scores_have_an_epsilon():
    """Lie: scores are log(p + 1e-10), so that no token is ever removed, only unlikely [S01]."""
    return Answering(lambda process, *inputs: np.log(softmax(process(*inputs)) + 1e-10).astype(np.float32))


@wrong("purity")
def breaks():
    """Lie: every call is a RuntimeError [N16]."""

    def change(process, *inputs):
        raise RuntimeError("the device went away")

    return Answering(change)


@wrong("purity", PLAIN)
def hangs():
    """Lie: every call sleeps for ever [R10]."""

    def change(process, *inputs):
        while True:
            time.sleep(60)

    return Answering(change)


@wrong("purity", PLAIN)
def exits():
    """Lie: every call ends the whole program [S07]."""

    def change(process, *inputs):
        os._exit(3)

    return Answering(change)


@wrong("purity", example(np.zeros((1, 2)), top_p=0.5))
def vocabulary_of_two_fails():
    """Lie: a vocabulary of fewer than four tokens is an error [T07]."""

    def change(process, logits, *rest):
        if np.shape(logits)[-1] < 4:
            raise ValueError("kth out of bounds")
        return process(logits, *rest)

    return Answering(change)
