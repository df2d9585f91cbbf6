"""SamplingConfig: ranges, canonical text, messages."""

import math
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from sampler import STAGES, SamplingConfig
from sampler.errors import ConfigError
from sampler.stages import ALL_STAGES, OPTIONAL_STAGES
from tests.support import configs


def test_defaults_are_those_of_the_contract():
    assert str(SamplingConfig()) == (
        "temperature=0.8 top_k=0 top_p=1.0 min_p=0.05 repetition_penalty=1.2 cfg_weight=0.5 min_tokens_to_keep=1 "
        "order=cfg>alignment>repetition_penalty>temperature>top_k>min_p>top_p"
    )


@given(configs())
def test_canonical_text_reads_back(config: SamplingConfig):
    assert SamplingConfig.parse(str(config)) == config
    assert "\n" not in str(config)


RANGES = {
    "temperature": ("a finite number >= 0 (0 is greedy)", -1, math.nan, math.inf, True, "0.8", 10**400, None),
    "top_k": ("an integer >= 0 (0 is off)", -1, 1.0, False),
    "top_p": ("a number from 0 to 1 (1 is off)", 1.01, -0.1),
    "min_p": ("a number from 0 to 1 (0 is off)", 1.5),
    "repetition_penalty": ("a finite number > 0 (1 is off)", 0),
    "cfg_weight": ("a finite number", math.inf),
    "min_tokens_to_keep": ("an integer >= 1", 0),
    "cfg_convention": ("one of conditional, unconditional", "both"),
    "logit_bias": (
        *("a mapping of token ids, integers", {-1: 1.0}, {1: math.inf}, {1.5: 1.0}, {True: 1.0}, {"eos": 1.0}),
        *({"5": 1.0, 5: 2.0}, [5]),
    ),
    "frequency_penalty": ("a finite number (0 is off)", math.nan),
    "presence_penalty": ("a finite number (0 is off)", 1e39),
    "penalty_window": ("an integer >= 0 (0 is the whole history)", -1),
    "dry_multiplier": ("a finite number >= 0 (0 is off)", -1),
    "dry_base": ("a finite number >= 1", 0.5),
    "dry_allowed_length": ("an integer >= 1", 0),
    "dry_breakers": ("a list of token ids, integers >= 0", "12"),
    "no_repeat_ngram_size": ("an integer >= 0 (0 is off)", 2.0),
    "min_new_tokens": ("an integer >= 0 (0 is off)", -3),
    "suppressed_tokens": ("a list of token ids", [-1], 3),
    "top_n_sigma": ("a finite number >= 0 (0 is off)", -1),
    "typical_p": ("a number above 0, up to 1 (1 is off)", 0),
    "xtc_probability": ("a number from 0 to 1 (0 is off)", 1.1),
    "xtc_threshold": ("a number above 0, up to 0.5 (a larger one", 0, 0.6),
}
"""For each field what is expected, and values that are not."""


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        *(
            (field, value, f" = {value!r} is out of range (expected {expected}")
            for field, (expected, *values) in RANGES.items()
            for value in values
        ),
        ("order", ("temperature", "temperature"), " names 'temperature' twice"),
        ("order", ("temperatur",), " names the unknown stage 'temperatur' (stages: cfg, alignment"),
        ("order", "temperature", " = 'temperature' is not a list of stages"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_was_expected(field, value, expected):
    with pytest.raises(ConfigError) as error:
        SamplingConfig(**{field: value})
    assert str(error.value).startswith(f"{field}{expected}")


def test_numbers_of_numpy_are_numbers():
    config = SamplingConfig(temperature=np.float32(0.5), top_k=np.int64(3), min_p=0)
    assert (config.temperature, config.top_k, config.min_p) == (0.5, 3, 0.0)
    assert [type(value) for value in (config.temperature, config.top_k, config.min_p)] == [float, int, float]


def test_a_config_is_frozen_and_hashable():
    config = SamplingConfig(order=list(STAGES))
    with pytest.raises(AttributeError):
        config.temperature = 1.0
    assert len({config, SamplingConfig()}) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("temperature", "'temperature' is not part of a sampling config"),
        ("heat=1", "'heat=1' is not part of a sampling config"),
        ("top_k=many", "top_k = 'many' is not a number (expected an integer >= 0 (0 is off))"),
        ("top_k=1 top_k=2", "top_k is given twice in 'top_k=1 top_k=2'"),
        ("logit_bias=5", "logit_bias = '5' is not a number (expected a"),
        ("logit_bias=a:1.0", "logit_bias = 'a:1.0' is not a number (expected a"),
        ("suppressed_tokens=1,x", "suppressed_tokens = '1,x' is not a number (expected a"),
        ("typical_p=often", "typical_p = 'often' is not a number (expected a"),
    ],
)
def test_text_that_cannot_be_read_names_its_first_wrong_part(text, expected):
    with pytest.raises(ConfigError, match=re.escape(expected)):
        SamplingConfig.parse(text)


