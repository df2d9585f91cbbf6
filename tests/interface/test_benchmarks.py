"""`python -m tests.benchmarks`: the runner, its file and its exit code, with sides that take no time."""

import importlib
import json
import math
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks import others, runner
from tests.benchmarks.__main__ import COMPARISONS, main
from tests.benchmarks.child import PEAK_MEMORY
from tests.benchmarks.others import DisturbedError
from tests.benchmarks.rows import Figure, Result, Row
from tests.benchmarks.runner import Comparison
from tests.interface.benchmark_sides import LOG

MODULE = "tests.interface.benchmark_sides"
TURNS = ("ours", "peer") * 3


def row(goal: float | None = None, measure: str = "time", **further: object) -> Row:
    return Row("kettle", Figure("ours", measure), "s", Figure("peer", measure), "theirs", goal, **further)


def comparison(*made: Row, turns: tuple[str, ...] = TURNS, name: str = "kettles") -> Comparison:
    return Comparison(name, MODULE, turns, made or (row(),))


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    monkeypatch.setattr(others, "MOST", math.inf)  # other tests are at work
    monkeypatch.chdir(tmp_path)
    return tmp_path / "log"


@pytest.fixture
def in_process(log, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    sides = importlib.import_module(MODULE).SIDES
    monkeypatch.setattr(runner, "run_side", lambda module, side, settings: sides[side](quick=settings.quick))
    return log


def objects(path: str = "benchmarks.json") -> list[dict]:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_sides_take_turns_and_medians_become_rows(in_process, capsys):
    assert main([], [comparison()]) == 0
    assert in_process.read_text().split() == ["ours", "peer", "ours", "peer", "ours", "peer"]
    (found,) = objects()
    assert (found["name"], found["peer_name"], found["unit"], found["goal"]) == ("kettle", "theirs", "s", None)
    assert (found["ours"], found["peer"], found["ratio"]) == (2.0, 5.0, 2.5)
    assert found["spread"] == {"ours": [1.0, 9.0], "peer": [4.0, 6.0]}
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("kettles: ours (1 of 6)", "kettles: peer (6 of 6)", "2.5", "(1..9)"))
    in_process.unlink()
    assert main([], [comparison(turns=("ours", "peer", "ours"))]) == 0
    assert in_process.read_text().split() == ["ours", "peer", "ours"]
    assert objects()[0]["ours"] == 1.5


def test_quick_takes_fewer_turns_and_says_so_to_the_sides(in_process):
    made = comparison(row(), Row("quick", Figure("ours", "quick"), ""))
    assert main(["--quick"], [made]) == 0
    assert in_process.read_text().split() == ["ours", "peer"]
    assert [objects()[1][name] for name in ("ours", "peer", "ratio")] == [1.0, None, None]


