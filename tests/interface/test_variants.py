"""`variants.toml` and its reader: every row of the table is there, and every mistake is named with its place."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from sampler.alignment import AnalyzerConfig
from sampler.errors import ConfigError, VariantError
from sampler.variants import analyzer, load_analyzers, load_variants, shipped_file, variant

GOOD = shipped_file().read_text(encoding="utf-8")
NAMES = ["en-0.1.1", "en-0.1.2", "en-0.1.2-nocfg", "en-0.1.3", "mtl-0.1.3", "mtl-0.1.5", "mtl-0.1.6", "mtl-head"]


def test_the_table():
    assert list(load_variants()) == [*NAMES, "turbo", "nano"]
    assert list(load_analyzers()) == ["upstream", "upstream-0.1.0", "guarded", "three-equal", "eight-equal"]
    assert analyzer("guarded") == AnalyzerConfig()
    assert replace(analyzer("upstream"), short_texts="guard") == AnalyzerConfig()
    assert analyzer("none") is None
    with pytest.raises(ValidationError, match="frozen"):
        variant("turbo").cap = 5


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda: variant("mtl-0.1.7"), "there is no variant 'mtl-0.1.7' (did you mean 'mtl-0.1.6'?)"),
        (lambda: variant("x"), "there is no variant 'x' (known: en-0.1.1, en-0.1.2, "),
        (lambda: analyzer("guard"), "there is no analyzer 'guard' (did you mean 'guarded'?)"),
        (lambda: load_variants(Path("none.toml")), "none.toml cannot be read: No such file or directory"),
    ],
)
def test_unknown_names_and_files(ask, expected):
    with pytest.raises(VariantError, match="^" + re.escape(expected)):
        ask()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("backbone = ", "backbones = ", ": variants.en-0.1.1.backbones (did you mean 'backbone'?)"),
        ("cap = 1000\n", "cap = 1000\ncaps = 5\n", ": variants.en-0.1.1.caps (did you mean 'cap'?)"),
        ("[variants.turbo]", "[variant.turbo]", ": variant (did you mean 'variants'?)"),
        ("[variants.turbo.knobs]", "[variants.turbo.knob]", ": variants.turbo.knobs (Field required)"),
        ("cap = 1000", "cap = 0", ": variants.en-0.1.1.cap (Input should be greater than or equal to 1)"),
        ("cap = 1000", "cap = '1000'", ": variants.en-0.1.1.cap (Input should be a valid integer)"),
        ("bos_count = 2", "bos_count = 3", ": variants.en-0.1.1.bos_count (Input should be less than or equal to 2)"),
        ('post = ["b', 'post = ["d', ": variants.en-0.1.1.post[0] (Input should be 'between_bos_and_eos', "),
        ("top_p = 0.8", "top_p = 8", ": variants.en-0.1.1.knobs: top_p = 8 is out of range (expected "),
        ("top_p = 0.8", "top_q = 0.8", ": variants.en-0.1.1.knobs: unknown key 'top_q' (did you mean 'top_p'?)"),
        ('analyzer = "upstream"', 'analyzer = "up"', ": variants.mtl-0.1.3.analyzer = 'up' is unknown (known: none, "),
        ("equal_tokens = 3", "equal_token = 3", ": analyzers.three-equal.constants: unknown key 'equal_token' (did"),
        ("equal_tokens = 3", "equal_tokens = 1", ": analyzers.three-equal.constants: equal_tokens = 1 is out of range"),
        ("source = ", "sources = ", ": analyzers.upstream.sources (did you mean 'source'?)"),
        ("[analyzers.upstream]", "[analyzers.upstream", " is no TOML: "),
    ],
)
def test_mistakes_in_a_file(tmp_path, old, new, expected):
    path = tmp_path / "variants.toml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(VariantError, match="^" + re.escape(f"{path}") + r"(, line \d+)?" + re.escape(expected)):
        load_variants(path)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("jump_back", 0, "an integer >= 1)"),
        ("jump_ahead", 7.0, "an integer >= 1)"),
        ("end_columns", -1, "an integer >= 0)"),
        ("tail_columns", 0, "an integer >= 1)"),
        ("tail_threshold", -1.0, "a number >= 0 (0 is off))"),
        ("repetition_threshold", float("nan"), ""),
        ("repetition_threshold", True, ""),
        ("equal_tokens", 1, "2 or more, or 0 (off))"),
        ("suppress", 1, "true or false)"),
        ("short_texts", "skip", "one of guard, crash)"),
    ],
)
def test_constants_out_of_range(name, value, expected):
    expected = re.escape(f"{name} = {value!r} is out of range (expected {expected}")
    with pytest.raises(ConfigError, match=f"^{expected}"):
        AnalyzerConfig(**{name: value})
