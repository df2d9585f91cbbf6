"""Sets of runs that are right, scored under the reference: how often scoring accuses them, and how sure it grows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sampler import finch
from sampler.checks.longform.runs import TokenRun
from sampler.checks.scoring.tolerance import TOLERANCES
from sampler.config import SamplingConfig
from sampler.finch import Prompt
from sampler.matrix.matrix import load_matrix
from sampler.requests import Request
from sampler.results.store.reference_runs import shipped_runs
from sampler.run.prompts import prompts_of
from sampler.run.scoring import Scoring
from sampler.run.spoken import Spoken
from tests.longform.scored_sets import TEXTS, reference, speak
from tests.longform.wrong_runs import DEFAULT, RATE
from tests.wrong_engines.wrong_generators import RIGHT_GENERATORS

SURE = 20.0
"""A wealth that the bets of right sets reach in at most 5 of 100."""

TOGETHER = 4
"""Sets that are generated together: as many runs as a block is wide."""

MATRIX = Path(__file__).parents[2] / "matrices" / "longform.toml"


@dataclass(frozen=True)
class Right:
    """One set. impossible: tokens. wealth: the largest of the bets. accused: what scoring says, empty for nothing."""

    kind: str
    runs: int
    tokens: int
    impossible: int
    wealth: float
    accused: str


def right_set(kind: str, runs: Sequence[Spoken], dtype: str = "float32") -> Right:
    """Scored in the class of a precision."""
    found = Scoring(reference(), runs, RATE, tolerance=TOLERANCES[dtype]).findings()
    accused = [finding.message for finding in found.values() if finding.outcome in ("failed", "errored")]
    evidence, impossible = found["evidence"], found["impossible"]
    wealth = 1 / evidence.p_value if evidence.p_value else float("inf")
    return Right(kind, len(runs), impossible.n, int(impossible.statistic or 0), wealth, "; ".join(accused))


class Task(NamedTuple):
    """Sets of one kind that one generator speaks together. count: of sets. dtype: of the network."""

    kind: str
    generator: str
    seed: int
    count: int
    dtype: str = "float32"


def tasks(own: int, right: int, half: int = 0) -> list[Task]:
    """Sets to make: `own` of the core, `right` of right generators in turn, `half` of the core in each half type."""
    names = list(RIGHT_GENERATORS)
    seeds = range(0, own, TOGETHER)
    made = [Task("the core in float32", "other_seeds", seed, min(TOGETHER, own - seed)) for seed in seeds]
    made += [Task("right generators in turn", names[at % len(names)], own + at, 1) for at in range(right)]
    for dtype in ("float16", "bfloat16"):
        kind = f"the core in {dtype}, in its class"
        made += [Task(kind, "other_seeds", at, min(TOGETHER, half - at), dtype) for at in range(0, half, TOGETHER)]
    return made


def generated(task: Task) -> list[Right]:
    """Sets of TEXTS runs, all of the same texts."""
    runs = [*speak(task.generator, task.seed, range(TEXTS * task.count), task.dtype)]
    return [right_set(task.kind, some, task.dtype) for some in _parts(runs)]


def of_upstream(long: int) -> Iterator[Right]:
    """Shipped runs of upstream's torch code: those of the default config, TEXTS at a time, and `long` of each cell."""
    for group in ("sentences", "paragraphs"):
        texts = {prompt.id: prompt for prompt in finch.prompts(group)}
        for some in _parts(spoken_runs(shipped_runs(f"{group}/base"), texts, DEFAULT)):
            yield right_set(f"upstream's torch code, {group}", some)
    for case in load_matrix(MATRIX).cases:
        texts = {prompt.id: prompt for prompt in prompts_of(case.workload)}
        runs = shipped_runs(f"longform/{case.cell}")[:long]
        for run in spoken_runs(runs, texts, case.config, case.variant):
            yield right_set("upstream's torch code, one long run", [run])


def _parts(runs: Sequence[Spoken]) -> Iterator[Sequence[Spoken]]:
    return (runs[start : start + TEXTS] for start in range(0, len(runs), TEXTS))


def spoken_runs(
    runs: Sequence[TokenRun], texts: Mapping[str, Prompt], config: SamplingConfig, variant: str = ""
) -> list[Spoken]:
    """Recorded runs with the text of each."""

    def one(run: TokenRun) -> Spoken:
        prompt = texts[run.text]
        request = Request(prompt.text, config, 0, len(run.tokens), language=prompt.language)
        return Spoken(f"run of {run.text}", request, run.tokens, run.stop_reason, variant)

    return [one(run) for run in runs]
