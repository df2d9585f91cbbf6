"""Scoring in the cells of `sampler run`: an engine of which nothing but tokens is known, with noise of its own."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from sampler.checks.longform.questions import QUESTIONS
from sampler.checks.verdict import ABSOLUTE, SCORED
from sampler.config import SamplingConfig
from sampler.engines.base import EngineInfo
from sampler.engines.calls import ignore_step
from sampler.engines.core import CoreEngine
from sampler.matrix.matrix import load_matrix
from sampler.requests import Generation
from sampler.run.cell_scoring import scored
from sampler.run.cells import Cells, cell_runs
from sampler.run.generation import EngineSession
from sampler.run.spoken import START
from tests import sessions
from tests.longform.test_scoring import core

STEPS = """
why = "Two texts of Finch, spoken by an engine that gives tokens alone."
[generation]
prompts = "sentences"
requests = 2
max_new_tokens = 120
"""
RUNS = """
why = "The same as whole runs."
[generation]
prompts = "sentences"
requests = 3
runs = 2
width = 6
max_new_tokens = 120
[longform]
"""

PARAGRAPHS = """
why = "Two runs of each of three longer texts."
[generation]
prompts = "paragraphs"
requests = 3
runs = 2
width = 6
max_new_tokens = 140
[longform]
"""


@dataclass(frozen=True)
class Port:
    """A port of Finch that draws with noise of its own, and gives tokens alone. changes: of what it is asked for."""

    engine: CoreEngine
    changes: tuple[tuple[str, float], ...] = ()
    info = EngineInfo(name="core:finch", version="0", vocab_size=2050, bos_id=2048, eos_ids=(2049,), cfg=True)

    def generate(self, requests):
        own = np.random.default_rng(5)
        asked = [self._asked(request, np.random.default_rng(own.integers(2**32))) for request in requests]
        return [Generation(one.tokens, one.stop_reason) for one in self.engine.generate(asked)]

    def _asked(self, request, rng):
        config = replace(request.config, **dict(self.changes))
        noise = lambda step: rng.gumbel(size=2050).astype(np.float32)  # noqa: E731
        return replace(request, config=config, noise=noise, uniform=None, slot=None)


def verdicts(tmp_path, text, port):
    file = tmp_path / "cells.toml"
    file.write_text(text, encoding="utf-8")
    matrix = load_matrix(file)
    return sessions.verdicts_of(EngineSession(matrix, loaded=port), matrix.cases[0].cell)


def test_what_the_port_says_of_itself_is_what_the_model_is():
    info = core().info
    assert (info.name, info.vocab_size, info.bos_id, info.eos_ids) == ("core:finch", 2050, 2048, (2049,))


@pytest.mark.parametrize("text", [STEPS, RUNS], ids=["steps", "whole runs"])
def test_tokens_of_a_right_port_fit_and_say_what_they_exclude(tmp_path, text):
    found = verdicts(tmp_path, text, Port(core()))
    assert {found[name].outcome for name in ("impossible", "evidence")} == {"passed"}
    assert "winners" not in found, "it draws with noise of its own"
    assert "excluded: a temperature " in found["evidence"].message
    assert found["evidence"].n < found["impossible"].n


@pytest.mark.parametrize("text", [STEPS, RUNS], ids=["steps", "whole runs"])
def test_tokens_of_a_wrong_chain_fail_in_every_kind_of_cell(tmp_path, text):
    found = verdicts(tmp_path, text, Port(core(), (("min_p", 0.0),)))
    assert (found["impossible"].outcome, found["impossible"].stage) == ("failed", "min_p")
    assert found["impossible"].reproduce == "cells/base/impossible"


@pytest.mark.nightly("the page of scoring has it among its generators; another wrong engine is scored by day")
def test_a_missing_bos_is_proved_by_tokens_of_whole_runs(tmp_path):
    one_bos = CoreEngine(replace(core().generator, bos_count=1))
    found = verdicts(tmp_path, RUNS.replace("runs = 2", "runs = 6"), Port(one_bos))
    assert (found["impossible"].outcome, found["impossible"].stage) == ("failed", "position")
    assert "it looks like one BOS in place of two" in found["impossible"].message


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """A session, its case, and the runs of a right port."""
    file = tmp_path_factory.mktemp("cells") / "cells.toml"
    file.write_text(PARAGRAPHS, encoding="utf-8")
    session = EngineSession(load_matrix(file), loaded=Port(core()))
    case = session.matrix.cases[0]
    return session, case, Cells(session).runs_of(case, ignore_step)


def scored_cell(cell, required, generations=None):
    session, case, right = cell
    runs = cell_runs(case, right.requests, generations or right.generations).runs
    return scored(session, case, right.requests, runs, 1e-9, required, sparing=True)


def test_a_cell_is_scored_until_it_excludes_what_it_must_and_says_how_far(cell):
    found = scored_cell(cell, 0.5)
    lengths = [len(run.tokens) for run in cell[2].runs]
    expected = sum(length if place in (0, 2, 4) else min(length, START) for place, length in enumerate(lengths))
    assert expected < sum(lengths)
    said = f"; {expected:,} of {sum(lengths):,} tokens were scored: at least one run of each text to its end, of the "
    for name in ("impossible", "evidence"):
        answer = found.findings[name]
        assert answer.outcome == "passed", name
        assert answer.message.endswith(f"{said}others the first {START}"), name
    assert (found.findings["impossible"].n, found.summary.tokens, found.summary.runs) == (expected, expected, 6)


def test_a_cell_that_cannot_exclude_what_it_must_is_scored_to_the_end(cell):
    found = scored_cell(cell, 0.01)
    assert found.findings["impossible"].n == sum(len(run.tokens) for run in cell[2].runs)
    assert found.findings["evidence"].reason == "too_few"
    assert all("were scored" not in answer.message for answer in found.findings.values())


@pytest.mark.parametrize(
    ("place", "first"),
    [(5, 0), (2, 90)],
    ids=["the beginning of the last run of a text", "late steps of a text"],
)
def test_a_fault_of_a_few_runs_is_seen_where_a_cell_is_scored(cell, place, first):
    """They are drawn at a high temperature without min_p, from a step on."""
    right = cell[2]
    begun, rng = right.generations[place].tokens, np.random.default_rng(6)

    def noise(step):
        return np.eye(2050, dtype=np.float32)[begun[step]] * 1e4 if step < first else rng.gumbel(size=2050)

    asked = replace(right.requests[place], noise=noise, slot=None)
    hot = replace(asked, config=replace(asked.config, temperature=5.0, min_p=0.0))
    (wrong,) = core().generate([hot])
    assert wrong.tokens[:first] == begun[:first]
    generations = list(right.generations)
    generations[place] = Generation(wrong.tokens, wrong.stop_reason)
    found = scored_cell(cell, 0.5, generations)
    assert found.findings["impossible"].outcome == "failed"
    assert {one.run for one in found.summary.impossible} == {place}
    assert min(one.step for one in found.summary.impossible) >= first
    assert f"of run {place} (" in found.findings["impossible"].message


def test_a_greedy_cell_has_no_bets(tmp_path):
    found = verdicts(tmp_path, STEPS + "[knobs]\ntemperature = 0.0\n", Port(core()))
    assert found["impossible"].outcome == "passed"
    assert "evidence" not in found


def test_an_unknown_model_scores_nothing(tmp_path):
    port = Port(core())
    object.__setattr__(port, "info", replace(Port.info, name="another"))
    assert {"impossible", "evidence"}.isdisjoint(verdicts(tmp_path, STEPS, port))
    whole = verdicts(tmp_path, RUNS, port)
    assert {(whole[name].outcome, whole[name].reason) for name in ("impossible", "evidence")} == {
        ("skipped", "no_reference")
    }


def test_the_tokens_of_a_run_say_what_they_were_asked_for():
    assert SamplingConfig().changes == {}
    changed = SamplingConfig(temperature=0.5, order=("cfg", "temperature"))
    assert changed.changes == {"temperature": 0.5, "order": ("cfg", "temperature")}


def test_no_question_of_a_cell_has_the_name_of_another():
    names = [*(question.name for question in QUESTIONS), *SCORED, *ABSOLUTE]
    assert len(names) == len(set(names))
