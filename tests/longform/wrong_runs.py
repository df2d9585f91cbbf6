"""Runs of a generator beside reference runs: what failed, what it does, and what the plan said that would be seen."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial

import numpy as np

from sampler import SamplingConfig, finch
from sampler.chain.noise import NoiseKey
from sampler.checks.longform import drift
from sampler.checks.longform.loop_rate import LoopingRuns
from sampler.checks.longform.power import Announced, announced
from sampler.checks.longform.questions import QUESTIONS
from sampler.checks.longform.runs import TokenRun, TwoSides, by_text, token_run
from sampler.checks.longform.same_noise import same
from sampler.checks.verdict import CaseId, Finding
from sampler.finch import Prompt
from sampler.requests import Request
from sampler.results.store.reference_runs import as_kept, read_reference, shipped_reference, shipped_runs
from sampler.run.groups import reference_key
from sampler.run.tokens import diagnosis, findings
from sampler.statistics.ranks import superiority
from tests.wrong_engines.wrong_generators.table import Plan, RightGenerator, WrongGenerator

RATE = 1e-6
CAP = 400
"""Tokens of a reference run, at most; none of them is cut."""

WIDTH = 48


@cache
def checkpoint():
    return finch.load()


def speak(generator, prompts: Sequence[Prompt], runs: int, side: str, cap: int) -> list[TokenRun]:
    """`runs` runs of each text with the noise of `side`; neighbours in a block speak different texts."""
    plan = [(seed, prompt) for seed in range(runs) for prompt in prompts]
    size = checkpoint().config.speech_vocab_size
    requests = [
        Request(
            prompt.text,
            SamplingConfig(),
            seed,
            cap,
            noise=partial(NoiseKey(seed, f"{side}/{prompt.id}").gumbel, vocab_size=size),
            language=prompt.language,
        )
        for seed, prompt in plan
    ]
    made = generator.generate(requests)
    pairs = zip(plan, made, strict=True)
    return [as_kept(token_run(prompt.id, each, prompt.tokens)) for (_, prompt), each in pairs]


@cache
def reference_runs(plan: Plan) -> tuple[TokenRun, ...]:
    """Runs that are right, of the plan's texts; the only place that says where they come from: upstream's own code."""
    shipped = by_text(shipped_runs(f"{plan.group}/base"))
    return tuple(run for prompt in plan.prompts for run in shipped[prompt.id][: plan.runs])


SHARED = 3
"""Texts of a plan that a wrong generator speaks once more, with the noise of upstream's first run of each."""


def with_upstreams_noise(generator, plan: Plan, cap: int) -> tuple[list[TokenRun], list[TokenRun]]:
    """Runs of both sides with the same noise."""
    found = read_reference(shipped_reference(plan.group))
    runs, size = found.runs("base"), checkpoint().config.speech_vocab_size
    prompts = plan.prompts[:SHARED]
    places = [next(place for place, run in enumerate(runs) if run.text == prompt.id) for prompt in prompts]
    seed = found.provenance["seed"]
    requests = [
        Request(
            prompt.text,
            SamplingConfig(),
            0,
            cap,
            noise=partial(reference_key(seed, plan.group, "base", place).gumbel, vocab_size=size),
            language=prompt.language,
        )
        for prompt, place in zip(prompts, places, strict=True)
    ]
    made = generator.generate(requests)
    mine = [token_run(prompt.id, each) for prompt, each in zip(prompts, made, strict=True)]
    return mine, [cut(runs[place], cap) for place in places]


def cut(run: TokenRun, cap: int) -> TokenRun:
    """The run as it would have been with a lower cap, to the token."""
    if len(run.tokens) <= cap:
        return run
    scalars = {name: getattr(run, name)[:cap] for name in ("logprobs", "entropy", "rank", "margin", "position")}
    return replace(run, tokens=run.tokens[:cap], stop_reason="length", **scalars)


