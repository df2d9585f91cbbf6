"""`sampler run` catches each wrong engine by the check and the stage of its fault, and accuses no right engine."""

import shlex
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from sampler.checks.steps.table import CHECKS
from sampler.checks.verdict import SCORED
from sampler.engines.huggingface.chain import HuggingFaceEngine
from sampler.matrix.matrix import find_matrix, load_matrix
from sampler.results.store.run_file import read_run
from sampler.run.session import Session
from tests import sessions
from tests.commands import ROOT, sampler
from tests.wrong_engines.own_noise import OWN_NOISE, STAGES, UNNAMED
from tests.wrong_engines.repeating import WRONG_STAGES

MINIATURES = ROOT / "tests" / "miniatures.py"
MATRIX = """
why = "Every stage is on in one cell or the other, so that a fault of any of them shows."
[generation]
requests = 2
width = 2
max_new_tokens = 120
[knobs]
top_k = 60
[axes]
top_p = [1.0, 0.9]
"""
later = partial(pytest.param, marks=pytest.mark.nightly("every engine generates two sentences"))

FAULTS = [
    later("ignores_min_p", 1.0, "allowed", "min_p"),
    later("ignores_top_p", 0.9, "allowed", "top_p"),
    later("truncates_before_temperature", 1.0, "allowed", "min_p"),
    later("ignores_the_penalty", 1.0, "draws", "repetition_penalty"),
    later("always_greedy", 1.0, "draws", "draw"),
    later("counts_in_numpy", 1.0, "allowed", "min_p"),
    later("tempers_twice", 1.0, "draws", "draw"),
    later("swaps_guidance", 1.0, "draws", "draw"),
    later("freezes_noise", 1.0, "draws", "draw"),
    later("ignores_the_seed", 1.0, "repeats", "seed"),
    ("seeds_by_slot", 1.0, "repeats", "batch"),
    later("never_stops", 1.0, "stops", "stop"),
    ("drops_the_crossing_token", 0.9, "chain", "top_p"),
    later("drops_the_crossing_token_in_its_one_order", 0.9, "chain", "top_p"),
    later("drops_the_crossing_token_and_refuses_other_orders", 0.9, "chain", "top_p"),
    later("answers_with_nan", 1.0, "chain", "purity"),
    later("writes_its_input", 1.0, "chain", "purity"),
    later("takes_the_history_of_another_row", 1.0, "chain", "batch"),
    ("says_eos_at_the_cap", 1.0, "stops", "stop"),
]
"""Engine, top_p of the cell that shows it, check and stage."""


@pytest.fixture(scope="module")
def matrix_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("wrong") / "faults.toml"
    path.write_text(MATRIX, encoding="utf-8")
    return path


def verdicts_of(matrix_file: Path, engine: str, top_p: float = 0.9):
    session = Session(load_matrix(matrix_file), 0, f"{MINIATURES}:{engine}")
    case = next(case for case in session.matrix.cases if case.config.top_p == top_p)
    return sessions.verdicts_of(session, case.cell)


@pytest.mark.parametrize(("engine", "top_p", "check", "stage"), FAULTS)
def test_a_wrong_engine_is_caught_and_its_stage_is_named(matrix_file, engine, top_p, check, stage):
    verdicts = verdicts_of(matrix_file, engine, top_p)
    assert list(verdicts) == [*(name for name, *_ in CHECKS), *SCORED]
    assert verdicts[check].outcome == "failed"
    assert verdicts[check].stage == stage
    assert verdicts[check].message
    assert f"faults/top_p:{top_p}/{check} --seed 0 --engine" in verdicts[check].reproduce


ONE = "last_row_ignores_its_seed"
"""By day; those with noise of their own speak thousands of tokens."""


