"""The reference runs that ship: made by upstream's wheels on the weights that ship, and what the core generates too."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from sampler import finch
from sampler.checks.longform.runs import token_run
from sampler.generation.generator import Generator
from sampler.matrix.matrix import find_matrix, load_matrix
from sampler.results.store.reference_runs import as_kept, read_reference, shipped_reference
from sampler.run.groups import reference_key
from sampler.run.prompts import prompts_of
from sampler.variants import variant
from tests import wheels
from tests.longform.wrong_runs import request_of
from tests.reference_runs import RUNS, SEED

MATRICES = ("sentences", "paragraphs", "longform")
LATER = pytest.mark.nightly("one cell of paragraphs stands for the others")
CELLS = [
    pytest.param(name, case.cell, marks=LATER if name == "paragraphs" and case.cell != "base" else ())
    for name in ("sentences", "paragraphs")
    for case in load_matrix(find_matrix(name)).cases
]
COMPARED = 6
"""Runs of a cell that the core generates again, with upstream's noise."""

CLOSE = 0.02
"""Nats: half precision in the file, and two float32 evaluations of one network."""


@pytest.mark.parametrize("name", MATRICES)
def test_they_come_from_wheels_whose_checksum_is_known_and_from_these_weights(name):
    found = read_reference(shipped_reference(name))
    weights = hashlib.sha256((finch.folder() / "weights.safetensors").read_bytes()).hexdigest()
    assert found.provenance["weights_sha256"] == weights
    assert found.provenance["made_by"] == f"python -m tests.reference_runs {name} --write"
    matrix = load_matrix(find_matrix(name))
    assert list(found.cells) == [case.cell for case in matrix.cases]
    for case in matrix.cases:
        cell = found.cells[case.cell]
        version = variant(case.variant).wheels[-1]
        assert cell.source == f"chatterbox-tts {version}, SHA-256 {wheels.ARCHIVES[version]}"
        assert cell.config == str(case.config)
        assert len(cell.runs) == case.workload.count * RUNS.get(name, case.workload.runs)


@pytest.mark.parametrize("name", MATRICES)
def test_every_run_is_one(name):
    eos = finch.load().config.eos_id
    for cell in read_reference(shipped_reference(name)).cells.values():
        for run in cell.token_runs():
            assert run.ended == (run.tokens[-1] == eos)
            assert eos not in run.tokens[:-1]
            assert len(run.tokens) == len(run.logprobs) == len(run.position)
            assert 0 <= run.position.min() <= run.position.max() < run.text_length
            assert run.logprobs.max() <= 0 <= run.entropy.min() + 1e-6
        assert len({run.tokens for run in cell.token_runs()}) == len(cell.runs)


def requests(case):
    prompts = [prompt for prompt in prompts_of(case.workload) for _ in range(case.workload.runs)]
    chosen = list(range(0, len(prompts), max(1, len(prompts) // COMPARED)))[:COMPARED]
    keys = [reference_key(SEED, case.matrix, case.cell, index) for index in chosen]
    cap = case.workload.max_new_tokens
    return chosen, [request_of(prompts[index], key, cap, case.config) for index, key in zip(chosen, keys, strict=True)]


@pytest.mark.parametrize(("name", "cell"), CELLS)
def test_the_core_with_upstreams_noise_speaks_the_same_runs(name, cell, record_property):
    case = next(each for each in load_matrix(find_matrix(name)).cases if each.cell == cell)
    theirs = read_reference(shipped_reference(name)).runs(cell)
    chosen, asked = requests(case)
    made = Generator.of(finch.load(), variant(case.variant), width=COMPARED, keep_attention=True).generate(asked)
    parted = 0
    for index, generation in zip(chosen, made, strict=True):
        ours, run = as_kept(token_run(theirs[index].text, generation, theirs[index].expected)), theirs[index]
        same = min(len(ours.tokens), len(run.tokens))
        equal = ours.tokens == run.tokens
        if not equal:  # two float32 evaluations may part where the margin is that of rounding
            step = next((at for at in range(same) if ours.tokens[at] != run.tokens[at]), same)
            assert step < same, "one run goes on where the other ended"
            assert run.margin[step] < 1e-3, f"run {index} parts at step {step} with a margin of {run.margin[step]}"
            parted, same = parted + 1, step
        assert np.abs(ours.logprobs[:same] - run.logprobs[:same]).max() < CLOSE
        assert np.abs(ours.entropy[:same] - run.entropy[:same]).max() < CLOSE
        assert (ours.rank[:same] == run.rank[:same]).mean() > 0.98
        assert (ours.position[:same] == run.position[:same]).mean() > 0.98
        assert ours.text_length == run.text_length
        if equal:
            assert ours.stop_reason == run.stop_reason
    record_property("parted", f"{parted} of {len(chosen)} runs")
    assert parted <= 1


@pytest.mark.nightly("upstream's loop on torch, in a process of its own")
@pytest.mark.parametrize("cell", ["base", "variant:mtl-0.1.6"])
def test_the_command_gives_them_again(cell, tmp_path):
    path = find_matrix("sentences")
    matrix = load_matrix(path)
    case = next(each for each in matrix.cases if each.cell == cell)
    wheels.need(variant(case.variant).wheels[-1])
    text = path.read_text(encoding="utf-8").replace("requests = 12", "requests = 1").replace("runs = 8", "runs = 2")
    (tmp_path / "sentences.toml").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "tests.reference_runs", tmp_path / "sentences.toml", "--cell", cell]
    result = subprocess.run([*command, "--work", tmp_path], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found = json.loads(next(tmp_path.glob("*.json")).read_text(encoding="utf-8"))
    theirs = read_reference(shipped_reference("sentences")).runs(cell)
    assert len(found["runs"]) == 2
    for run, kept in zip(found["runs"], theirs, strict=False):
        assert tuple(run["tokens"]) == kept.tokens
        assert run["stop_reason"] == kept.stop_reason
        assert run["position"] == kept.position.tolist()
