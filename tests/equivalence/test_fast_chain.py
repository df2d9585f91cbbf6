"""What makes the chain fast changes nothing: noise for some tokens, no sort for the nucleus, draws of what is left."""

import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sampler import STAGES, NoiseKey, SamplingConfig, pick
from sampler.chain.draw import draw_rows
from sampler.chain.knobs import Knobs
from sampler.chain.measure import measure
from sampler.chain.noise import RequestNoise, gumbel_left, gumbel_rows, gumbel_where, random_words
from sampler.chain.noise import _words_at as words_at
from sampler.chain.pipeline import Scores, find_problems, run_rows
from sampler.chain.survivors import left_of
from sampler.chain.truncation import keep_min_p, keep_nucleus
from sampler.requests import Batch
from sampler.runtime.compiled import compiled

VOCAB = 8_194
SCORES = st.one_of(
    st.floats(-40, 40, width=32),
    st.sampled_from([0.0, -0.0, 1.0, 1.0, 1.0000001, -3.0, -np.inf, -300.0, 1e-40]),
    st.integers(-3, 3).map(float),
)


def removed_but(kept: np.ndarray, values: float | np.ndarray = 0.0) -> np.ndarray:
    return np.where(kept, values, -np.inf).astype(np.float32)


@st.composite
def places(draw):
    size = draw(st.integers(1, 40))
    rows = draw(st.lists(st.lists(st.integers(0, size - 1)), min_size=1, max_size=5))
    return np.array([np.isin(np.arange(size), ids) for ids in rows])


@given(places(), st.integers(0, 2**63), st.integers(0, 2**62))
def test_words_of_some_tokens_are_those_of_numpys_philox(kept, seed, step):
    keys = [NoiseKey(seed, "words", row) for row in range(len(kept))]
    steps = [step + row for row in range(len(kept))]
    left = left_of(removed_but(kept))
    every = np.ones(len(kept), dtype=np.bool_)
    words = words_at(np.stack([key.words() for key in keys]), np.array(steps, dtype=np.uint64), left, every)
    expected = [random_words(key, at, kept.shape[1])[row] for key, at, row in zip(keys, steps, kept, strict=True)]
    np.testing.assert_array_equal(words, np.concatenate(expected))


@pytest.mark.parametrize("share", [0.0, 0.002, 0.5, 1.0])
def test_noise_of_some_tokens_is_that_of_all(share):
    rng = np.random.default_rng(5)
    kept = rng.random((7, VOCAB)) < share
    kept[2], kept[3] = False, True
    kept[4, [0, VOCAB - 1]] = True
    keys, steps = [NoiseKey(row, "all", 2 * row) for row in range(7)], [0, 1, 5, 999, 2, 3, 4_000]
    everything = gumbel_rows(keys, steps, VOCAB)
    some = gumbel_left([RequestNoise(key, VOCAB) for key in keys], steps, left_of(removed_but(kept)))
    np.testing.assert_array_equal(some, everything[kept])
    np.testing.assert_array_equal(gumbel_where(keys, steps, kept), np.where(kept, everything, 0))


def test_any_noise_is_asked_beside_the_suites_own():
    kept = np.array([[True, False, True], [True, True, True], [False, True, False]])
    own, foreign = RequestNoise(NoiseKey(8), 3), lambda step: np.array([step, 10, 20], dtype=np.float32)
    noise = gumbel_left([own, foreign, own], [4, 7, 6], left_of(removed_but(kept)))
    np.testing.assert_array_equal(noise[[0, 1]], NoiseKey(8).gumbel(4, 3)[[0, 2]])
    assert noise[2:5].tolist() == [7, 10, 20]
    assert noise[5] == NoiseKey(8).gumbel(6, 3)[1]
    np.testing.assert_array_equal(own(9), NoiseKey(8).gumbel(9, 3))


def kept_of(row: np.ndarray, keep=keep_nucleus, **knobs: float) -> set[int]:
    scores = keep(row[None], Knobs.of([SamplingConfig(**knobs)], len(row)))[0]
    kept = np.flatnonzero(scores > -np.inf)
    np.testing.assert_array_equal(scores[kept], row[kept])
    return set(kept.tolist())


