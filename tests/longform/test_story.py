"""The story that began it: right token for token at temperature 0.001, one token for ever at 0.8."""

import json
import shlex
from functools import cache

import pytest

from sampler import SamplingConfig, finch
from sampler.checks.longform.loop_rate import LoopingRuns
from sampler.engines.core import CoreEngine
from sampler.matrix.matrix import load_matrix
from sampler.requests import Request
from sampler.run.session import Session
from tests import miniatures
from tests.commands import ROOT, sampler
from tests.sessions import verdicts_of

PORT = f"{ROOT / 'tests' / 'miniatures.py'}:returns_places_in_the_sorted_order"
TEXTS = [prompt.text for prompt in finch.prompts("sentences")[:2]]
MATRIX = """
why = "What users run: temperature 0.8."
[generation]
prompts = "sentences"
requests = 1
width = 1
max_new_tokens = 100
[axes]
temperature = [0.001, 0.8]
"""


@cache
def runs(which: str, temperature: float) -> dict[str, list[tuple[int, ...]]]:
    engine = miniatures.returns_places_in_the_sorted_order() if which == "port" else CoreEngine.load(width=2)
    requests = [Request(text, SamplingConfig(temperature=temperature), 0, 100) for text in TEXTS]
    return {text: [run.tokens] for text, run in zip(TEXTS, engine.generate(requests), strict=True)}


def test_the_old_method_passes_the_port():
    assert runs("port", 0.001) == runs("core", 0.001)


def test_at_the_temperature_of_users_every_run_of_the_port_loops_and_none_of_the_reference():
    looping, right = LoopingRuns.of(runs("port", 0.8)), LoopingRuns.of(runs("core", 0.8))
    assert (sum(looping.counts), sum(right.counts)) == (len(TEXTS), 0)


def test_the_port_is_caught_its_stage_named_and_the_line_shows_it_again(tmp_path):
    path = tmp_path / "story.toml"
    path.write_text(MATRIX, encoding="utf-8")
    session = Session(load_matrix(path), 0, PORT)
    assert {verdict.outcome for verdict in verdicts_of(session, "temperature:0.001").values()} == {"passed"}
    found = verdicts_of(session, "temperature:0.8")
    for check in ("allowed", "draws"):
        assert found[check].outcome == "failed"
        assert found[check].stage == "draw", found[check].message
    assert "no filter is the cause" in found["allowed"].message
    program, *line = shlex.split(found["allowed"].reproduce)
    assert program == "sampler"
    again = sampler(*line)
    assert again.returncode == 1, again.stderr
    assert "allowed: failed (stage draw)" in again.stdout


def test_one_run_of_the_ports_tokens_says_what_is_wrong(tmp_path):
    (tokens,) = runs("port", 0.8)[TEXTS[0]]
    file = tmp_path / "port.jsonl"
    line = {"prompt": "en-sentence-000", "tokens": list(tokens), "stop_reason": "length"}
    file.write_text(json.dumps(line) + "\n", encoding="utf-8")
    result = sampler("check", file, "--against", "core")
    assert result.returncode == 1, result.stderr
    assert "it looks like the place of the drawn token in the sorted order in place of its id" in result.stdout


@pytest.mark.nightly("the port speaks to its cap in every cell; `sampler run` catches it by day")
def test_sampler_check_disagrees_with_the_port_and_names_it_and_its_loop(tmp_path):
    path = tmp_path / "report.json"
    result = sampler("check", PORT, "--level", "generate", "--json", path)
    assert result.returncode == 1, result.stderr
    report = json.loads(path.read_text(encoding="utf-8"))
    assert (report["outcome"], report["engine"]["name"]) == ("disagrees", PORT)
    assert report["diagnosis"][0]["stage"] == "draw"
    assert f"{PORT} disagrees" in result.stdout
    assert "core:finch" not in result.stdout
    looping = next(verdict for verdict in report["verdicts"] if verdict["case"] == "generate/loops/looping")
    assert looping["outcome"] == "failed"
    assert "16 of 16 runs loop" in looping["message"]
    program, *line = shlex.split(looping["reproduce"])
    assert program == "sampler"
    assert sampler(*line).returncode == 1
