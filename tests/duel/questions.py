"""The questions about whole runs beside reference runs, with all that the engine records: nothing else is needed."""

from sampler.checks.longform.runs import TokenRun
from sampler.run.tokens import findings
from tests.duel.tokens import ALPHA


def tokens_to_reject(runs: list[TokenRun], reference: list[TokenRun], texts: int) -> int | None:
    """Tokens of the runs after which a question fails; tried after ever twice as many runs of each text."""
    total = min(len(runs), len(reference)) // texts
    for number in sorted({number for number in (2, 4, 8, 16) if number < total} | {total}):
        count = number * texts
        found = dict(findings(runs[:count], reference[:count], ALPHA))
        if any(finding.outcome == "failed" for finding in found.values()):
            return sum(len(run.tokens) for run in runs[:count])
    return None