def nucleus(row: np.ndarray, top_p: float, least: int) -> tuple[set[int], set[int]]:
    """Tokens that must stay and that may, by exact sums; a mass within 1e-12 of the limit may fall on either side."""
    order = sorted((token for token in range(len(row)) if row[token] > -np.inf), key=lambda at: (row[at], -at))
    weights = [math.exp(float(row[token]) - float(row.max())) for token in order]
    limit = (1 - top_p) * math.fsum(weights)
    masses = [math.fsum(weights[: place + 1]) for place in range(len(order))]
    spared = set(order[max(0, len(order) - least) :])
    near = 1e-12 * math.fsum(weights)
    must = {token for token, mass in zip(order, masses, strict=True) if mass > limit + near} | spared
    return must, {token for token, mass in zip(order, masses, strict=True) if mass > limit - near} | spared


@given(
    st.lists(SCORES, min_size=1, max_size=60).filter(lambda row: max(row) > -np.inf),
    st.one_of(st.sampled_from([0.0, 0.5, 0.75, 0.95, 0.9999]), st.floats(0, 0.999)),
    st.integers(1, 5),
)
@example([0.0, -0.0] * 5, 0.5, 1)
@example([-1.0, -2.0, -1.0000001, -0.5, -3.0], 0.6, 1)
@example([5.0] * 60, 0.3, 4)
def test_the_nucleus_is_the_definitions(values, top_p, least):
    row = np.array(values, dtype=np.float32)
    must, may = nucleus(row, top_p, least)
    assert must <= kept_of(row, top_p=top_p, min_tokens_to_keep=least) <= may


@pytest.mark.parametrize("spread", [0.0, 1e-6, 0.01, 3.0, 100.0])
@pytest.mark.parametrize("top_p", [0.1, 0.95])
def test_the_nucleus_of_a_whole_vocabulary(spread, top_p):
    rng = np.random.default_rng(2)
    row = np.round(rng.normal(0, spread, VOCAB), 6).astype(np.float32)  # rounded: equal scores
    row[rng.random(VOCAB) < 0.1] = -np.inf
    order = np.lexsort((-np.arange(VOCAB), row))
    mass = np.exp(row[order].astype(np.float64) - row.max()).cumsum()
    kept = np.isin(order, list(kept_of(row, top_p=top_p)))
    decided = np.abs(mass / mass[-1] - (1 - top_p)) > 1e-11
    np.testing.assert_array_equal(kept[decided], (mass / mass[-1] > 1 - top_p)[decided])
    assert (~decided).sum() <= 1


@pytest.mark.parametrize("step", [2.0**-23, 2.0**-15, 2.0**-9, 2.0**-2])
@pytest.mark.parametrize("sign", [1, -1])
def test_scores_that_differ_in_any_bit_are_distinguished(step, sign):
    ranks = np.random.default_rng(0).permutation(64)
    row = (sign * (1 + step * ranks)).astype(np.float32)
    assert len(set(row.tolist())) == 64
    (must, may), kept = nucleus(row, 0.5, 1), kept_of(row, top_p=0.5)
    assert must <= kept <= may
    assert kept == set(np.argsort(-row)[: len(kept)].tolist())


@pytest.mark.parametrize(("top_p", "count"), [(0.5, 4), (0.25, 2), (0.75, 6), (0.0, 1), (0.875, 7), (0.876, 8)])
def test_a_mass_that_is_reached_exactly_is_enough(top_p, count):
    assert kept_of(np.full(8, 3.0, np.float32), top_p=top_p) == set(range(count))


@given(st.lists(SCORES, min_size=1, max_size=30).filter(lambda row: max(row) > -np.inf), st.integers(1, 6))
def test_min_p_spares_the_most_likely(values, least):
    row = np.array(values, dtype=np.float32)
    left = sorted(np.flatnonzero(row > -np.inf).tolist(), key=lambda token: (-row[token], token))
    near = {token for token in left if row[token] - row.max() >= np.float32(math.log(0.3))}
    assert kept_of(row, keep_min_p, min_p=0.3, min_tokens_to_keep=least) == near | set(left[:least])


