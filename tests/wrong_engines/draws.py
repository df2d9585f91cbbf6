"""Right scores, wrong draws: frequencies, dependence, impossible tokens, a path of its own for many, a wrong form."""

import os
import time
from functools import partial
from types import SimpleNamespace

import numpy as np

from .chain import LOWEST, Array, Call, run, softmax
from .engines import Miniature, WithoutPick, inverse_cdf, uniforms
from .tables import DRAW, example, spread, wrong, wrong_rows

FEW = example([[2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5]])
FILTERED = example([[2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5]], top_k=5, temperature=0.8)


def chosen(choose=inverse_cdf, noise=uniforms) -> WithoutPick:
    """An engine that is right except for its noise, or for what it makes of the noise."""
    return WithoutPick(Miniature(choose=choose, noise=noise))


def noisy(noise) -> WithoutPick:
    return chosen(noise=noise)


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


wrong_rows(
    "draw",
    "frequencies_are_6_percent_off: 6 % of all draws go to the second token that belong to the first [S02].",
    lambda: unfair(0.06),
    {"total_variation": 0.06},
    "frequencies_are_10_percent_off: 10 % of all draws go to the second token that belong to the first [S02].",
    lambda: unfair(0.1),
    {"total_variation": 0.1},
    seen=DRAW,
    shows=FEW,
)


