"""Sets of wrong and right generators are scored as the page of evidence says: docs/evidence/scoring.md."""

from math import inf

import pytest

from tests.longform.fault_names import NAMES
from tests.longform.right_sets import Right, tasks
from tests.longform.scored_sets import Seen, seen, speak
from tests.longform.scoring_table import Page, Row
from tests.wrong_engines.wrong_generators import RIGHT_GENERATORS, WRONG_GENERATORS

NOT_SEEN = Seen(inf, inf, "", "", "")


@pytest.mark.parametrize(
    ("name", "by", "stage", "most"),
    [
        ("drops_min_p", "impossible", "min_p", 46),
        ("draws_without_noise", "evidence", "draw", 138),
        ("is_cut_at_20_tokens", "protocol", "stop", 20),
    ],
)
def test_a_wrong_generator_is_rejected_and_named(name, by, stage, most):
    found = seen(speak(name, 0, range(3)))
    assert (found.by, found.stage) == (by, stage)
    assert 0 < found.tokens <= most
    assert Row(name, [found]).named == [found]


def test_a_right_generator_is_not_rejected():
    assert seen(speak("penalty_history_kept_in_chunks", 0, range(3))) == NOT_SEEN


def test_every_wrong_generator_has_its_names():
    assert set(NAMES) == set(WRONG_GENERATORS)


def test_every_right_generator_has_its_turn():
    right = tasks(10, 2 * len(RIGHT_GENERATORS))
    own = [task.count for task in right if task.kind == "the core in float32"]
    assert (sum(own), len(right) - len(own)) == (10, 18)
    assert [task.generator for task in right[len(own) :]] == 2 * [*RIGHT_GENERATORS]
    assert len({(task.generator, task.seed) for task in right}) == len(right)
    half = tasks(0, 0, 5)
    assert [(task.dtype, task.seed, task.count) for task in half] == [
        *(("float16", seed, count) for seed, count in ((0, 4), (4, 1))),
        *(("bfloat16", seed, count) for seed, count in ((0, 4), (4, 1))),
    ]


def test_what_misses_a_goal_shows_on_the_page():
    wrong_name = Seen(40, 1, "impossible", "position", "no emotion")
    rows = [
        Row("drops_min_p", [NOT_SEEN, wrong_name, wrong_name]),
        Row("loops_over_1", [NOT_SEEN, NOT_SEEN, wrong_name]),
    ]
    right = [Right("a", 12, 500, 1, 1.0, "impossible: token 3"), Right("a", 12, 520, 0, 25.0, "")]
    page = Page(rows, right, in_bfloat16=rows)
    assert [goal.kept for goal in page.goals] == [False, False, False, False, True, False, False, False, False]
    text = str(page)
    assert "1 of 2 are rejected in the class of bfloat16 (one seed: not loops_over_1; goal 66): MISSED" in text
    assert "1 of 2 wrong generators are rejected within 60 runs (median of 3 seeds: not loops_over_1;" in text
    assert "0 of 2 rejected sets whose fault has a name are named rightly (goal 90%): MISSED" in text
    assert "| 40 | 1 | impossible | position: no emotion | 0 of 2 |" in text
    assert "| a | 2 | 12 | 1,020 | 1 | 1 | 1 |" in text