@given(st.data())
def test_a_row_has_the_same_bits_in_any_batch(data):
    size = data.draw(st.integers(2, 300))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows = data.draw(st.integers(2, 6))
    logits = (rng.normal(0, 1, (rows, size)) * rng.choice([0, 0.1, 3, 30], (rows, 1))).astype(np.float32)
    logits[rng.random(rows) < 0.2] = rng.choice([-np.inf, np.nan, np.inf])
    seen = rng.random((rows, size)) < 0.2
    configs = [
        SamplingConfig(top_p=float(rng.choice([0.3, 0.95, 1.0])), min_p=float(rng.choice([0, 0.05])),
                       temperature=float(rng.choice([0, 0.8])), top_k=int(rng.choice([0, 7])))
        for _ in range(rows)
    ]  # fmt: skip
    noises, steps = [RequestNoise(NoiseKey(row), size) for row in range(rows)], list(range(rows))
    greedy = np.array([config.greedy for config in configs])
    together = run_rows(Batch(logits, (), configs, seen=seen))
    drawn = draw_rows(together, noises, steps, greedy)
    problems = find_problems(logits, together.final)
    for row in range(rows):
        at = slice(row, row + 1)
        alone = run_rows(Batch(logits[at], (), configs[at], seen=seen[at]))
        np.testing.assert_array_equal(np.array(alone.final)[0], np.array(together.final)[row])
        by_itself = draw_rows(alone, noises[at], steps[at], greedy[at])
        assert by_itself.tokens[0] == drawn.tokens[row]
        for one, many in zip(by_itself.measures, drawn.measures, strict=True):
            np.testing.assert_array_equal(one[0], many[row])
        assert find_problems(logits[at], alone.final)[0] == problems[row]


def test_a_draw_of_what_is_left_is_that_of_all():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (20, 500)).astype(np.float32)
    configs = [SamplingConfig(temperature=0.0 if row % 5 == 0 else 1.5, min_p=0.05 * (row % 2)) for row in range(20)]
    scores = run_rows(Batch(logits, (), configs, seen=rng.random(logits.shape) < 0.2))
    keys, steps = [NoiseKey(row) for row in range(20)], list(range(20))
    noise = gumbel_rows(keys, steps, 500)
    greedy = np.array([config.greedy for config in configs])
    drawn = draw_rows(scores, [RequestNoise(key, 500) for key in keys], steps, greedy)
    expected = pick(scores.final, mx.array(noise))
    np.testing.assert_array_equal(drawn.tokens, np.array(expected))
    measures = measure(scores, mx.array(noise), expected, mx.array(greedy))
    for found, known in zip(drawn.measures, measures, strict=True):
        np.testing.assert_array_equal(found, known)
    assert (drawn.measures.margin >= 0).all()


def test_of_equal_sums_the_lowest_id_is_drawn():
    scores = mx.array([[0.0, 3.0, 1.0, 3.0], [-np.inf] * 4])
    same = [lambda step: np.array([0.0, 1.0, 3.0, 1.0], dtype=np.float32)] * 2
    drawn = draw_rows(Scores(scores, scores), same, [0, 0], np.array([False, False]))
    assert drawn.tokens.tolist() == [1, 0]
    assert drawn.measures.margin[0] == 0
    assert find_problems(scores, scores).tolist() == [0, 2]


def test_a_loop_is_compiled_where_no_folder_keeps_it(monkeypatch):
    import numba

    compile_ = numba.njit

    def refuses(function, *, cache, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return compile_(function, cache=False, **options)

    monkeypatch.setattr(numba, "njit", refuses)

    assert compiled(lambda values: values.sum())(np.ones(3)) == 3


def test_rows_that_do_not_go_together_come_back_in_their_places(monkeypatch):
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 3, (7, 40)).astype(np.float32)
    configs = [SamplingConfig(top_p=0.9, order=STAGES[:: 1 if row % 3 else -1], temperature=row) for row in range(7)]
    batch = Batch(logits, (), configs, seen=logits > 2)
    expected = run_rows(batch)
    monkeypatch.setattr("sampler.chain.pipeline.SCORES_AT_ONCE", 90)
    found = run_rows(batch)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.array(one), np.array(other))
    alone = [np.array(run_rows(batch.only([row])).final)[0] for row in range(len(batch))]
    np.testing.assert_array_equal(np.array(found.final), alone)
    warm = run_rows(batch.only(range(1, 7)))
    assert warm.final is warm.ranked
    assert found.final is not found.ranked
