"""SamplingConfig: ranges, canonical text, messages."""

import math
import pickle
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
        (
            "cfg_convention",
            "both",
            "cfg_convention = 'both' is out of range (expected one of conditional, unconditional)",
        ),
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


DEFAULT_TEXT = str(SamplingConfig())


@pytest.mark.parametrize(
    ("knobs", "text"),
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
def test_further_knobs_are_written_where_they_are_on(knobs, text):
    config = SamplingConfig(**knobs)
    assert str(config) == DEFAULT_TEXT.replace("order=", f"{text}order=").partition("order=")[0] + (
        f"order={'>'.join(config.order)}"
    )
    assert SamplingConfig.parse(str(config)) == config
    assert hash(config) == hash(SamplingConfig.parse(str(config)))


def test_further_knobs_that_are_off_leave_no_trace():
    off = SamplingConfig(logit_bias={3: 0.0}, suppressed_tokens=[], typical_p=1, penalty_window=0, dry_base=1.75)
    assert off == SamplingConfig()
    assert str(off) == DEFAULT_TEXT
    old_fields = [getattr(off, name) for name in list(vars(off))[:9]]
    assert hash(off) == hash(tuple(old_fields))


def test_a_further_stage_takes_its_place_in_the_default_order():
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


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("logit_bias", {-1: 1.0}, "logit_bias = {-1: 1.0} is out of range (expected a mapping of token ids, integers"),
        ("logit_bias", {1: math.inf}, "logit_bias = {1: inf} is out of range"),
        ("logit_bias", {1.5: 1.0}, "logit_bias = {1.5: 1.0} is out of range"),
        ("logit_bias", {True: 1.0}, "logit_bias = {True: 1.0} is out of range"),
        ("logit_bias", {"eos": 1.0}, "logit_bias = {'eos': 1.0} is out of range"),
        ("logit_bias", {"5": 1.0, 5: 2.0}, "logit_bias = {'5': 1.0, 5: 2.0} is out of range"),
        ("logit_bias", [5], "logit_bias = [5] is out of range"),
        (
            "frequency_penalty",
            math.nan,
            "frequency_penalty = nan is out of range (expected a finite number (0 is off))",
        ),
        ("presence_penalty", 1e39, "presence_penalty = 1e+39 is out of range"),
        (
            "penalty_window",
            -1,
            "penalty_window = -1 is out of range (expected an integer >= 0 (0 is the whole history))",
        ),
        ("dry_multiplier", -1, "dry_multiplier = -1 is out of range (expected a finite number >= 0 (0 is off))"),
        ("dry_base", 0.5, "dry_base = 0.5 is out of range (expected a finite number >= 1)"),
        ("dry_allowed_length", 0, "dry_allowed_length = 0 is out of range (expected an integer >= 1)"),
        ("dry_breakers", "12", "dry_breakers = '12' is out of range (expected a list of token ids, integers >= 0)"),
        (
            "no_repeat_ngram_size",
            2.0,
            "no_repeat_ngram_size = 2.0 is out of range (expected an integer >= 0 (0 is off))",
        ),
        ("min_new_tokens", -3, "min_new_tokens = -3 is out of range"),
        ("suppressed_tokens", [-1], "suppressed_tokens = [-1] is out of range (expected a list of token ids"),
        ("suppressed_tokens", 3, "suppressed_tokens = 3 is out of range"),
        ("top_n_sigma", -1, "top_n_sigma = -1 is out of range (expected a finite number >= 0 (0 is off))"),
        ("typical_p", 0, "typical_p = 0 is out of range (expected a number above 0, up to 1 (1 is off))"),
        ("xtc_probability", 1.1, "xtc_probability = 1.1 is out of range (expected a number from 0 to 1 (0 is off))"),
        ("xtc_threshold", 0, "xtc_threshold = 0 is out of range (expected a number above 0, up to 0.5 (a larger one"),
        ("xtc_threshold", 0.6, "xtc_threshold = 0.6 is out of range"),
    ],
)
def test_a_further_value_out_of_range_is_named(field, value, expected):
    with pytest.raises(ConfigError) as error:
        SamplingConfig(**{field: value})
    assert str(error.value).startswith(expected)


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


@pytest.mark.parametrize("text", ["logit_bias=5", "logit_bias=a:1.0", "suppressed_tokens=1,x", "typical_p=often"])
def test_further_text_that_cannot_be_read_is_named(text):
    name, _, value = text.partition("=")
    with pytest.raises(ConfigError) as error:
        SamplingConfig.parse(text)
    assert str(error.value).startswith(f"{name} = {value!r} is not a number (expected a")
