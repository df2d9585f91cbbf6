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
    path.write_text(text, encoding="utf-8")
    return path


def test_axes_are_multiplied_in_their_order(tmp_path):
    matrix = load_matrix(
        write(tmp_path, GOOD + "[knobs]\nmin_p = 0.1\n[axes]\ntemperature = [0, 0.8]\ncfg_weight = [0.0, -0.5]\n")
    )
    assert [case.id for case in matrix.cases] == [
        "sample/temperature:0.0+cfg_weight:0.0",
        "sample/temperature:0.0+cfg_weight:-0.5",
        "sample/temperature:0.8+cfg_weight:0.0",
        "sample/temperature:0.8+cfg_weight:-0.5",
    ]
    assert matrix.cases[1].config == SamplingConfig(temperature=0, min_p=0.1, cfg_weight=-0.5)


def test_a_matrix_without_axes_has_one_cell(tmp_path):
    assert [case.id for case in load_matrix(write(tmp_path, GOOD)).cases] == ["sample/base"]


def test_an_order_can_be_an_axis(tmp_path):
    matrix = load_matrix(write(tmp_path, GOOD + '[axes]\norder = [["cfg", "min_p", "temperature"], []]\n'))
    assert [case.cell for case in matrix.cases] == ["order:cfg.min_p.temperature", "order:none"]
    assert matrix.cases[0].config.order == ("cfg", "min_p", "temperature")


def test_further_knobs_can_be_axes(tmp_path):
    text = "[axes]\ntypical_p = [0.9]\nsuppressed_tokens = [[3, 4], []]\nlogit_bias = [{ 5 = 1.5, 7 = -2 }]\n"
    matrix = load_matrix(write(tmp_path, GOOD + text))
    assert [case.cell for case in matrix.cases] == [
        "typical_p:0.9+suppressed_tokens:3.4+logit_bias:5:1.5_7:-2.0",
        "typical_p:0.9+suppressed_tokens:none+logit_bias:5:1.5_7:-2.0",
    ]
    assert matrix.cases[0].config == SamplingConfig(typical_p=0.9, suppressed_tokens=(3, 4), logit_bias={5: 1.5, 7: -2})


def test_excluded_cells_are_left_out(tmp_path):
    text = (
        GOOD
        + "[axes]\ntemperature = [0, 0.8]\ntop_k = [0, 5]\n[[exclude]]\ntemperature = 0.0\ntop_k = 5\nwhy = 'no use'\n"
    )
    assert [case.cell for case in load_matrix(write(tmp_path, text)).cases] == [
        "temperature:0.0+top_k:0",
        "temperature:0.8+top_k:0",
        "temperature:0.8+top_k:5",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD + "[axes]\ntemprature = [0.8]\n", "unknown key 'axes.temprature' (did you mean 'temperature'?)"),
        (GOOD + "[knobs]\nminp = 0.1\n", "unknown key 'knobs.minp' (did you mean 'min_p'?)"),
        (GOOD + "[axis]\ntemperature = [0.8]\n", "unknown key 'axis' (did you mean 'axes'?)"),
        (GOOD + "[generation]\nrequest = 3\n", "unknown key 'generation.request' (did you mean 'requests'?)"),
        (GOOD + "[generation]\nzzz = 3\n", "unknown key 'generation.zzz' (known: prompts, requests"),
        (GOOD + "[generation]\nrequests = 0\n", "generation.requests = 0 (Input should be greater than or equal to 1)"),
        (GOOD + "[generation]\nrequests = 'two'\n", "generation.requests = 'two' (Input should be a valid integer)"),
        (
            GOOD + "[generation]\nprompts = 'novels'\n",
            "generation.prompts = 'novels' (expected 'sentences', 'paragraphs', 'long' or a list",
        ),
        (
            GOOD + "[generation]\nprompts = []\n",
            "generation.prompts = [] (expected 'sentences', 'paragraphs', 'long' or a list",
        ),
        (
            GOOD + "[axes]\ntemperature = [-1]\n",
            "axes.temperature: temperature = -1 is out of range (expected a finite number >= 0",
        ),
        (GOOD + "[axes]\ntemperature = [true]\n", "axes.temperature: temperature = True is out of range"),
        (GOOD + "[knobs]\ntemperature = [0.8]\n", "knobs.temperature: temperature = [0.8] is out of range (expected a"),
        (GOOD + "[knobs]\ntop_k = 2026-11-21\n", "knobs.top_k: top_k = datetime.date(2026, 11, 21) is out of range"),
        (GOOD + "[axes]\norder = [3]\n", "axes.order: order = 3 is not a list of stages"),
        (GOOD + "[axes]\ntemperature = []\n", "axes.temperature = [] (List should have at least 1 item"),
        (GOOD + "[axes]\ntemperature = 0.8\n", "axes.temperature = 0.8 (an axis is a list of values; a single"),
        (GOOD + "[axes]\nmultilingual = [1]\n", "axes.multilingual = 1 (expected true or false)"),
        (GOOD + '[axes]\norder = [["cfgg"]]\n', "axes.order: order names the unknown stage 'cfgg'"),
        (
            GOOD + "[knobs]\ntop_k = 2\n[axes]\ntop_k = [3]\n",
            "'top_k' stands in both [knobs] and [axes] (give it once)",
        ),
        (GOOD + "[axes]\ntop_k = [3, 3]\n", "the cell 'top_k:3' comes 2 times (an axis names a value twice)"),
        (
            GOOD + "[axes]\ntop_k = [3]\n[[exclude]]\ntop_k = 3\nwhy='x'\n",
            "no cell is left ([[exclude]] removes them all)",
        ),
        (GOOD + "[axes]\ntop_k = [3]\n[[exclude]]\ntop_k = 4\nwhy='x'\n", "exclude = {'top_k': 4} excludes no cell"),
        (
            GOOD + "[axes]\ntop_k = [3, 4]\n[[exclude]]\ntop_k = 4\n",
            "exclude = {'top_k': 4} (expected values of axes and a why)",
        ),
        (
            GOOD + "[axes]\ntop_k = [3, 4]\n[[exclude]]\ntop_p = 1.0\nwhy='x'\n",
            "unknown key 'exclude.top_p' (did you mean 'top_k'?)",
        ),
        ("[axes]\ntop_k = [3]\n", "key 'why' is missing (every matrix says why it exists)"),
        ("why = ''\n", "why = '' (String should have at least 1 character)"),
        ("why = \n", "is no TOML: Invalid value (at line 1, column 7)"),
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
