"""What a run keeps beside its verdicts: every token, and attention only where a picture will need it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest

from sampler import SamplingConfig
from sampler.engines.base import EngineInfo
from sampler.matrix.matrix import Case, Workload
from sampler.requests import Generation, Record, Request
from sampler.results.store.attachments import PICTURED, Recorded, read_recorded
from sampler.results.store.tokens import read_lines
from sampler.run.events import CaseResult, Finished, Judged
from sampler.run.recorder import prompt_ids, recorded, telling_run
from tests.pages import verdict

EMPTY = np.zeros(0, dtype=np.float32)
TEXTS = ["One.", "Two.", "Three."]


def generation(tokens: Sequence[int] = (1, 2, 3), stop_reason: str = "eos", *, attention: bool = False) -> Generation:
    rows = np.full((2, len(tokens), 4), 0.25, dtype=np.float32) if attention else None
    record = Record(EMPTY, EMPTY.astype(np.int32), EMPTY, EMPTY, 1, 2, attention=rows)
    return Generation(tuple(tokens), stop_reason, record)


@dataclass
class Engine:
    """Answers every request with the same generation, and keeps the requests."""

    answer: Generation | None
    asked: list[Request] = field(default_factory=list)
    info = EngineInfo(name="made", version="1", vocab_size=9)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        self.asked.extend(requests)
        if self.answer is None:
            raise OSError("no such device")
        return [self.answer] * len(requests)


def result(cell: str, outcome: str, generations: Sequence[Generation], message: str = "") -> CaseResult:
    plan = Workload(prompts=TEXTS)
    requests = [Request(text, SamplingConfig(), 0, 5) for text in TEXTS[: len(generations)]]
    found = (verdict(cell, outcome, message=message),)
    return CaseResult(Case("made", cell, SamplingConfig(), plan), found, {}, 9, 1.0, requests, generations)


def record(folder, engine: Engine, results: Sequence[CaseResult]) -> tuple[dict, Recorded]:
    with recorded(SimpleNamespace(engine=engine, engine_for=lambda case: engine), folder) as recorder:
        for each in results:
            recorder.take(Judged(each))
        recorder.take(Finished([], 9, 1.0))
    assert not list(folder.glob("*.part*"))
    about = json.loads((folder / "run.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return about, read_recorded(folder, about["files"])


def test_tokens_of_every_cell_are_kept_and_attention_of_failing_ones(tmp_path):
    engine = Engine(generation(attention=True))
    runs = [generation(), generation((4,), "length")]
    cells = [result("a:1", "passed", runs[:1]), result("a:2", "failed", runs)]
    about, kept = record(tmp_path, engine, cells)
    assert about["finished"].endswith("+00:00")
    runs = read_lines(tmp_path / "tokens.jsonl")
    assert [(run.cell, run.request, run.prompt, run.tokens, run.stop_reason) for run in runs] == [
        ("made/a:1", 0, 0, (1, 2, 3), "eos"),
        ("made/a:2", 0, 0, (1, 2, 3), "eos"),
        ("made/a:2", 1, 1, (4,), "length"),
    ]
    assert kept.missing == []
    assert kept.attention == {}, "the run that hit its cap came out otherwise when it was asked for again"
    assert [(request.prompt, request.slot) for request in engine.asked] == [("Two.", 1)], "in its own slot"


def test_attention_is_asked_for_again_or_taken_as_it_was_recorded(tmp_path):
    engine = Engine(generation(attention=True))
    cells = [result("a:1", "failed", [generation()]), result("a:2", "errored", [generation(attention=True)])]
    _, kept = record(tmp_path, engine, cells)
    assert list(kept.attention) == ["made/a:1", "made/a:2"]
    assert kept.attention["made/a:1"].attention.shape == (3, 4)
    assert kept.attention["made/a:1"].attention.dtype == np.float16
    assert len(engine.asked) == 1


@pytest.mark.parametrize("answer", [None, generation(), generation((1, 2), attention=True)])
def test_an_engine_without_a_fitting_answer_costs_the_picture_only(tmp_path, answer):
    about, kept = record(tmp_path, Engine(answer), [result("a:1", "failed", [generation()])])
    assert kept.attention == {}
    assert list(about["files"]) == ["tokens.jsonl"]


def test_only_the_first_failing_cells_are_generated_again(tmp_path):
    engine = Engine(generation(attention=True))
    broken = [result(f"b:{index}", "errored", []) for index in range(3)]  # nothing was generated there
    failing = [result(f"a:{index}", "failed", [generation()]) for index in range(PICTURED + 5)]
    _, kept = record(tmp_path, engine, [*broken, *failing])
    assert list(kept.attention) == [f"made/a:{index}" for index in range(PICTURED)]
    assert len(engine.asked) == PICTURED


def interrupt(folder) -> None:
    with recorded(SimpleNamespace(engine=Engine(None)), folder) as recorder:
        recorder.take(Judged(result("a:2", "passed", [generation()])))
        raise KeyboardInterrupt


def test_an_earlier_run_is_replaced_by_a_whole_one_alone(tmp_path):
    """Its attention does not stay; a run that was interrupted leaves the tokens of the one before."""
    record(tmp_path, Engine(generation(attention=True)), [result("a:1", "failed", [generation()])])
    assert (tmp_path / "attention.safetensors").exists()
    record(tmp_path, Engine(None), [result("a:1", "passed", [generation()])])
    assert {path.name for path in tmp_path.iterdir()} == {"run.jsonl", "tokens.jsonl"}
    before = (tmp_path / "tokens.jsonl").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        interrupt(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"run.jsonl", "tokens.jsonl"}
    assert (tmp_path / "tokens.jsonl").read_bytes() == before


def test_the_same_run_gives_the_same_files(tmp_path):
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        record(tmp_path / name, Engine(generation(attention=True)), [result("a:1", "failed", [generation()])])
        files = (path for path in (tmp_path / name).iterdir() if path.name != "run.jsonl")  # it says when it ended
        contents.append({path.name: path.read_bytes() for path in files})
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("named", "stops", "expected"),
    [
        (2, ["eos", "eos", "eos"], 2),
        (1, ["eos", "length", "length"], 1),
        (None, ["eos", "error", "length"], 1),
        (None, ["eos", "forced_eos", "eos"], 0),
        (7, ["eos", "eos", "length"], 2),
    ],
)
def test_the_picture_shows_the_run_that_the_verdict_names(named, stops, expected):
    runs = [generation(stop_reason=stop) for stop in stops]
    failed = result("a:1", "failed", runs)
    verdicts = tuple(replace(each, request=named) for each in failed.verdicts)
    assert telling_run(replace(failed, verdicts=verdicts)) == expected
    passed = replace(failed, verdicts=(verdict("a:1", request=2),))
    assert telling_run(passed) == next((index for index, stop in enumerate(stops) if stop in ("length", "error")), 0)


def test_texts_that_come_with_finch_are_named_by_their_id():
    ids = prompt_ids(Workload())
    assert ids["No miller in Venice has ever examined so many medals!"] == "en-sentence-001"
    assert prompt_ids(Workload(prompts=TEXTS)) == {}