def test_both_sides_get_the_same_number_of_threads_and_measure_their_memory(log, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    measured = row(measure="threads"), row(measure=PEAK_MEMORY)
    assert main(["--threads", "3"], [comparison(*measured, turns=("ours", "peer"))]) == 0
    assert (objects()[0]["ours"], objects()[0]["peer"]) == (3, 3)
    assert objects()[1]["ours"] > 5


@pytest.mark.parametrize(
    ("goal", "better", "code"), [(2.5, "less", 0), (2.6, "less", 1), (0.4, "more", 0), (0.5, "more", 1)]
)
def test_a_ratio_under_its_goal_fails_and_is_named(in_process, capsys, goal, better, code):
    assert main([], [comparison(row(goal, better=better))]) == code
    named = f"kettle: {2.5 if better == 'less' else 0.4:.2f} times theirs, goal {goal:g}"
    assert (named in capsys.readouterr().out) == bool(code)
    assert objects()[0]["goal"] == goal


def test_a_ratio_that_is_no_number_is_under_its_goal_and_a_goal_needs_a_peer():
    assert Result(row(1.0), float("nan"), 1.0, float("nan"), {}).fault == "kettle: nan times theirs, goal 1"
    with pytest.raises(ValueError, match="kettle has the goal 2 and no peer"):
        Row("kettle", Figure("ours", "time"), "s", goal=2)


def test_a_share_above_1_is_no_success(in_process, capsys):
    bound = Figure("peer", "time", "largest")
    made = Row("share", Figure("ours", "time"), "1/s", bound, "roofline", 0.1, "more", ceiling=0.3)
    assert main([], [comparison(made)]) == 1
    assert objects()[0]["peer"] == 6.0
    assert "share: 0.33 times roofline, which cannot be: roofline was measured on a busy" in capsys.readouterr().out
    in_process.unlink()
    assert main([], [comparison(replace(made, ceiling=0.34))]) == 0


def test_a_side_that_fails_is_shown_and_the_others_are_measured(log, capsys):
    alone = Row("kettle", Figure("ours", "time"), "s")
    assert main([], [comparison(turns=("crashes",), name="broken"), comparison(alone, turns=("ours",))]) == 1
    assert "RuntimeError: the kettle is empty" in capsys.readouterr().out
    assert [each["name"] for each in objects()] == ["kettle"]


@pytest.mark.parametrize(
    ("side", "message"),
    [
        ("leaves", "the side leaves ended with exit code 3"),
        ("chatters", "the side chatters says what cannot be read: could not convert string to float: 'long'"),
        ("nobody", "KeyError: 'nobody'"),
    ],
)
def test_a_side_without_figures_is_an_error(log, side, message):
    with pytest.raises(runner.ChildError, match=re.escape(message)):
        list(runner.run_side(MODULE, side, runner.Settings()))


def test_a_measure_that_is_missing_is_said(in_process, capsys):
    assert main([], [comparison(row(measure="steam"))]) == 1
    assert "kettles: the side ours measured no 'steam'" in capsys.readouterr().out
    assert objects() == []


@pytest.fixture
def disturbed(in_process, monkeypatch):
    """Sides whose first turns others disturb, so many of each, after their first measure."""
    calm, waits, left = runner.run_side, [], {}

    def run_side(module, side, settings):
        left[side] = left.get(side, 0) - 1
        if left[side] >= 0:
            yield "time", 1e9
            raise DisturbedError("others used 0.5 cores meanwhile")
        yield from calm(module, side, settings)

    monkeypatch.setattr(runner, "run_side", run_side)
    monkeypatch.setattr(runner, "wait_for_calm", lambda: waits.append(None) or True)
    return left, waits


def test_a_turn_that_others_disturb_begins_anew_and_its_figures_are_dropped(disturbed, in_process, capsys):
    left, waits = disturbed
    left["peer"] = 2
    assert main([], [comparison()]) == 0
    assert in_process.read_text().split() == list(TURNS)
    assert len(waits) == 2
    shown = capsys.readouterr().out
    assert "others used 0.5 cores meanwhile: attempt 1 of 3 does not count" in shown
    assert objects()[0]["spread"] == {"ours": [1.0, 9.0], "peer": [4.0, 6.0]}


def test_a_side_that_others_disturb_every_time_has_no_figures(disturbed, capsys):
    left, _ = disturbed
    left["peer"] = 99
    assert main([], [comparison(row(1.0), Row("alone", Figure("ours", "time"), "s"))]) == 1
    assert [(each["ours"], each["peer"], each["ratio"]) for each in objects()] == [
        (None, None, None),
        (2.0, None, None),
    ]
    shown = capsys.readouterr().out
    assert "this turn has no figures" in shown
    assert "kettle: not measured, because others were at work in every attempt" in shown


def test_turns_that_others_left_alone_are_enough(disturbed):
    left, _ = disturbed
    left["peer"] = 3
    assert main([], [comparison(row(1.0))]) == 0
    assert objects()[0]["ratio"] is not None


def test_what_others_use_is_what_is_neither_idle_nor_own(monkeypatch):
    monkeypatch.setattr(others, "busy", iter([100.0, 103.5, 103.6, 107.6]).__next__)
    monkeypatch.setattr(others.time, "monotonic", iter([0.0, 4.0, 4.5, 8.0]).__next__)
    watch = others.Others(iter([10.0, 11.5, 11.6, 15.0]).__next__)
    with pytest.raises(DisturbedError, match=r"others used 0\.5 cores meanwhile"):
        watch.check()
    assert watch.cores() is None  # half a second
    watch.check()  # 0.6 seconds of 4


def test_a_real_side_is_disturbed_by_another_process_alone(log, monkeypatch):
    """The side's own work, with that of its children, does not count."""
    monkeypatch.setattr(others, "MOST", 1e-9)
    monkeypatch.setattr(others, "busy", others.own)  # so that nobody else is there: children count when they have ended
    assert dict(runner.run_side(MODULE, "ours", runner.Settings()))
    monkeypatch.setattr(others, "busy", lambda: 100 * time.monotonic())
    monkeypatch.setattr(others, "LEAST", 0.01)
    with pytest.raises(DisturbedError):
        list(runner.run_side(MODULE, "ours", runner.Settings()))


def test_processor_time_of_children_is_its_own():
    busy, own = others.busy(), others.own()
    child = subprocess.Popen([sys.executable, "-c", "sum(range(20_000_000)); input()"], stdin=subprocess.PIPE)
    while others.own_and(child.pid) - own < 0.1:
        time.sleep(0.01)
    child.communicate(b"\n")
    assert others.own() - own > 0.1
    assert others.busy() - busy > 0.8 * (others.own() - own) - 0.1


def test_calm_is_waited_for_and_not_for_ever(monkeypatch):
    slept = []
    monkeypatch.setattr(others, "PATIENCE", 0.05)
    monkeypatch.setattr(others, "LEAST", 0.01)
    monkeypatch.setattr(others, "busy", lambda: 100 * time.monotonic())
    sleep = time.sleep
    monkeypatch.setattr(others.time, "sleep", lambda seconds: (slept.append(seconds), sleep(seconds)))
    assert not others.wait_for_calm()
    assert 1 < len(slept) < 10
    monkeypatch.setattr(others, "busy", others.own)
    monkeypatch.setattr(others, "CALM", 0.02)
    assert others.wait_for_calm()


def test_nobody_waits_twice_for_a_machine_that_does_not_calm_down(disturbed, monkeypatch, capsys):
    left, _ = disturbed
    left["peer"], waits = 1, []
    monkeypatch.setattr(runner, "wait_for_calm", lambda: waits.append(None))
    assert main([], [comparison(turns=("ours", "peer"))]) == 1
    assert len(waits) == 1


def test_only_what_is_named_runs(in_process):
    first, second = comparison(name="first"), comparison(row(goal=99), name="second")
    assert main(["--only", "first", "--json", "mine.json"], [first, second]) == 0
    assert len(objects("mine.json")) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--only", "teapots"], "invalid choice: 'teapots'"),
        (["--threads", "0"], "--threads 0: expected 1 or more"),
        (["--json", "nowhere/rows.json"], "nowhere is no folder"),
    ],
)
def test_a_mistake_is_said_before_anything_runs(log, capsys, given, said):
    with pytest.raises(SystemExit) as stopped:
        main(given, [comparison()])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
    assert not log.exists()


def test_the_comparisons_are_whole():
    names = [each.name for made in COMPARISONS for each in made.rows]
    assert len(names) == len(set(names))
    for made in COMPARISONS:
        sides = importlib.import_module(made.module).SIDES.keys()
        needed = {figure.side for each in made.rows for figure in (each.ours, each.peer) if figure}
        assert needed <= set(made.turns) <= sides
