"""`sampler run` catches each liar by the check and the stage that its lie concerns, and accuses no right engine."""

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sampler.checks.steps.table import CHECKS
from sampler.engines.huggingface.chain import HuggingFaceEngine
from sampler.matrix.matrix import load_matrix
from sampler.results.store.run_file import read_run
from sampler.run.session import Session
from tests import sessions

HERE = Path(__file__).parent.parent
MATRIX = """
why = "Every stage is on in one cell or the other, so that a lie about any of them can be seen."
[generation]
requests = 2
width = 2
max_new_tokens = 400
[knobs]
top_k = 60
[axes]
top_p = [1.0, 0.9]
"""

LIES = [
    ("ignores_min_p", 1.0, "allowed", "min_p"),
    ("ignores_top_p", 0.9, "allowed", "top_p"),
    ("truncates_before_temperature", 1.0, "allowed", "min_p"),
    ("ignores_the_penalty", 1.0, "draws", "repetition_penalty"),
    ("always_greedy", 1.0, "draws", "draw"),
    ("counts_in_numpy", 1.0, "allowed", "min_p"),
    ("tempers_twice", 1.0, "draws", "draw"),
    ("swaps_guidance", 1.0, "draws", "draw"),
    ("freezes_noise", 1.0, "draws", "draw"),
    ("ignores_the_seed", 1.0, "repeats", "seed"),
    ("seeds_by_slot", 1.0, "repeats", "batch"),
    ("never_stops", 1.0, "stops", "stop"),
    ("drops_the_crossing_token", 0.9, "chain", "top_p"),
    ("drops_the_crossing_token_in_its_one_order", 0.9, "chain", "top_p"),
    ("drops_the_crossing_token_and_refuses_other_orders", 0.9, "chain", "top_p"),
    ("answers_with_nan", 1.0, "chain", "purity"),
    ("writes_its_input", 1.0, "chain", "purity"),
    ("takes_the_history_of_another_row", 1.0, "chain", "batch"),
    ("says_eos_at_the_cap", 1.0, "stops", "stop"),
]
"""Engine, top_p of the cell that shows it, check and stage."""


@pytest.fixture(scope="module")
def matrix_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("wrong") / "faults.toml"
    path.write_text(MATRIX, encoding="utf-8")
    return path


def verdicts_of(matrix_file: Path, engine: str, top_p: float = 0.9):
    session = Session(load_matrix(matrix_file), 0, f"{HERE / 'miniatures.py'}:{engine}")
    case = next(case for case in session.matrix.cases if case.config.top_p == top_p)
    return sessions.verdicts_of(session, case.cell)


@pytest.mark.parametrize(("engine", "top_p", "check", "stage"), LIES)
def test_a_liar_is_caught_and_its_stage_is_named(matrix_file, engine, top_p, check, stage):
    verdicts = verdicts_of(matrix_file, engine, top_p)
    assert list(verdicts) == [name for name, *_ in CHECKS]
    assert verdicts[check].outcome == "failed"
    assert verdicts[check].stage == stage
    assert verdicts[check].message
    assert f"faults/top_p:{top_p}/{check} --seed 0 --engine" in verdicts[check].reproduce


RIGHT = [
    "right",
    "right_in_float64",
    "right_with_another_but_equivalent_order",
    "rounds_otherwise_in_a_batch",
    "reads_the_context",
]


@pytest.mark.parametrize("engine", RIGHT)
def test_a_right_engine_is_not_accused(matrix_file, engine):
    for verdict in verdicts_of(matrix_file, engine).values():
        assert verdict.outcome == "passed", verdict.message
        assert verdict.reproduce == ""
        assert verdict.n > 0


@pytest.mark.parametrize("engine", ["forgets_bos", "divides_negative_scores"])
def test_what_these_checks_cannot_see_is_said(matrix_file, engine):
    """Lies about tokens that are never likely: no draw of a real model depends on them.

    Logits made to tell right from wrong will show them (`sampler check`); here they stand as known blind spots.
    """
    assert {verdict.outcome for verdict in verdicts_of(matrix_file, engine).values()} == {"passed"}


def test_what_an_engine_says_it_lacks_is_skipped(matrix_file):
    for verdict in verdicts_of(matrix_file, "without_top_p", 0.9).values():
        assert verdict.outcome == "skipped"
        assert verdict.message == "core:finch does not support top_p"
    assert {verdict.outcome for verdict in verdicts_of(matrix_file, "without_top_p", 1.0).values()} == {"passed"}


def test_an_engine_of_one_order_is_judged_in_that_order(matrix_file, tmp_path):
    assert {verdict.outcome for verdict in verdicts_of(matrix_file, "in_its_one_order").values()} == {"passed"}
    path = tmp_path / "ordered.toml"
    path.write_text(
        "why = 'x'\n[generation]\nrequests = 1\n[knobs]\norder = ['temperature', 'min_p']\n", encoding="utf-8"
    )
    for verdict in verdicts_of(path, "in_its_one_order", 1.0).values():
        assert verdict.outcome == "skipped"
        assert verdict.message == "core:finch does not offer the order temperature>min_p"


