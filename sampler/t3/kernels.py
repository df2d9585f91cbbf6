"""Loops of the network on the CPU: attention of one new position of every row and of a prefix, MLP's gate.

MLX's CPU backend computes two small products of one query row for each row and head, on one thread, at a fraction of
the memory's speed. Here each row reads its keys and values once, in memory order: in stretches as long as possible,
since each new stretch begins at a third of the speed. What rows have in common is read once for several of them. A
row's result depends only on that row: not on its slot, the other rows or the threads. fastmath may assume that there is
no NaN; if there is one, the residual passes it on.
"""

from functools import partial

import numba
import numpy as np
from numpy.typing import NDArray

from sampler.runtime.compiled import machine_code

TILE = 32
"""Positions per tile of keys. A tile is (head_size, TILE), so that one instruction scores many positions."""

PART = 4
"""Tiles of a row that lie side by side; the parts of all rows follow each other."""

BLOCK = 8
"""Channels, or positions, added to a sum at once: the sum is read and written this many times less often."""

QUERIES = 8
"""Positions of one sequence, or rows that begin alike, that are scored together."""

LOWEST = np.float32(-87.0)
"""exp of less is nearly 0 in float32: 1.6e-38 is the smallest result here."""

_float32 = numba.float32


@partial(machine_code, fastmath=True, inline="always")
def _exponential(value):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 - numba infers
    """Mantissa and exponent of e^value for -87 <= value <= 87, in a form that a loop can vectorise.

    Range reduction and polynomial of the Cephes library (`expf`); relative error below 2e-7.
    """
    value = max(value, LOWEST)
    power = np.floor(value * _float32(1.44269504088896341) + _float32(0.5))
    rest = value - power * _float32(0.693359375) + power * _float32(2.12194440e-4)
    series = _float32(1.9875691500e-4)
    series = series * rest + _float32(1.3981999507e-3)
    series = series * rest + _float32(8.3334519073e-3)
    series = series * rest + _float32(4.1665795894e-2)
    series = series * rest + _float32(1.6666665459e-1)
    series = series * rest + _float32(5.0000001201e-1)
    return series * rest * rest + rest + _float32(1.0), np.int32(power)


@partial(machine_code, fastmath=True, inline="always")
def _score(query, keys, sums):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Products of one query (head_size,) with a tile of keys (head_size, TILE), into sums (TILE,).

    The loops equal those of `_mix`, but the width is known here: with one shared function `attend` took a fifth longer.
    """
    size = query.size
    sums[:] = _float32(0.0)
    for channel in range(0, size - size % BLOCK, BLOCK):
        q0, q1, q2, q3 = query[channel], query[channel + 1], query[channel + 2], query[channel + 3]
        q4, q5, q6, q7 = query[channel + 4], query[channel + 5], query[channel + 6], query[channel + 7]
        for place in range(TILE):
            sums[place] += (
                q0 * keys[channel, place]
                + q1 * keys[channel + 1, place]
                + q2 * keys[channel + 2, place]
                + q3 * keys[channel + 3, place]
                + q4 * keys[channel + 4, place]
                + q5 * keys[channel + 5, place]
                + q6 * keys[channel + 6, place]
                + q7 * keys[channel + 7, place]
            )
    for channel in range(size - size % BLOCK, size):
        for place in range(TILE):
            sums[place] += query[channel] * keys[channel, place]


@partial(machine_code, fastmath=True, inline="always")
def _softmax(scores, bits, length):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Turn `length` scores into weights whose sum is returned; bits: int32 scratch of the same length."""
    best = scores[0]
    for place in range(length):
        best = max(best, scores[place])
    for place in range(length):
        scores[place], power = _exponential(scores[place] - best)
        bits[place] = (power + 127) << 23
    powers, total = bits.view(np.float32), _float32(0.0)
    for place in range(length):
        scores[place] *= powers[place]
        total += scores[place]
    return total


@partial(machine_code, fastmath=True, inline="always")
def _mix(weights, values, length, mixed):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Add the values (TILE, head_size) of `length` positions by their weights to mixed (head_size,)."""
    size = mixed.size
    for place in range(0, length - length % BLOCK, BLOCK):
        w0, w1, w2, w3 = weights[place], weights[place + 1], weights[place + 2], weights[place + 3]
        w4, w5, w6, w7 = weights[place + 4], weights[place + 5], weights[place + 6], weights[place + 7]
        for channel in range(size):
            mixed[channel] += (
                w0 * values[place, channel]
                + w1 * values[place + 1, channel]
                + w2 * values[place + 2, channel]
                + w3 * values[place + 3, channel]
                + w4 * values[place + 4, channel]
                + w5 * values[place + 5, channel]
                + w6 * values[place + 6, channel]
                + w7 * values[place + 7, channel]
            )
    for place in range(length - length % BLOCK, length):
        for channel in range(size):
            mixed[channel] += weights[place] * values[place, channel]


@partial(machine_code, fastmath=True, inline="always")
def _turn(row, cosine, sine, turned):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Rotate channel pairs (i, i + head_size / 2), as `rotary.rotate` does."""
    half = row.size // 2
    for channel in range(half):
        turned[channel] = row[channel] * cosine[channel] - row[channel + half] * sine[channel]
    for channel in range(half, row.size):
        turned[channel] = row[channel] * cosine[channel] + row[channel - half] * sine[channel]


