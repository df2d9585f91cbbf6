"""What makes the scoring of tokens fast changes nothing: few ids for the reference, bets on many steps at a time."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.special import softmax

from sampler.checks.scoring.alternatives import TILTS, other_configs
from sampler.checks.scoring.echoes import ECHOES, PERIODS, RUNS_BACK, STEPS_BACK, Echoes
from sampler.checks.scoring.impossible import as_explained
from sampler.checks.scoring.memory import BINS, Memories, Memory, Step
from sampler.checks.scoring.other_chains import TOKENS, OtherChains
from sampler.checks.scoring.wagers import Block, Wagers
from sampler.config import SamplingConfig
from sampler.engines.reference.chain import ReferenceEngine
from sampler.engines.reference.near import NEAR, Near
from sampler.errors import LogitsError
from sampler.requests import Batch, Context, Steps
from sampler.statistics.bets import FRACTIONS, LEAST_ERROR, MOST, Bets

SIZE, ROWS = 400, 24
TRUE = SamplingConfig()
CONFIGS = {
    "default": TRUE,
    "top_p after min_p": replace(TRUE, top_p=0.8),
    "top_p first": replace(TRUE, top_p=0.9, order=("cfg", "top_p", "temperature", "min_p")),
    "top_p alone": replace(TRUE, min_p=0.0, top_p=0.95),
    "top_k": replace(TRUE, min_p=0.0, top_k=20, top_p=0.7, min_tokens_to_keep=3),
    "more than are looked at": replace(TRUE, top_k=NEAR + 1, min_p=0.0),
    "low min_p": replace(TRUE, min_p=1e-3),
    "unconditional guidance": replace(TRUE, cfg_weight=1.5, cfg_convention="unconditional"),
    "guidance after the temperature": replace(TRUE, order=("temperature", "cfg", "min_p")),
    "guidance last": replace(TRUE, order=("temperature", "repetition_penalty", "min_p", "cfg")),
    "penalty below 1": replace(TRUE, repetition_penalty=0.7),
    "temperature last": replace(TRUE, order=("cfg", "repetition_penalty", "min_p", "top_p", "temperature"), top_p=0.9),
    "hot": replace(TRUE, temperature=2.5, repetition_penalty=3.0),
    "greedy": replace(TRUE, temperature=0.0),
    "no filter": replace(TRUE, min_p=0.0),
}


def drawn_logits(rng, ties):
    """Logits (ROWS, SIZE), few different ones with ties."""
    logits = rng.normal(0, rng.uniform(0.2, 4, (ROWS, 1)), (ROWS, SIZE)).astype(np.float32)
    return np.round(logits) if ties else logits


def run_of(config, seed, *, ties=False, guided=True):
    """Steps of a run whose later tokens repeat the earlier ones; with ties some rows have removed or equal tokens."""
    rng = np.random.default_rng(seed)
    logits, uncond = drawn_logits(rng, ties), drawn_logits(rng, ties) if guided else None
    if ties:
        logits[:3, rng.permutation(SIZE)[: SIZE // 2]] = -np.inf
        logits[3], logits[4, NEAR // 2 :] = 1, -np.inf
    if ties and guided:
        uncond[2, logits[2] == -np.inf] = -np.inf
    tokens = rng.choice(SIZE, ROWS) if seed % 2 else logits.argmax(axis=-1)
    history = [[SIZE + 5, *tokens[:row].tolist()] for row in range(ROWS)]
    context = Context(np.ones(ROWS, dtype=np.int64), np.arange(ROWS), (SIZE - 1,))
    return Steps(logits, history, (config,) * ROWS, uncond, context, tokens=tokens)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("ties", [False, True], ids=["even", "ties"])
def test_few_ids_give_what_all_ids_give(name, ties):
    config, guided = CONFIGS[name], name != "low min_p"
    for seed, engine in enumerate((ReferenceEngine(), ReferenceEngine(2.0**-8), ReferenceEngine(input_error=2e-3))):
        steps = run_of(config, seed, ties=ties, guided=guided)
        runs = {reading: engine.evaluate(steps, reading)[-1] for reading in ("defined", "generous", "strict")}
        for reading, full in runs.items():
            same_state(engine.last(steps, reading), full)
        must, may, final = engine.bounds(steps)
        same_state(final, runs["defined"])
        if name != "guidance last":  # there the bounds are wider than the readings: see test_chain_inputs.py
            np.testing.assert_array_equal(must, np.all([run.kept for run in runs.values()], axis=0))
            np.testing.assert_array_equal(may, np.any([run.kept for run in runs.values()], axis=0))


def same_state(found, full):
    np.testing.assert_array_equal(found.scores, full.scores)
    np.testing.assert_array_equal(np.where(full.kept, found.error, 0), np.where(full.kept, full.error, 0))


def test_engines_of_another_tolerance_see_the_same_steps_as_copies_of_them():
    """What they share of their work depends neither on the tolerance nor on the steps seen before."""
    steps, others = run_of(TRUE, 0), run_of(TRUE, 1)
    for engine in (ReferenceEngine(input_error=2e-3), ReferenceEngine(input_error=0.5), ReferenceEngine(2.0**-8)):
        for given in (steps, others, steps.with_config(replace(TRUE, cfg_weight=2.0))):
            for found, right in zip(engine.bounds(given)[:2], engine.bounds(replace(given))[:2], strict=True):
                np.testing.assert_array_equal(found, right)
            same_state(engine.last(given), engine.last(replace(given)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_with_broken_logits_are_read_in_full(value):
    """A removed token is not broken."""
    steps, engine = run_of(TRUE, 0), ReferenceEngine()
    steps.logits[5, 7], steps.logits[6, 8] = value, -np.inf
    with np.errstate(invalid="ignore"):
        near = Near.of(steps, 0.0, 0.0)
        unproven = near.unproven(engine.read(near.batch, ["generous"])[0])
        same_state(engine.last(steps), engine.evaluate(steps)[-1])
    assert 5 in unproven
    assert 6 not in unproven


def test_few_ids_are_enough_for_most_rows():
    """And for none whose threshold the few do not reach."""
    engine, steps = ReferenceEngine(input_error=2e-3), run_of(TRUE, 0)
    near = Near.of(steps, 0.0, 2e-3)
    assert near.ids.shape == (ROWS, NEAR)
    unproven = near.unproven(replace(engine, vocabulary=SIZE).evaluate(near.batch, "generous"))
    full = engine.evaluate(steps, "generous")[-1].kept.sum(axis=-1)
    assert set(np.flatnonzero(full >= NEAR)) <= set(unproven)
    assert 0 < len(unproven) < ROWS / 2


def test_the_first_filter_sees_no_other_token_above_the_ceiling():
    """In what the reference makes of every token; the bound is loose, but not by more than a few hundredths."""
    for seed in range(20):
        steps = run_of(TRUE, seed)
        near = Near.of(steps, 2.0**-24, 1e-4)
        state = next(one for one in ReferenceEngine(2.0**-24, {}, 1e-4).evaluate(steps) if one.stage == "temperature")
        reached = state.scores + state.error
        np.put_along_axis(reached, near.ids, -np.inf, axis=-1)
        assert (reached.max(axis=-1) < near.ceiling).all()
        assert (near.ceiling - reached.max(axis=-1)).min() < 0.02


def test_ids_of_histories_are_found_whether_or_not_they_continue_each_other():
    history = [[3, 9], [3, 9, 1], [2], (), [3, 9, 1, 1]]
    batch = Batch(np.zeros((5, 9)), history, (TRUE,) * 5)
    assert [set(np.flatnonzero(row)) for row in batch.in_history] == [{3}, {3, 1}, {2}, set(), {3, 1}]
    with pytest.raises(LogitsError, match="history of row 1 contains -4"):
        _ = Batch(np.zeros((2, 9)), [[1], [1, -4]], (TRUE,) * 2).in_history


# ---------------------------------------------------------------- bets and tilts, step by step from their definitions


def largest_expectation(p, pays, error):
    """Max of sum w f / sum w over p exp(-error) <= w <= p exp(error), as a linear program (Charnes and Cooper 1962)."""
    high, low = p * np.exp(error), p * np.exp(-error)
    bounds = np.concatenate([np.c_[np.eye(len(p)), -high], np.c_[-np.eye(len(p)), low]])
    total = np.append(np.ones(len(p)), 0.0)[None]
    found = linprog(np.append(-pays, 0.0), bounds, np.zeros(2 * len(p)), total, [1.0], bounds=(0, None))
    return -found.fun


def by_trying(p, pays, error):
    """The same: w is large for the tokens that pay most, however many."""
    order = np.argsort(-pays)
    large = np.tri(len(p) + 1, len(p), -1)
    weights = p[order] * np.exp(np.broadcast_to(error, p.shape)[order] * (2 * large - 1))
    return (weights @ pays[order] / weights.sum(axis=-1)).max()


class PlainBets:
    """One step, one alternative and one fraction at a time."""

    def __init__(self, count):
        self.logs, self.highest = np.zeros((count, len(FRACTIONS))), 0.0
        self.misses = np.zeros((count, len(FRACTIONS), 3))

    def place(self, p, q, drawn, error, shares=()):
        """shares: of the tokens that p can draw, and of those that nobody judges, under each q."""
        for bet, own in enumerate(q):
            judged, unjudged = shares[bet] if bet < len(shares) else (1.0, 0.0)
            ratio = np.minimum(own / p, MOST)
            pays = ratio + 1 - p @ ratio
            most = max(by_trying(p, pays, error), 1.0)
            for at, fraction in enumerate(FRACTIONS):
                won = (1 + fraction * (pays - 1)) / (1 + fraction * (most - 1))
                self.logs[bet, at] += np.log(won[drawn])
                missed = [judged * (own @ won**-power) + unjudged for power in (0.25, 0.5, 0.75)]
                with np.errstate(divide="ignore"):
                    self.misses[bet, at] += np.log(missed)
        self.highest = max(self.highest, np.log(np.exp(self.logs).mean()))


def test_the_largest_expectation_is_that_of_a_linear_program():
    rng = np.random.default_rng(1)
    for size in (2, 5, 9):
        p, pays, error = softmax(rng.normal(size=size)), rng.exponential(size=size), rng.uniform(0, 0.3, size)
        assert by_trying(p, pays, error) == pytest.approx(largest_expectation(p, pays, error), rel=1e-9)


def overlap(begin, end, density):
    """The integral of a density by bins over [begin, end]."""
    borders = np.arange(BINS + 1) / BINS
    return np.maximum(np.minimum(end, borders[1:]) - np.maximum(begin, borders[:-1]), 0) @ density


class PlainNoise:
    """Every step so far; what it says of the noise is counted again for every question."""

    def __init__(self):
        self.steps = []

    def surplus(self, token):
        came = sum(ids[drawn] == token for ids, _, drawn in self.steps)
        return came, sum(p[list(ids).index(token)] for ids, p, _ in self.steps if token in ids)

    def density(self, order, prior):
        seen = np.zeros(BINS)
        for ids, p, drawn in self.steps:
            begin, end = intervals(order(ids, p), p)[drawn]
            seen += [overlap(begin, end, bin_) / p[drawn] for bin_ in np.eye(BINS)]
        return (prior + seen) * BINS / (prior + seen).sum()


def intervals(order, p):
    ends = {place: sum(p[one] for one in order[: at + 1]) for at, place in enumerate(order)}
    return [(ends[place] - p[place], ends[place]) for place in range(len(p))]


def by_rank(ids, p):
    return sorted(range(len(p)), key=lambda place: (-p[place], place))


def by_id(ids, p):
    return list(range(len(p)))


def plain_tilts(ids, p, is_eos, run, runs, cell):
    """The rows of TILTS, in their order."""

    def surplus(noise, size):
        return p * np.exp(size * np.clip([np.subtract(*noise.surplus(token)) for token in ids], -3, 3))

    def reused(noise, order, prior):
        density = noise.density(order, prior)
        return np.array([overlap(*edges, density) for edges in intervals(order(ids, p), p)])

    yield from (p * np.exp(size * is_eos) for lift in (1, 2, 4) for size in (-lift, lift))
    for order in (by_rank, by_id):
        edges = np.array(intervals(order(ids, p), p))
        yield (1 - edges[:, 0]) ** 2 - (1 - edges[:, 1]) ** 2
        yield edges[:, 1] ** 2 - edges[:, 0] ** 2
    best = np.arange(len(p)) == np.argmax(p)
    yield 0.9 * p + 0.1 * best
    yield 0.95 * p + 0.05 * (p * ~best / (p * ~best).sum() if len(p) > 1 else p)
    yield p * np.exp(is_eos * np.where(best, 6.0, -6.0))
    counted = np.array([cell.surplus(token) for token in ids])
    yield p * (counted[:, 0] + 2) / (counted[:, 1] + 2)
    yield surplus(run, 1)
    yield surplus(runs, 2)
    for noise, prior in ((run, 0.5), (runs, 1 / BINS)):
        yield from (reused(noise, order, prior) for order in (by_rank, by_id))


class PlainEchoes:
    """Every step of every run; each mixture weighs its bets anew by all that they have won."""

    def __init__(self):
        self.runs, self.won = [], [1.0, 1.0, 1.0]

    def bets(self, place, ids, p):
        """The bets of each mixture at the next step."""
        numbers = [
            [self._numbered(self.runs[-1], place - back, order, ids, p) for back in STEPS_BACK]
            for order in (by_rank, by_id)
        ]
        earlier = [self.runs[-1 - back] if back < len(self.runs) else {} for back in RUNS_BACK]
        across = [[self._numbered(run, place, order, ids, p) for run in earlier] for order in (by_rank, by_id)]
        best = np.arange(len(p)) == np.argmax(p)
        every = [(period, first) for period in PERIODS for first in range(period)]
        taken = [*(place % period == first for period, first in every), place == 0]
        regular = [0.8 * best + 0.2 * p if one else p for one in taken]
        return [*numbers[0], *numbers[1]], [*across[0], *across[1], *self._lifted(place, ids, p)], regular

    def follow(self, place, ids, p, drawn):
        found = []
        for at, bets in enumerate(self.bets(place, ids, p)):
            won = np.broadcast_to(self.won[at], len(bets))
            found.append(won @ np.array(bets) / won.sum())
            self.won[at] = won * [bet[drawn] / p[drawn] for bet in bets]
        self.runs[-1][place] = ids, p, drawn
        return found

    def _numbered(self, run, place, order, ids, p):
        if place not in run:
            return p
        known, shares, drawn = run[place]
        low, high = intervals(order(known, shares), shares)[drawn]
        edges = intervals(order(ids, p), p)
        inside = np.array([max(min(end, high) - max(begin, low), 0) for begin, end in edges])
        return 0.8 * inside / inside.sum() + 0.2 * p

    def _lifted(self, place, ids, p):
        for back in RUNS_BACK:
            noise = PlainNoise()
            noise.steps = [run[place] for run in self.runs[-1 - back :: -back] if place in run]
            lift = p * np.exp(2 * np.clip([np.subtract(*noise.surplus(token)) for token in ids], -3, 3))
            yield lift / lift.sum()


def block(rng, count):
    """Steps of 1 to 9 tokens among 30, some of equal probability, and the places of drawn ones."""
    ids, p, drawn = [], [], []
    for _ in range(count):
        size = int(rng.integers(1, 10))
        ids.append(np.sort(rng.choice(30, size, replace=False)))
        p.append(softmax(np.round(rng.normal(0, 1.5, size), 1 if rng.random() < 0.5 else 0)))
        drawn.append(int(rng.choice(size, p=p[-1])))
    return ids, p, np.array(drawn)


def padded(rows, fill):
    width = max(len(row) for row in rows)
    return np.array([[*row, *[fill] * (width - len(row))] for row in rows])


def test_tilts_and_bets_on_many_steps_are_those_of_one_step_after_the_other():
    rng = np.random.default_rng(2)
    count = len(TILTS) + len(ECHOES)
    bets, plain, cell = Bets(count), PlainBets(count), Memory()
    echoes, plain_echoes = Echoes(), PlainEchoes()
    others, plain_cell = [Memory() for _ in range(20)], PlainNoise()
    plain_others = [PlainNoise() for _ in others]
    for _ in range(3):
        memories, plain_run = Memories(cell=cell), PlainNoise()
        echoes.begin()
        plain_echoes.runs.append({})
        for first in (0, 12):
            ids, p, drawn = block(rng, 8 if first else 12)
            error = [rng.uniform(LEAST_ERROR, 0.1, len(row)) for row in p]
            steps = Step(padded(ids, 29), padded(p, 0.0), padded([row == 29 for row in ids], fill=False))
            memories.runs = others[first : first + len(p)]
            pasts = memories.follow(steps, drawn)
            q = np.array([tilt(steps, pasts) for _, tilt in TILTS])
            q = np.concatenate([q, echoes.follow(np.arange(first, first + len(p)), steps, drawn)])
            bets.place(steps.p, q, drawn, padded(error, 0.5))
            for row in range(len(p)):
                own, before = (ids[row], p[row], drawn[row]), plain_others[first + row]
                tilts = plain_tilts(*own[:2], ids[row] == 29, plain_run, before, plain_cell)
                expected = [one / one.sum() for one in tilts]
                expected = np.array([*expected, *plain_echoes.follow(first + row, *own)])
                np.testing.assert_allclose(q[:, row, : len(p[row])], expected, rtol=1e-9)
                plain.place(p[row], expected, drawn[row], error[row])
                for noise in (plain_run, before, plain_cell):
                    noise.steps.append(own)
    np.testing.assert_allclose(bets.logs, plain.logs, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(bets._misses, plain.misses, rtol=1e-9, atol=1e-9)
    assert bets.highest == pytest.approx(plain.highest, rel=1e-9)
    assert bets.n == 60
    assert np.abs(bets.logs).max() > 1


@pytest.mark.parametrize("ties", [False, True], ids=["even", "ties"])
def test_a_block_is_bet_on_as_its_steps_are_one_by_one(ties):
    """However the steps of a run are cut; the last cut has one step a block, where nothing is padded."""
    reference, wagers = ReferenceEngine(input_error=5e-5), []
    for size in (ROWS, 7, 1):
        wagers.append(Wagers(TRUE, 1e-6, reference))
        for seed in range(4):
            steps = run_of(TRUE, seed, ties=ties)
            parts = [steps.only(range(first, min(first + size, ROWS))) for first in range(0, ROWS, size)]
            wagers[-1].add(Block(part, *reference.bounds(part)[:2]) for part in parts)
    for other in wagers[1:]:
        np.testing.assert_allclose(other.bets.logs, wagers[0].bets.logs, rtol=1e-9, atol=1e-9)
        assert (other.bets.n, other.outside) == (wagers[0].bets.n, wagers[0].outside)
    assert 10 < wagers[0].bets.n < 4 * ROWS


def test_tokens_without_a_bet_count_in_what_was_enough():
    """The tokens are the likeliest ones, except some that are impossible; those of a run one by one or all at once."""
    reference = ReferenceEngine(input_error=5e-5)
    whole, single = (Wagers(TRUE, 1e-3, reference) for _ in range(2))
    rejected = []
    for seed in (1, 0, 2, 4):
        steps = run_of(TRUE, seed)
        whole.add([Block(steps, *reference.bounds(steps)[:2])])

        def one_by_one(steps=steps):
            for row in range(ROWS):
                part = steps.only([row])
                yield Block(part, *reference.bounds(part)[:2])
                rejected.append(single.rejected)

        single.add(one_by_one())
    assert whole.enough == single.enough == rejected.index(True) + 1
    assert whole.bets.enough(1e-3) < whole.enough < whole.tokens == 4 * ROWS


@pytest.mark.parametrize("name", ["default", "top_p after min_p", "top_k", "temperature last"])
def test_the_bets_of_a_run_are_those_of_the_references_probabilities(name):
    """Of a vocabulary of which every token is looked at, so that the other chains are the reference's."""
    config, reference, kept = CONFIGS[name], ReferenceEngine(input_error=5e-5), 0
    wagers, cell = Wagers(config, 1e-6, reference), PlainNoise()
    plain, before = PlainBets(len(wagers.names)), [PlainNoise() for _ in range(ROWS)]
    echoes = PlainEchoes()
    for seed in range(2):
        echoes.runs.append({})
        steps = part_of(run_of(config, 2 * seed), 200)
        must, may, final = reference.bounds(steps)
        wagers.add([Block(steps, must, may)])
        others = [reference.evaluate(steps.with_config(other))[-1].scores for _, other in other_configs(config)]
        run = PlainNoise()
        for row, token in enumerate(steps.tokens):
            ids = np.flatnonzero(must[row])
            if len(ids) < 2 or token not in ids:
                continue
            p, drawn, kept = softmax(final.scores[row, ids]), list(ids).index(token), kept + 1
            q = [softmax(scores[row, ids]) if (scores[row, ids] > -np.inf).any() else p for scores in others]
            q += [one / one.sum() for one in plain_tilts(ids, p, ids == 199, run, before[row], cell)]
            q += echoes.follow(len(steps.history[row]), ids, p, drawn)
            whole = [
                softmax(scores[row]) if (scores[row] > -np.inf).any() else must[row] / len(ids) for scores in others
            ]
            shares = [(one[must[row]].sum(), one[may[row] & ~must[row]].sum()) for one in whole]
            plain.place(p, q, drawn, final.error[row, ids] + LEAST_ERROR, shares)
            for noise in (run, before[row], cell):
                noise.steps.append((ids, p, drawn))
    np.testing.assert_allclose(wagers.bets.logs, plain.logs, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(wagers.bets._misses, plain.misses, rtol=1e-9, atol=1e-9)
    assert wagers.bets.n == kept > 10


def test_impossible_tokens_of_another_chain_are_expected_as_often_as_it_draws_them():
    """Without min_p each removed token has its share; a colder chain draws none of them."""
    reference, steps = ReferenceEngine(), run_of(TRUE, 1)
    without, colder = (steps.with_config(replace(TRUE, **made)) for made in ({"min_p": 0.0}, {"temperature": 0.4}))
    removed = reference.evaluate(steps)[-1].scores == -np.inf
    p = softmax(reference.evaluate(without)[-1].scores, axis=-1)
    found = as_explained(steps, without, reference)
    assert found.expected == pytest.approx(p[removed].sum(), rel=1e-6)
    assert p[removed].sum() > 0.1
    rows = [row for row, token in enumerate(steps.tokens) if removed[row, token]]
    ranks = []
    for row in rows:
        own, others = p[row, steps.tokens[row]], p[row, removed[row]]
        ranks.append((others[others < own].sum() + own / 2) / others.sum())
    assert found.ranks == pytest.approx(ranks, abs=1e-4)  # those that differ by less than 1e-4 are ties
    assert len(rows) > 10
    assert as_explained(steps, colder, reference).expected == 0


@pytest.mark.parametrize("kept", [30, TOKENS - 1, TOKENS, 350])
def test_other_chains_look_at_the_kept_tokens_then_at_those_with_the_best_logits_and_at_eos(kept):
    steps, rng = run_of(TRUE, 3), np.random.default_rng(3)
    must = rng.permuted(np.broadcast_to(np.arange(SIZE) < kept, (ROWS, SIZE)), axis=-1)
    scores = rng.normal(size=must.shape)
    chains = OtherChains.of(steps, must, scores, ReferenceEngine())
    for row, ids in enumerate(chains.ids):
        order = np.lexsort((np.where(must, scores, steps.logits)[row], must[row], np.arange(SIZE) == SIZE - 1))
        assert ids.tolist() == sorted(order[-TOKENS:])


@pytest.mark.parametrize(
    "changes",
    [{"logit_bias": {SIZE - 1: 4.0, 5: -2.0}}, {"min_new_tokens": ROWS // 2}, {"suppressed_tokens": (3, SIZE - 1)}],
    ids=["bias", "least", "suppressed"],
)
def test_other_chains_change_eos_as_the_reference_does(changes):
    config, reference = replace(TRUE, order=(*changes, *TRUE.order), **changes), ReferenceEngine()
    steps = run_of(TRUE, 3)
    steps.logits[:, SIZE - 1] = steps.logits.max(axis=-1)
    must, _, final = reference.bounds(steps)
    chains = OtherChains.of(steps, must, final.scores, reference)
    exact = np.take_along_axis(reference.evaluate(steps.with_config(config))[-1].scores, chains.ids, axis=-1)
    np.testing.assert_allclose(chains.scores(config), exact, rtol=1e-12)
    assert not np.array_equal(exact, chains.scores(TRUE))


def part_of(steps, size):
    """The same steps of a model with fewer ids."""
    context = steps.context._replace(eos_ids=(size - 1,))
    logits, uncond, tokens = (
        steps.logits[:, :size],
        steps.uncond_logits[:, :size],
        steps.logits[:, :size].argmax(axis=-1),
    )
    history = [[size + 5, *tokens[:row].tolist()] for row in range(len(steps))]
    return replace(steps, logits=logits, uncond_logits=uncond, tokens=tokens, history=history, context=context)
