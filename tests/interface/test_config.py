"""SamplingConfig: ranges, canonical text, messages."""

import math

import numpy as np
import pytest
from hypothesis import given

from sampler import STAGES, SamplingConfig
from sampler.errors import ConfigError
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


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("temperature", -1, "temperature = -1 is out of range (expected a finite number >= 0 (0 is greedy))"),
        ("temperature", math.nan, "temperature = nan is out of range"),
        ("temperature", math.inf, "temperature = inf is out of range"),
        ("temperature", True, "temperature = True is out of range"),
        ("temperature", "0.8", "temperature = '0.8' is out of range"),
        ("temperature", 10**400, "temperature = 1000"),
        ("temperature", None, "temperature = None is out of range"),
        ("top_k", -1, "top_k = -1 is out of range (expected an integer >= 0 (0 is off))"),
        ("top_k", 1.0, "top_k = 1.0 is out of range"),
        ("top_k", False, "top_k = False is out of range"),
        ("top_p", 1.01, "top_p = 1.01 is out of range (expected a number from 0 to 1 (1 is off))"),
        ("top_p", -0.1, "top_p = -0.1 is out of range"),
        ("min_p", 1.5, "min_p = 1.5 is out of range (expected a number from 0 to 1 (0 is off))"),
        ("repetition_penalty", 0, "repetition_penalty = 0 is out of range (expected a finite number > 0 (1 is off))"),
        ("cfg_weight", math.inf, "cfg_weight = inf is out of range (expected a finite number)"),
        ("min_tokens_to_keep", 0, "min_tokens_to_keep = 0 is out of range (expected an integer >= 1)"),
        ("order", ("temperature", "temperature"), "order names 'temperature' twice"),
        ("order", ("temperatur",), "order names the unknown stage 'temperatur' (stages: cfg, alignment"),
        ("order", "temperature", "order = 'temperature' is not a list of stages"),
        ("cfg_convention", "both", "cfg_convention = 'both' is unknown (expected one of conditional, unconditional)"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_was_expected(field, value, expected):
    with pytest.raises(ConfigError) as error:
        SamplingConfig(**{field: value})
    assert str(error.value).startswith(expected)


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
    ],
)
def test_text_that_cannot_be_read_names_its_first_wrong_part(text, expected):
    with pytest.raises(ConfigError) as error:
        SamplingConfig.parse(text)
    assert str(error.value).startswith(expected)