DEFAULT_TEXT = str(SamplingConfig())


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"logit_bias": {7: -2.5, 5: 1}}, "logit_bias=5:1.0,7:-2.5 "),
        ({"frequency_penalty": 0.5, "presence_penalty": -1}, "frequency_penalty=0.5 presence_penalty=-1.0 "),
        ({"penalty_window": 64}, "penalty_window=64 "),
        ({"dry_multiplier": 0.8, "dry_breakers": [9, 3, 9]}, "dry_multiplier=0.8 dry_breakers=3,9 "),
        ({"dry_base": 2, "dry_allowed_length": 3}, "dry_base=2.0 dry_allowed_length=3 "),
        ({"no_repeat_ngram_size": 3, "min_new_tokens": 9}, "no_repeat_ngram_size=3 min_new_tokens=9 "),
        ({"suppressed_tokens": np.array([4, 2])}, "suppressed_tokens=2,4 "),
        ({"top_n_sigma": 1, "typical_p": 0.9}, "top_n_sigma=1.0 typical_p=0.9 "),
        ({"xtc_probability": 0.5, "xtc_threshold": 0.2}, "xtc_probability=0.5 xtc_threshold=0.2 "),
    ],
)
def test_optional_parameters_are_written_where_they_are_on(parameters, text):
    config = SamplingConfig(**parameters)
    assert str(config) == DEFAULT_TEXT.partition("order=")[0] + f"{text}order={'>'.join(config.order)}"
    assert SamplingConfig.parse(str(config)) == config
    assert hash(config) == hash(SamplingConfig.parse(str(config)))


def test_optional_parameters_that_are_off_leave_no_trace():
    off = SamplingConfig(logit_bias={3: 0.0}, suppressed_tokens=[], typical_p=1, penalty_window=0, dry_base=1.75)
    assert off == SamplingConfig()
    assert str(off) == DEFAULT_TEXT
    old_fields = [getattr(off, name) for name in list(vars(off))[:9]]
    assert hash(off) == hash(tuple(old_fields))


def test_an_optional_stage_takes_its_place_in_the_default_order():
    config = SamplingConfig(typical_p=0.9, logit_bias={1: 1.0}, min_new_tokens=3)
    assert ">".join(config.order) == (
        "cfg>alignment>logit_bias>repetition_penalty>min_new_tokens>temperature>top_k>min_p>top_p>typical_p"
    )
    assert config.active_stages() >= {"typical_p", "logit_bias", "min_new_tokens"}
    assert replace(config, top_n_sigma=1.0).order == (*config.order[:6], "top_n_sigma", *config.order[6:])
    idle = config.without(["typical_p"])
    assert idle.order == config.order
    assert "typical_p" not in idle.active_stages()
    assert set(STAGES) | set(OPTIONAL_STAGES) == set(ALL_STAGES)


def test_another_order_has_to_name_what_is_on():
    with pytest.raises(ConfigError) as error:
        SamplingConfig(order=("temperature", "top_p"), xtc_probability=0.5)
    assert str(error.value) == (
        "xtc_probability is on and the order temperature>top_p lacks it (name it in the order, or turn it off)"
    )
    named = SamplingConfig(order=("xtc_probability", "temperature"), xtc_probability=0.5)
    assert named.order == ("xtc_probability", "temperature")
    assert SamplingConfig(order=("temperature",), xtc_threshold=0.3, penalty_window=3).order == ("temperature",)


def test_biases_are_a_mapping_that_does_not_change():
    given = {"7": 1, 3: np.float32(0.5)}
    config = SamplingConfig(logit_bias=given)
    given[9] = 4.0
    assert config.logit_bias == {3: 0.5, 7: 1.0}
    assert repr(config.logit_bias) == "{3: 0.5, 7: 1.0}"
    assert hash(config.logit_bias) == hash(SamplingConfig(logit_bias={7: 1.0, 3: 0.5}).logit_bias)
    assert pickle.loads(pickle.dumps(config)) == config
    with pytest.raises(TypeError):
        config.logit_bias[3] = 1.0
