"""Files of token runs: what is written is read again, every mistake is one clear line, and nothing is half-written."""

import json
import math
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampler.checks.longform.runs import SCALARS, STEPS, TokenRun, positions, token_run
from sampler.errors import OutputError, TokensError
from sampler.requests import Generation, Record
from sampler.results.store.tokens import read_token_runs, write_token_runs
from tests.commands import ROOT, assert_one_clear_line, sampler
from tests.interface.test_check_json import KEYS, OUTCOMES, TYPES
from tests.wrong_engines.token_runs import RIGHT, WRONG

LINE = {"prompt": "a", "tokens": [5, 3, 40], "stop_reason": "eos", "logprobs": [-1.5, 0, -0.25]}


def written(tmp_path, *lines):
    path = tmp_path / "runs.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


@st.composite
def some_runs(draw):
    count = draw(st.integers(1, 4))
    recorded = [name for name in SCALARS if draw(st.booleans())]
    text_length = draw(st.one_of(st.none(), st.integers(1, 40)))
    finite = {
        "logprobs": st.floats(-80, 0),
        "entropy": st.floats(0, 10),
        "rank": st.integers(0, 8_000).map(float),
        "margin": st.one_of(st.floats(0, 40), st.just(math.inf)),
    }
    runs = []
    for _ in range(count):
        tokens = tuple(draw(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=8)))
        same = {"min_size": len(tokens), "max_size": len(tokens)}
        scalars = {name: np.array(draw(st.lists(finite[name], **same))) for name in recorded}
        if text_length is not None:
            places = draw(st.lists(st.integers(0, text_length - 1), **same))
            scalars |= {"position": np.array(places, dtype=np.int64), "text_length": text_length}
        reason = draw(st.sampled_from(["eos", "forced_eos", "length", "error"]))
        runs.append(TokenRun(draw(st.text(max_size=5)), tokens, reason, **scalars))
    return runs


@given(some_runs())
def test_what_is_written_is_read_again(tmp_path_factory, runs):
    path = tmp_path_factory.mktemp("runs") / "deep" / "runs.jsonl"
    write_token_runs(path, runs)
    again = read_token_runs(path)
    assert again == runs
    for one, other in zip(again, runs, strict=True):
        for name in STEPS:
            mine, theirs = getattr(one, name), getattr(other, name)
            assert (mine is None) == (theirs is None)
            assert mine is None or np.allclose(mine, theirs, rtol=1e-6, atol=1e-30)
    assert list(path.parent.iterdir()) == [path]


def test_a_generation_becomes_a_run():
    scalars = {"logprob": [-1, -2], "rank": [0, 4], "entropy": [1, 2], "margin": [math.inf, 0.5]}
    record = Record(**{name: np.array(values, dtype=np.float32) for name, values in scalars.items()}, slot=0, width=1)
    run = token_run("a", Generation((np.int64(7), 40), "eos", record), expected=3.0)
    assert run == TokenRun("a", (7, 40), "eos", expected=3.0)
    assert run.rank.tolist() == [0.0, 4.0]
    assert run.margin.tolist() == [math.inf, 0.5]
    assert (run.length, run.spoken.tolist(), run.ended) == (1, [7], True)
    assert (run.position, run.text_length) == (None, None)
    bare = token_run("a", Generation((7, 8), "length"))
    assert (bare.length, bare.logprobs, bare.ended, bare.position) == (2, None, False, None)
    attention = np.array([[[0, 0.4, 0.6], [0.3, 0.4, 0.3]], [[0, 0.5, 0.1], [0.5, 0.4, 0.1]]], dtype=np.float32)
    seen = token_run("a", Generation((7, 40), "eos", replace(record, attention=attention)))
    assert (seen.position.tolist(), seen.text_length) == ([1, 0], 3)  # the lowest of equal places


