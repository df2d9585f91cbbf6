"""Reference runs as files: written and read, refused, found by name, and given to `sampler check`."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sampler.errors import TokensError
from sampler.matrix.matrix import find_matrix, load_matrix
from sampler.results.store import reference_runs as store
from sampler.results.store.reference_runs import as_kept, read_reference, shipped_runs
from sampler.run.prompts import prompts_of
from sampler.run.session import Session
from tests.commands import sampler
from tests.reference_runs import write_reference

STEPS = {
    "tokens": [3, 7, 9, 4, 9],
    "logprobs": [-0.5, -0.25, 0, -1, -2],
    "entropy": [1, 2, 0, 1, 1],
    "rank": [0, 1, 0, 0, 2],
    "margin": [1, np.inf, 2, 3, 4],
    "position": [0, 1, 2, 0, 1],
}
RUNS = [
    {"prompt": "a", "stop_reason": "eos", "expected": 3, "text_length": 5, "steps": 3},
    {"prompt": "b", "stop_reason": "length", "expected": 4, "text_length": 6, "steps": 2},
]


def cell(**changes):
    columns = {name: np.array(values, dtype=np.float64) for name, values in (STEPS | changes).items()}
    return store.ReferenceCell("base", "a wheel", "some knobs", RUNS, columns)


def test_runs_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "made.safetensors"
    write_reference(path, [cell()], {"made_by": "this test"})
    found = read_reference(path)
    assert found.provenance == {"made_by": "this test"}
    assert found.runs("other") == ()
    one, two = found.runs("base")
    assert (one.text, one.tokens, one.stop_reason, one.expected, one.text_length) == ("a", (3, 7, 9), "eos", 3, 5)
    assert (two.tokens, two.stop_reason) == ((4, 9), "length")
    assert one.margin.tolist() == [1, np.inf, 2]
    assert two.position.tolist() == [0, 1]
    assert as_kept(one) == one


@pytest.mark.parametrize(("name", "value"), [("tokens", 70_000), ("rank", -1), ("position", 0.5)])
def test_what_does_not_fit_is_neither_written_nor_read(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"base: {name} does not fit"):
        write_reference(tmp_path / "made.safetensors", [cell(**{name: [value] * 5})], {})
    assert not list(tmp_path.iterdir())
    path = tmp_path / "none.safetensors"
    path.write_bytes(b"no tensors")
    with pytest.raises(TokensError, match=r"none.safetensors cannot be read"):
        read_reference(path)


def test_runs_are_found_by_matrix_and_cell_and_rounded_as_those_of_an_engine():
    run = shipped_runs("sentences/base")[0]
    assert store.COLUMNS["entropy"] is np.float16
    assert np.array_equal(as_kept(run).entropy, run.entropy)
    texts = {run.text for run in shipped_runs("sentences/base")}
    assert len(texts) == 12
    everything = shipped_runs("sentences")
    of_base = {run.text for run in everything if run.text.startswith("sentences/base ")}
    assert of_base == {f"sentences/base {text}" for text in texts}
    with pytest.raises(TokensError, match=r"there are no reference runs 'sentence' \(expected FILE.jsonl, or runs"):
        shipped_runs("sentence")
    with pytest.raises(TokensError, match=r"there are no reference runs 'sentences/bass' \(cells: base, "):
        shipped_runs("sentences/bass")
    with pytest.raises(TokensError, match=r"longform.reference = 'none' \(there is no none.safetensors\)"):
        store.check_reference(store.shipped_reference("sentences").parent, "none")


@pytest.fixture(scope="module")
def port():
    matrix = load_matrix(find_matrix("sentences"))
    case = replace(matrix.cases[0], workload=matrix.workload.model_copy(update={"runs": 4}))
    session = Session(matrix, 77)
    ids = [prompt.id for prompt in prompts_of(case.workload) for _ in range(4)]
    return list(zip(ids, session.answers(case, session.requests(case), lambda tokens, finished: None), strict=True))


@pytest.mark.parametrize(
    ("cut", "led", "fix", "outcome", "code"),
    [
        (False, (), (), "agrees", 0),
        (True, (), (), "disagrees", 1),
        (False, (2048, 7, 1955, 88), (), "inconclusive", 3),
        (False, (2048, 7, 1955, 88), ("--fix", "prefix"), "agrees", 0),
        (True, (2048, 7, 1955, 88), ("--fix", "prefix"), "disagrees", 1),
    ],
)
def test_a_port_is_put_beside_runs_that_ship(tmp_path, port, cut, led, fix, outcome, code):
    lines = []
    for text, run in port:
        tokens = run.tokens[: len(run.tokens) * 2 // 3] if cut else run.tokens
        reason = "length" if cut else run.stop_reason
        lines.append(json.dumps({"prompt": text, "tokens": [*led, *tokens], "stop_reason": reason}))
    path = tmp_path / "port.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    result = sampler("check", path, "--against", "sentences/base", "--detect", "0.4", *fix)
    assert result.returncode == code, result.stdout + result.stderr
    assert f"{path} {outcome}" in result.stdout
