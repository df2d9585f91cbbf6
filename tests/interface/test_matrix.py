"""Matrix files: what they span, their ids, and what they say when something is wrong with them."""

import re
from pathlib import Path

import pytest

from sampler import STAGES, SamplingConfig
from sampler.errors import MatrixError
from sampler.matrix.matrix import MULTILINGUAL, find_matrix, load_matrix, shipped_matrices

GOOD = 'why = "to see"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "sample.toml"
    path.write_text(text if text.startswith(("#", "why")) else GOOD + text, encoding="utf-8")
    return path


def loaded(folder: Path, text: str):
    return load_matrix(write(folder, text)).cases


def test_axes_are_multiplied_in_their_order(tmp_path):
    cases = loaded(tmp_path, "[knobs]\nmin_p = 0.1\n[axes]\ntemperature = [0, 0.8]\ncfg_weight = [0.0, -0.5]\n")
    assert [case.id for case in cases] == [
        f"sample/temperature:{temperature}+cfg_weight:{weight}" for temperature in (0.0, 0.8) for weight in (0.0, -0.5)
    ]
    assert cases[1].config == SamplingConfig(temperature=0, min_p=0.1, cfg_weight=-0.5)


@pytest.mark.parametrize(
    ("text", "cells", "config"),
    [
        ("", ["base"], {}),
        (
            '[axes]\norder = [["cfg", "min_p", "temperature"], []]\n',
            ["order:cfg.min_p.temperature", "order:none"],
            {"order": ("cfg", "min_p", "temperature")},
        ),
        (
            "[axes]\ntypical_p = [0.9]\nsuppressed_tokens = [[3, 4], []]\nlogit_bias = [{ 5 = 1.5, 7 = -2 }]\n",
            [f"typical_p:0.9+suppressed_tokens:{tokens}+logit_bias:5:1.5_7:-2.0" for tokens in ("3.4", "none")],
            {"typical_p": 0.9, "suppressed_tokens": (3, 4), "logit_bias": {5: 1.5, 7: -2}},
        ),
        (
            "[axes]\ntemperature = [0, 0.8]\ntop_k = [0, 5]\n[[exclude]]\ntemperature = 0.0\ntop_k = 5\nwhy = 'x'\n",
            ["temperature:0.0+top_k:0", "temperature:0.8+top_k:0", "temperature:0.8+top_k:5"],
            {"temperature": 0.0, "top_k": 0},
        ),
    ],
    ids=["no axes", "orders", "optional parameters", "an excluded cell"],
)
def test_cells_of_a_matrix(tmp_path, text, cells, config):
    cases = loaded(tmp_path, text)
    assert [case.cell for case in cases] == cells
    assert cases[0].config == SamplingConfig(**config)


TEN = ("temperature", "top_k", "min_p", "repetition_penalty", "cfg_weight", "top_p", "min_tokens_to_keep", "typical_p")
AXES = "[axes]\n" + "".join(f"{name} = [{', '.join(['0.5'] * 10)}]\n" for name in TEN)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (AXES, "sample.toml has 100,000,000 cells: axes of 10 x 10 x 10 x 10 x 10 x 10 x 10 x 10 values (expected at "),
        (AXES, "most 10,000; shorten it, or write most_cells = 100000000 at the top of the file)"),
        ("[generation]\nruns = 30000", "has 120,000 requests: 1 cells of 120,000 requests (expected at most 100,000"),
        ("most_cells = 3\n[axes]\ntop_k = [1, 2, 3, 4]", "has 4 cells: axes of 4 values (expected at most 3"),
        (
            "most_cells = 3\ndesign = 'one at a time'\n[axes]\ntop_k = [1, 2, 3]\nmin_p = [0, 1]",
            "4 cells: its axes and",
        ),
        ("[generation]\nrequests = 1000000000000", "generation.requests = 1000000000000 (Input should be less than or"),
        ("[generation]\nruns = 1000001", "generation.runs = 1000001 (Input should be less than or equal to 1000000)"),
        ("[generation]\nwidth = 1025", "generation.width = 1025 (Input should be less than or equal to 1024)"),
        (
            f"[generation]\nmax_new_tokens = {10**30}",
            "generation.max_new_tokens = 1000000000000000000000000000000 (expected a",
        ),
        (
            f"[generation]\nmax_new_tokens = {'9' * 5000}",
            ", line 3: max_new_tokens = a number of 5,000 digits (expected a number of at most 64 bits)",
        ),
    ],
)
def test_cells_and_requests_are_counted_before_any_is_made(tmp_path, text, expected):
    """10^8 cells would fill the memory; the limits are the file's own, and shipped matrices are far below them."""
    with pytest.raises(MatrixError, match=re.escape(expected)):
        load_matrix(write(tmp_path, text))


