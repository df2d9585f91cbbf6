"""Right scores, wrong noise: Gumbel noise that cannot reach or reaches too far, and pick()."""

import numpy as np

from .chain import LOWEST, Array
from .draws import FEW, FILTERED, chosen
from .engines import Miniature
from .tables import DRAW, example, spread, wrong

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


@wrong("draw", example([[5.0, *[0.0] * 40]]), seen=DRAW, total_variation=0.059)
def noise_cannot_reach_the_tail():
    """Lie: uniform numbers have six bits, so that noise ends at 4.8, and a token far behind is never drawn [S04]."""
    return gumbel_max(lambda u: -np.log(-np.log((u + 0.5) / 64)), 64)


@wrong("draw", PEAKED, seen=DRAW, total_variation=0.02)
def noise_reaches_too_far():
    """Lie: where the uniform number rounds to 1 an epsilon makes the noise 46, and any token can win [S02]."""
    return gumbel_max(lambda u: -np.log(-np.log(u / 255 + 1e-20) + 1e-20), 256)


@wrong("draw", FILTERED, seen=DRAW)
def noise_is_infinite():
    """Lie: a uniform number of 1 gives infinite noise, and a removed token that has it wins as NaN [S03]."""
    return gumbel_max(lambda u: -np.log(-np.log(u / 4_095)), 4_096)


@wrong("draw", FEW, seen=DRAW, also=("temperature",))
def noise_is_too_strong():
    """Lie: Gumbel noise is scaled by 1.25, which is a higher temperature [T03]."""
    return gumbel_max(lambda u: -1.25 * np.log(-np.log((u + 0.5) / 2**31)), 2**31)


@wrong("draw", FEW, seen=DRAW)
def noise_is_upside_down():
    """Lie: Gumbel noise is subtracted, so that it is skewed the other way [S02]."""
    return gumbel_max(lambda u: np.log(-np.log((u + 0.5) / 2**31)), 2**31)


@wrong("draw", FEW, seen=DRAW)
def noise_is_normal():
    """Lie: the noise is a sum of uniform numbers, near to a normal one, not Gumbel noise [S02]."""
    return gumbel_max(lambda u: (sum((u >> shift) % 2**15 for shift in (0, 15, 30, 45)) / 2**15 - 2) * 2.2, 2**60)


@wrong("draw", FEW, seen=DRAW)
def noise_is_shared_by_two_tokens():
    """Lie: tokens 2 i and 2 i + 1 have the same noise, and the likelier one always wins [R09]."""
    return gumbel_max(lambda u: -np.log(-np.log((np.repeat(u, 2, axis=-1)[:, : u.shape[-1]] + 0.5) / 2**31)), 2**31)


class Picks(Miniature):
    """pick() of another kind."""

    def __init__(self, change) -> None:
        super().__init__()
        self.change = change

    def pick(self, scores, gumbel) -> Array:
        with np.errstate(all="ignore"):
            return self.change(scores, gumbel).argmax(axis=-1).astype(np.int64)


@wrong("draw", FILTERED, seen=DRAW)
def pick_lets_removed_tokens_win():
    """Lie: in pick() a removed token has the score -30, which extreme noise makes good [S03]."""
    return Picks(lambda scores, gumbel: np.maximum(scores, -30) + gumbel)


@wrong("draw", FILTERED, seen=DRAW)
def pick_ignores_its_noise():
    """Lie: pick() takes the largest score, whatever the noise [S04]."""
    return Picks(lambda scores, gumbel: scores)


@wrong("draw", FILTERED, seen=DRAW)
def pick_subtracts_its_noise():
    """Lie: pick() subtracts the noise from the scores [S02]."""
    return Picks(lambda scores, gumbel: scores - gumbel)


@wrong("draw", FILTERED, seen=DRAW)
def pick_caps_its_noise():
    """Lie: pick() cuts noise off at 4, as if uniform numbers had few bits [S04]."""
    return Picks(lambda scores, gumbel: scores + np.minimum(gumbel, 4.0))


@wrong("batch", FILTERED, seen=DRAW, also=("draw",))
def pick_shares_its_noise():
    """Lie: pick() gives every row the noise of the first [R09]."""
    return Picks(lambda scores, gumbel: scores + gumbel[:1])


def by_rank(scores: Array, gumbel: Array) -> Array:
    ids = np.argsort(-scores, axis=-1, kind="stable")
    won = (np.take_along_axis(scores, ids, axis=-1) + gumbel).argmax(axis=-1)[:, None]
    best = np.take_along_axis(ids, won, axis=-1)
    return np.where(np.arange(scores.shape[-1])[None] == best, 0.0, LOWEST)


@wrong("draw", example(spread(25)), seen=DRAW, also=("batch",))
def pick_adds_noise_by_rank():
    """Lie: pick() adds noise in the order of the sorted scores, not of token ids [R09]."""
    return Picks(by_rank)
