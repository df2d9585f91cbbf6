"""Whether a fault shows at all: an answer beside the reference, by direct means and without statistics.

This is for the tables only, whose inputs are chosen so that each fault shows; it is no substitute for `sampler check`.
"""

import copy
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from sampler.engines.arrays import plain_array
from sampler.engines.base import Picks, by_signature, call_process, takes_context
from sampler.engines.reference.chain import ReferenceEngine
from sampler.engines.rules import rules_of
from sampler.errors import Unsupported
from sampler.requests import Batch, Context

from .chain import softmax
from .tables import PLAIN, Example

REFERENCE = ReferenceEngine()


def call(engine, inputs: Example) -> np.ndarray:
    uncond = inputs.uncond if engine.info.cfg else None
    configs = (inputs.config,) * len(inputs.history)
    return call_process(engine, Batch(inputs.logits, inputs.history, configs, uncond, context_of(inputs)))


def context_of(inputs: Example) -> Context:
    """That of the input, or all of the history is prompt."""
    lengths = np.array([len(ids) for ids in inputs.history])
    return inputs.context or Context(lengths, np.zeros_like(lengths), ())


def context_of_the_first(inputs: Example) -> Context:
    """That of the first row, which draws are taken from."""
    rows = context_of(inputs)
    return Context(rows.prompt_length[:1], rows.step[:1], rows.eos_ids)


def in_a_thread(ask: Callable[..., np.ndarray], *inputs: object) -> np.ndarray:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(ask, *inputs).result()


def or_its_error(find: Callable[..., str]) -> Callable[..., str]:
    """What is wrong, or the exception that the engine raises, except Unsupported."""

    @functools.wraps(find)
    def found(*arguments: object) -> str:
        try:
            return find(*arguments)
        except Unsupported:
            raise
        except Exception as error:  # noqa: BLE001  # whatever a wrong engine raises
            return f"{type(error).__name__}: {error}"

    return found


def with_its_eos(engine, inputs: Example) -> Example:
    """The input with the EOS ids of the engine in its context, if it names some."""
    eos_ids = engine.info.eos_ids
    return replace(inputs, context=context_of(inputs)._replace(eos_ids=eos_ids)) if eos_ids else inputs


def truth_of(engine) -> ReferenceEngine:
    """The reference with the rules that an engine declares."""
    return ReferenceEngine(rules=rules_of(engine.info.dialect, engine.info.rules))


REACH = {"float16": 1e-3}
"""By dtype: how far a probability may be from the reference's."""


def difference(answer: object, inputs: Example, reference: ReferenceEngine = REFERENCE, reach: float = 1e-5) -> str:
    """What is wrong with the answer to an input; empty where nothing is."""
    answer = plain_array(answer)
    if isinstance(answer, str):
        return answer
    if answer.shape != inputs.logits.shape:
        return f"{answer.dtype} of shape {answer.shape}"
    truth = reference.process(inputs.logits, inputs.history, inputs.config, inputs.uncond, context_of(inputs))
    answer, truth = (
        np.where(each < each.max(axis=-1, keepdims=True) - 80, -np.inf, each.astype(np.float64))
        for each in (answer, truth)
    )
    if np.isnan(answer).any() or not np.array_equal((answer > -np.inf).sum(-1), (truth > -np.inf).sum(-1)):
        return "kept sets"
    if not np.array_equal(np.where(answer > -np.inf, truth, -np.inf).max(-1), truth.max(-1)):
        return "the best token"
    with np.errstate(all="ignore"):
        far = np.abs(np.sort(softmax(answer), axis=-1) - np.sort(softmax(truth), axis=-1)).max()
        apart = np.abs(softmax(answer) - softmax(truth)).max() > reach and not has_ties(inputs)
    return f"probabilities, by {far}" if far > reach or apart else ""


def has_ties(inputs: Example) -> bool:
    return any(len(set(row)) < len(row) for row in inputs.logits.tolist())


@or_its_error
def fault_in_process(engine, inputs: Example) -> str:
    """The first difference that calls in any manner show: once, again, row by row, in a thread."""
    inputs = with_its_eos(engine, inputs)
    lent, truth = copy.deepcopy(inputs), truth_of(engine)
    reach = REACH.get(engine.info.dtype, 1e-5)
    first = call(engine, lent)
    wrong = difference(first, inputs, truth, reach)
    if wrong:
        return wrong
    for ours, theirs in ((lent.logits, inputs.logits), (lent.uncond, inputs.uncond)):
        if ours is not None and not np.array_equal(ours, theirs):
            return "its input is written to"
    if lent.history != inputs.history:
        return "the history is written to"
    kept = plain_array(first)
    if inputs.logits.shape[1] == PLAIN.logits.shape[1]:
        others = np.repeat(PLAIN.logits, len(inputs.logits), axis=0)
        call(engine, replace(PLAIN, logits=others, history=[[14, 21] for _ in inputs.history]))
    if not np.array_equal(plain_array(first), kept):
        return "an answer is overwritten"
    manners = (call(engine, inputs), in_a_thread(call, engine, inputs), call(engine, inputs))
    return next(filter(None, (difference(answer, inputs, truth, reach) for answer in manners)), "")


