"""Tokens scored under a reference: whether each is possible and drawn from its distribution, and how runs end.

A right engine draws token t from p_t, what the chain makes of the reference's logits for the run's own earlier tokens.
So a token outside of the support is a proof, and the bets of `wagers.py` hold however many runs are scored, and
whenever one stops: their mean wealth reaches 1 / alpha with a probability of at most alpha. Nothing here knows a model.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from sampler.checks.scoring.bounds import beyond, seen_bounds, widened
from sampler.checks.scoring.impossible import Impossible, impossible_tokens
from sampler.checks.scoring.margin import Margins, NoiseOf
from sampler.checks.scoring.named import Named
from sampler.checks.scoring.tolerance import SINGLE, Tolerance
from sampler.checks.scoring.wagers import REQUIRED, Block, Wagers, log_likelihoods
from sampler.config import SamplingConfig
from sampler.engines.base import Explains
from sampler.requests import Steps, StopReason

Scorer = Callable[[SamplingConfig], Iterable[Steps]]
"""The steps of a run with their logits, in order, under a config."""


class Networks(Protocol):
    """The steps of a run with the logits of other networks, of so many first tokens, or of all."""

    def __call__(self, first: int | None = None, among: Container[Named] | None = None) -> Mapping[Named, Scorer]:
        """Those `among` all that are known, or all; computed together, when the first of them is asked for."""


def no_networks(first: int | None = None, among: Container[Named] | None = None) -> Mapping[Named, Scorer]:  # noqa: ARG001
    """Of a run whose network is the only one that is known."""
    return {}


@dataclass(frozen=True)
class Run:
    """One run to score. name: for messages. tokens: with EOS where it ended. steps: its steps under a config.

    networks: gives the same with the logits of networks that do something else.
    most: how many tokens were asked for at most; 0 if that is unknown. noise: that the engine was given, if known.
    prompts: gives the ids that came before the tokens, by what they are.
    """

    name: str
    tokens: Sequence[int]
    stop_reason: StopReason
    steps: Scorer = field(repr=False)
    networks: Networks = field(default=no_networks, repr=False)
    most: int = 0
    noise: NoiseOf | None = field(default=None, repr=False)
    prompts: Callable[[], Mapping[str, Sequence[int]]] = field(default=dict, repr=False)

    def under(self, network: Named | None, first: int | None = None) -> "Run":
        """The run as one of another network, or so many of its first tokens; without a network as it is."""
        if network is None:
            return self
        steps = self.networks(first, (network,)).get(network, self.steps)  # which for this run may be the same network
        return replace(self, steps=steps, networks=no_networks)

    def changed(self, change: Callable[[Steps], Steps]) -> "Run":
        """The run with steps that are changed before the chain."""
        return replace(self, steps=lambda config: map(change, self.steps(config)))

    def until(self, ended: Callable[[], bool]) -> "Run":
        """The run, whose steps go on until something is so."""
        return replace(self, steps=lambda config: takewhile(lambda _: not ended(), self.steps(config)))


MARGIN: Final = 0.1
"""The part of margins in alpha: what they detect, they detect within a few more tokens."""

NETWORK_TOKENS, NETWORK_FIRST = 12_000, 128
"""Other networks are bet on in so many tokens, the first ones of each run, where another prompt tells most."""

NETWORK_LEAST = 1000
"""After so many tokens of them, those that would take more than NETWORK_TOKENS are left alone."""


@dataclass
class Score:
    """The tokens of runs with one config, judged run by run.

    edges, reference: with the tolerance of the edge, and of the logits. vocabulary: number of ids. stripped: the runs
    have lost their EOS, so that each token is scored given that it is none. networks: what other networks may do, of
    those that runs have. required: see Wagers. wider: references with the further edges of a precision class, the
    narrowest first; a token counts as impossible beyond the last one. positions: the most tokens that a run can have.
    gaps: ids below 0 stand for tokens that the log leaves out. What a run has before the first one is possible or not,
    but it is chosen by its outcome, so that nothing is bet on.
    noise: whether the engine was given the noise of its runs; then `margins` has MARGIN of alpha, bets have the rest.
    proof: the number of tokens up to the first impossible one. wrong: what is wrong with how runs end.
    """

    config: SamplingConfig
    alpha: float
    edges: Explains
    reference: Explains
    vocabulary: int
    eos_ids: Sequence[int]
    stripped: bool = False
    networks: Sequence[Named] = ()
    required: float | None = REQUIRED
    tolerance: Tolerance = SINGLE
    wider: Sequence[Explains] = ()
    positions: int | None = None
    gaps: bool = False
    noise: bool = False
    checked: int = 0
    impossible: list[Impossible] = field(default_factory=list)
    proof: int | None = None
    wrong: list[str] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    wagers: Wagers = field(init=False)
    margins: Margins = field(init=False)

    def __post_init__(self) -> None:
        self.margins = Margins(self.alpha * MARGIN, self.tolerance)
        self.wagers = Wagers(
            self.config,
            self.alpha * (1 - MARGIN if self.noise else 1),
            self.reference,
            tolerance=self.tolerance,
            said=f"scored under the reference{self.tolerance.note}",
            networks=self.networks,
            required=self.required,
        )

    @property
    def steps(self) -> Iterator[Steps]:
        """All steps of the runs, under the config."""
        return (steps for run in self.runs for steps in run.steps(self.config))

    @property
    def decided(self) -> bool:
        """Whether further runs cannot change the outcome."""
        return bool(self.impossible) or self.wagers.rejected

    @property
    def enough(self) -> int | None:
        """How many tokens had been enough to decide; None if all are not."""
        return min((n for n in (self.proof, self.wagers.enough) if n is not None), default=None)

    def add(self, run: Run) -> None:
        """Score a further run. Its tokens up to the first that is no id of the vocabulary are scored."""
        self.runs.append(run)
        before = self.checked
        if self.positions is not None and len(run.tokens) > self.positions:
            most = f"the model has positions for {self.positions:,}, which are scored"
            self.wrong.append(f"{run.name} has {len(run.tokens):,} tokens; {most}")
        self.wrong += protocol(run, self.vocabulary, () if self.stripped else self.eos_ids, gaps=self.gaps)
        self.wagers.add(self._blocks(run))
        if self.impossible and self.proof is None:
            self.proof = before + self.impossible[0].step + 1

    def _blocks(self, run: Run) -> Iterator[Block]:
        others = {named: iter(steps(self.config)) for named, steps in self._open(run).items()}
        for steps in run.steps(self.config):
            found = {named: next(parts, None) for named, parts in others.items()}
            networks = {named: of for named, of in found.items() if of and len(of.tokens) == len(steps.tokens)}
            must, may = seen_bounds(self.edges, steps)
            if self.noise and run.noise is not None:
                self.margins.add(run.name, run.noise, steps, must, may, [self.edges, *self.wider])
            rare = []
            for edges in self.wider:
                rare.append(len(beyond(steps, may)))
                may = widened(may, steps, edges)
            self.impossible += impossible_tokens(run.name, steps, may, self.edges)
            self.checked += len(steps.tokens)
            if self.stripped:
                must[:, list(self.eos_ids)] = False
            if not self.gaps:
                yield Block(steps, must, may, rare, networks)

    def _open(self, run: Run) -> Mapping[Named, Scorer]:
        """The other networks that are bet on in a run: those that are not excluded yet, and will be soon enough.

        What went before decides it, so that the bets stay valid; each network costs a forward pass.
        """
        if not self.networks or self.gaps or self.decided or len(self.runs) * NETWORK_FIRST > NETWORK_TOKENS:
            return {}
        bets = self.wagers.bets
        hopeless = (bets.placed >= NETWORK_LEAST) & (bets.needed(self.alpha) > NETWORK_TOKENS)
        closed = dict(zip(self.wagers.names, self.wagers.detected | hopeless, strict=True))
        return run.networks(NETWORK_FIRST, [named for named in self.networks if not closed[named]])

    def log_likelihoods(self, steps: Steps) -> NDArray[np.float64]:
        """Of steps under their config; a token beyond an edge has at most the rate of that, -inf if impossible."""
        values = log_likelihoods(steps, self.edges)
        rows = np.flatnonzero(values == -np.inf).tolist()
        if rows and self.wider:
            possible = log_likelihoods(steps.only(rows), self.wider[-1]) > -np.inf
            values[rows] = np.where(possible, np.log(self.tolerance.beyond[0].rate), -np.inf)
        return values


def protocol(run: Run, vocabulary: int, eos_ids: Sequence[int], *, gaps: bool = False) -> Iterator[str]:
    """What contradicts the contract of runs: ids, EOS and the stop reason. eos_ids: empty if EOS was stripped."""
    outside = next((token for token in run.tokens if token >= vocabulary or (token < 0 and not gaps)), None)
    if outside is not None:
        yield f"{run.name} has token {outside}; the model has {vocabulary:,} ids, from 0"
    early = next((step for step, token in enumerate(run.tokens[:-1]) if token in eos_ids), None)
    if early is not None:
        yield f"{run.name} goes on after EOS at step {early}"
    last = run.tokens[-1] if run.tokens else None
    is_left_out = gaps and last is not None and last < 0
    if eos_ids and run.stop_reason in ("eos", "forced_eos") and last not in eos_ids and not is_left_out:
        yield f"{run.name} says {run.stop_reason}, but its last token is {last}"
    if run.stop_reason == "length" and last in eos_ids:
        yield f"{run.name} ends with EOS, but says length"
    if run.stop_reason == "length" and 0 < len(run.tokens) < run.most:
        yield f"{run.name} says length after {len(run.tokens)} tokens; {run.most} were asked for"
