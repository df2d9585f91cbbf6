"""Records that are no evidence are caught and named; right ones in other forms are not accused."""

import pytest

from sampler.checks.verdict import SCORED, Verdict, overall
from sampler.matrix.matrix import load_matrix
from sampler.run.session import Session
from tests import sessions
from tests.wrong_engines.records import RIGHT_RECORDS, SILENT, WRONG_RECORDS

MATRIX = """
why = "Two short texts, drawn with guidance."
[generation]
prompts = ["Come in, it is late and cold outside.", "Why not tomorrow?"]
width = 2
max_new_tokens = 120
[knobs]
top_k = 60
"""


BY_DAY = {
    "a_stranger_records_one_row_twice", "records_logits_after_guidance", "leaves_a_request_without_a_record",
    "answers_by_prompt", "records_20_steps", "says_forced_eos", "records_nan", "right_records_in_bfloat16",
    "right_records_of_a_stranger",
}  # fmt: skip
"""One of each kind; the others wait for the night."""


def named(names):
    night = pytest.mark.nightly("thirty engines whose records take a second or two to judge")
    return [name if name in BY_DAY else pytest.param(name, marks=night) for name in names]


@pytest.fixture(scope="module")
def verdicts_of(tmp_path_factory):
    path = tmp_path_factory.mktemp("records") / "records.toml"
    path.write_text(MATRIX, encoding="utf-8")

    def judged(engine) -> dict[str, Verdict]:
        session = Session(load_matrix(path), 0, "engine")
        vars(session)["_loaded"] = engine
        return sessions.verdicts_of(session, session.matrix.cases[0].cell)

    return judged


@pytest.mark.parametrize("name", named(WRONG_RECORDS))
def test_records_that_are_no_evidence_are_named(verdicts_of, name):
    wrong = WRONG_RECORDS[name]
    verdicts = verdicts_of(wrong.factory())
    found = verdicts[wrong.check]
    assert (found.outcome, found.stage) == (wrong.outcome, wrong.stage), found.message
    assert wrong.says in found.message
    tokens = {verdicts[name].outcome for name in SCORED if name in verdicts}  # what was drawn may be wrong too
    worst = "failed" if "failed" in tokens else wrong.outcome
    assert overall(verdicts.values()) == {"failed": "disagrees", "errored": "errored"}.get(worst, "inconclusive")


@pytest.mark.parametrize("name", named(RIGHT_RECORDS))
def test_right_records_are_not_accused(verdicts_of, name):
    verdicts = verdicts_of(RIGHT_RECORDS[name]())
    assert {check: each.message for check, each in verdicts.items() if each.outcome != "passed"} == {}
    assert overall(verdicts.values()) == "agrees"
    half = next((dtype for dtype in ("bfloat16", "float16") if dtype in name), "")
    assert half in verdicts["records"].message
    assert ("though info says float32" in verdicts["records"].message) == (bool(half) and "said" not in name)


@pytest.mark.parametrize("name", SILENT)
def test_without_records_nothing_agrees_and_nothing_is_accused(verdicts_of, name):
    verdicts = verdicts_of(SILENT[name]())
    for check in ("allowed", "draws", "chain", "records"):
        assert (verdicts[check].outcome, verdicts[check].reason) == ("skipped", "not_recorded")
    assert {verdicts[check].outcome for check in ("repeats", "seeds", "stops")} == {"passed"}
    assert overall(verdicts.values()) == "inconclusive"
