"""Names of prompts that differ: they are shown, the same names in another spelling are offered, and nothing agrees."""

import json
import unicodedata
from dataclasses import replace

import pytest

from sampler.checks.longform.log.prompts import Names, spelling
from sampler.results.store.tokens import read_lines, write_token_runs
from tests.commands import assert_one_clear_line, sampler
from tests.wrong_engines.token_runs import RIGHT, WRONG

NAMES = ("café ümlaut", "Über den Fluss", "naïve harbour", "lighthouse 4")
"""Of the four texts of the reference."""


def named(runs, names):
    return [replace(run, text=names[int(run.text.split()[1])]) for run in runs]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "reference.jsonl"
    write_token_runs(path, named(RIGHT.runs(30, 1), NAMES))
    return path


def checked(path, names, reference, *options, source=RIGHT):
    file, report = path / "port.jsonl", path / "report.json"
    write_token_runs(file, named(source.runs(30, 2), names))
    result = sampler("check", file, "--against", reference, "--false-alarm-rate", "1e-3", "--json", report, *options)
    return result, json.loads(report.read_text(encoding="utf-8"))


SPELT = {
    "Unicode's form": lambda name: unicodedata.normalize("NFD", name),
    "case": str.upper,
    "spaces": lambda name: f" {name.replace(' ', '  ')}",
    "underscores": lambda name: name.replace(" ", "_"),
    "file endings": lambda name: f"{name}.txt",
    "paths": lambda name: f"prompts/{name}.wav",
}


@pytest.mark.parametrize("kind", SPELT)
def test_another_spelling_is_known(kind):
    names = [SPELT[kind](name) for name in NAMES]
    assert Names(names, NAMES).respelt == {mine: name for mine, name in zip(names, NAMES, strict=True) if mine != name}


def test_names_in_another_spelling_are_offered(tmp_path, reference):
    changes = (SPELT["Unicode's form"], SPELT["case"], SPELT["file endings"], str)
    names = [change(name) for change, name in zip(changes, NAMES, strict=True)]
    result, report = checked(tmp_path, names, reference)
    assert (result.returncode, report["outcome"], report["diagnosis"]) == (3, "inconclusive", [])
    (found,) = (verdict for verdict in report["verdicts"] if verdict["case"] == "tokens/log/prompts")
    assert found["message"].startswith("1 of 4 prompts have a name that the reference has; only here: ")
    assert "3 differ in spelling alone, as " in found["message"]
    assert found["message"].endswith(": --fix names")
    result, report = checked(tmp_path, names, reference, "--fix", "names")
    assert (result.returncode, report["outcome"]) == (0, "agrees")
    assert "3 names of prompts differ in spelling alone: the reference's were taken" in result.stdout
    result, report = checked(tmp_path, names, reference, "--fix", "names", source=WRONG["penalty_dropped"].source)
    assert (result.returncode, report["outcome"]) == (1, "disagrees")


def test_one_text_in_common_does_not_agree(tmp_path):
    """Sixteen texts on both sides, one of which has one name; all others are called otherwise."""
    mine, theirs = ([f"{side} {place}" for place in range(16)] for side in ("here", "there"))
    mine[0] = theirs[0]
    sixteen = replace(RIGHT, lengths=tuple(range(50, 114, 4)))
    runs = named(sixteen.runs(12, 1), theirs)
    write_token_runs(tmp_path / "reference.jsonl", runs)
    write_token_runs(tmp_path / "port.jsonl", named(sixteen.runs(12, 2), mine))
    result = sampler(
        "check", tmp_path / "port.jsonl", "--against", tmp_path / "reference.jsonl", "--false-alarm-rate", "1e-2"
    )
    assert result.returncode == 3, result.stdout
    words = "1 of 16 prompts have a name that the reference has; only here: 'here 1', 'here 2', 'here 3' and 12 more; "
    assert words + "only there: 'there 1', 'there 2', 'there 3' and 12 more; the closest are 'here " in result.stdout
    write_token_runs(
        tmp_path / "port.jsonl", [run for run in named(sixteen.runs(12, 2), theirs) if run.text == theirs[0]]
    )
    result = sampler(
        "check", tmp_path / "port.jsonl", "--against", tmp_path / "reference.jsonl", "--false-alarm-rate", "1e-2"
    )
    assert result.returncode == 3, "one of sixteen texts was spoken"


@pytest.mark.parametrize(
    ("mine", "theirs", "enough"),
    [
        ("abcd", "abcd", True),
        ("ab", "abcd", True),
        ("a", "abcd", False),
        ("abcde", "abcd", False),
        ("", "", True),
        ("x", "abcd", False),
    ],
)
def test_a_log_may_leave_out_less_than_half_of_the_reference(mine, theirs, enough):
    assert Names(list(mine), list(theirs)).enough == enough


def test_names_that_have_one_spelling_are_not_taken_for_each_other():
    assert Names(["A.txt", "a.wav"], ["a"]).respelt == {}
    assert Names(["A.txt"], ["a", "a.wav"]).respelt == {}
    assert Names(["A.txt", "a"], ["a"]).respelt == {}
    assert Names(["A.txt", "b"], ["a", "b"]).respelt == {"A.txt": "a"}
    assert spelling("prompts\\Cafe\u0301 _x-1.WAV") == "café x 1"


def test_the_closest_names_are_shown_and_forms_of_one_letter_are_told_apart():
    found = Names(["harbor", "x"], ["harbour", "quay"]).finding()
    assert found.message.endswith("the closest are 'harbor' and 'harbour'")
    found = Names(["cafe\u0301"], ["caf\u00e9"]).finding()
    assert r"as 'cafe\u0301' and 'caf\xe9': --fix names" in found.message
    long = Names([f"{place} {'very ' * 40}" for place in range(20)], ["short"]).finding()
    assert len(long.message) <= 300


def test_names_of_embedded_texts_are_offered_too(tmp_path):
    path = tmp_path / "port.jsonl"
    line = {"prompt": "EN_sentence_000.txt", "tokens": [1, 2, 2049], "stop_reason": "eos"}
    path.write_text(json.dumps(line) + "\n", encoding="utf-8")
    result = sampler("check", path, "--against", "core")
    assert_one_clear_line(
        result, "the text of prompt 'EN_sentence_000.txt' is unknown (--fix names takes it for 'en-sentence-000')"
    )
    result = sampler("tokens", "convert", path, "-o", tmp_path / "out.jsonl", "--against", "core", "--fix", "names")
    assert result.returncode == 0, result.stderr
    assert [line.prompt for line in read_lines(tmp_path / "out.jsonl")] == ["en-sentence-000"]
