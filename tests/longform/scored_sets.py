"""Sets of runs of one generator, with noise of its own, scored under the reference until they are rejected."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from math import inf

from sampler.chain.noise import NoiseKey
from sampler.checks.scoring.findings import findings
from sampler.checks.scoring.score import Score
from sampler.checks.scoring.tolerance import SINGLE, Tolerance
from sampler.engines.core import CoreEngine
from sampler.run.scoring import NAMING, Model
from sampler.run.spoken import Spoken
from sampler.t3.checkpoint import Checkpoint
from tests.longform.wrong_runs import CAP, DEFAULT, RATE, WIDTH, checkpoint, request_of
from tests.wrong_engines.held_out_generators import HELD_OUT_GENERATORS
from tests.wrong_engines.later_generators import LATER_GENERATORS
from tests.wrong_engines.wrong_generators import RIGHT_GENERATORS, WRONG_GENERATORS
from tests.wrong_engines.wrong_generators.table import Plan, RightGenerator, WrongGenerator

GENERATORS = WRONG_GENERATORS | LATER_GENERATORS | HELD_OUT_GENERATORS

RUNS = 60
"""Runs of a set, at most."""

AT_ONCE = 15
"""Runs that are generated first: enough tokens for a cause; the others only if these are not rejected."""

TEXTS = 12
"""Sentences that a set speaks in turn."""

OTHER_TEXTS = 3
"""How many texts of each language further on the next seed begins."""


@cache
def reference() -> Model:
    return Model(CoreEngine.load(width=1))


def plan_of(generator: WrongGenerator | RightGenerator, seed: int) -> Plan:
    """The texts of the generator's plan, other ones for every seed."""
    plan = generator.plan
    return replace(plan, texts=TEXTS if plan.group == "sentences" else plan.texts, first=OTHER_TEXTS * seed)


@cache
def checkpoint_in(dtype: str) -> Checkpoint:
    """Finch in another precision."""
    return checkpoint() if dtype == "float32" else CoreEngine.load(width=1, dtype=dtype).generator.checkpoint


def speak(name: str, seed: int, places: range, dtype: str = "float32") -> Iterator[Spoken]:
    """Some of the runs of a set, generated together. dtype: of the network."""
    generator = GENERATORS.get(name) or RIGHT_GENERATORS[name]
    cap = generator.cap if isinstance(generator, WrongGenerator) else CAP
    prompts = plan_of(generator, seed).prompts
    requests = []
    for place in places:
        turn, prompt = place // len(prompts), prompts[place % len(prompts)]
        key = NoiseKey(turn, f"scoring/{name}/{seed}/{prompt.id}")
        requests.append(request_of(prompt, key, cap, DEFAULT, turn))
    answers = generator.factory(checkpoint_in(dtype), WIDTH).generate(requests)
    for place, request, answer in zip(places, requests, answers, strict=True):
        yield Spoken(f"run {place + 1}", request, tuple(answer.tokens), answer.stop_reason)


@dataclass(frozen=True)
class Seen:
    """What scoring sees of a set. tokens, runs: after how many it is rejected, inf if it is not.

    by: the check that rejects first, or empty. stage, cause: that are named then, empty where none is.
    """

    tokens: float
    runs: float
    by: str
    stage: str
    cause: str


def score_of(runs: Iterable[Spoken], tolerance: Tolerance = SINGLE) -> tuple[Score, int | None]:
    """The score of a set, until its cause can be told; after how many tokens a run has ended wrongly."""
    score, ended = reference().score(DEFAULT, RATE, tolerance), None
    for run in runs:
        if (score.decided or score.wrong) and score.checked >= NAMING:
            break
        score.add(reference().run(run.name, run.request, run.tokens, run.stop_reason))
        if score.wrong and ended is None:
            ended = score.checked
    return score, ended


def seen(runs: Iterable[Spoken], tolerance: Tolerance = SINGLE) -> Seen:
    """The first check that rejects a set decides what it is by and what is named."""
    score, ended = score_of(runs, tolerance)
    when = {"impossible": score.proof, "evidence": score.wagers.enough, "protocol": ended}
    tokens, by = min((tokens, name) for name, tokens in {**when, "": inf}.items() if tokens is not None)
    lengths = list(accumulate(len(run.tokens) for run in score.runs))
    count = next((at for at, length in enumerate(lengths, 1) if length >= tokens), inf)
    if not by:
        return Seen(tokens, count, "", "", "")
    finding = findings(score)[by]
    cause = re.search(r"it looks like ([^;]*)", finding.message)
    return Seen(tokens, count, by, finding.stage, cause[1] if cause else "")


def set_of(name: str, seed: int, most: int = RUNS) -> Iterator[Spoken]:
    """The runs of a set, generated when they are needed."""
    for places in (range(min(AT_ONCE, most)), range(AT_ONCE, most)):
        if places:
            yield from speak(name, seed, places)