def test_positions_are_where_the_heads_together_look():
    places = positions(np.zeros((2, 0, 5), dtype=np.float32))
    assert (places.shape, places.dtype) == ((0,), np.int64)
    with pytest.raises(ValueError, match=re.escape("attention of shape (4, 5)")):
        positions(np.zeros((4, 5)))
    with pytest.raises(ValueError, match=re.escape("attention of shape (0, 4, 5)")):
        positions(np.zeros((0, 4, 5)))


def test_a_run_that_stopped_at_once_needs_no_positions(tmp_path):
    runs = [TokenRun("a", (1, 40), "eos", position=np.array([0, 2]), text_length=3), TokenRun("a", (), "error")]
    write_token_runs(tmp_path / "runs.jsonl", runs)
    again = read_token_runs(tmp_path / "runs.jsonl")
    assert again == runs
    assert again[1].position.tolist() == []


def test_everything_that_may_stand_in_a_line_is_read(tmp_path):
    full = {**LINE, "prompt": 12, "entropy": [1, 2.5, 0], "rank": [0, 1, 2], "margin": [0.5, None, 3], "seed": 4}
    full |= {"position": [0, 2, 1], "text_length": 3}
    path = written(tmp_path, "\ufeff" + json.dumps({**full, "expected_length": 2.5}), "", "  ")
    (run,) = read_token_runs(path)
    assert run == TokenRun("12", (5, 3, 40), "eos", expected=2.5, text_length=3)
    assert (run.position.tolist(), run.position.dtype) == ([0, 2, 1], np.int64)
    assert run.margin.tolist() == [0.5, math.inf, 3.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logprob": []}, "unknown key 'logprob' (did you mean 'logprobs'?)"),
        ({"audio": 1}, "unknown key 'audio' (known: cell, request, prompt, tokens"),
        ({"tokens": [5, 3.0, 40]}, "tokens[1] = 3.0 (expected a list of whole numbers from 0, null where"),
        ({"tokens": [5, -3, 40]}, "tokens[1] = -3"),
        ({"tokens": [5, 2**31, 40]}, "tokens[1] = 2147483648"),
        ({"tokens": [5, True, 40]}, "tokens[1] = True"),
        ({"tokens": [5, "12", 40]}, "tokens[1] = '12'"),
        ({"tokens": [5, [3], 40]}, "tokens[1] = [3]"),
        ({"tokens": [5, None, 4.0]}, "tokens[2] = 4.0"),
        ({"tokens": [5, None, None]}, "tokens[1] = null (what was left out can be scored under a model"),
        ({"tokens": "5 3 40"}, "tokens = '5 3 40'"),
        ({"stop_reason": "stop"}, "stop_reason = 'stop' (expected eos, forced_eos, length or error)"),
        ({"tokens": [], "logprobs": []}, "tokens = [] with stop_reason 'eos' (tokens include EOS)"),
        ({"logprobs": [-1, -2]}, "logprobs has 2 values for 3 tokens"),
        ({"logprobs": [math.nan, -1, -1]}, "logprobs[0] = NaN"),
        ({"logprobs": [-1, 0.5, -1]}, "logprobs[1] = 0.5 (expected natural logarithms"),
        ({"rank": [0, 1.5, 2]}, "rank[1] = 1.5"),
        ({"entropy": [0, -1, 2]}, "entropy[1] = -1"),
        ({"margin": ["inf", 1, 2]}, "margin[0] = 'inf' (expected a list of numbers, null"),
        ({"expected_length": 0}, "expected_length = 0 (expected a number of tokens above 0)"),
        ({"position": [0, 1], "text_length": 2}, "position has 2 values for 3 tokens"),
        ({"position": [0, -1, 0], "text_length": 2}, "position[1] = -1 (expected a list of whole numbers"),
        ({"position": [0, 1.5, 0], "text_length": 2}, "position[1] = 1.5"),
        ({"position": [0, 1, 2]}, "key 'text_length' is missing (position needs the length"),
        ({"position": [0, 2, 1], "text_length": 2}, "position[1] = 2 (expected less than text_length = 2)"),
        ({"text_length": 0}, "text_length = 0 (expected a whole number above 0"),
        ({"seed": "1"}, "seed = '1'"),
        ({"prompt": None}, "prompt = None"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, changes, message):
    with pytest.raises(TokensError, match=re.escape(f"line 1: {message}")):
        read_token_runs(written(tmp_path, LINE | changes))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "runs.jsonl has no lines"),
        (["", " "], "runs.jsonl has no lines"),
        (["{"], "runs.jsonl, line 1 is no JSON"),
        ([{}, "[1, 2]"], "runs.jsonl, line 2 is no object: [1, 2]"),
        ([{}, "{}"], "runs.jsonl, line 2: key 'prompt' is missing"),
        (['{"prompt": "a", "prompt": "b"}'], "line 1: the key 'prompt' occurs twice"),
        ([{}, {"position": [0, 1, 0], "text_length": 2}], "line 2 has 'position', line 1 has not"),
        ([{"text_length": 2}, {"text_length": 3}], "line 2: text_length = 3 of prompt 'a', line 1 has 2 (a prompt has"),
        ([{}, {"logprobs": None}], "line 1 has 'logprobs', line 2 has not (give it in all lines or in none)"),
        ([{"logprobs": None}, {}], "line 2 has 'logprobs', line 1 has not"),
        ([{"seed": 1}, {"seed": 1}], "line 2: prompt 'a' with seed 1 is in line 1 too"),
        ([{"expected_length": 2}, {"expected_length": 3}], "line 2: expected_length = 3.0 of prompt 'a', line 1 has"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, lines, message):
    lines = [line if isinstance(line, str) else LINE | line for line in lines]
    with pytest.raises(TokensError, match=re.escape(message)):
        read_token_runs(written(tmp_path, *lines))


