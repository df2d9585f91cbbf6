"""The table, as text for the terminal and as docs/evidence/calibration.md."""

import platform

import numpy as np
import scipy
from rich.table import Table

from tests.tools.calibration.rates import ALPHA, NOMINAL, Row, TailProbability, interval
from tests.tools.calibration.whole_runs import SEEDS, WholeRuns

COLUMNS = (
    "check",
    "distribution",
    "n",
    "alpha",
    "false alarms at 5 %",
    "at 1 %",
    "tail at alpha",
    "detectable",
    "missed at it",
)

HEADER = """# Calibration of the statistical checks

Made by `tox -e calibration` (`python -m tests.tools.calibration --write`); the same seed gives the same file.
Seed {seed}, {replicates:,} replicates of each sample, Python {python}, NumPy {numpy}, SciPy {scipy}.

- **False alarms**: replicates drawn from the true distribution that the check rejects at a nominal rate of 5 % and of
  1 %, with the exact 95 % interval of the rate (Clopper and Pearson). The command fails where a count is above its
  nominal rate with a p-value under 1e-6, divided by the number of counts in the table. Checks that rest on an
  inequality reject less often than they may.
- **Tail**: the probability of a false alarm at the alpha that `sampler check` uses, {alpha:.2g}. Without an error it
  was computed (enumeration of binomial and hypergeometric counts, or Chernoff's bound where no draw comes near); with a
  standard error it was sampled from exponentially tilted laws. 0: one draw is proof. That of runs
  that count and of runs beyond a bound is given pooled counts or values, drawn once.
- **Detectable**: what the check announces at that alpha, the smallest discrepancy in the worst direction that it misses
  with at most 1 %: total variation for all tokens, mass outside for the support, difference of probabilities for one
  token and for coincidences, distance of distribution functions for scalars; where the unit is the run, the
  probability that a run of the one side is the larger of a pair, the share of runs that count or are beyond the bound,
  and the rise of the mean rate for runs that count more often.
- **Missed at it**: replicates at exactly that discrepancy that were not rejected, in the worst of several directions,
  whose name follows; at most 1 % is promised. A dash where no distribution is that far away in any of them.
- **n** is a number of draws; in the last rows, where the unit is the run, of runs of each text on either side.
"""


def cells(row: Row) -> tuple[str, ...]:
    """One row as text."""
    alarms = (_alarms(row.false_alarms[rate], row.replicates) for rate in NOMINAL)
    return (
        row.check,
        row.distribution,
        f"{row.n:,}",
        f"{ALPHA:.2g}",
        *alarms,
        _tail(row.tail),
        f"{row.detectable:.4f}" if row.detectable < 1 else "none",
        _missed(row),
    )


def _alarms(count: int, trials: int) -> str:
    low, high = interval(count, trials)
    return f"{count} ({100 * low:.2f}-{100 * high:.2f} %)"


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


def _whole(whole: WholeRuns | None) -> str:
    if whole is None:
        return "not measured yet"
    low, high = interval(whole.accused, whole.runs)
    return f"{whole.accused} of {whole.runs} ({100 * low:.2f}-{100 * high:.2f} %)"


def markdown(rows: list[Row], whole: WholeRuns | None, seed: int) -> str:
    """The whole file."""
    header = HEADER.format(
        seed=seed,
        alpha=ALPHA,
        replicates=rows[0].replicates,
        python=platform.python_version(),
        numpy=np.__version__,
        scipy=scipy.__version__,
    )
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(cells(row) for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    runs = "| whole runs of the reference against itself | seeds | accused |\n|---|---|---|\n"
    runs += f"| `sampler check reference` | {SEEDS[0]} to {SEEDS[-1]} | {_whole(whole)} |\n"
    return f"{header}\n{table}\n\n## Whole runs\n\n{runs}"


def table(rows: list[Row]) -> Table:
    """For the terminal."""
    shown = Table(*COLUMNS, title="Calibration of the statistical checks")
    for row in rows:
        shown.add_row(*cells(row))
    return shown