@pytest.mark.parametrize("engine", [ONE, *(later(name) for name in WRONG_STAGES if name != ONE)])
def test_what_repeats_only_in_its_row_or_only_for_some_requests_is_caught(matrix_file, engine):
    verdict = verdicts_of(matrix_file, engine)["repeats"]
    assert (verdict.outcome, verdict.stage) == ("failed", WRONG_STAGES[engine])


RIGHT = [
    "right",
    later("right_in_float64"),
    later("right_with_another_but_equivalent_order"),
    later("rounds_otherwise_in_a_batch"),
    later("reads_the_context"),
]


@pytest.mark.parametrize("engine", RIGHT)
def test_a_right_engine_is_not_accused(matrix_file, engine):
    for verdict in verdicts_of(matrix_file, engine).values():
        assert verdict.outcome == "passed", verdict.message
        assert verdict.reproduce == ""
        assert verdict.n > 0


@pytest.mark.parametrize("engine", ["forgets_bos", "divides_negative_scores"])
@pytest.mark.nightly("what it says is a limit, which sampler check covers by day")
def test_faults_of_unlikely_tokens_pass_here_and_need_sampler_check(matrix_file, engine):
    assert {verdict.outcome for verdict in verdicts_of(matrix_file, engine).values()} == {"passed"}


@pytest.mark.parametrize(
    ("engine", "outcome", "message"),
    [
        ("without_top_p", "skipped", "core:finch does not support top_p"),
        ("says_that_it_is_done", "errored", "ValueError: request 0 stopped for 'done', expected one of eos, forced"),
        ("loses_a_request", "errored", "ValueError: generate() gave 1 generations for 2 requests"),
        ("Raises", "errored", "ValueError: no such device"),
        ("OnlyProcesses", "skipped", "reference does not generate"),
    ],
)
def test_an_engine_without_answers_has_one_outcome_and_reason_in_every_check(matrix_file, engine, outcome, message):
    for verdict in verdicts_of(matrix_file, engine).values():
        assert verdict.outcome == outcome
        assert message in verdict.message


def test_an_engine_is_judged_in_the_cells_whose_stages_it_has(matrix_file):
    assert {verdict.outcome for verdict in verdicts_of(matrix_file, "without_top_p", 1.0).values()} == {"passed"}


def test_an_engine_of_one_order_is_judged_in_that_order(matrix_file, tmp_path):
    assert {verdict.outcome for verdict in verdicts_of(matrix_file, "in_its_one_order").values()} == {"passed"}
    path = tmp_path / "ordered.toml"
    text = "why = 'x'\n[generation]\nrequests = 1\n[knobs]\norder = ['temperature', 'min_p']\n"
    path.write_text(text, encoding="utf-8")
    for verdict in verdicts_of(path, "in_its_one_order", 1.0).values():
        assert verdict.outcome == "skipped"
        assert verdict.message == "core:finch does not offer the order temperature>min_p"


@pytest.mark.nightly("by day other engines with noise of their own are judged, over 20 seeds")
def test_draws_from_another_generator_follow_the_chain(matrix_file):
    """Runs with further seeds are generated until half the temperature would have been seen."""
    verdicts = verdicts_of(matrix_file, "draws_with_its_own_generator")
    assert verdicts["draws"].outcome == "passed"
    assert "fit the chain's distribution" in verdicts["draws"].message
    assert verdicts["draws"].alpha == pytest.approx(2e-7)
    others = ("allowed", "chain", "repeats", "records", "seeds", "stops")
    assert {verdicts[check].outcome for check in others} == {"passed"}


def test_what_no_record_shows_is_skipped_and_the_tokens_alone_tell_it(matrix_file):
    verdicts = verdicts_of(matrix_file, "ignores_guidance")
    for check in ("allowed", "draws", "chain"):
        assert verdicts[check].outcome == "skipped"
        assert "no unconditional logits" in verdicts[check].message
    assert (verdicts["impossible"].outcome, verdicts["impossible"].stage) == ("failed", "cfg")


