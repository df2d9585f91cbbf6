"""The report of `sampler check`, for engines and for files of tokens."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from sampler.checks.conformance.diagnosis.order import Cause
from sampler.checks.conformance.dialects import meanings
from sampler.checks.verdict import Verdict, Whole, overall
from sampler.engines.base import EngineInfo

DEFAULT_RATE = 1e-6

SHARES: Final[Mapping[str, float]] = {"draw": 0.75, "generate": 0.25}
"""Shares of the false alarms of the levels with statistical tests; the same whatever levels are asked."""

BESIDE: Final = "against"
"""The cell of what compares two engines. `unsupported` there: not token for token, but by questions about samples."""

OnVerdict = Callable[[Verdict], None]


@dataclass(frozen=True)
class Report:
    """The result of a run. dialect: the one that the engine declares or equals, None for the reference."""

    info: EngineInfo
    rate: float
    verdicts: tuple[Verdict, ...]
    diagnosis: tuple[Cause, ...]
    dialect: str | None = None
    against: str | None = None

    @property
    def outcome(self) -> Whole:
        """The outcome of all verdicts; engines that were to be compared and could not be do not agree."""
        whole = overall(self.verdicts)
        open_ = self.beside and not any(
            verdict.id.cell == BESIDE and (verdict.outcome == "passed" or verdict.reason == "unsupported")
            for verdict in self.verdicts
        )
        return "inconclusive" if whole == "agrees" and open_ else whole

    @property
    def beside(self) -> bool:
        """Whether an engine is compared with another one, and not a file of tokens with a file."""
        return self.against is not None and not any(verdict.id.level == "tokens" for verdict in self.verdicts)

    @property
    def meanings(self) -> list[str]:
        """What the dialect and the rules that the engine declares mean, one sentence each."""
        return meanings(self.info)

    def as_json(self) -> dict[str, Any]:
        """The contract of `--json`; numbers that are not finite become null."""
        info = self.info
        engine = {**asdict(info), "supports": None if info.supports is None else sorted(info.supports)}
        del engine["rules"]  # `dialect` has them in words
        return {
            "engine": engine,
            "against": self.against,
            "dialect": self.dialect,
            "false_alarm_rate": self.rate,
            "outcome": self.outcome,
            "verdicts": [_finite(verdict.contract()) for verdict in self.verdicts],
            "diagnosis": [
                {"stage": cause.stage, "explanation": cause.explanation, "cases": list(cause.cases)}
                for cause in self.diagnosis
            ],
        }


def _finite(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in fields.items()
    }
