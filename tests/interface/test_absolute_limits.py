"""Files of token runs that loop or never end: `sampler check` fails or doubts them, with and without a reference."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sampler.checks.longform.runs import TokenRun
from sampler.results.store.tokens import write_token_runs
from tests.commands import assert_one_clear_line, sampler

EOS = 6562
LOOPED = 6405
TEXTS = 10


def healthy(count=TEXTS, seed=1, prefix="text"):
    generator = np.random.default_rng(seed)
    return [
        TokenRun(f"{prefix} {place}", (*generator.integers(0, 6000, 120).tolist(), EOS), "eos")
        for place in range(count)
    ]


def looping(run, pattern=(LOOPED,), reason="length", start=40):
    """The run until a step, then a pattern for ever; it hits its cap, or EOS ends it after all."""
    tail = (pattern * 200)[:200]
    tokens = (*run.tokens[:start], *tail)
    return replace(run, tokens=(*tokens, EOS) if reason == "eos" else tokens, stop_reason=reason)


def endless(run, seed):
    """No loop, and no end."""
    tokens = np.random.default_rng(seed).integers(0, 6000, 240).tolist()
    return replace(run, tokens=tuple(tokens), stop_reason="length")


@pytest.fixture
def check(tmp_path):
    def check(runs, reference=None, *options):
        write_token_runs(tmp_path / "port.jsonl", runs)
        against = []
        if reference:
            write_token_runs(tmp_path / "reference.jsonl", reference)
            against = ["--against", tmp_path / "reference.jsonl"]
        result = sampler("check", tmp_path / "port.jsonl", *against, *options, "--json", tmp_path / "report.json")
        report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
        return result, report, {verdict["case"].removeprefix("tokens/"): verdict for verdict in report["verdicts"]}

    return check


REFERENCES = {
    "none": None,
    "healthy": healthy(seed=2),
    "other texts": healthy(seed=2, prefix="other"),
    "looping too": [looping(run) for run in healthy(seed=2)],
    "many": [run for seed in range(2, 6) for run in healthy(seed=seed)],
}
REST = pytest.mark.nightly("two references and two reasons stand for the others")
BY_DAY = [
    pytest.param(runs, id=name, marks=[] if name in ("none", "healthy") else REST) for name, runs in REFERENCES.items()
]
LOOPS = {"a token": (LOOPED,), "a cycle": (LOOPED, 17, 4218), "a long cycle": tuple(range(LOOPED, LOOPED + 12))}


@pytest.mark.parametrize("reference", BY_DAY)
@pytest.mark.parametrize("reason", ["eos", "length", pytest.param("forced_eos", marks=REST)])
@pytest.mark.parametrize("pattern", LOOPS.values(), ids=LOOPS)
def test_ten_looping_runs_of_ten_disagree_and_the_token_is_named(check, pattern, reason, reference):
    result, report, verdicts = check([looping(run, pattern, reason) for run in healthy()], reference)
    assert (result.returncode, report["outcome"]) == (1, "disagrees")
    found = verdicts["loops/looping"]
    assert found["outcome"] == "failed"
    for text in (result.stdout.replace("\n", " "), found["message"]):
        assert str(LOOPED) in text
        assert "step 40" in text
    assert "10 of 10 runs loop" in found["message"]


@pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES)
def test_ten_runs_of_ten_that_never_end_disagree(check, reference):
    result, report, verdicts = check([endless(run, place) for place, run in enumerate(healthy())], reference)
    assert (result.returncode, report["outcome"]) == (1, "disagrees")
    assert verdicts["stopping/endless"]["outcome"] == "failed"
    assert "10 of 10 runs never ended" in verdicts["stopping/endless"]["message"]
    assert verdicts["loops/looping"]["outcome"] != "failed"


@pytest.mark.parametrize("reason", ["eos", "length"])
@pytest.mark.parametrize("reference", BY_DAY)
def test_one_looping_run_of_ten_is_inconclusive_and_named(check, reference, reason):
    runs = healthy()
    result, report, verdicts = check([*runs[:6], looping(runs[6], reason=reason), *runs[7:]], reference)
    assert (result.returncode, report["outcome"]) == (3, "inconclusive")
    found = verdicts["loops/looping"]
    assert (found["outcome"], found["reason"]) == ("inconclusive", "suspicious")
    for text in (result.stdout.replace("\n", " "), found["message"]):
        assert "text 6" in text
        assert f"token {LOOPED}" in text
        assert "step 40" in text


def test_ten_healthy_runs_agree_only_if_what_they_can_detect_is_what_is_required(check):
    for reference in (None, REFERENCES["healthy"]):
        result, report, verdicts = check(healthy(), reference)
        assert (result.returncode, report["outcome"]) == (3, "inconclusive")
        for case in ("loops/looping", "stopping/endless"):
            found = verdicts[case]
            assert (found["outcome"], found["reason"], found["required"]) == ("inconclusive", "too_few", 0.2)
            assert found["detectable"] > 0.2
    result, report, verdicts = check(healthy(), None, "--detect", "0.95")
    assert (result.returncode, report["outcome"]) == (0, "agrees"), result.stdout
    for case in ("loops/looping", "stopping/endless"):
        assert verdicts[case]["outcome"] == "passed"
        assert verdicts[case]["detectable"] <= 0.95
        assert f"detects at least {verdicts[case]['detectable']:.0%}" in verdicts[case]["message"]


def test_enough_healthy_runs_agree_without_a_reference_and_the_limit_can_be_raised(check):
    runs = [run for seed in range(20) for run in healthy(seed=seed)]
    result, report, _ = check(runs)
    assert (result.returncode, report["outcome"]) == (0, "agrees"), result.stdout
    many = [looping(run) if place % 5 == 0 else run for place, run in enumerate(runs)]
    failed = check(many, None, "--limit-looping", "0.03", "--detect", "0.3")
    assert failed[0].returncode == 1
    assert "--limit-looping 0.03 --detect 0.3" in failed[2]["loops/looping"]["reproduce"]
    result, _, verdicts = check(many, None, "--limit-looping", "0.3", "--limit-missing", "0.3", "--detect", "0.6")
    assert verdicts["loops/looping"]["outcome"] == "passed"
    assert result.returncode == 0


def test_without_a_text_in_common_nothing_is_agreed_upon(check):
    result, report, verdicts = check(healthy(), REFERENCES["other texts"])
    assert result.returncode == 3
    assert report["outcome"] in ("inconclusive", "skipped")
    compared = [verdict for verdict in verdicts.values() if verdict["reason"] == "no_common_text"]
    assert len(compared) > 5
    runs = [run for seed in range(20) for run in healthy(seed=seed)]
    assert check(runs, [replace(run, text=f"other {run.text}") for run in runs])[0].returncode == 3


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=REST), pytest.param(2, marks=REST)])
def test_more_data_never_weakens_a_verdict(check, seed):
    """What fails without a reference fails with any; more runs of the same kind do not make it pass."""
    order = ("passed", "skipped", "inconclusive", "failed")
    for bad in (1, 3, 10):
        runs = [looping(run) if place < bad else run for place, run in enumerate(healthy(seed=seed + 10))]
        alone = check(runs)[2]["loops/looping"]["outcome"]
        for reference in REFERENCES.values():
            assert order.index(check(runs, reference)[2]["loops/looping"]["outcome"]) >= order.index(alone)
        twice = [*runs, *(replace(run, text=f"{run.text} again") for run in runs)]
        assert order.index(check(twice)[2]["loops/looping"]["outcome"]) >= order.index(alone)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--limit-looping", "0"], "--limit-looping 0.0 is no share of runs"),
        (["--limit-missing", "1"], "--limit-missing 1.0 is no share of runs"),
        (["--detect", "nan"], "--detect nan is no share of runs"),
        (["--detect", "-0.5"], "--detect -0.5 is no share of runs"),
    ],
)
def test_a_limit_that_is_no_share_is_refused(tmp_path, options, expected):
    write_token_runs(tmp_path / "port.jsonl", healthy())
    assert_one_clear_line(sampler("check", tmp_path / "port.jsonl", *options), expected)
    assert_one_clear_line(sampler("check", "reference", *options), expected)
    assert_one_clear_line(sampler("replay", "generate/loops/looping", "--engine", "core", *options), expected)
