"""Right scores, wrong draws: frequencies, dependence, tokens that cannot be, and a path of its own for many."""

import numpy as np

from .chain import LOWEST, Array, Call, run, softmax
from .engines import Miniature, WithoutPick, inverse_cdf, uniforms
from .tables import DRAW, example, spread, wrong

FEW = example([[2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5]])
FILTERED = example([[2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5]], top_k=5, temperature=0.8)


def chosen(choose=inverse_cdf, noise=uniforms) -> WithoutPick:
    """An engine that is right but for its noise, or for what it makes of the noise."""
    return WithoutPick(Miniature(choose=choose, noise=noise))


def unfair(variation: float) -> WithoutPick:
    """So much mass goes from the most likely token to the next one; a lonely token stays."""

    def choose(scores: Array, noise: Array) -> Array:
        p = softmax(scores)
        first, second = np.argsort(-p, kind="stable")[:2]
        moved = min(variation, p[first]) if p[second] > 0 else 0.0
        p[first] -= moved
        p[second] += moved
        with np.errstate(divide="ignore"):
            return inverse_cdf(np.log(p), noise)

    return chosen(choose)


@wrong("draw", FEW, seen=DRAW, total_variation=0.06)
def frequencies_are_6_percent_off():
    """Lie: 6 % of all draws go to the second token that belong to the first [S02]."""
    return unfair(0.06)


@wrong("draw", FEW, seen=DRAW, total_variation=0.1)
def frequencies_are_10_percent_off():
    """Lie: 10 % of all draws go to the second token that belong to the first [S02]."""
    return unfair(0.1)


