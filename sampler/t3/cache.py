"""Keys and values of one request: a slot's own arrays, so that its attention length depends on nothing else."""

import mlx.core as mx

from sampler.t3.config import T3Config

GROWTH = 256


class KeyValueCache:
    """Keys and values of `rows` sequences of equal length (one, or a conditional and an unconditional one).

    Every layer holds two arrays (rows, heads, capacity, head_size) of the type in which keys and values are written;
    capacity grows by 256 positions at a time.
    """

    def __init__(self, config: T3Config, rows: int) -> None:
        self.rows = rows
        self.length = 0
        self._shape = (rows, config.num_heads, 0, config.head_size)
        self._keys = [mx.zeros(self._shape) for _ in range(config.num_layers)]
        self._values = [mx.zeros(self._shape) for _ in range(config.num_layers)]

    def append(self, layer: int, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Write (rows, heads, T, head_size) at the end of one layer and return all of that layer's keys and values.

        `advance` has to follow once every layer was written.
        """
        end = self.length + keys.shape[2]
        if end > self._keys[layer].shape[2]:
            self._grow(layer, end, keys.dtype)
        self._keys[layer][:, :, self.length : end] = keys
        self._values[layer][:, :, self.length : end] = values
        return self._keys[layer][:, :, :end], self._values[layer][:, :, :end]

    def advance(self, count: int) -> None:
        """Count `count` positions as written in every layer."""
        self.length += count

    def arrays(self) -> list[mx.array]:
        """All arrays, for evaluation together."""
        return [*self._keys, *self._values]

    def _grow(self, layer: int, needed: int, dtype: mx.Dtype) -> None:
        more = -(-needed // GROWTH) * GROWTH - self._keys[layer].shape[2]
        empty = mx.zeros((*self._shape[:2], more, self._shape[3]), dtype)
        self._keys[layer] = mx.concatenate([self._keys[layer].astype(dtype), empty], axis=2)
        self._values[layer] = mx.concatenate([self._values[layer].astype(dtype), empty], axis=2)