def test_files_that_are_none_are_named(tmp_path):
    with pytest.raises(TokensError, match=r"missing\.jsonl cannot be read: No such file"):
        read_token_runs(tmp_path / "missing.jsonl")
    with pytest.raises(TokensError, match="cannot be read: Is a directory"):
        read_token_runs(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}')
    with pytest.raises(TokensError, match=r"is no UTF-8 text: .* at byte 12"):
        read_token_runs(tmp_path / "latin.jsonl")


def test_runs_that_could_not_be_read_again_are_not_written(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text("before", encoding="utf-8")
    run = TokenRun("a", (1, 40), "eos", np.array([-1.0, math.nan]))
    with pytest.raises(TokensError, match=r"run 2: logprobs\[1\] = NaN"):
        write_token_runs(path, [replace(run, logprobs=np.zeros(2)), run])
    with pytest.raises(TokensError, match="would have no lines"):
        write_token_runs(path, [])
    with pytest.raises(TokensError, match="line 1 has 'logprobs', line 2 has not"):
        write_token_runs(path, [replace(run, logprobs=np.zeros(2)), replace(run, logprobs=None)])
    assert path.read_text(encoding="utf-8") == "before"
    with pytest.raises(OutputError):
        write_token_runs(path / "below", [replace(run, logprobs=None)])
    assert [file.name for file in tmp_path.iterdir()] == ["runs.jsonl"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    for name, source, seed in (("ref", RIGHT, 1), ("right", RIGHT, 2), ("warm", WRONG["warmer"].source, 2)):
        write_token_runs(folder / f"{name}.jsonl", source.runs(30, seed))
    few = [replace(run, logprobs=None, entropy=None, rank=None, margin=None) for run in RIGHT.runs(4, 3)]
    write_token_runs(folder / "few.jsonl", few)
    return folder


def check(files, *arguments):
    result = sampler("check", *arguments, "--json", files / "report.json")
    report = json.loads((files / "report.json").read_text(encoding="utf-8"))
    assert list(report) == KEYS
    for verdict in report["verdicts"]:
        assert verdict.keys() == TYPES.keys()
        assert all(isinstance(verdict[name], kind) for name, kind in TYPES.items())
        assert (verdict["level"], verdict["case"].split("/")[0]) == ("generate", "tokens")
        assert verdict["outcome"] in OUTCOMES
    outcomes = {verdict["case"].removeprefix("tokens/"): verdict["outcome"] for verdict in report["verdicts"]}
    return result, report, outcomes


def test_a_warmer_engine_disagrees_and_its_line_shows_it_again(files):
    result, report, outcomes = check(files, files / "warm.jsonl", "--against", files / "ref.jsonl")
    assert (result.returncode, report["outcome"]) == (1, "disagrees")
    assert report["against"] == str(files / "ref.jsonl")
    assert report["diagnosis"][0]["stage"] == "draw"
    assert "mean entropy is larger" in report["diagnosis"][0]["explanation"]
    assert outcomes["drift/entropy"] == "failed"
    (failed,) = (verdict for verdict in report["verdicts"] if verdict["case"] == "tokens/drift/entropy")
    assert failed["reproduce"] in result.stdout
    again = sampler(*shlex.split(failed["reproduce"])[1:])
    assert again.returncode == 1
    assert failed["message"] in again.stdout


def test_the_same_engine_agrees_at_a_rate_for_which_its_runs_are_enough(files):
    arguments = (files / "right.jsonl", "--against", files / "ref.jsonl", "--false-alarm-rate", "1e-3")
    result, report, outcomes = check(files, *arguments)
    assert (result.returncode, report["outcome"], report["false_alarm_rate"]) == (0, "agrees", 1e-3)
    assert outcomes["drift/length"] == outcomes["stopping/early"] == "passed"
    assert "120 runs of 4 texts" in result.stdout
    assert "detects" in result.stdout


def test_few_runs_without_a_reference_say_how_to_get_one(files):
    result, report, outcomes = check(files, files / "few.jsonl")
    assert (result.returncode, report["outcome"]) == (3, "inconclusive"), "nothing says whether they loop too often"
    assert outcomes["stopping/ends"] == "passed"
    assert outcomes["loops/looping"] == outcomes["stopping/endless"] == "inconclusive"
    assert outcomes["drift/length"] == outcomes["stopping/missing"] == "skipped"
    assert "give some with --against" in result.stdout
    assert "docs/tokens.md" in result.stdout


def test_texts_of_one_file_alone_are_named(files):
    other = files / "other.jsonl"
    scalars = {name: np.zeros(2) for name in SCALARS}
    alone = TokenRun("alone", (1, 40), "eos", **scalars, position=np.array([0, 1]), text_length=3)
    write_token_runs(other, [*RIGHT.runs(3, 4), alone])
    result = check(files, other, "--against", files / "ref.jsonl")[0]
    assert "left out, because only one of the files has them: 1 texts, 'alone'" in result.stdout


def test_nothing_is_written_where_a_file_is_wrong(tmp_path):
    (tmp_path / "bad.jsonl").write_text("{}", encoding="utf-8")
    result = sampler("check", tmp_path / "bad.jsonl", "--json", tmp_path / "out.json")
    assert_one_clear_line(result, "line 1: key 'prompt' is missing")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]


DOCUMENT = (ROOT / "docs" / "tokens.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, flags=re.MULTILINE | re.DOTALL)


def test_the_document_has_every_key_and_its_example_is_a_file(tmp_path):
    for key in ("prompt", "tokens", "stop_reason", *STEPS, "text_length", "expected_length", "seed"):
        assert f"| `{key}` |" in DOCUMENT
    (text,) = blocks("json")
    runs = read_token_runs(written(tmp_path, text))
    assert [run.stop_reason for run in runs] == ["eos", "eos", "length"]
    assert all(run.logprobs is not None for run in runs)


def test_the_python_of_the_document_writes_a_file_that_is_read(tmp_path, monkeypatch):
    (text,) = blocks("python")
    monkeypatch.chdir(tmp_path)
    exec(text.replace("range(20)", "range(2)").replace("[:16]", "[:2]").replace("700", "30"), {})
    runs = read_token_runs(Path("reference.jsonl"))
    assert len(runs) == 4
    assert len({run.text for run in runs}) == 2
    assert all(run.entropy is not None and run.expected for run in runs)
