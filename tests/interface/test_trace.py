"""`sampler trace attention`: the run is the core's own, the picture shows it, a mistake is one line."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from sampler import SamplingConfig
from sampler.engines.base import EngineError, EngineInfo
from sampler.engines.core import CoreEngine
from sampler.errors import Unsupported
from sampler.requests import Generation, Record, Request
from sampler.results.report.plots import attention_map
from sampler.trace.attention import suite_request, trace_attention
from tests.commands import sampler

TEXT = "The harbour is quiet tonight."


@pytest.fixture(scope="module")
def core() -> CoreEngine:
    return CoreEngine.load(width=1)


def request_of(engine, tokens: int = 400) -> Request:
    return suite_request(engine, TEXT, SamplingConfig(), seed=3, max_new_tokens=tokens, language="en")


def test_keeping_attention_changes_no_token_and_the_map_is_the_mean_of_the_heads(core):
    found = trace_attention(core, request_of(core))
    (plain,) = core.generate([Request(TEXT, SamplingConfig(), 3, 400)])
    assert found.tokens == plain.tokens
    assert found.stop_reason == plain.stop_reason == "eos"
    assert found.attention.shape == (len(found.tokens), len(found.pieces))
    assert found.pieces[:3] == ("[START]", "[en]", "t")
    assert found.pieces[-2:] == (".", "[STOP]")
    generator = replace(core.generator, keep_attention=True)
    (recorded,) = generator.generate([request_of(core)])
    heads = recorded.record.attention
    assert heads.shape[0] == len(generator.checkpoint.config.aligned_heads) == 3
    assert np.allclose(found.attention, (heads[0] + heads[1] + heads[2]) / 3, atol=1e-6)
    path = found.attention.argmax(axis=1)
    assert path[-1] > 0.8 * found.attention.shape[1]
    assert np.mean(np.diff(path) >= 0) > 0.8, "Finch reads forwards"


def test_a_picture_on_the_command_line(tmp_path, core):
    result = sampler("trace", "attention", TEXT, "--out", tmp_path / "map.svg", "--seed", 3)
    assert result.returncode == 0, result.stderr
    tokens = trace_attention(core, request_of(core)).tokens
    assert f"{len(tokens)} tokens over 32 pieces of text, stopped by eos" in result.stdout
    source = (tmp_path / "map.svg").read_text(encoding="utf-8")
    shown = ["".join(each.itertext()) for each in ET.fromstring(source).iter("{http://www.w3.org/2000/svg}text")]
    numbers = [text for text in shown if re.fullmatch(r"\d+", text)]
    assert numbers[-len(tokens) :] == [str(token) for token in tokens]
    greedy = ("--out", tmp_path / "map.png", "--temperature", 0, "--cfg-weight", 0)
    assert sampler("trace", "attention", TEXT, *greedy).returncode == 0
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {"map.svg", "map.png"}


def test_a_model_without_aligned_heads_has_no_map():
    engine = CoreEngine.load(width=1)
    model = engine.generator.checkpoint.model
    model.config = replace(model.config, aligned_heads=())
    with pytest.raises(Unsupported, match=r"core:finch has no aligned heads \(its attention follows no text\)"):
        trace_attention(engine, request_of(engine, 3))


@dataclass(frozen=True)
class Foreign:
    """An engine of others that records what it is told to."""

    record: Record | None
    tokens: tuple[int, ...] = (4, 5, 6)
    info = EngineInfo(name="foreign", version="1", vocab_size=9)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        if self.tokens == (9,):
            raise OSError("no such device")
        return [Generation(self.tokens, "length", self.record) for _ in requests]


def record(shape: tuple[int, ...] | None, flags: tuple[str, ...] = (), error: str = "") -> Record:
    empty = np.zeros(0, dtype=np.float32)
    attention = None if shape is None else np.full(shape, 0.5, dtype=np.float32)
    return Record(empty, empty.astype(np.int32), empty, empty, 0, 1, attention=attention, flags=flags, error=error)


def test_attention_that_others_recorded_is_drawn_with_its_flags():
    flags = ("", "long_tail", "")
    engine = Foreign(record((2, 3, 7), flags))
    found = trace_attention(engine, request_of(engine, 3))
    assert (found.tokens, found.stop_reason, found.flags, found.pieces) == ((4, 5, 6), "length", flags, ())
    assert found.attention.shape == (3, 7)
    figure = attention_map(found.attention, found.tokens, found.stop_reason, found.pieces, found.flags)
    assert "long_tail" in {label.get_text() for axes in figure.axes for label in axes.get_yticklabels()}


@pytest.mark.parametrize(
    ("engine", "error", "expected"),
    [
        (Foreign(None), Unsupported, "foreign records no attention (Record.attention has it, (pairs, steps, text))"),
        (Foreign(record(None)), Unsupported, "foreign records no attention"),
        (Foreign(record((2, 4, 7))), EngineError, "foreign recorded attention of shape (2, 4, 7) for 3 tokens"),
        (Foreign(record((2, 3))), EngineError, "foreign recorded attention of shape (2, 3) for 3 tokens"),
        (Foreign(record((2, 3, 0))), EngineError, "foreign recorded attention of shape (2, 3, 0) for 3 tokens"),
        (
            Foreign(record((2, 3, 7), ("x",))),
            EngineError,
            "request 0 recorded 1 flags for 3 tokens",
        ),
        (Foreign(record(None, error="NaN in it"), ()), EngineError, "foreign drew no token (NaN in it)"),
        (Foreign(None, ()), EngineError, "foreign drew no token (length)"),
        (Foreign(None, (9,)), EngineError, "foreign failed: OSError: no such device"),
    ],
)
def test_what_cannot_be_drawn_says_why(engine, error, expected):
    with pytest.raises(error, match=re.escape(expected)):
        trace_attention(engine, request_of(engine, 3))
