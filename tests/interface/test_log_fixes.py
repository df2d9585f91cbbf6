"""`sampler check --fix` and `sampler tokens convert --fix`, for ports that cost next to nothing (wrong_engines)."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from sampler.checks.longform.log.edits import FIXES
from sampler.checks.longform.runs import SCALARS, TokenRun
from sampler.results.store.tokens import read_lines, write_token_runs
from tests.commands import assert_one_clear_line, sampler
from tests.interface.log_changes import BOS, VOICE, bare, filled, led, recorded, shifted, stripped
from tests.wrong_engines.token_runs import EOS, RIGHT, WRONG

PENALTY_OFF = "repetition_penalty:1.0"


def as_port(runs, change=lambda runs: runs):
    """Runs that keep their measures where a change leaves their number as it is."""
    after = change([replace(run, **dict.fromkeys((*SCALARS, "position", "text_length"))) for run in runs])
    pairs = list(zip(runs, after, strict=True))
    same = all(len(before.tokens) == len(run.tokens) for before, run in pairs)
    return [replace(before, tokens=run.tokens) for before, run in pairs] if same else after


SMALL = {
    "bos": lambda runs: led(runs, 41),
    "prefix": lambda runs: led(runs, 3, 17, 8, 30, 5),
    "padding": lambda runs: filled(runs, 0),
    "eos": stripped,
    "offset": lambda runs: shifted(runs, 1),
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "reference.jsonl"
    write_token_runs(path, as_port(RIGHT.runs(30, 1)))
    return path


def checked(path, *options):
    report = path.with_suffix(".json")
    result = sampler("check", path, *options, "--false-alarm-rate", "1e-3", "--json", report)
    return result, json.loads(report.read_text(encoding="utf-8"))


@cache
def small(name):
    return RIGHT.runs(30, 2) if name == "right" else WRONG["penalty_dropped"].source.runs(30, 2)


@pytest.mark.parametrize("fix", SMALL)
def test_a_right_port_is_not_accused_and_agrees_after_the_fix(tmp_path, reference, fix):
    path = tmp_path / "port.jsonl"
    write_token_runs(path, as_port(small("right"), SMALL[fix]))
    result, report = checked(path, "--against", reference)
    assert (result.returncode, report["outcome"], report["diagnosis"]) == (3, "inconclusive", [])
    assert [verdict["case"] for verdict in report["verdicts"]] == [f"tokens/log/{fix}"]
    assert f"--fix {fix} puts it right" in result.stdout
    result, report = checked(path, "--against", reference, "--fix", fix)
    assert (result.returncode, report["outcome"]) == (0, "agrees")
    assert f"{fix} was put right" in result.stdout


def test_a_wrong_port_is_not_accused_for_the_changes_and_caught_after_their_fixes(tmp_path, reference):
    path = tmp_path / "port.jsonl"
    changed = as_port(small("wrong"), lambda runs: shifted(led(filled(stripped(runs), 0), 41), 100))
    write_token_runs(path, changed)
    result, report = checked(path, "--against", reference)
    assert (result.returncode, report["outcome"], report["diagnosis"]) == (3, "inconclusive", [])
    cases = [f"tokens/log/{fix}" for fix in ("offset", "padding", "bos", "eos")]
    assert [verdict["case"] for verdict in report["verdicts"]] == cases
    result, report = checked(path, "--against", reference, "--fix", ",".join(FIXES))
    assert (result.returncode, report["diagnosis"][0]["stage"]) == (1, "draw")
    failed = next(verdict for verdict in report["verdicts"] if verdict["outcome"] == "failed")
    assert "--fix offset,padding,bos,prefix,eos" in failed["reproduce"]


def test_ids_of_another_model_are_told_without_a_fix(tmp_path, reference):
    rng = np.random.default_rng(1)
    runs = [TokenRun(f"text {place % 4}", tuple(rng.integers(0, 50_000, 60).tolist()), "length") for place in range(8)]
    write_token_runs(tmp_path / "port.jsonl", runs)
    result, report = checked(tmp_path / "port.jsonl", "--against", reference)
    assert (result.returncode, report["outcome"], report["diagnosis"]) == (3, "inconclusive", [])
    assert f"those of the reference to {EOS}; is it the log of another model?" in result.stdout


def test_a_wrong_port_is_scored_after_the_fix_alone(tmp_path):
    """Against a model: BOS is told, and behind it the penalty that is off."""
    path = tmp_path / "port.jsonl"
    write_token_runs(path, led(recorded(PENALTY_OFF)[0][:3], BOS))
    result, report = checked(path, "--against", "core")
    assert (result.returncode, report["outcome"], report["diagnosis"]) == (3, "inconclusive", [])
    assert "all 3 runs begin with token 2048, as no run of the model does: BOS was left in" in result.stdout
    result, report = checked(path, "--against", "core", "--fix", "bos")
    assert (result.returncode, report["diagnosis"][0]["stage"]) == (1, "repetition_penalty")


def test_convert_puts_right_what_it_is_told(tmp_path, reference):
    path, out = tmp_path / "port.jsonl", tmp_path / "out.jsonl"
    runs = RIGHT.runs(3, 2)
    bare_runs = [bare(run) for run in runs]
    write_token_runs(path, led(filled(bare_runs, 0), 41))
    result = sampler("tokens", "convert", path, "-o", out, "--fix", "padding,bos,eos", "--against", reference)
    assert result.returncode == 0, result.stderr
    assert [line.tokens for line in read_lines(out)] == [run.tokens for run in runs]
    result = sampler("tokens", "convert", path, "-o", out, "--fix", "bos")
    assert [line.tokens for line in read_lines(out)] == [run.tokens for run in filled(bare_runs, 0)]
    assert "--fix padding puts it right" in result.stdout, "what is left is told"
    write_token_runs(path, led(bare_runs, *VOICE))
    assert sampler("tokens", "convert", path, "-o", out, "--fix", "prefix").returncode == 0
    assert [line.tokens for line in read_lines(out)] == [run.tokens for run in runs]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--fix", "bso"), "--fix 'bso' is no fix (did you mean 'bos'?)"),
        (("--fix", "eos"), "--fix eos without --against"),
        (("--fix", "bos,offset"), "--fix offset without --against"),
    ],
)
def test_fixes_that_cannot_be_made_are_refused(tmp_path, options, says):
    write_token_runs(tmp_path / "port.jsonl", [TokenRun("a", (1, 40), "eos")])
    assert_one_clear_line(sampler("check", tmp_path / "port.jsonl", *options), says)
    assert_one_clear_line(sampler("check", "reference", "--fix", "bos"), "--fix bos without a log")
