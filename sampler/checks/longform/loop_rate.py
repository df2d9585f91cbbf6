"""Whether an engine's runs loop more often, or less often, than the reference's runs of the same texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sampler.checks.verdict import SHARE_OF_RUNS, Finding
from sampler.loops import Loop, LoopRules, find_loops, foremost
from sampler.statistics.stratified import StratifiedCounts

Runs = Mapping[str, Sequence[Sequence[int]]]
"""Name of a text -> tokens of each of its runs."""


@dataclass(frozen=True)
class LoopingRuns:
    """The loops of some runs. found: name of a text -> the loops of each of its runs, empty for a run without."""

    found: Mapping[str, tuple[tuple[Loop, ...], ...]]

    @classmethod
    def of(cls, runs: Runs, rules: LoopRules | None = None) -> "LoopingRuns":
        return cls({text: tuple(find_loops(tokens, rules) for tokens in some) for text, some in runs.items()})

    @property
    def counts(self) -> list[int]:
        return [sum(bool(loops) for loops in runs) for runs in self.found.values()]

    @property
    def runs(self) -> list[int]:
        return [len(runs) for runs in self.found.values()]

    @property
    def rate(self) -> float:
        """Share of all runs that loop; needs at least one run."""
        return sum(self.counts) / sum(self.runs)

    @property
    def worst(self) -> tuple[str, int, Loop] | None:
        """A text, the index of its run with the longest loop, and that loop (`foremost`)."""
        runs = [(text, run, loops) for text, some in self.found.items() for run, loops in enumerate(some) if loops]
        looping = [(text, run, foremost(loops)) for text, run, loops in runs]
        return max(looping, key=lambda found: found[2].extent, default=None)

    def __str__(self) -> str:
        text = f"{sum(self.counts)} of {sum(self.runs)} runs loop"
        if self.worst is None:
            return text
        name, run, loop = self.worst
        onset = min(loop.onset for runs in self.found.values() for loops in runs for loop in loops)
        return f"{text}, the earliest from token {onset} on, the worst in run {run} of {name!r}: {loop}"


def loops(engine: Runs, reference: Runs, alpha: float, detect: float, rules: LoopRules | None = None) -> Finding:
    """Compare the share of looping runs of two samples, text by text: `StratifiedCounts`.

    detect: the rise of the mean loop rate that must be detected to pass. Texts without runs on one side are left out.
    The stage is `draw`, since a loop does not show its cause.
    """
    texts = [text for text in engine if engine[text] and reference.get(text)]
    if not texts:
        message = "there is no text of which both the engine and the reference have runs"
        return Finding.skipped("generate", "draw", "no_common_text", message)
    ours, theirs = (LoopingRuns.of({text: runs[text] for text in texts}, rules) for runs in (engine, reference))
    test = StratifiedCounts(alpha)
    judged = test.judge(ours.counts, ours.runs, theirs.counts, theirs.runs)
    detectable = test.detectable_rise(theirs.rate, ours.runs, theirs.runs)
    notes = [_power(theirs.rate, detectable)]
    if judged.rejected:
        notes.insert(0, f"p <= {judged.p_value:.2g}")
    elif detectable > detect:
        notes = ["too few runs", *notes, f"required: {theirs.rate + detect:.3g}"]
    message = f"{ours}; of the reference, {theirs} ({', '.join(notes)})"
    return Finding.of_test(
        "generate", "draw", judged, message, alpha=alpha, detectable=detectable, required=detect, unit=SHARE_OF_RUNS
    )


def _power(rate: float, detectable: float) -> str:
    if detectable == 1:
        return f"detects no rise above a rate of {rate:.3g}"
    return f"detects a rate of {rate + detectable:.3g} in place of {rate:.3g}"
