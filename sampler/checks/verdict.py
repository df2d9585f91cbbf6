"""The answer of a check: outcome, finding, verdict; the rule for the outcome of many, and the one for exit codes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from sampler.engines.base import Level
from sampler.errors import EngineFailure, SkipReason, Unsupported
from sampler.requests import Steps
from sampler.statistics.judgement import Judgement

Outcome = Literal["failed", "errored", "inconclusive", "skipped", "passed"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("failed", "errored", "inconclusive", "skipped", "passed")
"""From the worst to the best. inconclusive: tested, but cannot tell. skipped: not tested."""

Whole = Literal["agrees", "disagrees", "errored", "inconclusive", "skipped"]
"""The outcome of many verdicts."""

Reason = Literal["too_few", "suspicious"] | SkipReason
"""Why a verdict is inconclusive (the first two) or skipped."""

SHARE_OF_RUNS: Final = "share of runs"
SUPERIORITY_OF_RUNS: Final = "probability of superiority"
"""Units of what a question about whole runs detects."""

ABSOLUTE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "looping": "Hardly any run loops, whatever a reference does.",
        "endless": "Hardly any run reaches its maximum length without an end, whatever a reference does.",
    }
)
"""The questions with an absolute limit, as sentences."""

SCORED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "impossible": "Each token is one that the engine's model and the chain can draw, given the tokens before it.",
        "evidence": "The tokens follow the distribution of the engine's model and chain: no bet on another one wins.",
        "winners": "With the suite's noise each token is the one that wins under the engine's model and chain.",
    }
)
"""What scoring asks of each cell of a run, as sentences; its ends have a question of their own."""

ESSENTIAL: Final = frozenset(
    {
        ("process", "scores"),
        ("draw", "support"),
        ("draw", "frequencies"),
        *(("generate", check) for check in ("rate", "loops", "looping", "missing", "endless", "ends")),
        *(("generate", check) for check in ("records", "seeds", "stops", "prompts")),
        *(("generate", check) for check in ("impossible", "evidence", "winners", "protocol")),
    }
)
"""Level and check of the questions that agreement requires: stages, support, frequencies, loops, endings, scoring; of
step runs their records, without which the other questions have no evidence; of logs the names of their prompts."""

NOT_OFFERED: Final = frozenset({"unsupported", "no_method", "refused", "no_reference"})
"""Reasons that make a question not essential: the engine does not have the feature it tests, or nobody gave a
reference (the absolute limits need none)."""

SUSPICIOUS: Final = 1e-3
"""A p-value of a whole run, corrected for the number of its tests, at or below which a test that does not fail cannot
pass."""


@dataclass(frozen=True)
class CaseId:
    """The id of one verdict: `process/temperature+top_p/scores`, `smoke/temperature:0.8/allowed`.

    level: of `sampler check`, or the name of the matrix.
    """

    level: str
    cell: str
    check: str

    def __str__(self) -> str:
        return f"{self.level}/{self.cell}/{self.check}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote. Raises ValueError for anything else."""
        level, cell, check = text.split("/", 2)
        return cls(level, cell, check)

    @property
    def place(self) -> str:
        return f"{self.level}/{self.cell}"


