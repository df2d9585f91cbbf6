"""The tables of wrong and right engines keep their promises: each lie shows, and no right engine has one.

What is asserted here is that the miniatures are what they say; that `sampler check` finds it out is tested elsewhere.
"""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sampler.engines.base import Context, Draws, Processes, call_process
from sampler.engines.reference import ReferenceEngine
from sampler.errors import Unsupported
from tests.liars import WRONG
from tests.liars.chain import softmax
from tests.liars.tables import PLAIN, Example

ROOT = Path(__file__).parent.parent.parent
REFERENCE = ReferenceEngine()
LEVELS = {"process": Processes, "draw": Draws}
ENDLESS = ("hangs", "exits", "draw_hangs", "draw_exits")


def call(engine, inputs: Example) -> np.ndarray:
    lengths = np.array([len(ids) for ids in inputs.history])
    context = Context(lengths, np.zeros_like(lengths), ())
    return call_process(engine, inputs.logits, inputs.history, inputs.config, inputs.uncond, context)


def in_a_thread(engine, *, inputs: Example) -> np.ndarray:
    answers = []
    thread = threading.Thread(target=lambda: answers.append(call(engine, inputs)))
    thread.start()
    thread.join()
    return answers[0]


def together(engine, inputs: Example) -> str:
    """What is wrong with the answers of two threads at a time, of which one has no histories."""
    calls = [replace(inputs, history=[[] for _ in inputs.history]), inputs] * 3
    with ThreadPoolExecutor(max_workers=2) as threads:
        answers = threads.map(lambda each: call(engine, copy.deepcopy(each)), calls)
        return next(filter(None, map(difference, answers, calls)), "")


def difference(answer: object, inputs: Example) -> str:
    """What is wrong with the answer to an input; empty where nothing is."""
    if not isinstance(answer, np.ndarray) or answer.shape != inputs.logits.shape:
        return f"a {type(answer).__name__} of shape {np.shape(answer)}"
    if answer.dtype != np.float32:
        return f"dtype {answer.dtype}"
    truth = REFERENCE.process(inputs.logits, inputs.history, inputs.config, inputs.uncond)
    if np.isnan(answer).any() or not np.array_equal((answer > -np.inf).sum(-1), (truth > -np.inf).sum(-1)):
        return "kept sets"
    if not np.array_equal(np.where(answer > -np.inf, truth, -np.inf).max(-1), truth.max(-1)):
        return "the best token"
    with np.errstate(all="ignore"):
        far = np.abs(np.sort(softmax(answer), axis=-1) - np.sort(softmax(truth), axis=-1)).max()
        apart = np.abs(softmax(answer) - softmax(truth)).max() > 1e-5 and not has_ties(inputs)
    return f"probabilities, by {far}" if far > 1e-5 or apart else ""


def has_ties(inputs: Example) -> bool:
    return any(len(set(row)) < len(row) for row in inputs.logits.tolist())


def lies(engine, inputs: Example) -> str:
    """The first difference that calls in any manner show: once, again, row by row, in a thread, two at a time."""
    lent = copy.deepcopy(inputs)
    try:
        first = call(engine, lent)
        wrong = difference(first, inputs)
        if wrong:
            return wrong
        for ours, theirs in ((lent.logits, inputs.logits), (lent.uncond, inputs.uncond)):
            if ours is not None and not np.array_equal(ours, theirs):
                return "its input is written to"
        if lent.history != inputs.history:
            return "the history is written to"
        kept = first.copy()
        other = replace(PLAIN, logits=np.broadcast_to(PLAIN.logits, inputs.logits.shape[:1] + PLAIN.logits.shape[1:]))
        other = replace(other, history=[[14, 21] for _ in inputs.history])
        if inputs.logits.shape[1] == PLAIN.logits.shape[1]:
            call(engine, other)
        if not np.array_equal(first, kept):
            return "an answer is overwritten"
        manners = (call(engine, inputs), in_a_thread(engine, inputs=inputs), call(engine, inputs))
        wrong = next(filter(None, (difference(answer, inputs) for answer in manners)), "")
        return wrong or together(engine, inputs)
    except Unsupported:
        raise
    except Exception as error:  # noqa: BLE001  # whatever a liar raises
        return f"{type(error).__name__}: {error}"


PROCESSING = [name for name, each in WRONG.items() if "process" in each.offers and name not in ENDLESS]


@pytest.mark.parametrize("name", PROCESSING)
def test_a_lie_about_process_shows_on_the_input_that_is_stored_with_it(name):
    wrong = WRONG[name]
    told = lies(wrong.factory(), wrong.shows)
    assert bool(told) == ("process" in wrong.seen), told
