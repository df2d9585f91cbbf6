"""The table, as text for the terminal and as docs/evidence/calibration.md."""

import platform
from dataclasses import dataclass

import numpy as np
import scipy

from sampler.conformance import examine
from sampler.engines.reference.chain import ReferenceEngine
from tests.tools.calibration.rates import ALPHA, NOMINAL, Row, TailProbability, interval

COLUMNS = ("check", "distribution", "n", "alpha", "false alarms at 5 %", "at 1 %", "tail at alpha")
COLUMNS += ("detectable", "missed at it")

HEADER = """# Calibration of the statistical checks

Made by `tox -e calibration` (`python -m tests.tools.calibration --write`); the same seed gives the same file.
Seed {seed}, {replicates:,} replicates of each sample, Python {python}, NumPy {numpy}, SciPy {scipy}.

- **False alarms**: replicates of the true distribution that the check rejects at a nominal rate of 5 % and of 1 %, with
  the exact 95 % interval of the rate (Clopper and Pearson). The command fails where a count is above its nominal rate
  with a p-value under 1e-6, divided by the number of counts in the table.
- **Tail**: the probability of a false alarm at the alpha that `sampler check` uses, {alpha:.2g}: with a standard error
  where it was sampled from exponentially tilted laws, else computed. 0: one draw is proof. That of runs that count and
  of runs beyond a bound is given pooled counts or values, drawn once.
- **Detectable**: the smallest discrepancy in the worst direction that the check announces to miss with at most 1 % at
  that alpha: total variation for all tokens, mass outside for the support, difference of probabilities for one token
  and for coincidences, distance of distribution functions for scalars; where the unit is the run, the probability that
  a run of the one side is the larger of a pair, the share of runs, and the rise of the mean rate.
- **Tokens in order** are bet on (docs/run.md): detectable is the total variation of the nearest alternative that is
  missed with at most 1 %, none if these draws detect none of them.
- **Missed at it**: replicates at exactly that discrepancy that were not rejected, in the worst of several directions,
  whose name follows; at most 1 % is promised. A dash where no distribution is that far away in any of them.
- **n** is a number of draws; in the last rows, where the unit is the run, of runs of each text on either side.
"""

SEEDS = range(50)


@dataclass(frozen=True)
class WholeRuns:
    """accused: how many of the runs accused the reference."""

    runs: int
    accused: int


def whole_runs() -> WholeRuns:
    outcomes = [examine(ReferenceEngine(), levels=("process", "draw"), seed=seed).outcome for seed in SEEDS]
    return WholeRuns(len(outcomes), sum(outcome != "agrees" for outcome in outcomes))


def cells(row: Row) -> tuple[str, ...]:
    alarms = (f"{row.false_alarms[rate]} {_within(row.false_alarms[rate], row.replicates)}" for rate in NOMINAL)
    detectable = f"{row.detectable:.4f}" if row.detectable < 1 else "none"
    return row.check, row.distribution, f"{row.n:,}", f"{ALPHA:.2g}", *alarms, _tail(row.tail), detectable, _missed(row)


def _within(count: int, trials: int) -> str:
    low, high = interval(count, trials)
    return f"({100 * low:.2f}-{100 * high:.2f} %)"


def _tail(tail: TailProbability) -> str:
    if tail.value == 0:
        return "0"
    error = f" ± {tail.standard_error:.0e}" if tail.standard_error else ""
    return f"{tail.value:.1e}{error}"


def _missed(row: Row) -> str:
    if not row.missed or row.detectable >= 1:
        return "-"
    direction, count = max(row.missed.items(), key=lambda item: item[1])
    return f"{count} of {row.replicates:,}, {direction}"


def table(rows: list[Row]) -> str:
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown(rows: list[Row], whole: WholeRuns | None, seed: int) -> str:
    versions = {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__}
    header = HEADER.format(seed=seed, alpha=ALPHA, replicates=rows[0].replicates, **versions)
    accused = f"{whole.accused} of {whole.runs} {_within(whole.accused, whole.runs)}" if whole else "not measured yet"
    runs = "| whole runs of the reference against itself | seeds | accused |\n|---|---|---|\n"
    runs += f"| `sampler check reference` | {SEEDS[0]} to {SEEDS[-1]} | {accused} |\n"
    return f"{header}\n{table(rows)}\n\n## Whole runs\n\n{runs}"
