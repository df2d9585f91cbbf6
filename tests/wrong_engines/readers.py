"""Ways to read a text: right ones, and wrong ones of one fault each; a source of token runs records their places."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Way = Callable[[Array, np.random.Generator], Array]


def straight(progress: Array, _: np.random.Generator) -> Array:
    """From the beginning to the end."""
    return progress


def skips_a_third(progress: Array, _: np.random.Generator) -> Array:
    """The middle third is left out."""
    return np.where(progress < 0.5, progress * 2 / 3, (1 + 2 * progress) / 3)


def ends_early(progress: Array, _: np.random.Generator) -> Array:
    """The last three tenths are never reached."""
    return 0.7 * progress


def starts_again(progress: Array, rng: np.random.Generator) -> Array:
    """Back to the beginning, once, from anywhere between 30 % and 80 %."""
    turn = rng.uniform(0.3, 0.8)
    return np.where(progress < turn, progress, (progress - turn) / (1 - turn))


def repeats_a_phrase(progress: Array, rng: np.random.Generator) -> Array:
    """A quarter of the text is read twice."""
    read = 1.25 * progress
    return np.where(read < rng.uniform(0.3, 0.9), read, read - 0.25)


def wanders(progress: Array, rng: np.random.Generator) -> Array:
    """Any place at any step."""
    return rng.random(len(progress))


def stays(progress: Array, _: np.random.Generator) -> Array:
    """At one place for ever."""
    return np.full(len(progress), 0.4)


def backwards(progress: Array, _: np.random.Generator) -> Array:
    """From the end to the beginning."""
    return 1 - progress


@dataclass(frozen=True)
class Reader:
    """Where each step reads. pauses: share of steps that stay where they are. slips: of looks up to 9 places away."""

    way: Way = straight
    pauses: float = 0.1
    slips: float = 0.02

    def places(self, steps: int, text_length: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """int64 (steps,): from the second to the last place but one, at an uneven pace."""
        pace = rng.gamma(2, size=steps) * (rng.random(steps) >= self.pauses)
        progress = np.cumsum(pace) / max(float(pace.sum()), 1e-9)
        places = 1 + (text_length - 3) * self.way(progress, rng)
        slips = rng.integers(-9, 10, steps) * (rng.random(steps) < self.slips)
        return np.clip(np.round(places + slips), 0, text_length - 1).astype(np.int64)