@dataclass(frozen=True)
class Seen:
    """One generator beside the reference. wrong: its entry in the table, None for a right one. seconds: of CPU time."""

    name: str
    plan: Plan
    runs: Sequence[TokenRun]
    reference: Sequence[TokenRun]
    found: dict[str, Finding]
    seconds: float
    wrong: WrongGenerator | None = None

    shared: Finding | None = None

    @cached_property
    def failed(self) -> list[str]:
        """Questions about whole runs that failed, as `stopping/early`."""
        return [case.removeprefix("tokens/") for case, finding in self.found.items() if finding.outcome == "failed"]

    @property
    def parted(self) -> bool:
        """Whether a run with upstream's noise is not upstream's."""
        return self.shared is not None and self.shared.outcome == "failed"

    @cached_property
    def stage(self) -> str:
        """The stage that the diagnosis names first."""
        verdicts = [finding.verdict(CaseId.parse(case), "line") for case, finding in self.found.items()]
        return next((cause.stage for cause in diagnosis(verdicts)), "")

    @cached_property
    def sides(self) -> TwoSides:
        return TwoSides.of(self.runs, self.reference)

    @cached_property
    def plan_said(self) -> dict[str, Announced]:
        """What the plan announced, by the name of the question here."""
        return announced_for(self.plan)

    def does(self, question: str) -> float:
        """What the generator did, in the unit in which the plan says what it sees."""
        cell, check = question.split("/")
        if cell == "drift":
            return true_superiority(self.sides, check)
        share = {
            "rate": lambda: looping(self.runs) - looping(self.reference),
            "distinct": lambda: repeated(self.runs),
            "ends": lambda: float(self.found["tokens/stopping/ends"].statistic or 0) / len(self.runs),
            "missing": lambda: np.mean([run.stop_reason == "length" for run in self.runs]),
            "forced": lambda: np.mean([run.stop_reason == "forced_eos" for run in self.runs]),
        }
        if check in share:
            return float(share[check]())
        return float(self.found[f"tokens/{question}"].statistic or 0.0)

    @cached_property
    def expected(self) -> list[str]:
        """Questions that failed and were expected to, the one first that is furthest beyond what the plan sees."""
        wanted = [] if self.wrong is None else [each for each in self.wrong.questions if each in self.failed]
        return sorted(
            wanted, key=lambda each: (self.plan_said[each].sees >= 1, self.plan_said[each].sees - self.does(each))
        )

    @property
    def by_runs(self) -> bool:
        """Whether an expected question about whole runs failed, and a stage is named first that may be."""
        return self.wrong is not None and bool(self.expected) and self.stage in self.wrong.stages

    @property
    def caught(self) -> bool:
        """Whether whole runs show it, or one run with upstream's noise where they cannot."""
        if self.wrong is None:
            return False
        return self.parted if self.wrong.unseen else self.by_runs


def announced_for(plan: Plan, rate: float = RATE) -> dict[str, Announced]:
    """What `sampler plan` announces, by the names of `findings` without `tokens/`."""
    cases = {"ends": "stopping/ends"} | {question.name: question.case for question in QUESTIONS}
    return {cases[name]: each for name, each in announced(plan.texts, plan.runs, rate).items()}


def true_superiority(sides: TwoSides, quantity: str) -> float:
    """Of whole runs, on the larger side; of two series the clearer one."""
    chosen = next(each for each in drift.QUANTITIES if each.name == quantity)
    made = chosen.make(sides)
    shares = [superiority(*drift.Part(each, None, 0.5).values()) for each in made]
    return max(max(share, 1 - share) for share in shares)


def looping(runs: Sequence[TokenRun]) -> float:
    return LoopingRuns.of({str(place): [run.tokens] for place, run in enumerate(runs)}).rate


def repeated(runs: Sequence[TokenRun]) -> float:
    same = [(run.text, run.tokens) for run in runs]
    return float(np.mean([same.count(each) > 1 for each in same]))


def look_at_wrong(wrong: WrongGenerator) -> Seen:
    """Generate the runs of the plan and ask everything."""
    plan = wrong.plan
    start = time.process_time()
    runs = speak(wrong.factory(checkpoint(), WIDTH), plan.prompts, plan.runs, wrong.name, wrong.cap)
    seconds = time.process_time() - start
    reference = [cut(run, wrong.cap) for run in reference_runs(plan)]
    shared = same(*with_upstreams_noise(wrong.factory(checkpoint(), SHARED), plan, wrong.cap))
    return Seen(wrong.name, plan, runs, reference, dict(findings(runs, reference, RATE)), seconds, wrong, shared)


def look_at_right(right: RightGenerator, rate: float = RATE) -> Seen:
    """The same for a right generator, changed runs on both sides."""
    plan = right.plan
    start = time.process_time()
    runs = speak(right.factory(checkpoint(), WIDTH), plan.prompts, plan.runs, right.name, CAP)
    seconds = time.process_time() - start
    runs, reference = [right.change(run) for run in runs], list(reference_runs(plan))
    return Seen(right.name, plan, runs, reference, dict(findings(runs, reference, rate)), seconds)
