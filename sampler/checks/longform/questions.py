"""Every question about runs of tokens beside reference runs, by name: what a file, a cell and a matrix are asked."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from sampler.checks.longform.distinct import distinct
from sampler.checks.longform.drift import QUANTITIES, SUPERIORITY, drift
from sampler.checks.longform.loop_rate import loops
from sampler.checks.longform.reading import QUESTIONS, alignment
from sampler.checks.longform.runs import TokenRun, TwoSides, by_text
from sampler.checks.longform.stopping import SHARE, stopping
from sampler.checks.verdict import Finding

STOPPING = ("early", "late", "missing", "forced")
ALIGNMENT = tuple(QUESTIONS)
DRIFT = tuple(quantity.name for quantity in QUANTITIES)

WEIGHTS: Mapping[str, float] = {
    "loops": 2.0,
    "distinct": 1.0,
    **dict.fromkeys((*STOPPING, *ALIGNMENT, *DRIFT), 1.0),
}
"""Parts of the budget. They are the same for all runs: a question that cannot be asked gives nothing to the others."""

DOCUMENTED: Mapping[str, Callable[..., object]] = {
    "loops": loops,
    "distinct": distinct,
    **dict.fromkeys(STOPPING, stopping),
    **dict.fromkeys(ALIGNMENT, alignment),
    **dict.fromkeys(DRIFT, drift),
}
"""Where it is said what a question asks."""


def two_sided(
    sides: TwoSides, alphas: Mapping[str, float], share: float = SHARE, superiority: float = SUPERIORITY
) -> Iterator[tuple[str, Finding]]:
    """Every question of WEIGHTS that `alphas` names. share, superiority: what `passed` must be able to see."""
    if "loops" in alphas:
        engine, reference = _tokens(sides, sides.engine), _tokens(sides, sides.reference)
        yield "loops", loops(engine, reference, alphas["loops"], share)
    if "distinct" in alphas:
        runs = [run for some in sides.engine for run in some]
        yield "distinct", distinct(runs, sides, alphas["distinct"], share)
    yield from stopping(sides, {name: alphas[name] for name in STOPPING if name in alphas}, share).items()
    yield from alignment(sides, {name: alphas[name] for name in ALIGNMENT if name in alphas}, share).items()
    yield from drift(sides, {name: alphas[name] for name in DRIFT if name in alphas}, superiority).items()


def _tokens(sides: TwoSides, side: Sequence[Sequence[TokenRun]]) -> dict[str, list[tuple[int, ...]]]:
    return {text: [run.tokens for run in runs] for text, runs in zip(sides.texts, side, strict=True)}


def tokens_by_text(runs: Sequence[TokenRun]) -> dict[str, list[tuple[int, ...]]]:
    """Tokens of the runs of each text."""
    return {text: [run.tokens for run in some] for text, some in by_text(runs).items()}