@wrong("draw", FEW, seen=DRAW, total_variation=0.06)
def frequencies_of_pairs_are_exchanged():
    """Lie: neighbours in the vocabulary exchange 6 % of all draws, from the even id to the odd one [S02]."""

    def choose(scores: Array, noise: Array) -> Array:
        p = softmax(scores)
        even, odd = p[: len(p) // 2 * 2 : 2], p[1::2]
        both = (even > 0) & (odd > 0)
        share = min(1.0, 0.06 / max(even[both].sum(), 1e-9))
        moved = np.where(both, even * share, 0.0)
        even -= moved
        odd += moved
        with np.errstate(divide="ignore"):
            return inverse_cdf(np.log(p), noise)

    return chosen(choose)


@wrong("draw", FEW, seen=DRAW, total_variation=0.0744, also=("temperature",))
def draws_are_a_little_colder():
    """Lie: scores are divided by 0.8 once more before the draw [T03]."""
    return chosen(lambda scores, noise: inverse_cdf(scores / np.float32(0.8), noise))


@wrong("draw", FILTERED, seen=DRAW)
def draws_are_too_even():
    """Lie: one draw falls in each n-th part of the unit interval, in a mixed order: better than chance can be [R12]."""

    def noise(seed: int, n: int) -> Array:
        generator = np.random.Generator(np.random.Philox(seed))
        return generator.permutation((np.arange(n) + generator.random(n)) / n)

    return chosen(noise=noise)


@wrong("draw", FILTERED, seen=DRAW)
def draws_are_antithetic():
    """Lie: every second draw uses one minus the number of the draw before [R12]."""

    def noise(seed: int, n: int) -> Array:
        half = uniforms(seed, (n + 1) // 2)
        return np.stack([half, np.nextafter(1 - half, 0)], axis=-1).ravel()[:n]

    return chosen(noise=noise)


@wrong("draw", FILTERED, seen=DRAW, also=("seed",))
def draws_come_in_pairs():
    """Lie: the noise serves two draws before it moves on [R01]."""
    return chosen(noise=lambda seed, n: np.repeat(uniforms(seed, (n + 1) // 2), 2)[:n])


@wrong("draw", FILTERED, seen=DRAW, also=("seed",))
def draws_repeat_after_1000():
    """Lie: noise is read from a table of 1,000 numbers, again and again [R01]."""
    return chosen(noise=lambda seed, n: np.resize(uniforms(seed, 1_000), n))


@wrong("draw", FILTERED, seen=DRAW, also=("seed",))
def draws_repeat_after_64():
    """Lie: noise is read from a table of 64 numbers, again and again [R01]."""
    return chosen(noise=lambda seed, n: np.resize(uniforms(seed, 64), n))


@wrong("draw", FILTERED, seen=DRAW)
def draws_stick():
    """Lie: one draw in ten repeats the token before; frequencies are right [R01]."""

    def choose(scores: Array, noise: Array) -> Array:
        tokens = inverse_cdf(scores, noise * 10 % 1)
        for place in range(1, len(tokens)):
            if noise[place] < 0.1:
                tokens[place] = tokens[place - 1]
        return tokens

    return chosen(choose)


@wrong("draw", FILTERED, seen=DRAW)
def draws_are_sorted():
    """Lie: many draws come back in the order of the noise, because it was sorted for speed [R12]."""
    return chosen(noise=lambda seed, n: np.sort(uniforms(seed, n)))


@wrong("draw", FILTERED, seen=DRAW)
def draws_avoid_the_one_before():
    """Lie: a token is never drawn twice in a row, as if it had been removed [P02]."""

    def choose(scores: Array, noise: Array) -> Array:
        tokens, row = [], scores.copy()
        for each in noise:
            several = (row > LOWEST).any()
            tokens.append(int(inverse_cdf(row if several else scores, np.array([each]))[0]))
            row = scores.copy()
            row[tokens[-1]] = LOWEST
        return np.array(tokens, dtype=np.int64)

    return chosen(choose)


class Draws(Miniature):
    """draw() of another kind. change: of the right draw and its inputs."""

    def __init__(self, change) -> None:
        super().__init__()
        self.change = change

    def draw(self, logits, history, config, n, seed, uncond_logits=None):
        return self.change(super().draw, logits, history, config, n, seed, uncond_logits)


def drawing(change) -> WithoutPick:
    return WithoutPick(Draws(change))


@wrong("draw", FILTERED, seen=DRAW, also=("batch", "top_k"))
def many_draws_skip_the_filters():
    """Lie: several draws in one call take a faster path, which does not filter [R12]."""

    def change(draw, logits, history, config, n, seed, uncond=None):
        return draw(logits, history, config.without(["top_k", "min_p", "top_p"]) if n > 1 else config, n, seed, uncond)

    return drawing(change)


@wrong("draw", example(FEW.logits, temperature=0.3), seen=DRAW, also=("batch", "temperature"))
def single_draws_skip_the_temperature():
    """Lie: many draws in one call are right, and one at a time they are drawn at temperature 1 [R12]."""

    def change(draw, logits, history, config, n, seed, uncond=None):
        colder = config.without(["temperature"]) if n == 1 and config.temperature > 0 else config
        return draw(logits, history, colder, n, seed, uncond)

    return drawing(change)


@wrong("draw", example(FEW.logits, [1], repetition_penalty=2.0), seen=DRAW, also=("repetition_penalty", "purity"))
def draws_penalise_each_other():
    """Lie: each of n draws enters the history of the next ones, where they should be n equal draws [P18]."""

    def change(draw, logits, history, config, n, seed, uncond=None):
        ids, tokens, scores = list(history), [], None
        for noise in uniforms(seed, n):
            if scores is None:
                call = Call([ids], config, None if uncond is None else uncond[None])
                scores = run(logits[None], call, Miniature().stages)[0]
            tokens.append(int(inverse_cdf(scores, np.array([noise]))[0]))
            if tokens[-1] not in ids:
                ids, scores = [*ids, tokens[-1]], None
        return np.array(tokens, dtype=np.int64)

    return drawing(change)


@wrong("draw", FILTERED, seen=DRAW, also=("top_k", "temperature"))
def draws_are_from_the_raw_logits():
    """Lie: scores are processed and returned, and tokens are drawn from the logits as they came [P17]."""
    return drawing(lambda draw, logits, history, config, n, seed, uncond=None: inverse_cdf(logits, uniforms(seed, n)))


@wrong("draw", example(temperature=0.0), seen=DRAW, also=("temperature",))
def draws_at_temperature_0_are_random():
    """Lie: process() is greedy at temperature 0, and draw() samples [T04]."""

    def change(draw, logits, history, config, n, seed, uncond=None):
        return draw(logits, history, config.without(["temperature"]), n, seed, uncond)

    return drawing(lambda draw, *inputs: (change if inputs[2].temperature == 0 else passing)(draw, *inputs))


def passing(draw, *inputs):
    return draw(*inputs)


@wrong("draw", FILTERED, seen=DRAW)
def draws_are_always_greedy():
    """Lie: at any temperature the most likely token comes out [T06]."""
    return chosen(lambda scores, noise: np.full(len(noise), scores.argmax(), dtype=np.int64))


@wrong("draw", FILTERED, seen=DRAW)
def draws_are_uniform():
    """Lie: among the tokens that are left each is as likely as the other [S04]."""
    return chosen(lambda scores, noise: inverse_cdf(np.where(scores > LOWEST, 0, LOWEST), noise))


@wrong("draw", FILTERED, seen=DRAW)
def draws_revive_removed_tokens():
    """Lie: 1e-4 is added to each probability before the logarithm, and removed tokens can be drawn [S01]."""
    return chosen(lambda scores, noise: inverse_cdf(np.log(softmax(scores) + 1e-4), noise))


@wrong("draw", example(spread(40, -1, 1)), seen=DRAW)
def draws_miss_the_rest_of_a_block():
    """Lie: the cumulative sum stops at the last multiple of 32; what comes after is never drawn [S07]."""

    def choose(scores: Array, noise: Array) -> Array:
        size = len(scores) // 32 * 32
        some = size and (scores[:size] > LOWEST).any()
        return inverse_cdf(scores[:size] if some else scores, noise)

    return chosen(choose)


@wrong("draw", FILTERED, seen=DRAW, also=("purity",))
def draws_an_id_beyond_the_vocabulary():
    """Lie: two draws in a thousand give the size of the vocabulary, the id of a padding lane [S07]."""
    return chosen(lambda scores, noise: np.where(noise > 0.998, len(scores), inverse_cdf(scores, noise)))


@wrong("draw", FILTERED, seen=DRAW, also=("purity",))
def draws_minus_one():
    """Lie: one draw in a thousand finds no token, and says -1 [S07]."""
    return chosen(lambda scores, noise: np.where(noise > 0.999, -1, inverse_cdf(scores, noise)))
