"""Known mistakes in what is counted: windows of penalties, penalties of drawn tokens, `min_new_tokens`."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sampler.checks.conformance.diagnosis.alternatives.base import Alternative, Array, Change, Mask, counted, ignored
from sampler.checks.conformance.diagnosis.alternatives.scaling import penalized
from sampler.requests import Batch

Ids = Sequence[int]
Select = Callable[[Ids, int, int], Ids]
"""The ids that are counted, of a history, the length of its prompt and the window (0 is none)."""

Lengths = NDArray[np.int64]
Early = Callable[[Lengths, Lengths, int], Mask]
"""In which rows EOS is held back, from the lengths of the prompts, the steps and the parameter."""


FIXED = (8, 16, 32, 50, 64)
"""Windows that engines have by default."""


def _last(ids: Ids, count: int) -> Ids:
    return ids[max(0, len(ids) - count) :]


def _of_size(size: int, ids: Ids, window: int) -> Ids:  # noqa: ARG001 - the window is ignored
    return _last(ids, size)


def _within(ids: Ids, window: int) -> Ids:
    return _last(ids, window) if window else ids


def selected(batch: Batch, select: Select) -> Array:
    """How often each id occurs among those that are counted, (B, V)."""
    context = batch.context
    prompts = [0] * len(batch) if context is None else context.prompt_length.tolist()
    window = batch.config.penalty_window
    histories = zip(batch.history, prompts, strict=True)
    return counted(batch, [select(list(ids), prompt, window) for ids, prompt in histories])


def windows(of: Select) -> Iterator[tuple[str, Select]]:
    """Mistakes in a window. of: the ids over which it is laid."""
    right: Select = lambda ids, prompt, window: _within(of(ids, prompt, window), window)  # noqa: E731

    def changed(change: Callable[[Ids, int], Ids]) -> Select:
        def select(ids: Ids, prompt: int, window: int) -> Ids:
            return change(of(ids, prompt, window), window) if window else right(ids, prompt, window)

        return select

    yield "penalty_window is accepted and ignored", changed(lambda ids, window: ids)
    yield "the window is one id too long", changed(lambda ids, window: _last(ids, window + 1))
    yield "the window is one id too short", changed(lambda ids, window: _last(ids, window - 1))
    yield "the window holds the oldest ids, not the newest", changed(lambda ids, window: ids[:window])
    yield "the newest id is missing from the window", changed(lambda ids, window: _last(ids[:-1], window))
    yield "the newest id is missing from the window", changed(lambda ids, window: _last(ids, window)[:-1])
    yield "the window counts the newest id alone", changed(lambda ids, window: _last(ids, 1))
    yield "the window counts the oldest id alone", changed(lambda ids, window: ids[:1])
    yield "the window counts its oldest id alone", changed(lambda ids, window: _last(ids, window)[:1])
    yield "the window is twice as long", changed(lambda ids, window: _last(ids, 2 * window))
    yield "the window is half as long", changed(lambda ids, window: _last(ids, window // 2))
    for size in FIXED:
        yield f"a window of {size}, whatever penalty_window says", changed(partial(_of_size, size))


def _over_prompts() -> Iterator[tuple[str, Select]]:
    """Mistakes in a window over prompt and drawn ids."""
    yield "the window lies over the prompt alone", lambda ids, prompt, window: _within(ids[:prompt], window)
    yield (
        "the window lies over the prompt alone",
        lambda ids, prompt, window: _within(ids, window)[: max(0, prompt - max(0, len(ids) - window))],
    )
    yield (
        "the prompt is not in the window, only what was drawn",
        lambda ids, prompt, window: _within(ids[prompt:], window),
    )
    yield (
        "the prompt counts in full, the window is that of drawn ids",
        lambda ids, prompt, window: [*ids[:prompt], *_within(ids[prompt:], window)],
    )


def _penalised(select: Select) -> Change:
    return lambda batch: penalized(batch, selected(batch, select) > 0)


WINDOW = (
    *ignored("repetition_penalty"),
    *(
        Alternative("repetition_penalty", text, _penalised(select))
        for text, select in (*windows(lambda ids, prompt, window: ids), *_over_prompts())
    ),
)  # fmt: skip


def _drawn(ids: Ids, prompt: int, window: int) -> Ids:  # noqa: ARG001 - a Select
    return ids[prompt:]


def _of_drawn() -> Iterator[tuple[str, Select]]:
    """Mistakes in which ids a penalty of drawn tokens counts."""
    yield "the prompt is counted", lambda ids, prompt, window: _within(ids, window)
    yield "only the prompt is counted", lambda ids, prompt, window: _within(ids[:prompt], window)
    yield "counts the newest id alone", lambda ids, prompt, window: _last(ids[prompt:], 1)
    yield "the newest id is not counted", lambda ids, prompt, window: _within(ids[prompt:-1], window)
    yield from windows(_drawn)


def _subtracted(stage: str, select: Select, amount: Callable[[Array], Array], sign: int = 1) -> Change:
    return lambda batch: batch.logits - sign * getattr(batch.config, stage) * amount(selected(batch, select))


def _once(count: Array) -> Array:
    return np.minimum(count, 1)


def _each(count: Array) -> Array:
    return count


def _penalty_of_drawn(
    stage: str, right: Callable[[Array], Array], other: Callable[[Array], Array]
) -> Iterator[Alternative]:
    def within(ids: Ids, prompt: int, window: int) -> Ids:
        return _within(ids[prompt:], window)

    grows = "counts every occurrence" if right is _once else "counts an id once, however often it was drawn"
    yield from ignored(stage)
    for text, select in _of_drawn():
        yield Alternative(stage, text, _subtracted(stage, select, right))
    yield Alternative(stage, grows, _subtracted(stage, within, other))
    yield Alternative(stage, "the sign: rewards what it should penalise", _subtracted(stage, within, right, -1))
    yield Alternative(
        stage, f"the prompt is counted, and it {grows}",
        _subtracted(stage, lambda ids, _, window: _within(ids, window), other),
    )  # fmt: skip


FREQUENCY = tuple(_penalty_of_drawn("frequency_penalty", _each, _once))
PRESENCE = tuple(_penalty_of_drawn("presence_penalty", _once, _each))


def _held_back(text: str, early: Early, eos: slice = slice(None)) -> Alternative:
    """A mistake in where EOS is removed, or in which of its ids are."""

    def scores(batch: Batch) -> Array:
        if batch.context is None:
            return np.asarray(batch.logits)
        rows = early(batch.context.prompt_length, batch.context.step, batch.config.min_new_tokens)
        places = np.isin(np.arange(batch.logits.shape[1]), batch.context.eos_ids[eos])
        return np.where(rows[:, None] & places[None], -np.inf, batch.logits)

    return Alternative("min_new_tokens", text, scores)


MIN_NEW = (
    *ignored("min_new_tokens"),
    _held_back("the prompt is counted", lambda prompt, step, least: prompt + step < least),
    _held_back("only the prompt is counted", lambda prompt, _, least: prompt < least),
    _held_back("EOS is held back one step too long", lambda _, step, least: step <= least),
    _held_back("EOS is let through one step too early", lambda _, step, least: step + 1 < least),
    _held_back("holds back only the first EOS id", lambda _, step, least: step < least, slice(1)),
    _held_back("holds back only the last EOS id", lambda _, step, least: step < least, slice(-1, None)),
    _held_back("holds EOS back for ever", lambda _, step, least: step >= 0),
)
