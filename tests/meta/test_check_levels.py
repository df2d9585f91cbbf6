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
    """Each row is a function of the prompt and the tokens before it; `change` makes rows of right rows and tokens."""

    info = EngineInfo("predicts", "1", vocab_size=SIZE, cfg=False)

    def __init__(self, change=lambda rows, tokens, calls: rows) -> None:
        self.change, self.calls = change, 0

    def predict(self, prompt, tokens) -> np.ndarray:
        self.calls += 1
        seeds = ([len(prompt), step, *tokens[:step]] for step in range(len(tokens) + 1))
        rows = np.stack([np.random.default_rng(seed).normal(0, 2, SIZE) for seed in seeds])
        return self.change(rows, list(tokens), self.calls).astype(np.float32)


def from_the_end(rows, tokens, _):
    return np.stack([np.roll(row, len(tokens) - step) for step, row in enumerate(rows)])


def one_is_nan(rows, *_):
    rows[-1, 3] = np.nan
    return rows


WRONG = {
    "attention is not masked": (lambda rows, tokens, _: rows + sum(tokens) / 100, "causal", "position", "failed"),
    "positions count from the end [K02]": (from_the_end, "prefixes", "cache", "failed"),
    "a cache is kept between calls": (lambda rows, _, calls: rows * calls, "repeatable", "purity", "failed"),
    "no row after the last token": (lambda rows, *_: rows[: max(1, len(rows) - 1)], "finite", "purity", "errored"),
    "one logit is NaN": (one_is_nan, "finite", "purity", "failed"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_predictions_are_caught(fault):
    change, case, stage, outcome = WRONG[fault]
    report = examine(Predicts(change), levels=("predict",))
    verdict = next(verdict for verdict in report.verdicts if verdict.check == case)
    assert (verdict.outcome, verdict.stage) == (outcome, stage), verdict.message
    assert exit_code(report.outcome) == 1


@pytest.mark.parametrize("make", [Predicts, CoreEngine.load])
def test_right_predictions_are_not_accused(make):
    report = examine(make(), levels=("predict",))
    assert [verdict.outcome for verdict in report.verdicts] == ["passed"] * 5, report.verdicts


class Rounded(ReferenceEngine):
    """Right: what it reads and what it answers is rounded to the precision that it states."""

    def __init__(self, dtype: str, change=lambda config: config):
        super().__init__()
        object.__setattr__(self, "change", change)
        object.__setattr__(self, "dtype", dtype)

    @property
    def info(self):
        return EngineInfo("rounded", "1", dtype=self.dtype)

    def round(self, values):
        if self.info.dtype == "bfloat16":
            return bfloat16(np.asarray(values, dtype=np.float64)).astype(np.float32)
        return torch.from_numpy(np.asarray(values, dtype=np.float32)).half().float().numpy()

    def process(self, logits, history, config, uncond_logits=None):
        uncond = None if uncond_logits is None else self.round(uncond_logits)
        return self.round(super().process(self.round(logits), history, self.change(config), uncond))


@pytest.mark.nightly("two whole checks of each precision")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_judged_as_what_it_is(dtype):
    right = examine(Rounded(dtype), levels=("process",))
    assert right.outcome == "agrees", [verdict.message for verdict in right.verdicts if verdict.outcome == "failed"]
    wrong = examine(Rounded(dtype, lambda config: config.without(["min_p"])), levels=("process",))
    assert wrong.outcome == "disagrees"
    assert wrong.diagnosis[0].stage == "min_p"


@pytest.mark.parametrize(("engine", "word"), [(Rounded("float8"), "float8"), (RefusesAll(), "")])
def test_a_precision_without_a_tolerance_and_an_engine_that_refuses_everything_are_skipped(engine, word):
    report = examine(engine, levels=("process",))
    assert (report.outcome, exit_code(report.outcome)) == ("skipped", 3)
    assert word in report.verdicts[0].message
