"""Rows on which HuggingFace's float32 rounds: the judge is the definition in log space, in float64."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from sampler import SamplingConfig
from sampler.checks.steps.chain import ChainComparison
from sampler.engines.core import CoreEngine
from sampler.engines.huggingface.chain import HuggingFaceEngine
from sampler.engines.reference.chain import ReferenceEngine
from sampler.requests import Context, Steps

NEUTRAL = {"temperature": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "cfg_weight": 0.0}
ROWS, SIZE = 4, 2_050


def peaked() -> np.ndarray:
    """One token 120 nats above the others."""
    return np.random.default_rng(0).normal(0, 1, (ROWS, SIZE)) + 120 * (np.arange(SIZE) == 5)


def flat() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 3e-8, (ROWS, SIZE))


def min_p_in_logs(row: np.ndarray, mass: float, least: int) -> np.ndarray:
    logs = log_softmax(row)
    return (logs >= logs.max() + np.log(mass)) | (np.argsort(np.argsort(-row)) < least)


def typical_in_logs(row: np.ndarray, mass: float, least: int) -> np.ndarray:
    logs = log_softmax(row)
    distance = np.abs(-logs + (np.exp(logs) * logs).sum())
    order = np.argsort(distance, kind="stable")
    before = np.cumsum(np.exp(logs[order])) - np.exp(logs[order])
    kept = np.zeros(len(row), dtype=bool)
    kept[order[(before < mass) | (np.arange(len(row)) < least)]] = True
    return kept


CASES = [
    pytest.param(peaked(), {"min_p": 0.05, "min_tokens_to_keep": 3}, min_p_in_logs, id="min_p"),
    pytest.param(flat(), {"typical_p": 0.2}, typical_in_logs, id="typical_p"),
]


def compared(engine, logits, **knobs) -> ChainComparison:
    config = SamplingConfig(**{**NEUTRAL, **knobs})
    rows = logits.astype(np.float32)
    place = Context(np.zeros(ROWS, dtype=np.int64), np.arange(ROWS))
    steps = Steps(rows, [[1]] * ROWS, (config,) * ROWS, None, place, tokens=np.zeros(ROWS, dtype=np.int64))
    return ChainComparison(engine, HuggingFaceEngine(), ReferenceEngine(), steps)


@pytest.fixture(scope="module")
def core() -> CoreEngine:
    return CoreEngine.load(width=1)


@pytest.mark.parametrize(("logits", "knobs", "definition"), CASES)
def test_the_definition_in_log_space_decides_and_huggingface_is_named(core, logits, knobs, definition):
    found = compared(core, logits, **knobs)
    assert not found.doubtful.any()
    assert not found.wrong.any()
    assert list(found.rounded) == list(range(ROWS))
    mass, least = next(iter(knobs.values())), knobs.get("min_tokens_to_keep", 1)
    expected = np.stack([definition(row, mass, least) for row in logits.astype(np.float32).astype(np.float64)])
    assert np.array_equal(found.theirs > -np.inf, expected)
    assert "it keeps also {" in found.rounded[0]


def test_over_a_flat_row_huggingface_keeps_far_more_mass_than_asked_for(core):
    config = SamplingConfig(**{**NEUTRAL, "typical_p": 0.2})
    rows = flat().astype(np.float32)
    kept = HuggingFaceEngine().process(rows, [[1]] * ROWS, config) > -np.inf
    assert (softmax(rows.astype(np.float64), axis=-1) * kept).sum(axis=-1).min() > 0.9


class KeepsTheSecond(CoreEngine):
    """Fault: removes the best token."""

    def process(self, logits, *rest, **named):
        scores = super().process(logits, *rest, **named)
        scores[np.arange(len(scores)), scores.argmax(axis=-1)] = -np.inf
        return scores


def test_a_fault_on_such_rows_is_still_one(core):
    found = compared(KeepsTheSecond(core.generator), peaked(), min_p=0.05, min_tokens_to_keep=3)
    assert found.wrong.all()
