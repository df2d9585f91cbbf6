"""Right scores, wrong noise: Gumbel noise that cannot reach or reaches too far, and pick()."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .chain import LOWEST, Array
from .draws import FEW, FILTERED, chosen
from .engines import Miniature
from .tables import DRAW, example, spread, wrong_rows

PEAKED = example([[7.0, 0.0, 0.5, -0.5, 1.0, 0.2, -0.2, 0.7]])


def gumbel_max(of_uniform, count: int):
    """Draws as argmax(score + noise), the noise made of `count` equally likely numbers 0, 1, ... (count - 1)."""

    def choose(scores: Array, noise: Array) -> Array:
        seed = int(noise[0] * 2**53)
        generator = np.random.Generator(np.random.Philox(seed))
        tokens = []
        rows = max(1, 2**20 // len(scores))
        for start in range(0, len(noise), rows):
            size = (min(rows, len(noise) - start), len(scores))
            with np.errstate(all="ignore"):
                tokens.append((scores + of_uniform(generator.integers(count, size=size))).argmax(axis=-1))
        return np.concatenate(tokens).astype(np.int64)

    return chosen(choose)


wrong_rows(
    "draw",
    "noise_cannot_reach_the_tail: "
    "uniform numbers have six bits: noise ends at 4.8, and a rare token is never drawn [S04].",
    lambda: gumbel_max(lambda u: -np.log(-np.log((u + 0.5) / 64)), 64),
    example([[5.0, *[0.0] * 40]]),
    {"total_variation": 0.059},
    "noise_reaches_too_far: "
    "where the uniform number rounds to 1 an epsilon makes the noise 46: any token can win [S02].",
    lambda: gumbel_max(lambda u: -np.log(-np.log(u / 255 + 1e-20) + 1e-20), 256),
    PEAKED,
    {"total_variation": 0.02},
    "noise_is_infinite: a uniform number of 1 gives infinite noise, and a removed token that has it wins as NaN [S03].",
    lambda: gumbel_max(lambda u: -np.log(-np.log(u / 4_095)), 4_096),
    FILTERED,
    "noise_is_too_strong: Gumbel noise is scaled by 1.25, which is a higher temperature [T03].",
    lambda: gumbel_max(lambda u: -1.25 * np.log(-np.log((u + 0.5) / 2**31)), 2**31),
    FEW,
    {"also": ("temperature",)},
    "noise_is_upside_down: Gumbel noise is subtracted, so that it is skewed the other way [S02].",
    lambda: gumbel_max(lambda u: np.log(-np.log((u + 0.5) / 2**31)), 2**31),
    FEW,
    "noise_is_normal: the noise is a sum of uniform numbers, near to a normal one, not Gumbel noise [S02].",
    lambda: gumbel_max(lambda u: (sum((u >> shift) % 2**15 for shift in (0, 15, 30, 45)) / 2**15 - 2) * 2.2, 2**60),
    FEW,
    "noise_is_shared_by_two_tokens: tokens 2 i and 2 i + 1 have the same noise, the likelier one always wins [R09].",
    lambda: gumbel_max(lambda u: -np.log(-np.log((np.repeat(u, 2, axis=-1)[:, : u.shape[-1]] + 0.5) / 2**31)), 2**31),
    FEW,
    seen=DRAW,
)


@dataclass
class Picks(Miniature):
    """pick() takes the largest of what `noised` makes of scores and noise."""

    noised: Callable[[Array, Array], Array] = np.add

    def pick(self, scores, gumbel) -> Array:
        with np.errstate(all="ignore"):
            return self.noised(scores, gumbel).argmax(axis=-1).astype(np.int64)


def by_rank(scores: Array, gumbel: Array) -> Array:
    ids = np.argsort(-scores, axis=-1, kind="stable")
    won = (np.take_along_axis(scores, ids, axis=-1) + gumbel).argmax(axis=-1)[:, None]
    best = np.take_along_axis(ids, won, axis=-1)
    return np.where(np.arange(scores.shape[-1])[None] == best, 0.0, LOWEST)


wrong_rows(
    "draw",
    "pick_lets_removed_tokens_win: in pick() a removed token has the score -30, which extreme noise makes good [S03].",
    lambda: Picks(noised=lambda scores, gumbel: np.maximum(scores, -30) + gumbel),
    "pick_ignores_its_noise: pick() takes the largest score, whatever the noise [S04].",
    lambda: Picks(noised=lambda scores, gumbel: scores),
    "pick_subtracts_its_noise: pick() subtracts the noise from the scores [S02].",
    lambda: Picks(noised=lambda scores, gumbel: scores - gumbel),
    "pick_caps_its_noise: pick() cuts noise off at 4, as if uniform numbers had few bits [S04].",
    lambda: Picks(noised=lambda scores, gumbel: scores + np.minimum(gumbel, 4.0)),
    "pick_shares_its_noise: pick() gives every row the noise of the first [R09].",
    lambda: Picks(noised=lambda scores, gumbel: scores + gumbel[:1]),
    {"also": ("draw",), "stage": "batch"},
    "pick_adds_noise_by_rank: pick() adds noise in the order of the sorted scores, not of token ids [R09].",
    lambda: Picks(noised=by_rank),
    {"also": ("batch",), "shows": example(spread(25))},
    seen=DRAW,
    shows=FILTERED,
)
