"""An engine of one fixed order gets that order in long form, as it does in steps: it is judged in what it can run."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sampler.engines.base import EngineInfo
from sampler.matrix.matrix import load_matrix
from sampler.requests import Generation
from sampler.run.session import Session
from tests.sessions import run_all

EOS = 1
FILE = "SAMPLER_TEST_OF_ORDERS"
OWN = ("repetition_penalty", "top_k", "min_p", "top_p", "temperature")
STEPS = """
why = "Which order does an engine get?"
[generation]
prompts = ["one", "two"]
max_new_tokens = 20
[knobs]
cfg_weight = 0.0
[axes]
temperature = [0.8, 1.0]
"""
RUNS = STEPS.replace("[knobs]", "runs = 2\n[longform]\nfalse_alarms = 1e-6\n[knobs]")


class OneOrder:
    """Writes the configs that it was given into the file that a variable names."""

    info = EngineInfo("one-order", "1", eos_ids=(EOS,), cfg=False, orders=(OWN,))

    def generate(self, requests):
        with Path(os.environ[FILE]).open("a", encoding="utf-8") as file:
            file.writelines(f"{request.config.order == OWN} {request.config.temperature}\n" for request in requests)
        return [Generation((5, 6, EOS), "eos") for _ in requests]


class NoOrder(OneOrder):
    """Has an order that lacks a stage of the config."""

    info = replace(OneOrder.info, orders=(("temperature",),))


@pytest.fixture
def configs(tmp_path, monkeypatch):
    monkeypatch.setenv(FILE, str(tmp_path / "configs.txt"))
    return tmp_path / "configs.txt"


def session(folder, matrix, factory):
    (folder / "mine.toml").write_text(matrix, encoding="utf-8")
    return Session(load_matrix(folder / "mine.toml"), 0, f"{__file__}:{factory}")


@pytest.mark.parametrize("matrix", [STEPS, RUNS], ids=["steps", "long form"])
def test_an_engine_of_one_order_gets_it(tmp_path, configs, matrix):
    made = session(tmp_path, matrix, "OneOrder")
    run_all(made)
    assert set(configs.read_text(encoding="utf-8").splitlines()) == {"True 0.8", "True 1.0"}


@pytest.mark.parametrize("matrix", [STEPS, RUNS], ids=["steps", "long form"])
def test_an_engine_without_a_fitting_order_is_skipped(tmp_path, configs, matrix):
    made = session(tmp_path, matrix, "NoOrder")
    verdicts = run_all(made).verdicts.values()
    assert {verdict.outcome for verdict in verdicts} == {"skipped"}
    assert any("does not offer the order" in verdict.message for verdict in verdicts)
    assert not configs.exists()
