"""Half precision is recognised by the recorded values."""

import numpy as np
import pytest

from sampler.checks.steps.precision import precision_of
from sampler.requests import Generation, Record
from tests.wrong_engines.records import bfloat16

LOGITS = np.random.default_rng(0).normal(0, 6, (4, 2, 50)).astype(np.float32)
EMPTY = np.zeros(0, dtype=np.float32)


@pytest.mark.parametrize(
    ("logits", "said", "name", "rounding"),
    [
        (LOGITS, "float32", "float32", 0.0),
        (LOGITS.astype(np.float16).astype(np.float32), "float32", "float16", 2**-11),
        (bfloat16(LOGITS), "float32", "bfloat16", 2**-8),
        (bfloat16(LOGITS), "float64", "bfloat16", 2**-8),
        (LOGITS, "bfloat16", "bfloat16", 2**-6),
        (np.round(LOGITS / 3), "float32", "float32", 0.0),
        (np.where(LOGITS > 0, -np.inf, LOGITS.astype(np.float16)), "float32", "float16", 2**-11),
    ],
    ids=["single", "float16", "bfloat16", "bfloat16 as float64", "said", "few round numbers", "with removed tokens"],
)
def test_the_precision_is_that_of_the_values_or_what_info_says(logits, said, name, rounding):
    record = Record(EMPTY, EMPTY.astype(np.int32), EMPTY, EMPTY, 0, 1, logits=logits.astype(np.float32))
    found = precision_of(said, [Generation((1,) * len(logits), "eos", record)])
    assert (found.name, found.rounding) == (name, rounding)
    worst = np.abs(logits[np.isfinite(logits)] - LOGITS[np.isfinite(logits)]) / np.abs(LOGITS[np.isfinite(logits)])
    assert name == "float32" or worst.max() <= rounding


def test_a_dtype_without_a_tolerance_is_judged_with_the_widest():
    found = precision_of("int8", [])
    assert (found.name, found.rounding) == ("bfloat16", 2**-6)
    assert "int8 has no tolerance of its own" in found.note
