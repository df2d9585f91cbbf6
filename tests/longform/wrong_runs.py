"""Runs of a generator beside reference runs: what failed, what it does, and what the plan announced."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial

import numpy as np

from sampler import SamplingConfig, finch
from sampler.chain.noise import NoiseKey
from sampler.checks.longform import drift
from sampler.checks.longform.loop_rate import LoopingRuns
from sampler.checks.longform.power import Announced, announced
from sampler.checks.longform.questions import ABSOLUTE_CASES, QUESTIONS
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

RATE, DEFAULT = 1e-6, SamplingConfig()
CAP = 400
"""Tokens of a reference run, at most; none of them is cut."""

WIDTH = 48


@cache
def checkpoint():
    return finch.load()


def request_of(prompt: Prompt, key: NoiseKey, cap: int, config: SamplingConfig = DEFAULT, seed: int = 0) -> Request:
    noise = partial(key.gumbel, vocab_size=checkpoint().config.speech_vocab_size)
    return Request(prompt.text, config, seed, cap, noise=noise, language=prompt.language)


def speak(
    generator, prompts: Sequence[Prompt], runs: int, side: str, cap: int, config: SamplingConfig = DEFAULT
) -> list[TokenRun]:
    """`runs` runs of each text with the noise of `side`; neighbours in a block speak different texts."""
    plan = [(seed, prompt) for seed in range(runs) for prompt in prompts]
    keys = [NoiseKey(seed, f"{side}/{prompt.id}") for seed, prompt in plan]
    requests = [request_of(prompt, key, cap, config, seed) for (seed, prompt), key in zip(plan, keys, strict=True)]
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
    found = read_reference(shipped_reference(plan.group))
    runs, prompts = found.runs("base"), plan.prompts[:SHARED]
    places = [next(place for place, run in enumerate(runs) if run.text == prompt.id) for prompt in prompts]
    keys = [reference_key(found.provenance["seed"], plan.group, "base", place) for place in places]
    requests = [request_of(prompt, key, cap) for prompt, key in zip(prompts, keys, strict=True)]
    made = generator.generate(requests)
    mine = [token_run(prompt.id, each) for prompt, each in zip(prompts, made, strict=True)]
    return mine, [cut(runs[place], cap) for place in places]


def cut(run: TokenRun, cap: int) -> TokenRun:
    if len(run.tokens) <= cap:
        return run
    scalars = {name: getattr(run, name)[:cap] for name in ("logprobs", "entropy", "rank", "margin", "position")}
    return replace(run, tokens=run.tokens[:cap], stop_reason="length", **scalars)


@dataclass(frozen=True)
class Seen:
    """One generator beside the reference. wrong: its entry in the table, None for a right one."""

    name: str
    plan: Plan
    runs: Sequence[TokenRun]
    reference: Sequence[TokenRun]
    found: dict[str, Finding]
    wrong: WrongGenerator | None = None
    shared: Finding | None = None

    @cached_property
    def failed(self) -> list[str]:
        """Questions about whole runs that failed, as `stopping/early`."""
        return [case.removeprefix("tokens/") for case, finding in self.found.items() if finding.outcome == "failed"]

    @property
    def parted(self) -> bool:
        return self.shared is not None and self.shared.outcome == "failed"

    @cached_property
    def stage(self) -> str:
        verdicts = [finding.verdict(CaseId.parse(case), "line") for case, finding in self.found.items()]
        return next((cause.stage for cause in diagnosis(verdicts)), "")

    @cached_property
    def sides(self) -> TwoSides:
        return TwoSides.of(self.runs, self.reference)

    @cached_property
    def announced(self) -> dict[str, Announced]:
        return announced_for(self.plan)

    def does(self, question: str) -> float:
        cell, check = question.split("/")
        if cell == "drift":
            return true_superiority(self.sides, check)
        statistic = float(self.found[f"tokens/{question}"].statistic or 0)
        reasons, spoken = [run.stop_reason for run in self.runs], [(run.text, run.tokens) for run in self.runs]
        shares = {
            "rate": lambda: looping(self.runs) - looping(self.reference),
            "distinct": lambda: np.mean([spoken.count(each) > 1 for each in spoken]),
            "ends": lambda: statistic / len(self.runs),
            "missing": lambda: reasons.count("length") / len(self.runs),
            "forced": lambda: reasons.count("forced_eos") / len(self.runs),
        }
        return float(shares[check]()) if check in shares else statistic

    @cached_property
    def expected(self) -> list[str]:
        """Questions that failed and were expected to, the one first that is furthest beyond what the plan detects."""

        def order(question: str) -> tuple[bool, float]:
            detects = self.announced[question].detects
            return detects >= 1, detects - self.does(question)

        wanted = self.wrong.questions if self.wrong else ()
        return sorted((each for each in wanted if each in self.failed), key=order)

    @property
    def by_runs(self) -> bool:
        """Whether an expected question about whole runs failed, and a stage is named first that may be."""
        return self.wrong is not None and bool(self.expected) and self.stage in self.wrong.stages

    @property
    def caught(self) -> bool:
        """Whether whole runs show it, or one run with upstream's noise where they cannot."""
        return self.wrong is not None and (self.parted if self.wrong.unseen else self.by_runs)


def announced_for(plan: Plan, rate: float = RATE) -> dict[str, Announced]:
    """What `sampler plan` announces, by the names of `findings` without `tokens/`."""
    cases = {"ends": "stopping/ends"} | {question.name: question.case for question in QUESTIONS} | ABSOLUTE_CASES
    return {cases[name]: each for name, each in announced(plan.texts, plan.runs, rate).items()}


def true_superiority(sides: TwoSides, quantity: str) -> float:
    """Of whole runs, on the larger side; of two series the clearer one."""
    chosen = next(each for each in drift.QUANTITIES if each.name == quantity)
    shares = [superiority(*drift.Part(each, None, 0.5).values()) for each in chosen.make(sides)]
    return max(max(share, 1 - share) for share in shares)


def looping(runs: Sequence[TokenRun]) -> float:
    return LoopingRuns.of({str(place): [run.tokens] for place, run in enumerate(runs)}).rate


def compare_wrong(wrong: WrongGenerator) -> Seen:
    plan = wrong.plan
    runs = speak(wrong.factory(checkpoint(), WIDTH), plan.prompts, plan.runs, wrong.name, wrong.cap)
    reference = [cut(run, wrong.cap) for run in reference_runs(plan)]
    shared = same(*with_upstreams_noise(wrong.factory(checkpoint(), SHARED), plan, wrong.cap))
    return Seen(wrong.name, plan, runs, reference, dict(findings(runs, reference, RATE)), wrong, shared)


def compare_right(right: RightGenerator, rate: float = RATE) -> Seen:
    plan = right.plan
    runs = speak(right.factory(checkpoint(), WIDTH), plan.prompts, plan.runs, right.name, CAP)
    runs, reference = [right.change(run) for run in runs], list(reference_runs(plan))
    return Seen(right.name, plan, runs, reference, dict(findings(runs, reference, rate)))
