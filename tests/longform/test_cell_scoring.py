"""Scoring in the cells of `sampler run`: an engine of which nothing but tokens is known, with noise of its own."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from sampler.checks.longform.questions import QUESTIONS
from sampler.checks.verdict import ABSOLUTE, SCORED
from sampler.config import SamplingConfig
from sampler.engines.base import EngineInfo
from sampler.engines.core import CoreEngine
from sampler.matrix.matrix import load_matrix
from sampler.requests import Generation
from sampler.run.generation import EngineSession
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
