"""Causal attention of several positions at once, of sequences that may share what they begin with."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.runtime import blas
from sampler.runtime.threads import in_parts
from sampler.t3.activations import compiled
from sampler.t3.cache import attention_rows
from sampler.t3.rotary import Angles, rotate

NONE = np.zeros((0, 0), np.float32)
STRAIGHT: Angles = (NONE, NONE)
"""For queries and keys that are not to be rotated."""


Places = NDArray[np.int64]
Visible = Callable[[int, Places, Places], NDArray[np.bool_]]
"""From the number of positions of the prompt, queries (N, 1) and keys (1, L) to which keys are seen, (N, L)."""


class Reading(NamedTuple):
    """What attention does otherwise behind the prompt: to see what a wrong port does.

    turned: from the number of positions of the prompt and positions (N,) to those of the rotation. visible: which keys
    are seen of those up to its own, None: all. empty: from numbers of positions (N,) to how many zeros are read beside
    them. rounded: keys and values (L, heads, size) as they are kept.
    """

    turned: Callable[[int, Places], Places] | None = None
    visible: Visible | None = None
    empty: Callable[[Places], Places] | None = None
    rounded: Callable[[mx.array], mx.array] | None = None

    @property
    def only_turns(self) -> bool:
        return self[1:] == (None, None, None)


class Span(NamedTuple):
    """The last positions of a sequence, `new` of them. places: the rows of all its positions in order, int64 (L,).

    The rows of the last positions are consecutive, and the first of them is the last one of the prompt if there is a
    reading; None: attention is right.
    """

    places: Places
    new: int
    reading: Reading | None = None

    @property
    def rows(self) -> slice:
        end = int(self.places[-1]) + 1
        return slice(end - self.new, end)

    @property
    def positions(self) -> Places:
        """Of the rotation."""
        usual, prompt = np.arange(len(self.places) - self.new, len(self.places)), len(self.places) - self.new + 1
        if self.reading is None or self.reading.turned is None:
            return usual
        return np.concatenate([usual[:1], self.reading.turned(prompt, usual[1:])])


def causal_attention(queries: mx.array, keys: mx.array, values: mx.array) -> mx.array:
    """Causal attention of each of the last L positions to itself and those before it.

    queries: (rows, heads, L, size); keys, values: (rows, heads, K, size) with K >= L. Returns (rows * L, heads * size).
    On the CPU in float32 it uses a compiled loop: MLX computes all L x L scores, one exponential at a time.
    """
    rows, heads, length, size = queries.shape
    if not compiled(queries):
        mixed = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=size**-0.5, mask="causal")
        return mixed.transpose(0, 2, 1, 3).reshape(rows * length, heads * size)
    mx.eval(queries, keys, values)
    query, key, value = (
        np.asarray(array).swapaxes(1, 2).reshape(-1, 1, heads, size) for array in (queries, keys, values)
    )
    places = np.arange(len(key)).reshape(rows, -1)
    return _attended(query, key, value, STRAIGHT, [Span(own, length) for own in places])


def span_attention(joint: mx.array, angles: Angles | None, spans: Sequence[Span]) -> mx.array:
    """Causal attention of the new positions of the last spans, which are the last rows: (their number, heads * size).

    joint: queries, keys and values of all places, (M, 3, heads, size). angles: their rotation of queries and keys.
    """
    if any(span.reading and not span.reading.only_turns for span in spans):
        return mx.concatenate([_read(joint, angles, span) for span in spans])
    new = sum(span.new for span in spans)
    if compiled(joint):
        mx.eval(joint)
        rows = np.asarray(joint)
        return _attended(rows[len(rows) - new :], rows, rows, angles or STRAIGHT, spans)
    mixed = []
    for span in spans:
        turned, value = _turned(joint[:, :2], angles, span), joint[mx.array(span.places), 2]
        query, key = turned[len(turned) - span.new :, 0], turned[:, 1]
        mixed.append(causal_attention(*(part.swapaxes(0, 1)[None] for part in (query, key, value))))
    return mx.concatenate(mixed)


def _read(joint: mx.array, angles: Angles | None, span: Span) -> mx.array:
    """The attention of one span with its reading, by MLX's own operations: (new, heads * size)."""
    reading = span.reading or Reading()
    turned, value = _turned(joint[:, :2], angles, span), joint[mx.array(span.places), 2]
    query, key = turned[len(turned) - span.new :, 0], turned[:, 1]
    if reading.rounded is not None:
        key, value = reading.rounded(key), reading.rounded(value)
    count, prompt = len(span.places), len(span.places) - span.new + 1
    queries, keys = np.arange(count - span.new, count)[:, None], np.arange(count)[None]
    seen, empty = keys <= queries, np.zeros(span.new, np.int64)
    if reading.visible is not None:
        seen &= (queries < prompt) | reading.visible(prompt, queries, keys)
    if reading.empty is not None:
        empty = np.where(queries[:, 0] < prompt, 0, reading.empty(queries[:, 0] + 1))
    scores = (query.swapaxes(0, 1) @ key.transpose(1, 2, 0)) * query.shape[-1] ** -0.5
    scores = mx.where(mx.array(seen), scores, -mx.inf)
    top = mx.maximum(scores.max(axis=-1, keepdims=True), 0.0)  # a zero has the score 0
    weights = mx.exp(scores - top)
    total = weights.sum(axis=-1, keepdims=True) + mx.array(empty.astype(np.float32))[:, None] * mx.exp(-top)
    return ((weights / total) @ value.swapaxes(0, 1)).swapaxes(0, 1).reshape(span.new, -1)


def span_attention_rows(joint: mx.array, angles: Angles | None, span: Span, head: int) -> mx.array:
    """The attention of the new positions of a span in one head, (new, L); joint, angles: as in `span_attention`."""
    turned = _turned(joint[:, :2, head : head + 1], angles, span)[:, :, 0]
    return attention_rows(turned[len(turned) - span.new :, 0], turned[:, 1])


def _turned(rows: mx.array, angles: Angles | None, span: Span) -> mx.array:
    """Those of a sequence's places among rows (M, 2, heads, size), rotated."""
    own = rows[mx.array(span.places)]
    return own if angles is None else rotate(own, *(mx.array(table[span.places])[:, None, None] for table in angles))


def _attended(
    query: NDArray[np.float32],
    key: NDArray[np.float32],
    value: NDArray[np.float32],
    angles: Angles,
    spans: Sequence[Span],
) -> mx.array:
    """See `span_attention`."""
    from sampler.t3.kernels import attend_causally

    heads, size = query.shape[2:]
    found, threads = np.empty((len(query), heads, size), np.float32), blas.threads()
    places = np.concatenate([span.places for span in spans])
    new, length = np.array([(span.new, len(span.places)) for span in spans]).T
    table = np.stack([np.cumsum(new) - new, new, np.cumsum(length) - length, length], axis=-1)
    work = np.cumsum(np.repeat(new * (2 * length - new), heads))

    def attend(first: int, last: int) -> None:
        attend_causally(query, key, value, *angles, table, places, first, last, found)

    in_parts(attend, len(work), threads, np.searchsorted(work, work[-1] * np.arange(1, threads) / threads).tolist())
    return mx.array(found.reshape(len(found), -1))
