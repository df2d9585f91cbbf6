"""What is kept of a score for pictures: against plain counting, and what right and wrong draws look like in it."""

import json
import pickle
from dataclasses import asdict

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binom

from sampler.checks.scoring.calibration import BINS, Calibration
from sampler.checks.scoring.memory import Step
from sampler.checks.scoring.score import Run, Score
from sampler.checks.scoring.summarize import summarize
from sampler.config import SamplingConfig
from sampler.engines.reference.chain import ReferenceEngine
from sampler.results.store.scoring import SCORING, read_scoring, write_scoring
from sampler.statistics.bets import Bets
from sampler.statistics.thinned import MOST_POINTS
from tests.distribution.test_knobs import CONFIG, LENGTH, SIZE, spoken

COUNT = 12


def steps_of(rng, count):
    """Steps of up to COUNT tokens with ids in ascending order; some have fewer."""
    p = softmax(rng.normal(0, 2, (count, COUNT)), axis=-1)
    p[::3, -4:] = 0
    p /= p.sum(axis=-1, keepdims=True)
    ids = np.sort(rng.permuted(np.tile(np.arange(500), (count, 1)), axis=-1)[:, :COUNT], axis=-1)
    return Step(ids, p, np.zeros_like(ids, dtype=np.bool_))


def plain_shares(p, token, *, by_rank):
    """The part of a token's interval in each bin, by walking over the tokens in order."""
    begin = 0.0
    for other in sorted(range(len(p)), key=lambda place: -p[place] if by_rank else place):
        if other == token:
            break
        begin += p[other]
    bins = [(bin_ / BINS, (bin_ + 1) / BINS) for bin_ in range(BINS)]
    return np.array([max(0.0, min(begin + p[token], high) - max(begin, low)) / p[token] for low, high in bins])


def test_calibration_counts_intervals_and_knows_their_variance():
    rng = np.random.default_rng(1)
    steps, calibration = steps_of(rng, 40), Calibration()
    drawn = np.array([rng.choice(COUNT, p=p) for p in steps.p])
    calibration.add(steps, drawn)
    for row, by_rank in enumerate((True, False)):
        counts, variances = np.zeros(BINS), np.zeros(BINS)
        for p, token in zip(steps.p, drawn, strict=True):
            shares = {place: plain_shares(p, place, by_rank=by_rank) for place in np.flatnonzero(p)}
            counts += shares[token]
            variances += sum(p[place] * share**2 for place, share in shares.items()) - 1 / BINS**2
        assert calibration.counts[row] == pytest.approx(counts, abs=1e-9)
        assert calibration.variances[row] == pytest.approx(variances, abs=1e-9)


def test_the_history_of_bets_is_what_single_steps_give():
    rng = np.random.default_rng(2)
    count = 3 * MOST_POINTS
    p = softmax(rng.normal(0, 1, (count, COUNT)), axis=-1)
    q = np.array([softmax(factor * np.log(p), axis=-1) for factor in (0.5, 2.0)])
    drawn = np.array([rng.choice(COUNT, p=one) for one in p])
    together, single, wealth = Bets(2), Bets(2), []
    for rows in np.split(np.arange(count), [7, 300, 350]):
        together.place(p[rows], q[:, rows], drawn[rows])
    for row in range(count):
        single.place(p[row], q[:, row], int(drawn[row]))
        own = np.exp(single.logs).mean(axis=-1)
        wealth.append(np.log([*own, own.mean()]))
    history = together.history
    assert history.steps == list(range(4, count + 1, 4))
    assert np.array(history.values) == pytest.approx(np.array(wealth)[3::4], abs=1e-9)


def score_of(config, seed=3, runs=12, asked=CONFIG, change=None):
    """Runs that draw with one config and were asked for another. change: (run, step, token)."""
    reference = ReferenceEngine(input_error=1e-5)
    score = Score(asked, 1e-6, reference, reference, SIZE, (SIZE - 1,), stripped=True)
    for place, steps in enumerate(spoken(config, seed, runs, asked)):
        if change is not None and change[0] == place:
            steps.tokens[change[1]] = change[2]
        score.add(Run(f"run {place}", steps.tokens.tolist(), "length", lambda other, of=steps: [of.with_config(other)]))
    return score


def test_a_summary_says_what_the_score_says(tmp_path):
    _, second = spoken(CONFIG, 3, 2)
    change = (1, 7, int(second.logits[7].argmin()))
    score = score_of(CONFIG, change=change)
    found = summarize(score)
    assert (found.tokens, found.runs, found.bets) == (12 * LENGTH, 12, score.wagers.bets.n)
    removed = found.impossible[0]
    assert (removed.run, removed.step, found.count) == (1, 7, len(score.impossible))
    assert f"token {change[2]} at step 7 of run 1" in removed.text
    assert len(found.alternatives) == len(score.wagers.names)
    assert [one.excluded for one in found.alternatives] == score.wagers.detected.tolist()
    last = score.wagers.bets.history.values[-1][:-1]
    assert found.wealth.mean[-1] == pytest.approx(np.log(np.exp(last).mean()), abs=0.006)
    assert found.wealth.richest[0].logs[-1] == pytest.approx(last.max(), abs=0.006)
    assert (found.wealth.tokens[-1], found.wealth.enough) == (score.wagers.history[0][-1], None)
    assert found.wealth.bound == pytest.approx(np.log(1e6))
    written = json.dumps(asdict(found))
    assert len(written) < 30_000
    write_scoring(tmp_path, {"made/a": found})
    assert read_scoring(tmp_path / SCORING) == {"made/a": found} == {"made/a": pickle.loads(pickle.dumps(found))}


def test_wrong_draws_show_in_every_picture():
    wrong = SamplingConfig(**{**asdict(CONFIG), "temperature": 0.4, "min_p": 0.2})
    found = summarize(score_of(wrong, runs=20))
    assert found.wealth.enough is not None
    assert "temperature" in found.wealth.richest[0].text
    assert "temperature" in {one.name for one in found.estimates if one.differs}
    by_rank = found.calibration[0]
    assert by_rank.ratios[0] > 1 + by_rank.widths[0]
    assert by_rank.ratios[-1] < 1 - by_rank.widths[-1]


def test_right_draws_are_in_the_band_as_often_as_it_says():
    rng, sets = np.random.default_rng(5), 300
    steps = steps_of(rng, 400)
    ends = steps.p.cumsum(axis=-1)
    outside = 0
    for _ in range(sets):
        calibration = Calibration()
        calibration.add(steps, (ends < rng.random((400, 1))).sum(axis=-1).clip(0, COUNT - 1))
        away = np.abs(calibration.counts - 400 / BINS)
        outside += bool((away > 3.6 * np.sqrt(calibration.variances)).any())
    assert binom.sf(outside - 1, sets, 0.01) > 1e-6
    assert outside < 0.1 * sets


def test_few_tokens_have_no_estimates_and_no_calibration():
    found = summarize(score_of(CONFIG, runs=2))
    assert (found.calibration, found.estimates, found.fitted) == ((), (), 0)
    assert found.wealth is not None
