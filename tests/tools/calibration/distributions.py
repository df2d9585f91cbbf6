"""True distributions over tokens, and wrong ones at a given total variation from them, in several directions."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Distribution:
    """Probabilities (V,) of tokens, likeliest first."""

    name: str
    pmf: Array


def _normalised(name: str, weights: Array) -> Distribution:
    return Distribution(name, weights / weights.sum())


UNIFORM = _normalised("uniform over 17", np.ones(17))
PEAKED = _normalised("peaked: 0.9 and 20 of 0.005", np.array([18.0, *[0.1] * 20]))
ZIPF = _normalised("Zipf over 300", 1 / np.arange(1.0, 301.0))
TWO = _normalised("two tokens: 0.7, 0.3", np.array([0.7, 0.3]))
FINCH = _normalised("Finch-like: 40, to 5 % of the first", 0.05 ** (np.arange(40) / 39))
"""As min-p 0.05 leaves it: a geometric fall from the likeliest token to a twentieth of it."""

DISTRIBUTIONS = (UNIFORM, PEAKED, ZIPF, TWO, FINCH)


def moved(pmf: Array, gains: Array, losses: Array, distance: float) -> Array | None:
    """`distance` of mass moved from tokens in proportion to `losses`, none below 0, to others in proportion to `gains`.

    None where those that lose do not have that much.
    """
    if pmf[losses > 0].sum() < distance or gains.sum() <= 0:
        return None
    low, high = 0.0, 1.0
    while np.minimum(pmf, high * losses).sum() < distance:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(pmf, middle * losses).sum() < distance else (low, middle)
    wrong = np.maximum(0.0, pmf + distance * gains / gains.sum() - np.minimum(pmf, high * losses))
    return np.asarray(wrong / wrong.sum())


def directions(pmf: Array) -> dict[str, tuple[Array, Array]]:
    """Gains and losses of each direction of error.

    The first three are the worst for the total variation: sets of mass one half, spread thinly.
    """
    place, size = np.arange(len(pmf)), len(pmf)
    odd, first, last, late = place % 2 == 1, place == 0, place == size - 1, place >= (size + 1) // 2
    return {
        "every other token": (odd * pmf, ~odd * pmf),
        "every other token, by root": (odd * pmf**0.5, ~odd * pmf**0.5),
        "every other token, reversed": (~odd * pmf, odd * pmf),
        "head": (first * 1.0, ~first * pmf),  # a temperature that is too low
        "last for first": (last * 1.0, first * 1.0),
        "tail": (late * 1.0, ~late * pmf),  # a temperature that is too high
    }


def wrong_distributions(pmf: Array, distance: float) -> Iterator[tuple[str, Array]]:
    for name, (gains, losses) in directions(pmf).items():
        wrong = moved(pmf, gains, losses, distance)
        if wrong is not None and abs(np.abs(wrong - pmf).sum() / 2 - distance) < 1e-9:
            yield name, wrong
