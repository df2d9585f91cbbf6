"""No two stages are asked together in vain: both act, and their order shows unless they commute."""

import itertools
from dataclasses import replace
from functools import partial

import pytest

from sampler.checks.conformance.diagnosis.order import without
from sampler.checks.conformance.judge import Judge
from sampler.checks.conformance.pairs import STAGES_TO_PAIR, greedy_cells, pair_cells
from sampler.engines.isolation import Local
from sampler.engines.reference.chain import ReferenceEngine
from sampler.stages import ALL_STAGES
from sampler.statistics.distance import total_variation

JUDGE = Judge(Local(ReferenceEngine()), reference=ReferenceEngine())
SEEDS = (0, 1, 7)
SHOWS = 1e-3
"""A total variation a hundred times the tolerance of level `process`."""

ADDING = {"logit_bias", "frequency_penalty", "presence_penalty", "dry_multiplier"}
FORBIDDING = {"no_repeat_ngram_size", "min_new_tokens", "suppressed_tokens"}
"""Stages that remove ids which the scores do not decide."""

SCORING = {"cfg", "repetition_penalty", "temperature", *ADDING}
OTHERS = (
    {"repetition_penalty", "temperature"},  # both are factors
    {"temperature", "top_n_sigma"},  # distance and deviation have the same factor
    {"temperature", "top_k"},
    {"top_k", "min_p"},  # neither changes rank or ratio to the best
)


def commute(first, second):
    """Whether the order of two stages can make no difference, by what they do."""
    pair = {first, second}
    return pair <= ADDING or pair <= FORBIDDING or (pair & FORBIDDING and pair & SCORING) or pair in OTHERS


def scores(probe, change=lambda config: config):
    return JUDGE.reference.evaluate(JUDGE.placed(probe).with_config(change(probe.config)))[-1].scores


def apart(one, other):
    return float(total_variation(one, other).max())


@pytest.mark.parametrize("seed", SEEDS)
def test_both_stages_of_a_pair_act_and_their_order_shows_unless_they_commute(seed):
    turned = {cell.stages[::-1]: cell.probes[0] for cell in pair_cells(seed) if cell.name.startswith("order:")}
    assert list(turned) == list(itertools.combinations(STAGES_TO_PAIR, 2))
    for (first, second), probe in turned.items():
        default = probe.with_config(replace(probe.config, order=ALL_STAGES))
        for stage in (first, second):
            acts = (apart(scores(each), scores(each, partial(without, stage))) for each in (default, probe))
            assert max(acts) > SHOWS, (first, second, stage)
        shown = apart(scores(default), scores(probe))
        assert (shown < 1e-12) if commute(first, second) else (shown > SHOWS), (first, second, shown)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_stage_decides_at_temperature_0_where_it_is_asked_there(seed):
    for cell in greedy_cells(seed):
        (probe,) = cell.probes
        stage = cell.stages[0]
        if stage not in KEEP_THE_BEST:
            assert apart(scores(probe), scores(probe, partial(without, stage))) == 1.0, cell.name


KEEP_THE_BEST = {"top_k", "min_p", "top_p", "top_n_sigma"}
"""Stages that never remove the most likely token."""
