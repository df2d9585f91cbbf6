"""Tokens scored under a reference: whether each is possible and drawn from its distribution, and how runs end.

A right engine draws token t from p_t, what the chain makes of the reference's logits for the run's own earlier tokens.
So a token outside of the support is a proof, and the bets of `wagers.py` hold however many runs are scored, and
whenever one stops: their mean wealth reaches 1 / alpha with a probability of at most alpha. Nothing here knows a model.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from sampler.checks.scoring.alternatives import looser_configs, other_configs
from sampler.checks.scoring.bounds import seen_bounds
from sampler.checks.scoring.impossible import Impossible, impossible_tokens
from sampler.checks.scoring.knobs import Knob, difference, differing, estimated
from sampler.checks.scoring.named import Named
from sampler.checks.scoring.wagers import Block, Wagers, log_likelihood
from sampler.checks.verdict import Finding
from sampler.config import SamplingConfig
from sampler.engines.base import Explains
from sampler.requests import Steps, StopReason

LEVEL: Final = "generate"

Scorer = Callable[[SamplingConfig], Iterable[Steps]]
"""The steps of a run with their logits, in order, under a config."""


@dataclass(frozen=True)
class Run:
    """One run to score. name: for messages. tokens: with EOS where it ended. steps: its steps under a config.

    networks: gives the same with the logits of networks that do something else, for a run that is to be explained.
    """

    name: str
    tokens: Sequence[int]
    stop_reason: StopReason
    steps: Scorer = field(repr=False)
    networks: Callable[[], Mapping[Named, Scorer]] = field(default=dict, repr=False)

    def under(self, network: Named | None) -> "Run":
        """The run as one of another network; None: as it is."""
        return self if network is None else replace(self, steps=self.networks()[network], networks=dict)


@dataclass(frozen=True)
class Tolerance:
    """By how much a right engine's logits may differ from the reference's, in nats.

    edge: before a token counts as impossible. logit: for what bets are paid.
    """

    name: str
    edge: float
    logit: float


CANDIDATES = 3
"""The likeliest causes, each of which is named only if the runs do not reject it."""

FITTED = 3.0
"""Nats by which a fitted value has to be likelier than one that was in the table before."""

LEAST_TOKENS = 200
"""Tokens from which sampling parameters are estimated, at least."""

TEMPERATURE, BY_EDGE, EDGE = "temperature", "temperature by the edge", "edge of the support"
"""Names of estimates."""

MOST_TOKENS = 600
"""Tokens from which the likeliest cause is chosen."""

SINGLE = Tolerance("float32", edge=2e-3, logit=5e-5)
"""Right float32 implementations of Finch differ by at most 1.4e-5 (docs/decisions.md, "Scoring")."""


@dataclass
class Score:
    """The tokens of runs with one config, judged run by run.

    references: with the tolerance of the edge, and of the logits. vocabulary: number of ids. wrong: what is
    wrong with how runs end. stripped: the runs have lost their EOS, so that each token is scored given that it is none.
    """

    config: SamplingConfig
    alpha: float
    edges: Explains
    reference: Explains
    vocabulary: int
    eos_ids: Sequence[int]
    stripped: bool = False
    checked: int = 0
    impossible: list[Impossible] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    wagers: Wagers = field(init=False)

    def __post_init__(self) -> None:
        self.wagers = Wagers(self.config, self.alpha, self.reference, said="scored under the reference")

    @property
    def decided(self) -> bool:
        """Whether further runs cannot change the outcome."""
        return bool(self.impossible) or self.wagers.rejected

    def add(self, run: Run) -> None:
        """Score a further run. Its tokens up to the first that is no id of the vocabulary are scored."""
        self.runs.append(run)
        self.wrong += protocol(run, self.vocabulary, () if self.stripped else self.eos_ids)
        self.wagers.add(self._blocks(run))

    def _blocks(self, run: Run) -> Iterator[Block]:
        for steps in run.steps(self.config):
            must, may = seen_bounds(self.edges, steps)
            self.impossible += impossible_tokens(run.name, steps, may, self.edges)
            self.checked += len(steps.tokens)
            if self.stripped:
                must[:, list(self.eos_ids)] = False
            yield Block(steps, must, may)

    def findings(self) -> dict[str, Finding]:
        """The answers by check, in the order of the contract."""
        causes = self._explained() if self.decided else NO_EXPLANATION
        return {"impossible": self._support(causes), "evidence": self._evidence(causes), "protocol": self._protocol()}

    def _support(self, causes: "Explanation") -> Finding:
        if not self.checked:
            return Finding.skipped(LEVEL, "draw", "not_recorded", "no run has a token")
        if not self.impossible:
            message = f"each of the {self.checked:,} tokens is one that the reference can draw"
            return Finding(LEVEL, "draw", "passed", self.checked, message, statistic=0, bound=0)
        first = self.impossible[0]
        message = f"impossible: {first}; {len(self.impossible)} of {self.checked:,} tokens are"
        stage = causes.cause.stage if causes.cause else first.stage
        count = len(self.impossible)
        return Finding(LEVEL, stage, "failed", self.checked, message + causes.text, statistic=count, bound=0)

    def _evidence(self, causes: "Explanation") -> Finding:
        if not self.checked:
            return Finding.skipped(LEVEL, "draw", "not_recorded", "no run has a token")
        found = replace(self.wagers.finding(), level=LEVEL)
        if self.impossible and found.outcome != "failed":
            message = "the impossible tokens decide; bets on the others are not decided yet"
            return Finding.skipped(LEVEL, "draw", "after_failure", message, found.n)
        if found.outcome != "failed":
            return replace(found, message=found.message + self._excluded())
        stage = causes.cause.stage if causes.cause else found.stage
        return replace(found, stage=stage, message=found.message + causes.text)

    def _excluded(self) -> str:
        """The alternatives whose own draws would have been rejected, in words."""
        found = [named.text for named, seen in zip(self.wagers.names, self.wagers.detected, strict=True) if seen]
        return f"; excluded: {', '.join(found)}" if found else "; nothing is excluded yet"

    def _protocol(self) -> Finding:
        if not self.wrong:
            message = f"all {len(self.runs)} runs end as they say"
            if self.stripped:
                message = "EOS is missing from all runs: tokens are scored given that none of them is EOS"
            return Finding(LEVEL, "stop", "passed", len(self.runs), message, statistic=0, bound=0)
        more = f", and {len(self.wrong) - 1} more" if len(self.wrong) > 1 else ""
        count = len(self.wrong)
        return Finding(LEVEL, "stop", "failed", len(self.runs), self.wrong[0] + more, statistic=count, bound=0)

    def _explained(self) -> "Explanation":
        steps = (steps for run in self.runs for steps in run.steps(self.config))
        knobs = plain(estimated(self.config, steps)) if self.checked >= LEAST_TOKENS else ()
        cause = self._cause(knobs)
        return Explanation(cause, "" if cause in self.runs[0].networks() else difference(knobs), self.checked)

    def _cause(self, knobs: Sequence[Knob]) -> Named | None:
        """What an engine does otherwise that makes these tokens likeliest and is not rejected itself."""
        chains: dict[SamplingConfig, Way] = {}  # two rows of the tables may be one chain
        for named, config in (*looser_configs(self.config), *other_configs(self.config)):
            chains.setdefault(config, Way(named, config))
        ways = [*chains.values()]
        ways += [Way(named, config, fitted=True) for named, config in estimated_configs(self.config, knobs)]
        ways += [Way(named, self.config, named) for named in self.runs[0].networks()]
        likelihoods = [self._likelihood(way) for way in ways]
        bets = self.wagers.bets
        gained = max(likelihoods) - self._likelihood(Way(NOTHING, self.config)) if not self.impossible else math.inf
        if bets.logs.max() > gained:
            return self.wagers.names[bets.best]
        best = sorted(range(len(ways)), key=lambda at: -likelihoods[at])[:CANDIDATES]
        likely = (ways[at] for at in best if likelihoods[at] > -math.inf)
        return next((way.named for way in likely if not self._under(way).decided), None)

    def _likelihood(self, way: "Way") -> float:
        """The log-likelihood of the first tokens if they were drawn in another way, -inf if one cannot be."""
        total, left = -FITTED if way.fitted else 0.0, MOST_TOKENS
        for run in self.runs:
            for steps in run.under(way.network).steps(way.config):
                total += log_likelihood(steps, self.edges)
                left -= len(steps.tokens)
                if total == -math.inf:
                    return total
            if left <= 0:
                break
        return total

    def _under(self, way: "Way") -> "Score":
        """The same runs scored as if they had been drawn in another way."""
        other = replace(self, config=way.config, checked=0, impossible=[], wrong=[], runs=[])
        for run in self.runs:
            other.add(run.under(way.network))
            if other.decided:
                break
        return other


class Way(NamedTuple):
    """Something that an engine may do otherwise. fitted: its value comes from the same tokens."""

    named: Named
    config: SamplingConfig
    network: Named | None = None
    fitted: bool = False


NOTHING = Named("", "nothing")


class Explanation(NamedTuple):
    """The cause, if one is known. knobs: the parameters that differ, in a sentence. tokens: from how many of them."""

    cause: Named | None = None
    knobs: str = ""
    tokens: int = 0

    @property
    def text(self) -> str:
        said = f"it looks like {self.cause.text}" if self.cause else "none of the known causes explains it"
        return f"; {said}" + (f"; estimated from {self.tokens:,} tokens: {self.knobs}" if self.knobs else "")


NO_EXPLANATION = Explanation()


def plain(knobs: Sequence[Knob]) -> tuple[Knob, ...]:
    """The estimates with one temperature: that of the edge, which is sharper, if the other tokens agree with it.

    If they do not, min_p may be another one, and the edge itself is told.
    """
    found = {knob.name: knob for knob in knobs}
    one, other = found.get(TEMPERATURE), found.get(BY_EDGE)
    agree = one is not None and other is not None and one.low <= other.high and other.low <= one.high
    left_out = {TEMPERATURE, EDGE} if agree else {BY_EDGE}
    kept = (knob for knob in knobs if knob.name not in left_out)
    return tuple(replace(knob, name=TEMPERATURE) if knob.name == BY_EDGE else knob for knob in kept)


def estimated_configs(config: SamplingConfig, knobs: Sequence[Knob]) -> Iterator[tuple[Named, SamplingConfig]]:
    """The same chain with one estimated parameter that differs from what was asked for."""
    for knob in differing(knobs):
        value = round(knob.estimate, 3)
        match knob.name:
            case "CFG weight":
                yield Named("cfg", f"a guidance weight near {value:.3g}"), replace(config, cfg_weight=value)
            case "penalty":
                named = Named("repetition_penalty", f"a penalty near {value:.3g}")
                yield named, replace(config, repetition_penalty=value)
            case "temperature":
                yield Named("temperature", f"a temperature near {value:.3g}"), replace(config, temperature=value)


def protocol(run: Run, vocabulary: int, eos_ids: Sequence[int]) -> Iterator[str]:
    """What contradicts the contract of runs: ids, EOS and the stop reason. eos_ids: empty if EOS was stripped."""
    outside = next((token for token in run.tokens if not 0 <= token < vocabulary), None)
    if outside is not None:
        yield f"{run.name} has token {outside}; the model has {vocabulary:,} ids, from 0"
    early = next((step for step, token in enumerate(run.tokens[:-1]) if token in eos_ids), None)
    if early is not None:
        yield f"{run.name} goes on after EOS at step {early}"
    last = run.tokens[-1] if run.tokens else None
    if eos_ids and run.stop_reason in ("eos", "forced_eos") and last not in eos_ids:
        yield f"{run.name} says {run.stop_reason}, but its last token is {last}"
    if run.stop_reason == "length" and last in eos_ids:
        yield f"{run.name} ends with EOS, but says length"
