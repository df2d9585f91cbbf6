"""What the cases work with: the questions, the small networks, and ways to say that something is wrong."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import mlx.core as mx
import numpy as np

from sampler.errors import SamplerError
from sampler.generation.generator import Generator
from sampler.requests import Generation, Request
from sampler.t3.checkpoint import Checkpoint
from sampler.t3.model import T3
from sampler.variants import analyzer
from tests.tools.mutation.questions import Asked, Questions, Runs

TOLERANCE = 1e-3  # between MLX and torch in float32; the networks are small, and logits agree to 1e-5
WIDTH = 3
LARGE_IDS = 400


@dataclass(frozen=True)
class Bench:
    """What the cases work with."""

    questions: Questions

    @cached_property
    def llama(self) -> Checkpoint:
        return self.checkpoint("llama")

    def checkpoint(self, name: str, tensors: Mapping[str, Any] | None = None, **changes: Any) -> Checkpoint:
        """One of the networks, with some tensors and some fields of its T3Config replaced."""
        network = self.questions.networks[name]
        arrays = {key: mx.array(values) for key, values in {**network.tensors, **(tensors or {})}.items()}
        return Checkpoint(T3(arrays, replace(network.config, **changes)), Spells(), network.voice, "")

    def with_large_ids(self) -> Checkpoint:
        """The small network with more speech tokens than Python keeps one object of; BOS and EOS are the last two."""
        tensors, config = self.questions.networks["llama"].tensors, self.llama.config
        more = np.ones((LARGE_IDS - config.speech_vocab_size, config.hidden_size), dtype=np.float32)
        larger = {name: np.concatenate([tensors[name], more]) for name in ("speech_emb.weight", "speech_head.weight")}
        changes = {"speech_vocab_size": LARGE_IDS, "bos_id": LARGE_IDS - 2, "eos_id": LARGE_IDS - 1}
        return self.checkpoint("llama", larger, **changes)

    def runs(self, name: str) -> Runs:
        return next(runs for runs in self.questions.runs if runs.variant == name)

    def requests(self, name: str, letters: int = 0) -> list[Request]:
        return [request(asked) for asked in self.runs(name).asked if len(asked.text) > letters]

    def generate(self, requests: Sequence[Request], **settings: Any) -> list[Generation]:
        given = {"width": WIDTH, "keep_logits": True, "keep_attention": True, "analyzer": analyzer("upstream")}
        return Generator(self.llama, **{**given, **settings}).generate(requests)


class Spells:
    """A tokenizer: ids of letters, with start and stop; another language begins at another id."""

    def encode(self, text: str, language: str = "en") -> list[int]:
        return [3, *(5 + ord(letter) % 26 + (language != "en") for letter in text), 0]


def request(asked: Asked) -> Request:
    return Request(asked.text, asked.config, 0, asked.cap, lambda step: asked.noise[step])


def needs(holds: Any, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def same(left: Any, right: Any, what: str) -> None:
    needs((left is None) == (right is None), what)
    if left is not None:
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right), err_msg=what)


def near(left: Any, right: Any, what: str) -> None:
    needs(np.shape(left) == np.shape(right), f"{what}: {np.shape(left)}, {np.shape(right)}")
    np.testing.assert_allclose(left, right, rtol=TOLERANCE, atol=TOLERANCE, err_msg=what)


def refuses(work: Callable[[], Any], *words: str, kind: type[Exception] = SamplerError) -> None:
    try:
        work()
    except kind as error:
        for word in words:
            needs(word in f"{error} {error.hint}", f"{word} in {error}")
        return
    needs(False, f"nothing is said of {words}")
