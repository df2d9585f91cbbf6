"""Levels and precisions beside float32 chains: teacher-forced logits, engines of half precision."""

import numpy as np
import pytest
import torch

from sampler.checks.conformance.rows import bfloat16
from sampler.checks.verdict import exit_code
from sampler.conformance import examine
from sampler.engines.base import EngineInfo
from sampler.engines.core import CoreEngine
from sampler.engines.reference.chain import ReferenceEngine
from tests.wrong_engines.limits import RefusesAll

SIZE = 31


class Predicts:
    """No lie: each row is a function of the prompt and the tokens before it."""

    info = EngineInfo("predicts", "1", vocab_size=SIZE, cfg=False)

    def rows(self, prompt, tokens) -> list[np.ndarray]:
        return [self.row(prompt, tokens[:step], step) for step in range(len(tokens) + 1)]

    def row(self, prompt, before, position) -> np.ndarray:
        seed = [len(prompt), position, *before]
        return np.random.default_rng(seed).normal(0, 2, SIZE)

    def predict(self, prompt, tokens) -> np.ndarray:
        return np.stack(self.rows(prompt, list(tokens))).astype(np.float32)


class SeesWhatComesLater(Predicts):
    """Lie: attention is not masked."""

    def rows(self, prompt, tokens):
        return [row + sum(tokens) / 100 for row in super().rows(prompt, tokens)]


class CountsFromTheEnd(Predicts):
    """Lie: positions depend on how many tokens there are in all [K02]."""

    def rows(self, prompt, tokens):
        count = len(tokens)
        return [self.row(prompt, tokens[:step], step - count) for step in range(count + 1)]

    def row(self, prompt, before, position):
        return super().row(prompt, before, position + 1_000)


class Remembers(Predicts):
    """Lie: a cache is kept between calls."""

    def __init__(self):
        self.calls = 0

    def rows(self, prompt, tokens):
        self.calls += 1
        return [row * self.calls for row in super().rows(prompt, tokens)]


class LosesARow(Predicts):
    """Lie: there is no row after the last token."""

    def rows(self, prompt, tokens):
        return super().rows(prompt, tokens)[:-1] or [np.zeros(SIZE)]


class IsNan(Predicts):
    """Lie: one logit is NaN."""

    def rows(self, prompt, tokens):
        rows = super().rows(prompt, tokens)
        rows[-1][3] = np.nan
        return rows


@pytest.mark.parametrize(
    ("engine", "case", "stage", "outcome"),
    [
        (SeesWhatComesLater, "causal", "position", "failed"),
        (CountsFromTheEnd, "prefixes", "cache", "failed"),
        (Remembers, "repeatable", "purity", "failed"),
        (LosesARow, "finite", "purity", "errored"),
        (IsNan, "finite", "purity", "failed"),
    ],
)
def test_wrong_predictions_are_caught(engine, case, stage, outcome):
    report = examine(engine(), levels=("predict",))
    verdict = next(verdict for verdict in report.verdicts if verdict.check == case)
    assert (verdict.outcome, verdict.stage) == (outcome, stage), verdict.message
    assert exit_code(report.outcome) == 1


@pytest.mark.parametrize("make", [Predicts, CoreEngine.load])
def test_right_predictions_are_not_accused(make):
    report = examine(make(), levels=("predict",))
    assert [verdict.outcome for verdict in report.verdicts] == ["passed"] * 5, report.verdicts


class Rounded(ReferenceEngine):
    """No lie: what it reads and what it answers is rounded to the precision that it states."""

    def __init__(self, dtype: str, change=lambda config: config):
        super().__init__()
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "change", change)

    @property
    def info(self):
        return EngineInfo("rounded", "1", dtype=self.dtype)

    def round(self, values):
        if self.dtype == "bfloat16":
            return bfloat16(np.asarray(values, dtype=np.float64)).astype(np.float32)
        return torch.from_numpy(np.asarray(values, dtype=np.float32)).half().float().numpy()

    def process(self, logits, history, config, uncond_logits=None):
        uncond = None if uncond_logits is None else self.round(uncond_logits)
        return self.round(super().process(self.round(logits), history, self.change(config), uncond))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_judged_as_what_it_is(dtype):
    right = examine(Rounded(dtype), levels=("process",))
    assert right.outcome == "agrees", [verdict.message for verdict in right.verdicts if verdict.outcome == "failed"]
    wrong = examine(Rounded(dtype, lambda config: config.without(["min_p"])), levels=("process",))
    assert wrong.outcome == "disagrees"
    assert wrong.diagnosis[0].stage == "min_p"


def test_a_precision_without_a_tolerance_is_skipped():
    report = examine(Rounded("float8"), levels=("process",))
    assert report.outcome == "skipped"
    assert exit_code(report.outcome) == 3
    assert "float8" in report.verdicts[0].message


def test_an_engine_that_refuses_everything_agrees_with_nothing():
    report = examine(RefusesAll(), levels=("process",))
    assert report.outcome == "skipped"
    assert exit_code(report.outcome) == 3