@dataclass(frozen=True)
class Verdict:
    """The answer of one check.

    case: its CaseId as text. stage: of the chain, or draw, order, stop, seed, batch, purity and so on. n: the number of
    observations. statistic, bound: what was measured and its limit. alpha: the false-alarm rate, None for an exact
    check. detectable: the smallest difference with a miss rate of 1 %, None if any single wrong observation fails;
    required: the one that `passed` needs. unit: of these two. reason: why it is inconclusive or skipped. known: the
    finding by which a cell has to be bad. request: the run that shows a failure.
    """

    case: str
    level: Level
    check: str
    stage: str
    outcome: Outcome
    n: int
    statistic: float | None = None
    bound: float | None = None
    p_value: float | None = None
    alpha: float | None = None
    detectable: float | None = None
    required: float | None = None
    reason: Reason | None = None
    message: str = ""
    reproduce: str = ""
    unit: str = ""
    known: str = ""
    request: int | None = None

    @property
    def id(self) -> CaseId:
        return CaseId.parse(self.case)

    @property
    def bad(self) -> bool:
        return self.outcome in ("failed", "errored")

    @property
    def essential(self) -> bool:
        """Whether overall agreement requires that this passed; too few runs count only where a size is required."""
        unasked = self.reason in NOT_OFFERED or (self.reason == "too_few" and self.required is None)
        return (self.level, self.check) in ESSENTIAL and not unasked

    def doubted(self, rate: float) -> "Verdict":
        """This verdict, or `suspicious` instead of passed or too few: p is small, but not small enough to fail.

        rate: of false alarms of the whole run; p / alpha x rate is the p-value corrected for the weights of its tests.
        """
        if self.outcome not in ("passed", "inconclusive") or self.p_value is None or not self.alpha:
            return self
        corrected = self.p_value / self.alpha * rate
        if corrected > SUSPICIOUS:
            return self
        note = f"suspicious: a right engine has such a p-value ({self.p_value:.2g}) in one of {1 / corrected:,.0f} runs"
        message = f"{self.message}; {note}" if self.message else note
        return replace(self, outcome="inconclusive", reason="suspicious", message=message)

    def contract(self) -> dict[str, Any]:
        """The fields that `sampler check --json` has, in their order."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name not in RUN_FILE_ALONE}


RUN_FILE_ALONE: Final = ("unit", "known", "request")
"""Fields of a run file that a report of `sampler check` does not have."""


@dataclass(frozen=True)
class Finding:
    """A verdict without its case, and the step that shows a failure, if one does. Fields: those of Verdict."""

    level: Level
    stage: str
    outcome: Outcome
    n: int
    message: str
    statistic: float | None = None
    bound: float | None = None
    p_value: float | None = None
    alpha: float | None = None
    detectable: float | None = None
    required: float | None = None
    reason: Reason | None = None
    unit: str = ""
    known: str = ""
    request: int | None = None
    step: Steps | None = None

    @classmethod
    def skipped(
        cls, level: Level, stage: str, why: Unsupported | SkipReason, message: str = "", n: int = 0, **figures: Any
    ) -> Self:
        """Not tested: why is a reason with its message, or the refusal of an engine or a helper."""
        reason, text = (why.reason, why.message) if isinstance(why, Unsupported) else (why, message)
        return cls(level, stage, "skipped", n, message or text, reason=reason, **figures)

    @classmethod
    def of_error(cls, level: Level, stage: str, error: BaseException) -> Self:
        """Skipped if the engine does not support it, errored for every other exception."""
        if isinstance(error, Unsupported):
            return cls.skipped(level, stage, error, str(error))
        return cls.errored(level, stage, error.message if isinstance(error, EngineFailure) else error)

    @classmethod
    def errored(cls, level: Level, stage: str, error: BaseException | str) -> Self:
        """The engine failed: an exception, or a description."""
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        return cls(level, stage, "errored", 0, text)

    @classmethod
    def of_test(
        cls, level: Level, stage: str, judged: Judgement, message: str, *, alpha: float, detectable: float, **more: Any
    ) -> Self:
        """The answer of a hypothesis test: passed only if it would have detected the required difference.

        more: `required`, by default any detectable difference below 1, and further fields.
        """
        enough = detectable < 1 and detectable <= more.get("required", 1.0)
        outcome: Outcome = "failed" if judged.rejected else "passed" if enough else "inconclusive"
        figures = {"statistic": judged.statistic, "bound": judged.bound, "p_value": judged.p_value, "alpha": alpha}
        reason: Reason | None = "too_few" if outcome == "inconclusive" else None
        found = {**figures, "detectable": detectable, "reason": reason, **more}
        return cls(level, stage, outcome, judged.n, message, **found)

    def verdict(self, case: CaseId, reproduce: str) -> Verdict:
        """The verdict for a case; reproduce: the command that reproduces a failure."""
        known = {item.name for item in fields(Verdict)}
        own = {item.name: getattr(self, item.name) for item in fields(self) if item.name in known}
        bad = self.outcome in ("failed", "errored")
        return Verdict(case=str(case), check=case.check, reproduce=reproduce if bad else "", **own)


def some_ids(ids: Sequence[int] | NDArray[np.int64], most: int = 6) -> str:
    """A set of ids, shortened if it is long."""
    shown = ", ".join(str(token) for token in list(ids)[:most])
    return f"{{{shown}{', ...' if len(ids) > most else ''}}}"


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The worst of several outcomes, which is that of a cell."""
    return min(outcomes, key=OUTCOMES.index)


def overall(verdicts: Iterable[Verdict]) -> Whole:
    """The outcome of many verdicts, of a report or a run.

    A failure decides first, then an error of the engine, then an essential question without a pass. Skipped verdicts
    alone never agree.
    """
    given = list(verdicts)
    outcomes = {verdict.outcome for verdict in given}
    if "failed" in outcomes:
        return "disagrees"
    if "errored" in outcomes:
        return "errored"
    if "passed" in outcomes:
        is_open = any(verdict.essential and verdict.outcome != "passed" for verdict in given)
        return "inconclusive" if is_open else "agrees"
    return "inconclusive" if "inconclusive" in outcomes else "skipped"


def exit_code(whole: Whole) -> int:
    """0 agrees, 1 disagrees or errored, 3 inconclusive or nothing was tested; 2 is left to a user's mistakes."""
    return {"agrees": 0, "disagrees": 1, "errored": 1, "inconclusive": 3, "skipped": 3}[whole]
