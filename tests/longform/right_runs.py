"""How often right runs are accused at a budget raised to 5 %: check-runs with fresh noise on both sides, counted."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

from scipy.stats import binomtest

from sampler.checks.longform.runs import TokenRun
from sampler.generation.generator import Generator
from sampler.run.tokens import findings
from tests.longform.wrong_runs import CAP, WIDTH, checkpoint, speak
from tests.wrong_engines.token_runs import RIGHT, Source
from tests.wrong_engines.wrong_generators import RIGHT_GENERATORS
from tests.wrong_engines.wrong_generators.table import Plan

RATE = 0.05
CHEAP = 500
SMALL: Source = replace(RIGHT, lengths=(20, 30, 40), cap=80)
SMALL_RUNS = 8

SHORT = Plan("4 short sentences x 4 runs", "sentences", 4, 4, 12, 33)
FINCH = 100
TIMES = 2
"""Check-runs of one generation on each side: its runs are shared out, and none is used twice."""


@dataclass(frozen=True)
class Alarms:
    """accused: of `count` check-runs of right runs. what: they were."""

    what: str
    accused: int
    count: int

    @property
    def interval(self) -> tuple[float, float]:
        """Exact 95 % interval of the rate (Clopper and Pearson 1934)."""
        found = binomtest(self.accused, self.count).proportion_ci(0.95, "exact")
        return float(found.low), float(found.high)

    @property
    def good(self) -> bool:
        return self.interval[0] <= RATE

    def __str__(self) -> str:
        low, high = self.interval
        interval = f"{self.accused / self.count:.1%}, exact 95 % interval {low:.1%} to {high:.1%}; budget {RATE:.0%}"
        return f"{self.what}: {self.accused} of {self.count} check-runs accuse ({interval})"


def accuses(runs: list[TokenRun], reference: list[TokenRun]) -> bool:
    return any(finding.outcome == "failed" for _, finding in findings(runs, reference, RATE))


def _cheap(trial: int) -> bool:
    first, second = (SMALL.runs(SMALL_RUNS, 1_000_000 + 2 * trial + side) for side in (0, 1))
    return accuses(first, second)


def _finch(trial: int) -> list[bool]:
    """TIMES check-runs of one right generator, the next one at every trial."""
    right = list(RIGHT_GENERATORS.values())[trial % len(RIGHT_GENERATORS)]
    sides = []
    for name, factory in (("engine", right.factory), ("reference", Generator)):
        generator = factory(checkpoint(), WIDTH)
        runs = speak(generator, SHORT.prompts, SHORT.runs * TIMES, f"right/{name}/{trial}", CAP)
        sides.append([right.change(run) for run in runs])
    size = SHORT.texts * SHORT.runs
    return [accuses(*(side[part * size : (part + 1) * size] for side in sides)) for part in range(TIMES)]


def cheap(count: int = CHEAP, processes: int = 1) -> Alarms:
    accused = sum(_map(_cheap, range(count), processes))
    return Alarms(f"Markov source, 3 texts x {SMALL_RUNS} runs a side", accused, count)


def of_finch(count: int = FINCH, processes: int = 1) -> Alarms:
    answers = [answer for some in _map(_finch, range(-(-count // TIMES)), processes) for answer in some]
    kinds = len(RIGHT_GENERATORS)
    return Alarms(f"Finch, {SHORT.name} a side, {kinds} right generators in turn", sum(answers), len(answers))


def _map(function, trials: range, processes: int) -> Iterator:
    if processes == 1:
        yield from map(function, trials)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(function, trials)
