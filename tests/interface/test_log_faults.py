"""What is common to all runs of a log is told before a stage is blamed, and put right where the user says so.

Each change is made to the runs of a right port and of a wrong one. Nothing is blamed for a change, after its fix the
tokens are those of before, and the log of a right port with no change has no fault.
"""

import random
from dataclasses import replace
from functools import cache

import pytest

from sampler.checks.longform.log.by_runs import ByRuns
from sampler.checks.longform.log.edits import FIXES
from sampler.checks.longform.log.faults import faults_of
from sampler.checks.longform.runs import TokenRun
from sampler.results.store.reference_runs import read_reference, shipped_reference, shipped_runs
from sampler.results.store.tokens import TokenLine
from sampler.run.by_model import ByModel
from sampler.run.scoring import reference_model
from sampler.run.spoken import spoken
from sampler.run.token_log import put_right
from tests.interface.log_changes import (
    BOS,
    END,
    VOICE,
    bare,
    cut_off,
    filled,
    filled_before,
    filled_to_blocks,
    followed,
    led,
    recorded,
    shifted,
    stripped,
)

CHANGES = {
    "BOS": (("bos",), lambda runs: led(runs, BOS)),
    "BOS twice": (("bos",), lambda runs: led(runs, BOS, BOS)),
    "the voice's tokens": (("prefix",), lambda runs: led(runs, *VOICE)),
    "BOS, the voice's tokens, BOS": (("prefix",), lambda runs: led(runs, BOS, *VOICE, BOS)),
    "padding": (("padding",), lambda runs: filled(runs, 0)),
    "padding with EOS": (("padding",), lambda runs: filled(runs, END)),
    "padding, and `length` for all": (("padding",), cut_off),
    "padding to blocks": (("padding",), lambda runs: filled_to_blocks(runs, END, 64)),
    "padding before the runs": (("padding",), lambda runs: filled_before(runs, 0)),
    "padding before BOS": (("padding", "bos"), lambda runs: filled_before(led(runs, BOS), END)),
    "EOS twice": (("padding",), lambda runs: followed(runs, END)),
    "tokens of a chat behind EOS": (("padding",), lambda runs: followed(runs, 2055, 13)),
    "BOS and EOS of another tokenizer around": (("padding", "bos"), lambda runs: followed(led(runs, 2060), 2061)),
    "EOS stripped": (("eos",), stripped),
    "EOS of another id": (("eos",), lambda runs: stripped(runs, 6562)),
    "ids one larger": (("offset",), lambda runs: shifted(runs, 1)),
    "ids behind those of a text": (("offset",), lambda runs: shifted(runs, 32_000)),
    "ids smaller": (("offset",), lambda runs: shifted(led(runs), 0) and shifted(runs, -3, (0, 1, 2))),
    "ids larger, but for EOS": (("offset",), lambda runs: shifted(runs, 700, (END,))),
    "EOS stripped, padding, BOS": (("padding", "bos", "eos"), lambda runs: led(filled(stripped(runs), 3), BOS)),
    "padding, BOS, ids larger": (("offset", "padding", "bos"), lambda runs: shifted(led(filled(runs, 0), BOS), 500)),
}
"""The fixes that a change needs, and what it does to the runs."""


@cache
def model():
    return reference_model("core")


def lines_of(runs):
    return [TokenLine(prompt=run.text, tokens=run.tokens, stop_reason=run.stop_reason) for run in runs]


@cache
def by_runs():
    return ByRuns(recorded("base")[1])


def known_by(kind, lines):
    return by_runs() if kind == "runs" else ByModel(model(), spoken(lines), asked=FIXES)


PENALTY_OFF = "repetition_penalty:1.0"
CASES = [("runs", cell, change) for cell in ("base", PENALTY_OFF) for change in CHANGES]
CASES += [
    ("model", "base", change) for change in CHANGES if change not in ("BOS twice", "padding with EOS", "ids smaller")
]
CASES += [("model", PENALTY_OFF, change) for change in ("BOS", "the voice's tokens", "ids one larger")]


@pytest.mark.parametrize(("kind", "cell", "change"), CASES)
def test_a_change_is_named_and_its_fix_gives_the_runs_of_before(kind, cell, change):
    fixes, changed = CHANGES[change]
    runs = recorded(cell)[0]
    lines = lines_of(changed(runs))
    known = known_by(kind, lines)
    found = put_right(lines, known, ())
    assert tuple(fault.name for fault in found.left) == fixes
    assert found.lines == lines
    for name, finding in found.findings.items():
        assert (finding.outcome, finding.level) == ("inconclusive", "generate")
        assert f"--fix {name}" in finding.message
        assert len(finding.message) <= 200
    right = put_right(lines, known, fixes)
    assert right.left == ()
    assert len(right.fixed) == len(fixes)
    assert [(line.tokens, line.stop_reason) for line in right.lines] == [(run.tokens, run.stop_reason) for run in runs]


