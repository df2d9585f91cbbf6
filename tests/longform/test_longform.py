"""A long-form matrix as a whole: its budget, its groups, right and wrong engines, cells that are known to be bad."""

import json
from dataclasses import replace

import pytest

from sampler.checks.longform.absolute import Expectation, complete, looping
from sampler.checks.longform.questions import WEIGHTS
from sampler.checks.longform.runs import TokenRun
from sampler.checks.verdict import ABSOLUTE
from sampler.engines.base import EngineInfo
from sampler.errors import MatrixError, TokensError
from sampler.matrix.matrix import ALL, find_matrix, load_matrix
from sampler.requests import Generation
from sampler.run.groups import BY_ITSELF, alphas_of, groups_of
from sampler.run.longform import LongformSuite
from sampler.run.plan import prospects
from sampler.run.prompts import prompts_of
from sampler.run.replay import replay_case
from sampler.run.session import Session
from sampler.run.suite import find_group
from tests.sessions import run_all
from tests.wrong_engines.token_runs import EOS, RIGHT

TEXTS = ["one", "two", "three", "four"]
MATRIX = """
why = "to see"
design = "one at a time"
[generation]
prompts = ["one", "two", "three", "four"]
runs = 20
max_new_tokens = 220
width = 8
[axes]
variant = ["en-0.1.3", "mtl-0.1.6"]
temperature = [0.8, 1.0]
[longform]
reference = "reference.jsonl"
false_alarms = 1e-6
"""
SMALL = """
why = "to see"
design = "one at a time"
[generation]
prompts = ["One.", "Two."]
max_new_tokens = 12
width = 2
[axes]
variant = ["en-0.1.3", "mtl-0.1.6"]
[longform]
"""


class SourceEngine:
    """The Markov chain of `tests/wrong_engines/token_runs.py` as an engine; a request's seed is its noise."""

    info = EngineInfo(name="source", version="1", eos_ids=(EOS,))
    source = RIGHT

    def generate(self, requests):
        return [Generation(run.tokens, run.stop_reason) for run in map(self.speak, requests)]

    def speak(self, request):
        length = RIGHT.lengths[TEXTS.index(request.prompt)]
        source = replace(self.source, lengths=(length,), temperature=request.config.temperature)
        return source.runs(1, request.seed % 2**32)[0]


class Endless(SourceEngine):
    """Fault: EOS is hardly ever drawn."""

    source = replace(RIGHT, eos_bias=-60.0)


