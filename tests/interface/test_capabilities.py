"""What an engine says of itself decides what it is asked for; what it answers is taken for what it is, or refused."""

from dataclasses import replace

import numpy as np
import pytest

from sampler import STAGES, SamplingConfig
from sampler.engines.base import EngineError, EngineInfo
from sampler.engines.capabilities import checked_generations, offered, trimmed
from sampler.errors import Unsupported
from sampler.requests import Generation, Record, Request

INFO = EngineInfo("x", "1", vocab_size=4, eos_ids=(3,))
CONFIG = SamplingConfig(top_k=5)
TRUNCATES_FIRST = ("cfg", "repetition_penalty", "top_k", "min_p", "top_p", "temperature")


def test_fields_are_taken_as_frameworks_have_them():
    given = {"dtype": np.dtype("float32"), "vocab_size": np.int64(5), "eos_ids": np.array([3, 4]), "supports": ["cfg"]}
    plain = EngineInfo("x", "1", dtype="float32", vocab_size=5, eos_ids=(3, 4), supports=frozenset({"cfg"}))
    assert EngineInfo(np.str_("x"), 1, **given) == plain
    assert EngineInfo("x", "1", dtype=np.float32).dtype == "float32"
    assert EngineInfo("x", "1", orders=[["cfg"]]).orders == (("cfg",),)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("vocab_size", 5.5, "the info of x does not fit"),
        ("eos_ids", 3, "the info of x does not fit"),
        ("supports", ["topp"], "the info of x supports 'topp'"),
    ],
)
def test_what_cannot_be_is_refused(field, value, expected):
    with pytest.raises(EngineError, match=expected):
        EngineInfo("x", "1", **{field: value})


@pytest.mark.parametrize(
    ("info", "changes", "missing"),
    [
        ({"cfg": False}, {}, "x has no guidance"),
        ({"supports": {"cfg", "temperature"}}, {}, "does not support min_p, repetition_penalty, top_k"),
        ({"supports": STAGES}, {"min_tokens_to_keep": 2}, "does not support min_tokens_to_keep"),
        ({"supports": STAGES}, {"cfg_convention": "unconditional"}, "does not support cfg_convention"),
        ({"supports": STAGES}, {"penalty_window": 5}, "does not support penalty_window"),
        ({"supports": STAGES}, {"typical_p": 0.5}, "does not support typical_p"),
        ({"orders": (STAGES,)}, {"typical_p": 0.5}, "does not support typical_p"),
        ({"orders": (TRUNCATES_FIRST, ("cfg",))}, {}, "does not offer the order cfg>alignment>repetition_penalty"),
        ({"orders": (TRUNCATES_FIRST,)}, {"order": ("temperature", "min_p")}, "the order temperature>min_p"),
        ({"orders": (("cfg", "temperature"),)}, {}, "does not offer the order cfg>alignment"),
    ],
)
def test_what_is_missing_is_named(info, changes, missing):
    with pytest.raises(Unsupported, match=missing):
        offered(replace(INFO, **info), replace(CONFIG, **changes))


def test_parameters_may_stand_for_stages():
    supports = frozenset({"cfg_weight", "repetition_penalty", "temperature", "top_k", "min_p", "min_tokens_to_keep"})
    config = replace(CONFIG, min_tokens_to_keep=2)
    assert offered(replace(INFO, supports=supports), config) == config


def test_an_order_that_comes_to_the_same_is_asked_for():
    """`alignment` and idle stages do not count, stages left out stay idle, one fixed order stands for the default."""
    without_alignment = tuple(stage for stage in STAGES if stage != "alignment")
    info = replace(INFO, orders=(TRUNCATES_FIRST, without_alignment))
    assert offered(info, CONFIG) == replace(CONFIG, order=without_alignment)
    asked = offered(info, replace(CONFIG, order=("min_p", "temperature")))
    assert asked.order == TRUNCATES_FIRST
    assert asked.active_stages() == {"min_p", "temperature"}
    assert offered(replace(INFO, orders=(TRUNCATES_FIRST,)), CONFIG).order == TRUNCATES_FIRST
    longer = ("typical_p", *TRUNCATES_FIRST)
    assert offered(replace(INFO, orders=(longer,)), replace(CONFIG, typical_p=0.5)).order == longer


REQUESTS = [Request("a", CONFIG, 0, 5)]


def test_tokens_become_plain_integers():
    (answer,) = checked_generations([Generation(np.array([1, 2, 3]), "eos")], REQUESTS, INFO)
    assert answer.tokens == (1, 2, 3)
    assert {type(token) for token in answer.tokens} == {int}


def record(shape):
    empty = np.zeros(0, dtype=np.float32)
    return Record(empty, empty.astype(np.int32), empty, empty, 0, 1, logits=np.zeros(shape))


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], "generate\\(\\) gave 0 generations for 1 requests"),
        ([Generation((1, 4), "eos")], "request 0 has the token 4, expected 0 to 3"),
        ([Generation((-1,), "eos")], "request 0 has the token -1"),
        ([Generation((1,), "done")], "request 0 stopped for 'done', expected one of eos, forced_eos, length, error"),
        ([Generation((1,), "eos", record((2, 1, 4)))], "has logits of shape \\(2, 1, 4\\) for 1 tokens"),
        ([Generation((1,), "eos", record((1, 4)))], "has logits of shape \\(1, 4\\)"),
        ([Generation((1,), "eos", replace(record((1, 2, 4)), flags=("", "")))], "2 flags for 1 tokens"),
        ([Generation((1,), "eos", record((1, 2, 5)))], "expected \\(up to 1, 1 or 2, 4\\)"),
    ],
)
def test_answers_that_cannot_be_are_refused(answers, expected):
    with pytest.raises(ValueError, match=expected):
        checked_generations(answers, REQUESTS, INFO)


def test_stages_that_an_engine_lacks_are_left_out_where_others_stand_together():
    without = replace(INFO, cfg=False)
    chain = SamplingConfig(top_p=0.9)
    assert trimmed(INFO, chain) == chain
    assert trimmed(without, chain) == replace(chain, cfg_weight=0.0)
    few = replace(without, supports=frozenset({"temperature", "top_p"}))
    assert trimmed(few, chain).active_stages() == {"temperature", "top_p"}
    ordered = replace(INFO, orders=(("temperature", "min_p"),))
    assert trimmed(ordered, chain).active_stages() == {"temperature", "min_p"}
    pair = replace(SamplingConfig().without(STAGES), cfg_weight=0.5, top_p=0.9)
    assert trimmed(without, pair) == pair
    with pytest.raises(Unsupported, match="x has no guidance"):
        offered(without, trimmed(without, pair))
