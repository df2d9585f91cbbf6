"""Finch with noise that follows from more than the request: its row, its place, its neighbours, the call.

Each row tells what Finch is asked instead of a list of requests; the logits and the chain are right.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from sampler.chain.noise import NoiseKey
from sampler.engines.base import EngineInfo
from sampler.engines.core import CoreEngine
from sampler.requests import Generation, Request

from .tables import put_into

SIZE = 2_050
Ask = Callable[[Sequence[Request]], list[Request]]


@dataclass(frozen=True)
class Asking:
    """Finch behind a generate() that changes the requests; it does not promise equal bits."""

    engine: CoreEngine
    ask: Ask

    @property
    def info(self) -> EngineInfo:
        return self.engine.info

    def process(self, *inputs: object) -> np.ndarray:
        return self.engine.process(*inputs)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        return self.engine.generate(self.ask(requests))


def of(request: Request, *key: object) -> Request:
    """The request with noise of our own."""
    noise = NoiseKey(request.seed, "/".join(map(str, ("own", *key))))
    return replace(request, noise=lambda step: noise.gumbel(step, SIZE))


def by_seed(requests: Sequence[Request]) -> list[Request]:
    return [of(request) for request in requests]


def by_row(requests: Sequence[Request]) -> list[Request]:
    return [of(request, row) for row, request in enumerate(requests)]


def by_company(requests: Sequence[Request]) -> list[Request]:
    return [of(request, sorted(each.seed for each in requests)) for request in requests]


def only_the_first_text(calls: "itertools.count[int]", texts: list[Any], requests: Sequence[Request]) -> list[Request]:
    """The text that came first of all repeats; every other one depends on the call."""
    call = next(calls)
    texts.extend(request.prompt for request in requests)
    return [of(request) if request.prompt == texts[0] else of(request, call) for request in requests]


def last_row(requests: Sequence[Request]) -> list[Request]:
    return [*by_seed(requests[:-1]), of(replace(requests[-1], seed=0))]


def last_of_the_call(calls: "itertools.count[int]", requests: Sequence[Request]) -> list[Request]:
    return [*by_seed(requests[:-1]), of(requests[-1], next(calls))]


def of_the_first_row(requests: Sequence[Request]) -> list[Request]:
    return [of(replace(request, seed=requests[0].seed)) for request in requests]


def asking(ask: Ask, width: int = 4) -> Asking:
    return Asking(CoreEngine.load(width=width), ask)


REPEATING: dict[str, Any] = {}
WRONG_STAGES: dict[str, str] = {}
"""The stage of `repeats` for each wrong one."""


put = partial(put_into, REPEATING, WRONG_STAGES)

put(
    "batch",
    "noise_by_row: the row of the batch is part of the seed [R06].",
    lambda: asking(by_row),
    "noise_by_company: the seeds of the whole batch are the seed of every row [R06].",
    lambda: asking(by_company),
    "last_row_ignores_its_seed: the last row of a batch has a fixed seed [R06].",
    lambda: asking(last_row),
    "noise_of_the_first_row: every row has the noise of the first one [R09].",
    lambda: asking(of_the_first_row),
)
put(
    "seed",
    "only_the_first_text_repeats: one text comes back the same, every other one differs with each call [R08].",
    lambda: asking(partial(only_the_first_text, itertools.count(), [])),
    "last_row_has_no_seed: the last row of a batch differs with each call [R08].",
    lambda: asking(partial(last_of_the_call, itertools.count())),
)
put("", "right_by_seed: noise of its own follows from the seed of the request alone.", lambda: asking(by_seed))