class Raises(SourceEngine):
    """Fault: every request fails."""

    def speak(self, request):
        raise RuntimeError("out of words")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("longform")
    (path / "mine.toml").write_text(MATRIX, encoding="utf-8")
    lines = []
    for cell, temperature in (("base", 0.8), ("temperature:1.0", 1.0)):
        for place, length in enumerate(RIGHT.lengths):
            source = replace(RIGHT, lengths=(length,), temperature=temperature)
            for number, run in enumerate(source.runs(20, 900 + place)):
                line = {"prompt": str(place), "tokens": list(run.tokens), "stop_reason": run.stop_reason}
                lines.append(line | {"cell": f"mine/{cell}", "request": number})
    (path / "reference.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return path


def run(folder, factory, seed=0):
    seen = run_all(Session(load_matrix(folder / "mine.toml"), seed, f"{__file__}:{factory}"))
    return seen.cells, seen.verdicts


def test_groups_are_all_cells_then_axes_then_cells_and_are_found_by_name(folder):
    matrix = load_matrix(folder / "mine.toml")
    suite = LongformSuite(Session(matrix))
    assert find_group(suite, "temperature").scope == "axes"
    with pytest.raises(MatrixError, match="has no cell 'top_p'"):
        find_group(suite, "top_p")
    groups = groups_of(matrix)
    names = ["all", "variant", "temperature", "base", "variant:mtl-0.1.6", "temperature:1.0"]
    assert [(group.name, len(group.cases)) for group in groups] == [*zip(names, [3, 1, 1, 1, 1, 1], strict=True)]
    assert [group.scope for group in groups] == ["all", "axes", "axes", "cells", "cells", "cells"]


def test_without_reference_runs_the_questions_are_those_about_a_cell_by_itself():
    matrix = load_matrix(find_matrix("extremes"))
    alphas = alphas_of(matrix)
    assert list(alphas) == [ALL, *(case.cell for case in matrix.cases)]
    loops_for_ever = tuple(name for name in BY_ITSELF if name != "endless")
    assert {tuple(names) for names in alphas.values()} == {tuple(ABSOLUTE), tuple(BY_ITSELF), loops_for_ever}
    assert 0.99e-3 < sum(alpha for group in alphas.values() for alpha in group.values()) <= 1e-3


@pytest.mark.parametrize("name", ["longform", "sentences", "paragraphs", "nightly"])
def test_the_budget_is_spent_once_and_half_of_it_on_all_cells_together(name):
    matrix = load_matrix(find_matrix(name))
    alphas = alphas_of(matrix)
    total = sum(alpha for group in alphas.values() for alpha in group.values())
    assert 0.99e-6 < total <= 1e-6
    assert sum(alphas[ALL].values()) >= 0.49e-6
    assert set(alphas[ALL]) == {*WEIGHTS, *ABSOLUTE}
    assert {*BY_ITSELF, "early", "entropy"} <= set(alphas["base"]) <= {*WEIGHTS, *BY_ITSELF}


def test_a_right_engine_passes_where_its_runs_are_enough_and_follows_no_variant(folder):
    cells, verdicts = run(folder, "SourceEngine")
    assert cells == ["base", "variant:mtl-0.1.6", "temperature:1.0"]
    assert {verdict.outcome for verdict in verdicts.values()} <= {"passed", "skipped", "inconclusive"}
    for name in ("loops", "early", "late", "missing"):
        assert verdicts[f"mine/all/{name}"].outcome == "passed", verdicts[f"mine/all/{name}"].message
    assert verdicts["mine/all/missing"].n == 320
    assert verdicts["mine/base/ends"].outcome == "passed"
    assert "'position' was not recorded" in verdicts["mine/all/covering"].message
    assert verdicts["mine/variant:mtl-0.1.6/loops"].message == ("source cannot follow the variant mtl-0.1.6")


def test_a_wrong_engine_is_caught_in_all_cells_by_axis_and_by_cell_and_the_line_shows_it_again(folder):
    _, verdicts = run(folder, "Endless", seed=5)
    failed = [case for case, verdict in verdicts.items() if verdict.outcome == "failed"]
    assert {"mine/all/missing", "mine/temperature/missing", "mine/base/missing"} <= set(failed)
    verdict = verdicts["mine/base/missing"]
    assert verdict.stage == "stop"
    assert "never ended" in verdict.message
    assert verdict.reproduce.startswith("sampler replay mine/base/missing --seed 5 --engine ")
    again = replay_case("mine/base/missing", 5, f"{__file__}:Endless", None, folder / "mine.toml")
    assert again == [verdict]


def test_an_engine_that_raises_is_errored_and_nothing_else_is(folder):
    _, verdicts = run(folder, "Raises")
    assert {verdict.outcome for verdict in verdicts.values()} == {"errored", "skipped"}
    assert verdicts["mine/base/loops"].message.startswith("RuntimeError: out of words (test_longform.py, line ")


def test_missing_reference_runs_are_an_error_before_anything_runs(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MATRIX, encoding="utf-8")
    with pytest.raises(TokensError, match=r"longform.reference = 'reference.jsonl' \(there is no reference.jsonl\)"):
        LongformSuite(Session(load_matrix(path), 0, f"{__file__}:SourceEngine")).prepare()


def speech(length, reason="eos"):
    return TokenRun("a", (*range(length), *[EOS] * (reason != "length")), reason, expected=50.0)


PLAIN, KNOWN = Expectation(0.2), Expectation(0.2, "pairs of equal tokens", 0.5)
WHOLE = [speech(50), speech(35), speech(70), speech(50, "forced_eos")]
CUT = [speech(34), speech(71), speech(50, "length"), speech(20, "forced_eos")]
LOOP = TokenRun("a", (*range(30), *[7] * 200), "length")
JUDGED = [
    (complete, WHOLE * 15, PLAIN, 1e-6, "passed", "0 of 60 runs are not whole"),
    (complete, CUT * 15, PLAIN, 1e-6, "failed", "60 of 60 runs are not whole (run 1, text 'a': cut at 0.68 of"),
    (complete, CUT[2:] * 15, PLAIN, 1e-6, "failed", "length after 50 tokens"),
    (complete, CUT[3:] * 15, PLAIN, 1e-6, "failed", "cut at 0.40 of its length by the analyzer"),
    (complete, WHOLE, PLAIN, 1e-9, "inconclusive", ""),
    (complete, [replace(speech(50), expected=None)], PLAIN, 1e-6, "skipped", ""),
    (complete, [speech(20)] * 60, KNOWN, 1e-6, "passed", "known: pairs of equal tokens;"),
    (complete, [speech(50)] * 60, KNOWN, 1e-6, "failed", "fewer than the 50% that are known"),
    (complete, [speech(50)] * 5, KNOWN, 1e-9, "inconclusive", ""),
    (looping, [LOOP] * 60, PLAIN, 1e-6, "failed", ""),
    (looping, [speech(50)] * 60, PLAIN, 1e-6, "passed", ""),
    (looping, [LOOP] * 60, KNOWN, 1e-6, "passed", ""),
]


@pytest.mark.parametrize(("check", "runs", "expectation", "alpha", "outcome", "message"), JUDGED)
def test_bad_runs_are_counted_and_known_ones_have_to_stay(check, runs, expectation, alpha, outcome, message):
    found = check(runs, expectation, alpha)
    assert found.outcome == outcome
    assert message in found.message


def test_prompts_are_taken_from_each_language_in_turn():
    plan = load_matrix(find_matrix("longform")).workload
    prompts = prompts_of(plan)
    assert [prompt.language for prompt in prompts] == ["en", "de", "fr", "es", "it"] * 2
    assert all(500 <= prompt.tokens <= 900 for prompt in prompts)
    with pytest.raises(MatrixError, match=r"generation.requests = 99 \(there are \d+ prompts\)"):
        prompts_of(plan.model_copy(update={"requests": 99}))


def test_every_cell_is_a_request_of_its_own_noise():
    matrix = load_matrix(find_matrix("sentences"))
    session = Session(matrix, 3)
    by_case = [session.requests(case) for case in matrix.cases]
    assert {len(requests) for requests in by_case} == {12 * 8}
    assert len({request.seed for requests in by_case for request in requests}) == len(matrix.cases) * 96
    assert LongformSuite(session).alphas == alphas_of(matrix)


@pytest.mark.nightly("starts two processes")
def test_processes_generate_what_one_process_does(tmp_path):
    (tmp_path / "small.toml").write_text(SMALL, encoding="utf-8")
    matrix = load_matrix(tmp_path / "small.toml")
    assert {(each.reference, each.share, each.superiority) for each in prospects(matrix)} == {(0, 1.0, 1.0)}
    first, second = run_all(Session(matrix)), run_all(Session(matrix), jobs=2)
    one, two = first.results, second.results
    assert [result.verdicts for result in one] == [result.verdicts for result in two]
    assert [result.scored for result in one] == [result.scored for result in two]
    assert one[0].scored is not None
    tokens = [[[each.tokens for each in result.generations] for result in some] for some in (one, two)]
    assert tokens[0] == tokens[1]
    assert sorted(first.cells) == sorted(second.cells) == ["base", "variant:mtl-0.1.6"]
    assert first.finished == second.finished == 4
    assert [request.prompt for request in two[-1].requests] == ["One.", "Two."]
    assert [result.case.cell for result in one] == ["base", "variant:mtl-0.1.6"]
    assert [verdict.check for verdict in one[0].verdicts] == ["same", "ends", "complete", "looping"]
    assert one[0].verdicts[0].message == "no reference runs whose noise is known"


def test_a_plan_states_the_power_of_each_group():
    found = {each.name: each for each in prospects(load_matrix(find_matrix("sentences")))}
    assert found[ALL].runs == found[ALL].reference == 480
    assert found[ALL].share < found["temperature"].share < 1
    assert found[ALL].superiority < found["temperature"].superiority < 1
    assert found[ALL].incomplete is None
    assert 0.2 < found["base"].incomplete < 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[longform]\nleft_out = { cells = ['coverin'] }\n", r"left_out names 'coverin' \(did you mean 'covering'\?\)"),
        ("[longform]\nreferense = 'x'\n", r"unknown key 'longform.referense' \(did you mean 'reference'\?\)"),
        ("[longform]\n[[known]]\ncell = 'base'\n", r"key 'known\[0\].check' is missing \(see matrices/longform.toml\)"),
        ("[[known]]\ncell='base'\ncheck='complete'\nshare=0.5\nfinding='x'\n", r"\[\[known\]\] without \[longform\]"),
    ],
)
def test_a_mistake_in_a_long_form_matrix_is_one_line(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(f"why = 'x'\n{text}", encoding="utf-8")
    with pytest.raises(MatrixError, match=message):
        alphas_of(load_matrix(path))


def test_runs_that_ship_serve_a_cell_of_their_parameters_alone(tmp_path):
    path = tmp_path / "mine.toml"
    text = find_matrix("sentences").read_text(encoding="utf-8")
    path.write_text(text.replace("temperature = [0.8, 1.0]", "temperature = [0.7, 1.0]"), encoding="utf-8")
    suite = LongformSuite(Session(load_matrix(path)))
    served = {case.cell: len(suite.cells.references.of(case)) for case in suite.matrix.cases}
    without = dict.fromkeys(["base", "repetition_penalty:1.0", "cfg_weight:0.0"], 0)
    assert served == without | {"variant:mtl-0.1.6": 96, "temperature:1.0": 96}