def draws(engine, inputs: Example, n: int, seed: int) -> np.ndarray:
    uncond = None if inputs.uncond is None else inputs.uncond[0]
    further = {}
    if takes_context(engine.draw):
        further["context"] = context_of_the_first(inputs)
    arguments = {"logits": inputs.logits[0], "history": inputs.history[0], "config": inputs.config}
    arguments |= {"n": n, "seed": seed, "uncond_logits": uncond}
    given, named = by_signature(engine.draw, arguments)
    return plain_array(engine.draw(*given, **named, **further))


def law(inputs: Example, reference: ReferenceEngine = REFERENCE) -> np.ndarray:
    uncond = None if inputs.uncond is None else inputs.uncond[:1]
    context = context_of_the_first(inputs)
    return softmax(reference.process(inputs.logits[:1], inputs.history[:1], inputs.config, uncond, context))[0]


def _other_frequencies(tokens: np.ndarray, count: int, p: np.ndarray) -> str:
    if tokens.shape != (count,) or tokens.dtype.kind not in "iu" or tokens.min() < 0 or tokens.max() >= len(p):
        return f"{tokens.dtype} {tokens.shape}, {tokens.min()} to {tokens.max()}"
    if (p[tokens] == 0).any():
        return "a token that was removed"
    far = np.abs(np.bincount(tokens, minlength=len(p)) / count - p).sum() / 2 > 2 * np.sqrt(len(p) / count) / 2
    return "frequencies" if far else ""


@or_its_error
def fault_in_draws(engine, inputs: Example, n: int = 20_000) -> str:
    """What draws show in some manner, by bounds that right ones keep with the seeds at hand; empty where they do."""
    p = law(with_its_eos(engine, inputs), truth_of(engine))
    tokens = draws(engine, inputs, n, 5)
    wrong = _other_frequencies(tokens, n, p)
    if wrong:
        return wrong
    wrong = _other_frequencies(np.array([draws(engine, inputs, 1, seed)[0] for seed in range(300)]), 300, p)
    if wrong:
        return wrong
    order = np.argsort(-p, kind="stable")
    likely = order[np.cumsum(p[order]) <= 0.5]
    if abs(np.isin(tokens, likely).mean() - p[likely].sum()) > 0.02:
        return "the likelier half"
    if p.max() == 1:
        return ""
    if not np.array_equal(tokens, draws(engine, inputs, n, 5)):
        return "the seed decides nothing"
    expected = (p**2).sum()
    for other in (6, 4, 5 + 8, 5 + 2**16):
        if (tokens == draws(engine, inputs, n, other)).mean() > expected + 0.1:
            return "seeds give the same"
    moved = draws(engine, inputs, n, 6)
    pairs = {"seeds overlap": (tokens[1:], moved[:-1]), "a period of 1000": (tokens[1_000:], tokens[:-1_000])}
    pairs |= {"draws depend": (tokens[1:], tokens[:-1]), "a period of 64": (tokens[64:], tokens[:-64])}
    for name, (left, right) in pairs.items():
        if abs((left == right).mean() - expected) > 0.02:
            return name
    if abs((tokens[::2] == tokens[1::2]).mean() - expected) > 0.03:
        return "pairs"
    far = [np.abs(np.bincount(draws(engine, inputs, 500, s), minlength=len(p)) - 500 * p).sum() for s in range(20)]
    if np.mean(far) < 0.5 * np.sqrt(2 / np.pi * 500 * p * (1 - p)).sum():
        return "too even"
    return "" if np.array_equal(in_a_thread(draws, engine, inputs, n, 5), tokens) else "another thread"


def fault_in_picks(engine, inputs: Example) -> bool:
    if not isinstance(engine, Picks):
        return False
    scores = REFERENCE.process(inputs.logits, inputs.history, inputs.config, inputs.uncond)
    scores = np.repeat(scores, 1_000, axis=0)
    gumbel = np.random.default_rng(2).gumbel(size=scores.shape).astype(np.float32)
    gumbel[::7, -1] = 44.0
    gumbel[3::7, int(np.argmax(scores[0]))] = 20.0
    gumbel[3::7, int(np.argmin(np.where(scores[0] > -np.inf, scores[0], np.inf)))] = 40.0
    return not np.array_equal(engine.pick(scores.copy(), gumbel.copy()), (scores + gumbel).argmax(axis=-1))
