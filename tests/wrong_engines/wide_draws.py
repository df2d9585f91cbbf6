"""Wrong draws over a large vocabulary, where few tokens of a small one could show it; and right ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .chain import LOWEST, Array, softmax
from .draws import chosen
from .engines import OnlyDraws, inverse_cdf
from .right_draws import generator
from .tables import DRAW, Example, example, right_rows, wrong_rows

BLOCK = 1_024


def drawing(choose: Callable[[Array, Array], Array]) -> Callable[[], OnlyDraws]:
    """An engine that only draws: from scores (V,) and uniform numbers (n,) to tokens (n,)."""
    return lambda: OnlyDraws(chosen(choose))


def of_other_probabilities(change: Callable[[Array], Array]) -> Callable[[], OnlyDraws]:
    """Draws from what `change` makes of the probabilities (V,)."""

    def choose(scores: Array, noise: Array) -> Array:
        changed = change(softmax(scores))
        with np.errstate(divide="ignore"):
            return inverse_cdf(np.log(changed), noise) if changed.any() else np.zeros(len(noise), dtype=np.int64)

    return drawing(choose)


def of_other_ids(change: Callable[[Array], Array]) -> Callable[[], OnlyDraws]:
    return drawing(lambda scores, noise: change(inverse_cdf(scores, noise)).astype(np.int64))


def loaded(*ids: int, size: int = 2_048, high: float = 0.0) -> Example:
    """A few equal tokens; all others are removed."""
    row = np.full(size, LOWEST)
    row[list(ids)] = high
    return example(row)


def exponentials(shift: Callable[[Array], float]) -> Callable[[], OnlyDraws]:
    """Probabilities from exp in float32 of the scores less what `shift` reads from them; NaN becomes token 0."""

    def choose(scores: Array, noise: Array) -> Array:
        with np.errstate(all="ignore"):
            weights = np.exp(scores.astype(np.float32) - np.float32(shift(scores)))
            cumulative = np.cumsum((weights / weights.sum()).astype(np.float64))
        if np.isnan(cumulative).any():
            return np.zeros(len(noise), dtype=np.int64)
        return np.minimum(np.searchsorted(cumulative, noise, side="right"), len(scores) - 1)

    return drawing(choose)


def running(dtype: type, end: Callable[[Array, int], Array]) -> Callable[[], OnlyDraws]:
    """Where uniform numbers fall in a running sum of this type, which `end` keeps or not below V."""

    def choose(scores: Array, noise: Array) -> Array:
        cumulative = np.cumsum(softmax(scores).astype(dtype), dtype=dtype).astype(np.float64)
        return end(np.searchsorted(cumulative, noise, side="right"), len(scores))

    return drawing(choose)


def without_carries(scores: Array, noise: Array) -> Array:
    p = softmax(scores)
    blocks = np.concatenate([np.cumsum(p[start : start + BLOCK]) for start in range(0, len(p), BLOCK)])
    highest = np.maximum.accumulate(blocks)
    return np.minimum(np.searchsorted(highest, noise, side="right"), len(p) - 1)


def within_blocks_from_0(scores: Array, noise: Array) -> Array:
    """The right block, and within it the place of the whole number, not of what the blocks before leave of it."""
    p = np.append(softmax(scores), np.zeros(-len(scores) % BLOCK)).reshape(-1, BLOCK)
    block = np.minimum(np.searchsorted(np.cumsum(p.sum(axis=1)), noise, side="right"), len(p) - 1)
    inside = (np.cumsum(p, axis=1)[block] <= noise[:, None]).sum(axis=1)
    return np.minimum(block * BLOCK + np.minimum(inside, BLOCK - 1), len(scores) - 1)


def at(part: Any, factor: float) -> Callable[[Array], Array]:
    """Probabilities of which a slice has another weight."""

    def change(p: Array) -> Array:
        p[part] *= factor
        return p / p.sum() if p.any() else p

    return change


def only(count: int) -> Callable[[Array], Array]:
    """The most likely tokens, so many."""
    return lambda p: np.where(p >= np.partition(p, -count)[-count], p, 0.0) if count < len(p) else p


def most_likely_beyond(least: float) -> Callable[[Array], Array]:
    return lambda p: p * (p >= least)


@dataclass(frozen=True)
class Flattened(OnlyDraws):
    """n rows are one multinomial of n x V categories."""

    def draw(self, logits, history, config, n, seed, uncond_logits=None) -> Array:
        if n * len(logits) > 2**24:
            raise RuntimeError("number of categories cannot exceed 2^24")
        return super().draw(logits, history, config, n, seed, uncond_logits)


SLOW = running(np.float32, lambda places, size: places)
RARE = np.full(151_936, np.log(1.45 * 2.0**-24))
RARE[0], RARE[-1] = 0.0, LOWEST
FLAT = np.zeros(9_000)
FLAT[5_000:] = LOWEST

wrong_rows(
    "draw",
    "wide_ids_have_16_bits: ids of tokens are stored in 16 bits without a sign.",
    of_other_ids(lambda ids: ids % 2**16),
    loaded(70_000, size=80_000),
    "wide_ids_have_a_sign_in_16_bits: ids from 32,768 on become negative.",
    of_other_ids(lambda ids: (ids + 2**15) % 2**16 - 2**15),
    loaded(40_000, size=41_000),
    "wide_ids_are_float16: ids are stored in half precision, which has odd numbers up to 2,048.",
    of_other_ids(lambda ids: np.minimum(ids.astype(np.float32), 65_504).astype(np.float16)),
    loaded(4_097, size=5_000),
    "wide_softmax_overflows: exp of the logits themselves is infinite from 88.7 on, and NaN draws token 0.",
    exponentials(lambda scores: 0.0),
    loaded(3, 5, size=40, high=100.0),
    "wide_softmax_underflows: only a positive maximum is subtracted; exp of -105 is 0.",
    exponentials(lambda scores: max(0.0, float(scores.max()))),
    loaded(3, 5, size=40, high=-105.0),
    "wide_sum_never_reaches_1: a running sum in float32 ends at 0.996, and larger numbers fall past the end.",
    SLOW,
    example(RARE),
    "wide_sum_ends_at_the_last_id: a running sum in float32 ends at 0.996, and larger numbers become the last id.",
    running(np.float32, lambda places, size: np.minimum(places, size - 1)),
    example(RARE),
    "wide_sum_is_float16: a running sum in half precision stands still.",
    running(np.float16, lambda places, size: np.minimum(places, size - 1)),
    example(np.append(np.zeros(6_000), LOWEST)),
    "wide_carries_are_lost: blocks of 1,024 are summed, and the sum of the blocks before is not added.",
    drawing(without_carries),
    loaded(5, 1_500, 1_600),
    "wide_blocks_begin_at_0: the block is right, and the place in it is looked up with the whole number.",
    drawing(within_blocks_from_0),
    loaded(5, 1_500, 1_600),
    "wide_last_of_a_block_is_lost: the last token of each block of 1,024 is never drawn.",
    of_other_probabilities(at(np.s_[BLOCK - 1 :: BLOCK], 0.0)),
    loaded(5, 1_023),
    "wide_last_of_a_large_block_is_lost: the last token of each block of 65,536 is never drawn.",
    of_other_probabilities(at(np.s_[2**16 - 1 :: 2**16], 0.0)),
    loaded(5, 65_535, 65_536, size=70_000),
    "wide_first_of_a_block_is_doubled: the first token of each block of 32 but the first counts twice.",
    of_other_probabilities(at(np.s_[32::32], 2.0)),
    loaded(5, 64, size=100),
    "wide_remainder_is_lost: the tokens after the last whole block of 1,024 are never drawn.",
    of_other_probabilities(lambda p: at(np.s_[len(p) // BLOCK * BLOCK :], 0.0 if len(p) > BLOCK else 1.0)(p)),
    loaded(5, 2_050, size=2_060),
    "wide_scan_ends_at_65_536: one block of threads sees so many tokens, and no more.",
    of_other_probabilities(at(np.s_[2**16 :], 0.0)),
    loaded(5, 65_600, size=70_000),
    "wide_vocabulary_ends_at_100_000: ids of another tokenizer's size alone are drawn.",
    of_other_probabilities(at(np.s_[100_000:], 0.0)),
    loaded(5, 100_000, size=100_100),
    "wide_candidates_are_4096: only the 4,096 most likely tokens are drawn.",
    of_other_probabilities(only(4_096)),
    example(np.append(np.linspace(0.0, 0.1, 5_000), np.full(9, LOWEST))),
    "wide_candidates_are_50_000: only the 50,000 most likely tokens are drawn.",
    of_other_probabilities(only(50_000)),
    example(np.linspace(0.0, 0.001, 60_000)),
    "wide_rare_tokens_are_dropped: tokens less likely than 1e-5 are never drawn.",
    of_other_probabilities(most_likely_beyond(1e-5)),
    loaded(*range(5_000, 105_001), size=110_000),
    "wide_rows_are_flattened: n rows are one multinomial, which has at most 2^24 categories.",
    lambda: Flattened(chosen(inverse_cdf)),
    example(FLAT),
    offers=DRAW,
)


def gumbel_in_float32(scores: Array, noise: Array) -> Array:
    """Argmax of score and Gumbel noise, from uniform numbers of 24 bits."""
    source, tokens = generator(noise), []
    for start in range(0, len(noise), 64):
        size = (min(64, len(noise) - start), len(scores))
        u = np.maximum(source.random(size, dtype=np.float32), np.float32(1e-30))
        tokens.append((scores.astype(np.float32) - np.log(-np.log(u))).argmax(axis=-1))
    return np.concatenate(tokens)


def in_two_levels(scores: Array, noise: Array) -> Array:
    """The block first, then the place in it, in float32."""
    p = np.append(softmax(scores), np.zeros(-len(scores) % BLOCK)).astype(np.float32).reshape(-1, BLOCK)
    sums = np.cumsum(p.sum(axis=1, dtype=np.float32), dtype=np.float32)
    within = (noise * sums[-1]).astype(np.float32)
    block = np.minimum(np.searchsorted(sums, within, side="right"), np.flatnonzero(p.sum(axis=1))[-1])
    rest = within - np.append(np.float32(0), sums)[block]
    running, last = np.cumsum(p, axis=1, dtype=np.float32), BLOCK - 1 - (p[:, ::-1] > 0).argmax(axis=1)
    tokens = []
    for start in range(0, len(noise), 500):
        rows = block[start : start + 500]
        places = (running[rows] <= rest[start : start + 500, None]).sum(axis=1)
        tokens.append(rows * BLOCK + np.minimum(places, last[rows]))
    return np.concatenate(tokens)


def by_choice(scores: Array, noise: Array) -> Array:
    return generator(noise).choice(len(scores), size=len(noise), p=softmax(scores))


def by_a_scaled_sum(scores: Array, noise: Array) -> Array:
    """A running sum in float32, and numbers scaled by where it ends."""
    ids = np.argsort(-scores, kind="stable")[: int((scores > LOWEST).sum())]
    cumulative = np.cumsum(softmax(scores)[ids].astype(np.float32), dtype=np.float32)
    return ids[np.minimum(np.searchsorted(cumulative, noise * cumulative[-1], side="right"), len(ids) - 1)]


def by_torch(scores: Array, noise: Array) -> Array:
    """torch.multinomial, a row for each draw."""
    import torch

    p = torch.from_numpy(softmax(scores).astype(np.float32))
    source = torch.Generator().manual_seed(int(noise[0] * 2**53))
    counts = [min(64, len(noise) - start) for start in range(0, len(noise), 64)]
    drawn: Sequence[Any] = [torch.multinomial(p.expand(count, -1), 1, generator=source) for count in counts]
    return torch.cat(list(drawn))[:, 0].numpy()


right_rows(
    "right_wide_by_gumbel_in_float32: Gumbel-max in float32, whose uniform numbers have 24 bits.",
    drawing(gumbel_in_float32),
    "right_wide_by_inverse_cdf: where a uniform number falls in the cumulated probabilities, in float64.",
    drawing(inverse_cdf),
    "right_wide_in_two_levels: blocks of 1,024 first, then the place in one, in float32.",
    drawing(in_two_levels),
    "right_wide_by_choice: numpy.random.Generator.choice.",
    drawing(by_choice),
    "right_wide_by_a_scaled_sum: a running sum in float32 of sorted tokens, scaled by its end.",
    drawing(by_a_scaled_sum),
    "right_wide_by_torch: torch.multinomial, row by row.",
    drawing(by_torch),
    "right_wide_of_one_size: takes its own vocabulary alone, of 50,257 tokens.",
    lambda: OneSize(chosen(inverse_cdf)),
    lambda inputs: inputs.logits.shape[1] == 50_257,
)


@dataclass(frozen=True)
class OneSize(OnlyDraws):
    """Refuses every other vocabulary."""

    @property
    def info(self):
        return replace(self.engine.info, vocab_size=50_257)

    def draw(self, logits, history, config, n, seed, uncond_logits=None) -> Array:
        if len(logits) != 50_257:
            raise ValueError(f"expected 50257 logits, got {len(logits)}")
        return super().draw(logits, history, config, n, seed, uncond_logits)