def test_lower_precision_is_judged_with_its_tolerance(matrix_file):
    for check, verdict in verdicts_of(matrix_file, "in_bfloat16").items():
        assert verdict.outcome == "passed", verdict.message
        in_half = ("allowed", "draws", "chain", "records", *SCORED)
        assert ("bfloat16" in verdict.message) == (check in in_half)


@pytest.mark.nightly("every engine speaks four sentences five times")
@pytest.mark.parametrize("engine", OWN_NOISE)
def test_an_engine_with_noise_of_its_own_is_judged_in_smoke(engine):
    """By its sampled tokens alone: no greedy cell is asked."""
    stage = STAGES.get(engine)
    session = Session(load_matrix(find_matrix("smoke")), 0, f"{MINIATURES}:{engine}")
    verdicts = sessions.verdicts_of(session, f"temperature:0.8+cfg_weight:{0.5 if session.engine.info.cfg else 0.0}")
    failed = [verdict.stage for verdict in verdicts.values() if verdict.outcome == "failed"]
    messages = [verdict.message for verdict in verdicts.values()]
    assert bool(failed) == bool(stage), messages
    assert engine in UNNAMED or failed[:1] == ([stage] if stage else []), messages
    assert stage or verdicts["draws"].detectable <= verdicts["draws"].required


def test_an_engine_that_leaves_the_program_is_errored(matrix_file, tmp_path):
    path = tmp_path / "leaves.py"
    path.write_text("import sys\nsys.exit(0)\n", encoding="utf-8")
    result = sampler("run", matrix_file, "--engine", f"{path}:make", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "leaves.py cannot be imported: SystemExit: 0" in result.stderr


class Wrong:
    """An oracle that is wrong itself."""

    info = HuggingFaceEngine().info

    def __init__(self, change):
        self.change = change

    def process(self, *inputs):
        return self.change(HuggingFaceEngine().process(*inputs))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda scores: np.full_like(scores, np.nan), id="NaN"),
        later(np.zeros_like, id="all kept"),
        later(lambda scores: np.where(scores == scores.max(-1, keepdims=True), -np.inf, scores), id="best removed"),
    ],
)
def test_an_oracle_that_disagrees_with_the_reference_is_no_agreement(matrix_file, change, monkeypatch):
    monkeypatch.setattr(Session, "oracle", (Wrong(change), ""))
    verdict = verdicts_of(matrix_file, "right")["chain"]
    assert verdict.outcome == "errored"
    assert "and the float64 reference disagree; request 0, step 0" in verdict.message


@pytest.mark.nightly("the story does the same for one engine by day")
def test_the_printed_line_shows_the_failure_again(tmp_path):
    """The line behind `Reproduce with:` is run as it is printed; so is the crash file that lies beside it."""
    path = tmp_path / "faults.toml"
    path.write_text(MATRIX.replace("[1.0, 0.9]", "[1.0]"), encoding="utf-8")
    first = sampler("run", path, "--engine", f"{MINIATURES}:ignores_min_p", "--seed", 3, "--out", tmp_path)
    assert first.returncode == 1, first.stderr
    lines = [line.split("Reproduce with: ")[1] for line in first.stdout.splitlines() if "Reproduce with: " in line]
    failed = [verdict for verdict in read_run(tmp_path / "run.jsonl").verdicts if verdict.outcome == "failed"]
    assert lines == [verdict.reproduce for verdict in failed]
    assert "allowed" in [verdict.check for verdict in failed]
    program, *arguments = shlex.split(lines[0])
    again = sampler(*arguments)
    assert (program, again.returncode) == ("sampler", 1), again.stderr
    assert failed[0].message in again.stdout
    crashes = sorted((tmp_path / "crashes").glob("*.json"))
    outputs = [sampler("replay", crash) for crash in crashes]
    assert {output.returncode for output in outputs} == {1}
    assert any("min_p removes it" in output.stdout for output in outputs)
