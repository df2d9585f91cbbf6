"""The tokens of a row, made once for all rivals, and what the reference says of them."""

import pickle
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sampler.chain.noise import NoiseKey, RequestNoise
from sampler.checks.longform.runs import TokenRun, token_run
from sampler.checks.scoring.score import Run, Tolerance
from sampler.engines.base import Evaluation
from sampler.engines.core import CoreEngine
from sampler.requests import Request, Steps
from sampler.run.scoring import Model
from tests.duel.kl import divergences
from tests.duel.rows import Row
from tests.longform.wrong_runs import WIDTH, checkpoint
from tests.wrong_engines.wrong_generators.table import Around, Plan

SETS, TOKENS = 3, 2_200
"""Independent sets of runs of a row, and about how many tokens a right engine draws in each."""

ALPHA = 1e-6
MEASURED = Tolerance("float32", edge=2e-3, logit=2e-5)
"""For proofs: right float32 implementations of Finch differ by at most 1.4e-5 (docs/decisions.md, "Scoring")."""

GREEDY = 60
"""Tokens of a run at temperature 0, at most."""


class Spoken(NamedTuple):
    """A run of a text by its place in the plan. divergences: KL of each token, of a set's first runs; else None."""

    place: int
    seed: int
    run: TokenRun
    divergences: np.ndarray | None


class Tokens(NamedTuple):
    """What an engine said: sets of runs, and one run of each text at temperature 0."""

    sets: list[list[Spoken]]
    greedy: list[tuple[int, ...]]


@dataclass(frozen=True)
class Bounded:
    """Steps of a run under the reference: which tokens it must and may keep, and its scores (float64)."""

    steps: Steps
    must: np.ndarray
    may: np.ndarray
    final: Evaluation


@dataclass(frozen=True)
class Judged:
    """A run beside the reference. key: of the noise that its engine was given."""

    run: Run
    key: NoiseKey
    row: Row

    @cached_property
    def bounded(self) -> list[Bounded]:
        chain = model().score(self.row.config, ALPHA, MEASURED).reference
        return [Bounded(steps, *chain.bounds(steps)) for steps in self.run.steps(self.row.config)]


@cache
def model() -> Model:
    return Model(CoreEngine.load(width=1))


def runs_of_each_text(plan: Plan, tokens: int) -> int:
    return max(2, round(tokens / sum(prompt.tokens for prompt in plan.prompts)))


def key_of(row: Row, place: int, seed: int) -> NoiseKey:
    return NoiseKey(seed, f"{row.name}/{row.plan.prompts[place].id}")


def request_of(row: Row, place: int, seed: int) -> Request:
    noise = RequestNoise(key_of(row, place, seed), model().info.vocab_size)
    prompt = row.plan.prompts[place]
    return Request(prompt.text, row.config, seed, row.cap, noise=noise, language=prompt.language)


def tokens_of(row: Row, folder: Path, sets: int = SETS, tokens: int = TOKENS) -> Tokens:
    """The tokens of a row, from the folder if they are there."""
    name, runs = re.sub(r"[^a-z0-9]+", "_", row.name.lower()), runs_of_each_text(row.plan, tokens)
    spoken = [
        kept(folder / f"{name}_{runs}_{one}.pickle", partial(speak, row, range(runs * one, runs * (one + 1))))
        for one in range(sets)
    ]
    return Tokens(spoken, kept(folder / f"{name}_greedy.pickle", partial(greedy, row)))


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """What a file has, made first unless it is there."""
    if not path.exists():
        path.write_bytes(pickle.dumps(make()))
    return pickle.loads(path.read_bytes())


def speak(row: Row, seeds: range) -> list[Spoken]:
    """Runs of each text; neighbours in a block speak different texts. KL is that of the first seeds of all."""
    plan = [(place, seed) for seed in seeds for place in range(row.plan.texts)]
    generator = recording(row.factory(checkpoint(), min(WIDTH, len(plan))))
    made = generator.generate([request_of(row, place, seed) for place, seed in plan])
    spoken = []
    for (place, seed), generation in zip(plan, made, strict=True):
        prompt = row.plan.prompts[place]
        logits = generation.record.logits if seeds.start == 0 and generation.record else None
        forced = logits is not None and judged_run(row, place, seed, generation.tokens, generation.stop_reason)
        found = divergences(logits, forced.run.steps.logits) if forced else None
        spoken.append(Spoken(place, seed, token_run(prompt.id, generation, prompt.tokens), found))
    return spoken


def recording(generator: Any) -> Any:
    """The same generator with its logits in the records."""
    if isinstance(generator, Around):
        return replace(generator, generator=recording(generator.generator))
    return replace(generator, keep_logits=True)


def greedy(row: Row) -> list[tuple[int, ...]]:
    """The first tokens of a run of each text at temperature 0."""
    cold = replace(row, config=replace(row.config, temperature=0.0), cap=GREEDY)
    requests = [request_of(cold, place, 0) for place in range(row.plan.texts)]
    return [one.tokens for one in row.factory(checkpoint(), len(requests)).generate(requests)]


def judged(row: Row, spoken: list[Spoken]) -> Iterator[Judged]:
    for one in spoken:
        yield judged_run(row, one.place, one.seed, one.run.tokens, one.run.stop_reason)


def judged_run(row: Row, place: int, seed: int, tokens: tuple[int, ...], stop_reason: Any) -> Judged:
    run = model().run(f"run {seed}", request_of(row, place, seed), tokens, stop_reason)
    return Judged(run, key_of(row, place, seed), row)