def test_a_matrix_may_raise_its_limits(tmp_path):
    assert len(loaded(tmp_path, "most_requests = 1000000\n[generation]\nruns = 30000")) == 1
    assert len(loaded(tmp_path, "most_cells = 4\n[axes]\ntop_k = [1, 2, 3, 4]")) == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[axes]\ntemprature = [0.8]", "unknown key 'axes.temprature' (did you mean 'temperature'?)"),
        ("[knobs]\nminp = 0.1", "unknown key 'knobs.minp' (did you mean 'min_p'?)"),
        ("[axis]\ntemperature = [0.8]", "unknown key 'axis' (did you mean 'axes'?)"),
        ("[generation]\nrequest = 3", "unknown key 'generation.request' (did you mean 'requests'?)"),
        ("[generation]\nzzz = 3", "unknown key 'generation.zzz' (known: prompts, requests"),
        ("[generation]\nrequests = 0", "generation.requests = 0 (Input should be greater than or equal to 1)"),
        ("[generation]\nrequests = 'two'", "generation.requests = 'two' (Input should be a valid integer)"),
        ("[generation]\nprompts = 'novels'", "prompts = 'novels' (expected 'sentences', 'paragraphs', 'long' or a"),
        ("[generation]\nprompts = []", "generation.prompts = [] (expected 'sentences', 'paragraphs', 'long' or"),
        ("[axes]\ntemperature = [-1]", "axes.temperature: temperature = -1 is out of range (expected a finite"),
        ("[axes]\ntemperature = [true]", "axes.temperature: temperature = True is out of range"),
        ("[knobs]\ntemperature = [0.8]", "knobs.temperature: temperature = [0.8] is out of range (expected a"),
        ("[knobs]\ntop_k = 2026-11-21", "knobs.top_k: top_k = datetime.date(2026, 11, 21) is out of range"),
        ("[axes]\norder = [3]", "axes.order: order = 3 is not a list of stages"),
        ("[axes]\ntemperature = []", "axes.temperature = [] (List should have at least 1 item"),
        ("[axes]\ntemperature = 0.8", "axes.temperature = 0.8 (an axis is a list of values; a single"),
        ("[axes]\nmultilingual = [1]", "axes.multilingual = 1 (expected true or false)"),
        ('[axes]\norder = [["cfgg"]]\n', "axes.order: order names the unknown stage 'cfgg'"),
        ("[knobs]\ntop_k = 2\n[axes]\ntop_k = [3]", "'top_k' is in both [knobs] and [axes] (give it once)"),
        ("[axes]\ntop_k = [3, 3]", "the cell 'top_k:3' occurs 2 times (an axis has a value twice)"),
        ("[axes]\ntop_k = [3]\n[[exclude]]\ntop_k = 3\nwhy='x'", "no cell is left ([[exclude]] removes them all)"),
        ("[axes]\ntop_k = [3]\n[[exclude]]\ntop_k = 4\nwhy='x'", "exclude = {'top_k': 4} excludes no cell"),
        ("[axes]\ntop_k = [3, 4]\n[[exclude]]\ntop_k = 4", "= {'top_k': 4} (expected values of axes and a why)"),
        ("[axes]\ntop_k = [3, 4]\n[[exclude]]\ntop_p = 1.0\nwhy='x'", "key 'exclude.top_p' (did you mean 'top_k'?)"),
        ("# none\n[axes]\ntop_k = [3]", "key 'why' is missing (every matrix states why it exists)"),
        ("why = ''", "why = '' (String should have at least 1 character)"),
        ("why = \n", "sample.toml, line 1 is no TOML: Invalid value at column 7 ("),
    ],
)
def test_what_is_wrong_is_said_with_file_key_and_value(tmp_path, text, expected):
    path = write(tmp_path, text)
    with pytest.raises(MatrixError) as error:
        load_matrix(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert expected in message
    assert "\n" not in message


def test_a_matrix_that_is_not_there(tmp_path):
    with pytest.raises(MatrixError, match=r"there is no matrix 'stochastik' \(did you mean 'stochastic'\?\)"):
        find_matrix("stochastik")
    with pytest.raises(MatrixError, match=r"none.toml cannot be read: No such file or directory"):
        load_matrix(find_matrix(str(tmp_path / "none.toml")))


def test_shipped_matrices_have_ids_that_are_unique_and_can_be_typed():
    cases = [case for path in shipped_matrices() for case in load_matrix(path).cases]
    identifiers = [case.id for case in cases]
    assert len(set(identifiers)) == len(identifiers)
    for identifier in identifiers:
        assert re.fullmatch(r"[\w:+./-]+", identifier), "a character that a shell or pytest -k would read otherwise"
    assert {path.stem for path in shipped_matrices()} >= {"smoke", "stochastic", "audit"}


def test_the_audit_has_every_cell_of_the_audit():
    """Analyzer on and off, guidance 0, 0.5, 1, temperature 0, 0.5, 0.8, 1, penalty 1, 1.2, 1.5: 72 cells."""
    cases = load_matrix(find_matrix("audit")).cases
    assert len(cases) == 2 * 3 * 4 * 3
    analyzed = [case for case in cases if case.variant]
    assert {case.variant for case in analyzed} == {MULTILINGUAL}
    assert [case.cell.startswith("multilingual:true") for case in cases].count(True) == len(analyzed) == 36
    knobs = {(case.config.cfg_weight, case.config.temperature, case.config.repetition_penalty) for case in cases}
    assert knobs == {(w, t, r) for w in (0.0, 0.5, 1.0) for t in (0.0, 0.5, 0.8, 1.0) for r in (1.0, 1.2, 1.5)}
    assert all(case.config.order == STAGES for case in cases)
