"""Right engines that draw in different ways."""

from collections.abc import Callable

import numpy as np

from .chain import LOWEST, Array, softmax
from .draws import chosen, noisy
from .engines import Miniature, OnlyDraws, WithoutPick, uniforms
from .tables import right, right_rows


def generator(noise: Array) -> np.random.Generator:
    """Further noise, decided by the first number of the engine's own."""
    return np.random.Generator(np.random.Philox(int(noise[0] * 2**53)))


def among_the_left(choose: Callable[[Array, np.random.Generator, int], Array]) -> WithoutPick:
    """Draws from probabilities (K,) of the tokens that are left. choose: places (rows,) for so many rows."""

    def tokens(scores: Array, noise: Array) -> Array:
        ids = np.flatnonzero(scores > LOWEST)
        p, source = softmax(scores[ids]), generator(noise)
        rows = max(1, 2**20 // len(ids))
        counts = [min(rows, len(noise) - start) for start in range(0, len(noise), rows)]
        return ids[np.concatenate([choose(p, source, count) for count in counts])].astype(np.int64)

    return chosen(tokens)


@right
def right_by_gumbel_max():
    """No fault: argmax of score and Gumbel noise."""
    with np.errstate(divide="ignore"):
        return among_the_left(lambda p, source, n: (np.log(p) + source.gumbel(size=(n, len(p)))).argmax(axis=-1))


right_rows(
    "right_by_an_exponential_race: argmax of the probability over exponential noise.",
    lambda: among_the_left(lambda p, source, n: (p / source.standard_exponential(size=(n, len(p)))).argmax(axis=-1)),
    "right_by_inverse_cdf: where a uniform number falls in the cumulated probabilities, in float64.",
    lambda: WithoutPick(Miniature()),
)


@right(of=among_the_left)
def right_by_inverse_cdf_of_sorted_tokens(p: Array, source: np.random.Generator, n: int) -> Array:
    """No fault: the same, the most likely tokens first, as after a top_p that sorts."""
    ids = np.argsort(-p, kind="stable")
    cumulative = np.cumsum(p[ids])
    return ids[np.minimum(np.searchsorted(cumulative, source.random(n) * cumulative[-1], "right"), len(p) - 1)]


@right(of=among_the_left)
def right_by_alias(p: Array, source: np.random.Generator, n: int) -> Array:
    """No fault: Walker's alias method: one of V columns, and one of the two tokens in it."""
    share, alias = aliases(p)
    column = source.integers(len(p), size=n)
    return np.where(source.random(n) < share[column], column, alias[column])


def aliases(p: Array) -> tuple[Array, Array]:
    """Columns of equal mass: the share of each that is its own, and whose the rest is."""
    share, alias = (p * len(p)).tolist(), list(range(len(p)))
    small, large = (np.flatnonzero(p * len(p) < 1).tolist(), np.flatnonzero(p * len(p) >= 1).tolist())
    while small and large:
        little, much = small.pop(), large[-1]
        alias[little] = much
        share[much] -= 1 - share[little]
        if share[much] < 1:
            small.append(large.pop())
    for column in (*small, *large):
        share[column] = 1.0
    return np.array(share), np.array(alias)


@right(of=among_the_left)
def right_by_rejection(p: Array, source: np.random.Generator, n: int) -> Array:
    """No fault: a token at random, accepted with its probability over the largest, until one is."""
    if len(p) > 256:  # too many would be refused
        return source.choice(len(p), size=n, p=p)
    tokens, waiting = np.zeros(n, dtype=np.int64), np.arange(n)
    while len(waiting):
        offered = source.integers(len(p), size=len(waiting))
        accepted = source.random(len(waiting)) < p[offered] / p.max()
        tokens[waiting[accepted]] = offered[accepted]
        waiting = waiting[~accepted]
    return tokens


@right(of=among_the_left)
def right_by_speculation(p: Array, source: np.random.Generator, n: int) -> Array:
    """No fault: a uniform draft is accepted or replaced from the residual, which gives the law of the target."""
    draft = source.integers(len(p), size=n)
    residual = np.maximum(p - 1 / len(p), 0.0)
    accepted = source.random(n) < p[draft] * len(p)
    if accepted.all() or residual.sum() == 0:
        return draft
    return np.where(accepted, draft, source.choice(len(p), size=n, p=residual / residual.sum()))


@right(of=among_the_left)
def right_by_multinomial_counts(p: Array, source: np.random.Generator, n: int) -> Array:
    """No fault: how often each token comes is drawn first, and then in which order."""
    return source.permutation(np.repeat(np.arange(len(p)), source.multinomial(n, p / p.sum())))


@right(of=noisy)
def right_one_draw_at_a_time(seed: int, n: int) -> Array:
    """No fault: n draws are n calls, each with a seed of its own that follows from the seed."""
    words = np.random.SeedSequence(seed).generate_state(2 * n, np.uint64).reshape(n, 2)
    return ((words[:, 0] ^ words[:, 1]) >> np.uint64(11)) * 2.0**-53


right_rows(
    "right_with_other_streams_for_many: the stream depends on the seed and on n: one draw is not the first of many.",
    lambda: chosen(noise=lambda seed, n: uniforms(seed * 2**32 + n, n)),
    "right_only_draws: draws, and does not show its scores.",
    lambda: OnlyDraws(Miniature()),
    "right_only_draws_by_gumbel_max: draws by Gumbel-max, and does not show its scores.",
    lambda: OnlyDraws(right_by_gumbel_max()),
)