@partial(machine_code, fastmath=True, inline="always")
def _write(joint, cosine, sine, place, keys, values, queries, key):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Write keys and values of joint (3, heads, head_size) at a place of their tiles, and the queries, scaled."""
    scale = _float32(1.0 / np.sqrt(key.size))
    for head in range(queries.shape[0]):
        _turn(joint[0, head], cosine, sine, queries[head])
        _turn(joint[1, head], cosine, sine, key)
        for channel in range(key.size):
            queries[head, channel] *= scale
            keys[head, channel, place] = key[channel]
            values[head, place, channel] = joint[2, head, channel]


@partial(machine_code, fastmath=True)
def _turn_at(row, cosine, sine, place, turned):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Rotate by the angles of a place, unless the tables are empty."""
    if cosine.size:
        _turn(row, cosine[place], sine[place], turned)
    else:
        for channel in range(row.size):
            turned[channel] = row[channel]


@partial(machine_code, fastmath=True)
def attend(  # type: ignore[no-untyped-def] # noqa: ANN201, PLR0912
    joint: NDArray[np.float32],
    cosine: NDArray[np.float32],
    sine: NDArray[np.float32],
    keys: NDArray[np.float32],
    values: NDArray[np.float32],
    lengths: NDArray[np.int64],
    order: NDArray[np.int64],
    mixed: NDArray[np.float32],
    wanted: NDArray[np.int64],
    rows_per_slot: int,
    kept: NDArray[np.float32],
):
    """Write the new keys and values of rows and attend to all positions of each of them.

    joint: queries, keys and values of N rows, (N, 3, heads, head_size). cosine, sine: of the new positions, (N,
    head_size). keys: (parts, N, PART, heads, head_size, TILE); values: (parts, N, PART, heads, TILE, head_size).
    lengths: (N,), positions before the new one, -1 for an idle row, which gets zeros. order: the rows, each with that
    where its first tiles, which are equal, are read, and their number, (rows, 3). mixed: result, (N, heads, head_size).
    wanted: heads whose attention is kept for the first row of each slot, in kept (N / rows_per_slot, wanted, capacity).
    """
    heads, size, capacity, begin = values.shape[3], values.shape[5], values.shape[0] * PART * TILE, 0
    queries, scores = np.empty((QUERIES, heads, size), np.float32), np.empty((QUERIES, heads, capacity), np.float32)
    bits, key, ends = np.empty(capacity, np.int32), np.empty(size, np.float32), np.empty(QUERIES + 1, np.int64)
    while begin < len(order):
        many, ends[0] = 1, order[begin, 2]
        while many < QUERIES and begin + many < len(order) and order[begin + many, 1] == order[begin, 1]:
            ends[0], many = min(ends[0], order[begin + many, 2]), many + 1
        for at in range(many):
            row, place = order[begin + at, 0], lengths[order[begin + at, 0]]
            mixed[row], ends[at + 1] = _float32(0.0), (place + TILE) // TILE
            own = place // (PART * TILE), row, place // TILE % PART
            if place >= 0:
                _write(joint[row], cosine[row], sine[row], place % TILE, keys[own], values[own], queries[at], key)
        for part in range(many + 1):  # the tiles that all these rows share, then those of each row
            for tile in range(ends[0] if part else 0, ends[part]):
                for head in range(heads):
                    for at in range(part - 1 if part else 0, part or many):
                        row = order[begin + at, 1 if tile < order[begin + at, 2] else 0]
                        here = slice(tile * TILE, (tile + 1) * TILE)
                        _score(queries[at, head], keys[tile // PART, row, tile % PART, head], scores[at, head, here])
        for at in range(many):
            row, length = order[begin + at, 0], lengths[order[begin + at, 0]] + 1
            for head in range(heads if length else 0):
                scores[at, head, :length] *= _float32(1.0) / _softmax(scores[at, head], bits, length)
            for index in range(0 if row % rows_per_slot else wanted.size):
                kept[row // rows_per_slot, index, :length] = scores[at, wanted[index], :length]
        for part in range(many + 1):
            for tile in range(ends[0] if part else 0, ends[part]):
                for head in range(heads):
                    for at in range(part - 1 if part else 0, part or many):
                        own, row = order[begin + at, 0], order[begin + at, 1 if tile < order[begin + at, 2] else 0]
                        here, count = slice(tile * TILE, (tile + 1) * TILE), min(TILE, lengths[own] + 1 - tile * TILE)
                        _mix(
                            scores[at, head, here],
                            values[tile // PART, row, tile % PART, head],
                            count,
                            mixed[own, head],
                        )
        begin += many


@partial(machine_code, fastmath=True)
def attend_causally(  # type: ignore[no-untyped-def] # noqa: ANN201, PLR0912
    queries: NDArray[np.float32],
    keys: NDArray[np.float32],
    values: NDArray[np.float32],
    cosine: NDArray[np.float32],
    sine: NDArray[np.float32],
    spans: NDArray[np.int64],
    places: NDArray[np.int64],
    first: int,
    last: int,
    mixed: NDArray[np.float32],
):
    """Attention of the last positions of sequences to themselves and those before, of pairs `first` to `last`.

    queries: (N, parts, heads, head_size); keys, values: (M, parts, heads, head_size), where parts is 1, or 3 for all of
    them side by side. cosine, sine: of all places, (M, head_size); empty if nothing is to be rotated. spans: for each
    sequence the row of its first query, the number of its queries, and where the rows of its keys begin in `places` and
    how many they are, (S, 4). mixed: result, (N, heads, head_size). A pair is span * heads +
    head; a position's result depends on no other query. A tile is read for QUERIES positions, since the keys of a long
    sequence do not fit into a processor's first cache.
    """
    heads, size = queries.shape[2:]
    of_key, of_value = keys.shape[1] // 2, values.shape[1] - 1
    most = (spans[:, 3].max() + TILE - 1) // TILE * TILE
    apart, own = np.zeros((most // TILE, size, TILE), np.float32), np.empty((most, size), np.float32)
    scores, bits = np.empty((QUERIES, most), np.float32), np.empty(most, np.int32)
    query, sums = np.empty((QUERIES, size), np.float32), np.empty((QUERIES, size), np.float32)
    key, shares, scale = np.empty(size, np.float32), np.empty(QUERIES, np.float32), _float32(1.0 / np.sqrt(size))
    for pair in range(first, last):
        head = pair % heads
        row, count, start, length = spans[pair // heads]
        for position in range(length):
            place = places[start + position]
            _turn_at(keys[place, of_key, head], cosine, sine, place, key)
            for channel in range(size):
                apart[position // TILE, channel, position % TILE] = key[channel]
                own[position, channel] = values[place, of_value, head, channel]
        for begin in range(0, count, QUERIES):
            many = min(QUERIES, count - begin)
            seen = length - count + begin + 1  # positions that the first of these queries sees
            tiles = (seen + many + TILE - 2) // TILE
            for at in range(many):
                _turn_at(queries[row + begin + at, 0, head], cosine, sine, places[start + seen + at - 1], query[at])
                for channel in range(size):
                    query[at, channel] *= scale
                    sums[at, channel] = _float32(0.0)
            for tile in range(tiles):
                for at in range(many):
                    _score(query[at], apart[tile], scores[at, tile * TILE : (tile + 1) * TILE])
            for at in range(many):
                shares[at] = _float32(1.0) / _softmax(scores[at], bits, seen + at)
            for tile in range(tiles):
                for at in range(many):
                    here = slice(tile * TILE, (tile + 1) * TILE)
                    _mix(scores[at, here], own[here], max(0, min(TILE, seen + at - tile * TILE)), sums[at])
            for at in range(many):
                for channel in range(size):
                    mixed[row + begin + at, head, channel] = sums[at, channel] * shares[at]


@partial(machine_code, fastmath=True)
def gate_rows(  # type: ignore[no-untyped-def] # noqa: ANN201
    joint: NDArray[np.float32], first: int, last: int, gated: NDArray[np.float32]
):
    """SiLU of the first half times the second half of rows `first` to `last`: joint (N, 2I), gated (N, I)."""
    size = gated.shape[1]
    scaled, bits = np.empty(size, np.float32), np.empty(size, np.int32)
    powers = bits.view(np.float32)
    for row in range(first, last):
        for place in range(size):
            scaled[place], power = _exponential(min(-joint[row, place], -LOWEST))
            bits[place] = (power + 127) << 23
        for place in range(size):
            sigmoid = _float32(1.0) / (_float32(1.0) + scaled[place] * powers[place])
            gated[row, place] = joint[row, place] * sigmoid * joint[row, place + size]
