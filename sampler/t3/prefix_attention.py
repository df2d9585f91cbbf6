"""Causal attention of several positions at once, of sequences that may share what they begin with."""

from collections.abc import Sequence
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


class Span(NamedTuple):
    """The last positions of a sequence, `new` of them. places: the rows of all its positions in order, int64 (L,).

    The rows of the last positions are consecutive. shift: how far ahead all of them but the first are.
    """

    places: NDArray[np.int64]
    new: int
    shift: int = 0

    @property
    def rows(self) -> slice:
        end = int(self.places[-1]) + 1
        return slice(end - self.new, end)

    @property
    def positions(self) -> NDArray[np.int64]:
        rows = np.arange(self.new)
        return len(self.places) - self.new + rows + self.shift * (rows > 0)


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
