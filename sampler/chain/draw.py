"""Drawing: the token is the argmax of score plus Gumbel noise."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sampler.chain.measure import Measures, measure_left
from sampler.chain.noise import NoiseKey, gumbel_left, gumbel_where
from sampler.chain.pipeline import Scores, as_float32, process
from sampler.chain.survivors import Left, left_of
from sampler.config import SamplingConfig
from sampler.errors import ConfigError, LogitsError
from sampler.runtime.compiled import compiled

ROWS_AT_ONCE = 256


def pick(scores: mx.array, gumbel: mx.array) -> mx.array:
    """Draw deterministically: the lowest id among the maxima of score + noise; (B, V), (B, V) -> (B,) int32.

    With the same noise two engines pick the same token unless their scores really differ. Source: the Gumbel-max
    identity, Maddison et al. 2014, arXiv:1411.0030, section 2. Noise is finite, so removed tokens stay removed.
    """
    return mx.argmax(scores + gumbel, axis=-1).astype(mx.int32)


class Drawn(NamedTuple):
    """tokens: int64 (B,), 0 where no token was left. measures: probability, rank, entropy and margin of the draws."""

    tokens: NDArray[np.int64]
    measures: Measures


def draw_rows(
    scores: Scores,
    noises: Sequence[Callable[[int], NDArray[np.float32]]],
    steps: Sequence[int],
    greedy: NDArray[np.bool_],
) -> Drawn:
    """Draw and measure one token for each of B rows at once; the tokens are those of `pick` with the same noise.

    noises: per row, step -> Gumbel noise (V,); a RequestNoise computes only the part that is needed. steps: the step
    of each row. greedy: which rows are at temperature 0, bool (B,).
    """
    left = left_of(np.asarray(scores.final))
    noise = gumbel_left(noises, steps, left)
    tokens = _first_of_the_best(left, left.scores + noise)
    return Drawn(tokens, measure_left(left, noise, tokens, scores, greedy))


@compiled
def _first_of_the_best(left: Left, raced: NDArray[np.float32]) -> NDArray[np.int64]:
    tokens = np.zeros(len(left.starts) - 1, dtype=np.int64)
    for row in range(len(tokens)):
        start, end = left.starts[row], left.starts[row + 1]
        if start < end:
            tokens[row] = left.tokens[start + raced[start:end].argmax()]
    return tokens


def draw(
    logits: mx.array | ArrayLike,
    history: Sequence[int],
    config: SamplingConfig,
    n: int,
    seed: int,
    uncond_logits: mx.array | ArrayLike | None = None,
    *,
    prompt_length: int = 0,
    step: int | None = None,
    eos_ids: Sequence[int] = (),
) -> mx.array:
    """Draw n tokens from one distribution, each as generation would: n equal rows, each with its own noise.

    logits, uncond_logits: (V,). history: ids so far. prompt_length, step, eos_ids: as in `process`. Returns int64 (n,);
    draw i uses the noise and the uniform of request i at step 0. Raises ConfigError for n < 0, and the errors of
    `process`.
    """
    if n < 0:
        raise ConfigError(f"n = {n} draws", hint="expected 0 or more")
    rows = as_float32(logits)
    if rows.ndim != 1:
        raise LogitsError(f"logits have shape {rows.shape}", hint="draw takes one row, (vocabulary,)")
    uncond = None if uncond_logits is None else as_float32(uncond_logits)[None]
    tokens = [np.zeros(0, dtype=np.int64)]
    for start in range(0, n, ROWS_AT_ONCE):
        count = min(ROWS_AT_ONCE, n - start)
        keys = [NoiseKey(seed, "", start + index) for index in range(count)]
        scores = process(
            mx.repeat(rows[None], count, axis=0),
            [history] * count,
            config,
            None if uncond is None else mx.repeat(uncond, count, axis=0),
            prompt_length=prompt_length,
            step=step,
            eos_ids=eos_ids,
            uniforms=[key.uniform(0) for key in keys] if config.xtc_probability else None,
        )
        noise = gumbel_where(keys, [0] * count, np.asarray(scores) > -np.inf)
        tokens.append(np.array(pick(scores, mx.array(noise)), dtype=np.int64))
    return mx.array(np.concatenate(tokens))
