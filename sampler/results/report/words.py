"""What a report says in words: one sentence for a newcomer, the facts of a run, what the columns mean."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sampler.checks.verdict import Outcome, Verdict, Whole
from sampler.results.report.cells import CellVerdicts
from sampler.results.store.run_file import Run

SIGNS: Final[Mapping[Outcome, str]] = {
    "passed": "✓",
    "failed": "✗",
    "errored": "!",
    "inconclusive": "?",
    "skipped": "-",
}
"""Beside each outcome's word, so that neither colour nor eyesight is needed."""

MEANINGS: Final[Mapping[Outcome, str]] = {
    "passed": "the check found nothing wrong, and could have detected it",
    "failed": "a check found something wrong",
    "errored": "a check stopped early, so nothing is known",
    "inconclusive": "a check has too little data to tell, which is not a pass",
    "skipped": "a check could not run, which is not a pass",
}

FATES: Final[Mapping[Outcome, str]] = {
    "passed": "passed",
    "failed": "failed",
    "errored": "stopped early",
    "inconclusive": "could not be decided, which is not a pass",
    "skipped": "could not be tested in full, which is not a pass",
}
"""What became of configurations, for a sentence."""

COLUMNS: Final[Mapping[str, str]] = {
    "check": "The name of the check; what it tests is written above.",
    "outcome": "The answer.",
    "stage": "The part of the sampling chain that the answer is about.",
    "n": "How many observations the answer rests on: tokens, distributions or runs.",
    "statistic": "What was measured.",
    "bound": "The most that is allowed.",
    "alpha": "How often this check may accuse a right engine. Exact: it compares, and never does.",
    "detects": "The smallest difference that fails this check. Any: a single wrong observation fails it.",
}
"""The columns of a cell's table."""


COLOURS: Final[Mapping[Whole, Outcome]] = {
    "agrees": "passed",
    "disagrees": "failed",
    "errored": "errored",
    "inconclusive": "inconclusive",
    "skipped": "skipped",
}
"""The outcome of one check whose sign and colour the outcome of the whole has."""


def summary(run: Run, cells: Sequence[CellVerdicts]) -> list[str]:
    """A few sentences that need no other page: what was tested, the results, what to do next."""
    counts = Counter(cell.outcome for cell in cells if not cell.together)
    asked, answered = counts.total(), Counter(verdict.outcome for verdict in run.verdicts)
    configurations, checks = many(asked, "configuration"), many(len(run.verdicts), "check")
    sentences = [f"{engine_name(run)} was tested with {checks} in {configurations} of the sampling parameters."]
    together = [check for cell in cells if cell.together for check in cell.verdicts if check.outcome != "passed"]
    if counts["passed"] == asked and not together:
        return [*sentences, "All passed: these checks found nothing wrong."]
    found = [f"{counts[outcome]:,} {verb}" for outcome, verb in FATES.items() if counts[outcome]]
    sentences.append(f"Of {configurations} {_listed(found)}.")
    sentences += [f"Of all of them together, {check.check} {FATES[check.outcome]}." for check in together]
    stages = Counter(stage for cell in cells for stage in cell.stages)
    if stages:
        stage, count = stages.most_common(1)[0]
        sentences.append(f"The stage found wrong most often is {stage}, in {count:,} of them.")
    if answered["failed"] or answered["errored"]:
        sentences.append("Under each failure stands the line that shows it again.")
    elif answered["passed"]:
        sentences.append(f"The {many(answered['passed'], 'check')} that could run found nothing wrong.")
    return sentences


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def many(count: int, noun: str) -> str:
    """A number with its noun, as `1 check` or `20 checks`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def engine_name(run: Run) -> str:
    """The engine as the user named it, and as it calls itself."""
    own, given = run.header["engine"]["name"], run.header.get("engine_name")
    return f"{given} ({own})" if given else str(own)


def facts(run: Run) -> dict[str, str]:
    """The facts that a reader needs to judge a run, as far as they were recorded."""
    header, footer, engine = run.header, run.footer, run.header["engine"]
    rate = header.get("false_alarm_rate")
    return _known(
        {
            "engine": engine_name(run),
            "version": engine.get("version"),
            "computes on": ", ".join(filter(None, [engine.get("device"), engine.get("dtype")])),
            "seed": header.get("seed"),
            "false alarms": None if rate is None else f"at most {rate:g} in the whole run",
            "compared with": header.get("oracle"),
            "BLAS": header.get("blas"),
            "platform": header.get("platform"),
            "finished": (footer.get("finished") or "").replace("T", " ").replace("+00:00", " UTC"),
            "took": _took(footer) if {"seconds", "tokens"} <= footer.keys() else None,
        }
    )


def details(run: Run) -> dict[str, str]:
    """What is needed besides to repeat the run."""
    header, weights = run.header, run.header.get("weights") or {}
    return _known(
        {
            "sampler": header.get("sampler"),
            "MLX": header.get("mlx"),
            "Python": header.get("python"),
            "requests at once": _width(header.get("width")),
            "weights": weights.get("path"),
            "weights read as": weights.get("layout"),
            "SHA-256 of the weights": weights.get("sha256"),
            "SHA-256 of the matrix": header["matrix"].get("sha256"),
        }
    )


def _took(footer: Mapping[str, Any]) -> str:
    seconds, tokens = footer["seconds"], footer["tokens"]
    return f"{seconds:,.0f} s for {tokens:,} tokens ({tokens / max(seconds, 1e-9):,.0f} a second)"


def _width(width: int | None) -> str | None:
    """How many slots, and what another slot would change: the last bits of a product, on some libraries."""
    if width is None:
        return None
    return f"{width}; in another slot, or of another number, a request has the same tokens except at margins under 1e-4"


def _known(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value not in (None, "")}


def figures(verdict: Verdict) -> list[str]:
    """The figures of a verdict, as the columns from `n` to `detects` show them."""
    tested = verdict.outcome in ("passed", "failed")
    return [
        _number(verdict.n, ""),
        _number(verdict.statistic, ""),
        _number(verdict.bound, ""),
        _number(verdict.alpha, "exact" if tested else ""),
        _number(verdict.detectable, "any" if tested else ""),
    ]


def _number(value: float | None, unknown: str) -> str:
    """Whole numbers in full, others with three digits; unknown: what None means."""
    if value is None:
        return unknown
    return f"{int(value):,}" if value == int(value) and abs(value) < 1e9 else f"{value:.3g}"