def test_draws_from_another_generator_are_no_failure(matrix_file):
    """Which tokens come out is then not the suite's to say; that they were allowed is."""
    verdicts = verdicts_of(matrix_file, "draws_with_its_own_generator")
    assert verdicts["draws"].outcome == "skipped"
    assert "noise of its own" in verdicts["draws"].message
    assert {verdicts[check].outcome for check in ("allowed", "chain", "repeats", "stops")} == {"passed"}


def test_what_cannot_be_judged_is_skipped(matrix_file):
    """Guidance without the logits that it mixes, and a precision without a tolerance: not passed, not failed."""
    for engine, message in (("ignores_guidance", "no unconditional logits"), ("in_bfloat16", "bfloat16")):
        verdicts = verdicts_of(matrix_file, engine)
        for check in ("allowed", "draws", "chain"):
            assert verdicts[check].outcome == "skipped"
            assert message in verdicts[check].message


def test_an_answer_that_there_is_not_is_errored(matrix_file):
    for verdict in verdicts_of(matrix_file, "says_that_it_is_done").values():
        assert verdict.outcome == "errored"
        assert verdict.message.startswith("ValueError: request 0 stopped for 'done', expected one of eos, forced_eos")


def test_an_engine_that_leaves_the_program_is_errored(matrix_file, tmp_path):
    path = tmp_path / "leaves.py"
    path.write_text("import sys\nsys.exit(0)\n", encoding="utf-8")
    result = sampler("run", str(matrix_file), "--engine", f"{path}:make", "--out", str(tmp_path / "out"))
    assert result.returncode == 2
    assert "leaves.py cannot be imported: SystemExit: 0" in result.stderr


class Wrong:
    """Oracles that are none: HuggingFace has to be seen to be wrong as well."""

    info = HuggingFaceEngine().info

    def __init__(self, change):
        self.change = change

    def process(self, *inputs):
        return self.change(HuggingFaceEngine().process(*inputs))


@pytest.mark.parametrize(
    "change",
    [
        lambda scores: np.full_like(scores, np.nan),
        np.zeros_like,
        lambda scores: np.where(scores == scores.max(-1, keepdims=True), -np.inf, scores),
    ],
    ids=["NaN", "all kept", "best removed"],
)
def test_an_oracle_that_disagrees_with_the_reference_is_no_agreement(matrix_file, change, monkeypatch):
    monkeypatch.setattr(Session, "oracle", (Wrong(change), ""))
    verdict = verdicts_of(matrix_file, "right")["chain"]
    assert verdict.outcome == "errored"
    assert "and the float64 reference disagree; request 0, step 0" in verdict.message


def test_a_request_without_an_answer_is_errored_in_every_check(matrix_file):
    for verdict in verdicts_of(matrix_file, "loses_a_request").values():
        assert verdict.outcome == "errored"
        assert verdict.message == "ValueError: generate() gave 1 generations for 2 requests"


def test_an_engine_that_breaks_is_errored_in_every_check(matrix_file):
    for verdict in verdicts_of(matrix_file, "Raises").values():
        assert verdict.outcome == "errored"
        assert verdict.message == "ValueError: no such device"


def test_an_engine_that_cannot_generate_is_skipped(matrix_file):
    for verdict in verdicts_of(matrix_file, "OnlyProcesses").values():
        assert verdict.outcome == "skipped"
        assert "reference does not generate" in verdict.message


def sampler(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sampler", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent, check=False, timeout=300)


def test_the_printed_line_shows_the_failure_again(matrix_file, tmp_path):
    """The line behind `Reproduce with:` is run as it is printed; so is the crash file that lies beside it."""
    engine = f"{HERE / 'miniatures.py'}:ignores_min_p"
    first = sampler("run", str(matrix_file), "--engine", engine, "--seed", "3", "--out", str(tmp_path))
    assert first.returncode == 1, first.stderr
    lines = [line.split("Reproduce with: ")[1] for line in first.stdout.splitlines() if "Reproduce with: " in line]
    failed = [verdict for verdict in read_run(tmp_path / "run.jsonl").verdicts if verdict.outcome == "failed"]
    assert lines == [verdict.reproduce for verdict in failed]
    assert "allowed" in [verdict.check for verdict in failed]
    for line, verdict in zip(lines, failed, strict=True):
        program, *arguments = shlex.split(line)
        assert program == "sampler"
        again = sampler(*arguments)
        assert again.returncode == 1, again.stderr
        assert verdict.message in again.stdout
    crashes = sorted((tmp_path / "crashes").glob("*.json"))
    assert crashes
    outputs = [sampler("replay", str(crash)) for crash in crashes]
    assert {output.returncode for output in outputs} == {1}
    assert any("min_p removes it" in output.stdout for output in outputs)