@wrong("draw", FEW, seen=DRAW, total_variation=0.06, of=chosen)
def frequencies_of_pairs_are_exchanged(scores: Array, noise: Array) -> Array:
    """Fault: neighbours in the vocabulary exchange 6 % of all draws, from the even id to the odd one [S02]."""
    p = softmax(scores)
    even, odd = p[: len(p) // 2 * 2 : 2], p[1::2]
    both = (even > 0) & (odd > 0)
    share = min(1.0, 0.06 / max(even[both].sum(), 1e-9))
    moved = np.where(both, even * share, 0.0)
    even -= moved
    odd += moved
    with np.errstate(divide="ignore"):
        return inverse_cdf(np.log(p), noise)


@wrong("draw", FEW, seen=DRAW, total_variation=0.0744, also=("temperature",))
def draws_are_a_little_colder():
    """Fault: scores are divided by 0.8 once more before the draw [T03]."""
    return chosen(lambda scores, noise: inverse_cdf(scores / np.float32(0.8), noise))


@wrong("draw", FILTERED, seen=DRAW, of=noisy)
def draws_are_too_even(seed: int, n: int) -> Array:
    """Fault: one draw falls in each n-th part of the unit interval, in a mixed order: too even for chance [R12]."""
    generator = np.random.Generator(np.random.Philox(seed))
    return generator.permutation((np.arange(n) + generator.random(n)) / n)


@wrong("draw", FILTERED, seen=DRAW, of=noisy)
def draws_are_antithetic(seed: int, n: int) -> Array:
    """Fault: every second draw uses one minus the number of the draw before [R12]."""
    half = uniforms(seed, (n + 1) // 2)
    return np.stack([half, np.nextafter(1 - half, 0)], axis=-1).ravel()[:n]


wrong_rows(
    "draw",
    "draws_come_in_pairs: the noise serves two draws before it moves on [R01].",
    lambda: noisy(lambda seed, n: np.repeat(uniforms(seed, (n + 1) // 2), 2)[:n]),
    "draws_repeat_after_1000: noise is read from a table of 1,000 numbers, again and again [R01].",
    lambda: noisy(lambda seed, n: np.resize(uniforms(seed, 1_000), n)),
    "draws_repeat_after_64: noise is read from a table of 64 numbers, again and again [R01].",
    lambda: noisy(lambda seed, n: np.resize(uniforms(seed, 64), n)),
    seen=DRAW,
    also=("seed",),
    shows=FILTERED,
)


@wrong("draw", FILTERED, seen=DRAW, of=chosen)
def draws_stick(scores: Array, noise: Array) -> Array:
    """Fault: one draw in ten repeats the token before; frequencies are right [R01]."""
    tokens = inverse_cdf(scores, noise * 10 % 1)
    for place in range(1, len(tokens)):
        if noise[place] < 0.1:
            tokens[place] = tokens[place - 1]
    return tokens


@wrong("draw", FILTERED, seen=DRAW, of=noisy)
def draws_are_sorted(seed: int, n: int) -> Array:
    """Fault: many draws come back in the order of the noise, because it was sorted for speed [R12]."""
    return np.sort(uniforms(seed, n))


@wrong("draw", FILTERED, seen=DRAW, of=chosen)
def draws_avoid_the_one_before(scores: Array, noise: Array) -> Array:
    """Fault: a token is never drawn twice in a row, as if it had been removed [P02]."""
    tokens, row = [], scores.copy()
    for each in noise:
        several = (row > LOWEST).any()
        tokens.append(int(inverse_cdf(row if several else scores, np.array([each]))[0]))
        row = scores.copy()
        row[tokens[-1]] = LOWEST
    return np.array(tokens, dtype=np.int64)


def drawing(change) -> WithoutPick:
    """An engine whose draw() is what `change` makes of the right one and of its inputs."""
    engine = Miniature()
    return WithoutPick(SimpleNamespace(info=engine.info, process=engine.process, draw=partial(change, engine.draw)))


@wrong("draw", FILTERED, seen=DRAW, also=("batch", "top_k"), of=drawing)
def many_draws_skip_the_filters(draw, logits, history, config, n, *rest):
    """Fault: several draws in one call take a faster path, which does not filter [R12]."""
    return draw(logits, history, config.without(["top_k", "min_p", "top_p"]) if n > 1 else config, n, *rest)


@wrong("draw", example(FEW.logits, temperature=0.3), seen=DRAW, also=("batch", "temperature"), of=drawing)
def single_draws_skip_the_temperature(draw, logits, history, config, n, *rest):
    """Fault: many draws in one call are right, and one at a time they are drawn at temperature 1 [R12]."""
    colder = config.without(["temperature"]) if n == 1 and config.temperature > 0 else config
    return draw(logits, history, colder, n, *rest)


PENALISED = example(FEW.logits, [1], repetition_penalty=2.0)


@wrong("draw", PENALISED, seen=DRAW, also=("repetition_penalty", "purity"), of=drawing)
def draws_penalise_each_other(draw, logits, history, config, n, seed, uncond=None):
    """Fault: each of n draws enters the history of the next ones, where they should be n equal draws [P18]."""
    ids, tokens, scores = list(history), [], None
    for noise in uniforms(seed, n):
        if scores is None:
            call = Call([ids], config, None if uncond is None else uncond[None])
            scores = run(logits[None], call, Miniature().stages)[0]
        tokens.append(int(inverse_cdf(scores, np.array([noise]))[0]))
        if tokens[-1] not in ids:
            ids, scores = [*ids, tokens[-1]], None
    return np.array(tokens, dtype=np.int64)


def sampling_when_greedy(draw, logits, history, config, *rest):
    return draw(logits, history, config.without(["temperature"]) if config.temperature == 0 else config, *rest)


wrong_rows(
    "draw",
    "draws_are_from_the_raw_logits: scores are processed and returned, and tokens are drawn from the raw logits [P17].",
    lambda: drawing(lambda draw, logits, history, config, n, seed, uncond=None: inverse_cdf(logits, uniforms(seed, n))),
    {"also": ("top_k", "temperature")},
    "draws_at_temperature_0_are_random: process() is greedy at temperature 0, and draw() samples [T04].",
    lambda: drawing(sampling_when_greedy),
    {"also": ("temperature",), "shows": example(temperature=0.0)},
    "draws_are_always_greedy: at any temperature the most likely token comes out [T06].",
    lambda: chosen(lambda scores, noise: np.full(len(noise), scores.argmax(), dtype=np.int64)),
    "draws_are_uniform: among the tokens that are left each is as likely as the other [S04].",
    lambda: chosen(lambda scores, noise: inverse_cdf(np.where(scores > LOWEST, 0, LOWEST), noise)),
    "draws_revive_removed_tokens: "
    "1e-4 is added to each probability before the logarithm, also of removed tokens [S01].",
    lambda: chosen(lambda scores, noise: inverse_cdf(np.log(softmax(scores) + 1e-4), noise)),
    seen=DRAW,
    shows=FILTERED,
)


@wrong("draw", example(spread(40, -1, 1)), seen=DRAW, of=chosen)
def draws_miss_the_rest_of_a_block(scores: Array, noise: Array) -> Array:
    """Fault: the cumulative sum stops at the last multiple of 32; what comes after is never drawn [S07]."""
    size = len(scores) // 32 * 32
    some = size and (scores[:size] > LOWEST).any()
    return inverse_cdf(scores[:size] if some else scores, noise)


wrong_rows(
    "draw",
    "draws_an_id_beyond_the_vocabulary: "
    "two draws in a thousand give the vocabulary size, the id of a padding lane [S07].",
    lambda: chosen(lambda scores, noise: np.where(noise > 0.998, len(scores), inverse_cdf(scores, noise))),
    "draws_minus_one: one draw in a thousand finds no token, and says -1 [S07].",
    lambda: chosen(lambda scores, noise: np.where(noise > 0.999, -1, inverse_cdf(scores, noise))),
    seen=DRAW,
    also=("purity",),
    shows=FILTERED,
)


def breaking(draw, *inputs):
    raise RuntimeError("probability tensor contains either inf, nan or element < 0")


def hanging(draw, *inputs):
    while True:
        time.sleep(60)


wrong_rows(
    "purity",
    "draws_are_a_column: tokens are (n, 1), not (n,) [N09].",
    lambda: drawing(lambda draw, *inputs: draw(*inputs)[:, None]),
    "draws_one_whatever_n: one token comes back, however many are asked for [R12].",
    lambda: drawing(lambda draw, *inputs: draw(*inputs)[:1]),
    "draws_are_fractions: tokens are float32, a little below the id [S05].",
    lambda: drawing(lambda draw, *inputs: (draw(*inputs) - 0.25).astype(np.float32)),
    "draws_are_nothing: draw() prints its tokens and returns None [P17].",
    lambda: drawing(lambda draw, *inputs: None),
    "draw_breaks: process() is right, and draw() is a RuntimeError [N16].",
    lambda: drawing(breaking),
    "draw_hangs: process() is right, and draw() sleeps for ever [R10].",
    lambda: drawing(hanging),
    "draw_exits: process() is right, and draw() ends the whole program [S07].",
    lambda: drawing(lambda draw, *inputs: os._exit(3)),
    seen=DRAW,
    shows=FILTERED,
    also=("draw",),
)