@pytest.mark.parametrize("count", [1, 2])
def test_few_runs_are_put_right_by_the_model(count):
    runs = recorded("base")[0][:count]
    for fixes, changed in (
        CHANGES[name] for name in ("BOS", "the voice's tokens", "ids one larger", "EOS of another id")
    ):
        lines = lines_of(changed(runs))
        found = put_right(lines, known_by("model", lines), fixes)
        assert [line.tokens for line in found.lines] == [run.tokens for run in runs], fixes


def test_few_runs_are_put_right_beside_others_where_the_user_says_so():
    runs = recorded("base")[0][:2]
    for fix, changed in (("bos", led(runs, BOS)), ("prefix", led(runs, *VOICE))):
        lines = lines_of(changed)
        assert put_right(lines, ByRuns(recorded("base")[1]), ()).left == (), "two runs may begin alike by chance"
        found = put_right(lines, ByRuns(recorded("base")[1], asked=(fix,)), (fix,))
        assert [line.tokens for line in found.lines] == [run.tokens for run in runs]


CELLS = [(matrix, cell) for matrix in ("sentences",) for cell in read_reference(shipped_reference(matrix)).cells]


@pytest.mark.parametrize(("matrix", "cell"), CELLS)
def test_logs_without_such_a_change_have_no_fault_whatever_the_port_does(matrix, cell):
    runs, base = [bare(run) for run in shipped_runs(f"{matrix}/{cell}")], map(bare, shipped_runs(f"{matrix}/base"))
    by_runs = ByRuns(list(base))
    rng = random.Random(cell)
    for count in (1, 3, 12, len(runs)):
        some = rng.sample(runs, count)
        knowns = [None, by_runs]
        if count != 3:
            knowns.append(ByModel(model(), spoken(lines_of(some)), asked=("eos",)))
        assert [list(faults_of(some, known)) for known in knowns] == [[]] * len(knowns)


def test_a_right_port_is_not_told_that_something_is_common_to_its_runs():
    """Halves of the same runs, of few texts and of many, in 30 ways."""
    rng = random.Random(3)
    runs = [run for side in recorded("base") for run in side]
    for _ in range(30):
        texts = set(rng.sample(sorted({run.text for run in runs}), rng.randint(1, 12)))
        some = [run for run in runs if run.text in texts]
        rng.shuffle(some)
        at = rng.randint(1, len(some) - 1)
        assert list(faults_of(some[:at], ByRuns(some[at:]))) == []


def test_a_token_that_honest_runs_begin_with_is_no_bos():
    """Every run of the model begins with the same tokens, and so do those of the port."""
    runs, reference = (led(side, 2047, 2046) for side in recorded("base"))
    assert list(faults_of(runs, ByRuns(reference))) == []
    found = list(faults_of(led(runs, BOS), ByRuns(reference)))
    assert [fault.name for fault in found] == ["bos"]
    assert [edit.run(run) for edit, run in zip(found[0].edits, led(runs, BOS), strict=True)] == runs
    found = list(faults_of(led(runs, *VOICE), ByRuns(reference)))
    assert [edit.run(run) for edit, run in zip(found[0].edits, led(runs, *VOICE), strict=True)] == runs


@pytest.mark.parametrize(
    "own",
    [
        lambda run: replace(run, tokens=(*run.tokens, 17)),
        lambda run: replace(run, tokens=(*run.tokens, 17, 30, 17, 30)),
    ],
    ids=["one token beyond", "a loop beyond"],
)
def test_what_one_run_does_is_its_own_fault(own):
    runs, reference = recorded("base")
    assert list(faults_of([own(runs[0]), *runs[1:]], ByRuns(reference))) == []
    assert (
        list(
            faults_of(
                [replace(run, tokens=(*run.tokens, place, 3)) for place, run in enumerate(runs)], ByRuns(reference)
            )
        )
        == []
    )


def test_runs_that_loop_to_their_cap_are_not_padded():
    loops = [TokenRun("a", (*range(place, place + 9), *[6405] * 40), "length") for place in range(5)]
    assert list(faults_of(loops, None)) == []
    assert list(faults_of(loops, ByRuns(recorded("base")[1], "the reference"))) != [], "of another vocabulary"


def test_padding_needs_no_reference():
    runs = recorded("base")[0]
    for token in (0, END):
        (fault,) = faults_of(filled(runs, token), None)
        assert [edit.run(run) for edit, run in zip(fault.edits, filled(runs, token), strict=True)] == runs
