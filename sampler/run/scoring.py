"""Token runs under a model: the logits of teacher forcing, for `checks.scoring`."""

import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import takewhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sampler.chain.noise import noise_where
from sampler.checks.scoring.findings import findings
from sampler.checks.scoring.named import Named
from sampler.checks.scoring.score import NETWORK_FIRST, Run, Score, Scorer, no_networks
from sampler.checks.scoring.tolerance import SINGLE, Tolerance
from sampler.checks.scoring.wagers import REQUIRED
from sampler.checks.steps.recorded import decided
from sampler.checks.verdict import OUTCOMES, Finding
from sampler.config import SamplingConfig
from sampler.engines.base import Engine, EngineInfo, Predicts
from sampler.engines.capabilities import following
from sampler.engines.core import CoreEngine
from sampler.engines.limits import DEFAULT_LIMITS
from sampler.engines.load import load_engine
from sampler.engines.reference.chain import ReferenceEngine
from sampler.engines.registry import ENGINES
from sampler.engines.remote import RemoteEngine
from sampler.engines.rules import Rules
from sampler.errors import EngineError
from sampler.requests import Context, Logits, Noise, Request, Steps, StopReason
from sampler.run.ahead import Ahead, Predicted
from sampler.run.networks import OTHER_NETWORKS, other_logits, prompts
from sampler.run.spoken import Spoken
from sampler.t3.branches import Prefixes
from sampler.t3.folder import looks_like_weights

NAMING = 1200
"""Tokens that are scored, if there are so many, although the outcome is known: they tell the cause."""

AT_ONCE = NETWORK_FIRST
"""Steps of a run that are scored together; other networks are bet on in whole blocks of them."""

CHECKS = ("impossible", "evidence", "winners", "protocol")


@dataclass(frozen=True)
class Model:
    """A model that predicts the next token, as an engine. follows: the variant whose rules it follows, if any.

    rules: those by which the chain of the engine under test differs from HuggingFace's (engines/rules.py). networks:
    whether it is asked what other prompts and positions give, which takes a forward pass each.
    """

    engine: Engine
    follows: str = ""
    rules: Rules = field(default_factory=dict)
    networks: bool = True

    @cached_property
    def info(self) -> EngineInfo:
        return self.engine.info

    @cached_property
    def prefixes(self) -> Prefixes:
        """What the core has computed of texts."""
        return Prefixes()

    def variant(self, name: str) -> "Model":
        """The model with a variant's rules. Raises Unsupported where it has no others."""
        return replace(self, engine=following(self.engine, name, self.follows), follows=name)

    def history(self, tokens: Sequence[int]) -> list[int]:
        """The ids for the repetition penalty before the next token."""
        rule = self.engine.generator.penalty_history if isinstance(self.engine, CoreEngine) else "bos_and_generated"
        begins = rule == "bos_and_generated" or (rule == "bos_at_first" and not tokens)
        return [self.info.bos_id, *tokens] if begins and self.info.bos_id is not None else list(tokens)

    def score(
        self,
        config: SamplingConfig,
        alpha: float,
        tolerance: Tolerance = SINGLE,
        *,
        stripped: bool = False,
        gaps: bool = False,
        required: float | None = REQUIRED,
        noise: bool = False,
    ) -> Score:
        """An empty score for runs of this config. stripped, gaps, required: see Score.

        noise: the engine was given the noise of the requests.
        """
        reference, edges, *wider = (
            ReferenceEngine(rules=self.rules, input_error=size) for size in (tolerance.logit, *tolerance.edges)
        )
        size, ends = self.info.vocab_size or 0, self.info.eos_ids
        networks = OTHER_NETWORKS if self.networks and isinstance(self.engine, CoreEngine) else ()
        given = (config, alpha, edges, reference, size, ends, stripped, networks, required, tolerance, wider)
        return Score(*given, self.positions, gaps, noise=noise and not config.greedy)

    def run(self, name: str, request: Request, tokens: tuple[int, ...], stop_reason: StopReason) -> Run:
        """A run whose logits are computed when they are asked for."""
        return next(self.scored([Spoken(name, request, tokens, stop_reason)]))

    def scored(self, runs: Sequence[Spoken], first: int | None = None) -> Iterator[Run]:
        """Runs of one config, whose logits are computed when they are asked for, with those of some of the next.

        first: how many tokens of each are scored; None: all.
        """
        assert isinstance(self.engine, Predicts)  # noqa: S101 - as `reference_model` has made sure
        size = self.info.vocab_size or 0
        most = min((count for count in (self.positions, first) if count is not None), default=None)
        valid = (tuple(takewhile(lambda token: 0 <= token < size, run.tokens[:most])) for run in runs)
        given = [(run.request, tokens) for run, tokens in zip(runs, valid, strict=True)]
        guided = self.info.cfg and "cfg" in runs[0].request.config.active_stages()
        ahead = Ahead(self.engine, given, guided, self.prefixes)
        for place, (run, (request, tokens)) in enumerate(zip(runs, given, strict=True)):
            forced = _Forced(self, request, tokens, guided, partial(ahead.of, place))
            networks = forced.networks if self.networks else no_networks
            noise = partial(_noise_where, run.request.noise) if run.request.noise else None
            before = partial(prompts, self.engine, run.request) if isinstance(self.engine, CoreEngine) else dict
            asked = run.request.max_new_tokens
            yield Run(run.name, run.tokens, run.stop_reason, forced, networks, asked, noise, before)

    @property
    def positions(self) -> int | None:
        """The most tokens that a run can have; None: not known."""
        return self.engine.generator.checkpoint.config.speech_positions if isinstance(self.engine, CoreEngine) else None


def _noise_where(noise: Noise, steps: NDArray[np.int64], kept: NDArray[np.bool_]) -> Logits:
    """Of some steps of a request, for the tokens that are kept (T, V)."""
    return noise_where([noise] * len(steps), steps.tolist(), kept)


@dataclass(frozen=True)
class _Forced:
    """The steps of a run, up to its first token that is no id of the vocabulary."""

    model: Model
    request: Request
    tokens: tuple[int, ...]
    guided: bool
    predicted: Callable[[], Predicted]

    @property
    def logits(self) -> Logits:
        """After the analyzer's decisions, where the model has one: (T, 2 with guidance else 1, V)."""
        logits, flags = self.predicted()
        return decided(logits, flags, self.model.info.eos_ids)

    def networks(self, first: int | None = None, among: Container[Named] | None = None) -> dict[Named, Scorer]:
        """The first steps, or all, with the logits of other networks; those of the core alone are known."""
        engine = self.model.engine
        if not isinstance(engine, CoreEngine) or not self.tokens:
            return {}
        others = other_logits(
            engine, self.request, self.tokens[:first], among, guided=self.guided, prefixes=self.model.prefixes
        )
        return {named: partial(self._others, logits) for named, logits in others.items()}

    def _others(self, logits: Callable[[], Logits], config: SamplingConfig) -> Iterator[Steps]:
        """As if the analyzer decided what it decides with the right network."""
        _, flags = self.predicted()
        theirs = logits()
        return self._steps(decided(theirs, flags[: len(theirs)], self.model.info.eos_ids), config)

    def __call__(self, config: SamplingConfig) -> Iterator[Steps]:
        return self._steps(self.logits, config) if self.tokens else iter(())

    def _steps(self, logits: Logits, config: SamplingConfig) -> Iterator[Steps]:
        tokens = self.tokens[: len(logits)]
        for start in range(0, len(tokens), AT_ONCE):
            steps = range(start, min(start + AT_ONCE, len(tokens)))
            part = logits[start : start + AT_ONCE]
            histories = [self.model.history(tokens[:step]) for step in steps]
            before = np.array([len(history) - step for history, step in zip(histories, steps, strict=True)])
            yield Steps(
                part[:, 0],
                histories,
                (config,) * len(steps),
                part[:, 1] if part.shape[1] == 2 else None,
                Context(before, np.array(steps, dtype=np.int64), self.model.info.eos_ids),
                tokens=np.array(tokens[start : start + AT_ONCE], dtype=np.int64),
            )


def is_model(name: str) -> bool:
    """Whether --against names a model that scores tokens: a known engine, `file.py:factory`, or weights."""
    return name in ENGINES or (":" in name and not name.endswith(".jsonl")) or looks_like_weights(Path(name))


def reference_model(name: str) -> Model:
    """The model of --against. Raises EngineError for an engine that cannot score tokens."""
    if looks_like_weights(Path(name)):
        engine: Engine = CoreEngine.load(Path(name), width=1)
    elif name in ENGINES:
        engine = CoreEngine.load(width=1) if name == "core" else load_engine(name, ENGINES)
    else:
        engine = RemoteEngine.load(partial(load_engine, name, {}), DEFAULT_LIMITS)
    if not isinstance(engine, Predicts):
        raise EngineError(f"{name} has no predict()", hint="tokens are scored under a model that predicts the next one")
    if engine.info.vocab_size is None:
        raise EngineError(f"{name} names no vocab_size", hint="set it in its info")
    return Model(engine)


def is_told(score: Score) -> bool:
    """Whether further runs would change neither the outcome nor the cause that is named."""
    return score.decided and score.checked >= NAMING


@dataclass(frozen=True)
class Bounds:
    """Where scoring ends at the latest: after so many runs, or minutes; None: no limit."""

    runs: int | None = None
    minutes: float | None = None

    @property
    def options(self) -> list[str]:
        """As options of the command."""
        given = {"--runs": self.runs, "--minutes": self.minutes}
        return [text for name, value in given.items() if value is not None for text in (name, f"{value:g}")]


NO_BOUNDS = Bounds()


@dataclass(frozen=True)
class Scoring:
    """Runs of a log scored one after the other: a Score for each config and variant, which share alpha equally.

    A variant that the model cannot follow raises Unsupported: its runs would pass without having been looked at.
    """

    model: Model
    runs: Sequence[Spoken]
    alpha: float
    bounds: Bounds = NO_BOUNDS
    tolerance: Tolerance = SINGLE

    def findings(self) -> dict[str, Finding]:
        """The answers by check, the worst of all groups; with the name of its group if there are others."""
        answers: dict[str, list[Finding]] = {name: [] for name in CHECKS}
        for where, score in self.scores():
            for name, finding in findings(score).items():
                answers[name].append(replace(finding, message=where + finding.message))
        return {name: _together(found) for name, found in answers.items() if found}

    def scores(self) -> Iterator[tuple[str, Score]]:
        """The score of each group, with the name of the group if there are others."""
        groups: dict[tuple[str, SamplingConfig], list[Spoken]] = {}
        for run in self.runs:
            groups.setdefault((run.variant, run.request.config), []).append(run)
        start = time.monotonic()
        for (variant, config), runs in groups.items():
            where = f"{_asked(variant, config)}: " if len(groups) > 1 else ""
            yield where, self._score(variant, config, runs, self.alpha / len(groups), start)

    @property
    def _stripped(self) -> bool:
        """Whether runs say that they ended with EOS, and none of them has one."""
        ended = [run.tokens[-1:] for run in self.runs if run.stop_reason in ("eos", "forced_eos")]
        last = {token for tokens in ended for token in tokens if token >= 0}
        return bool(last) and not last & set(self.model.info.eos_ids)

    @property
    def _gaps(self) -> bool:
        """Whether the log leaves tokens out."""
        return any(min(run.tokens, default=0) < 0 for run in self.runs)

    def _score(self, variant: str, config: SamplingConfig, runs: Sequence[Spoken], alpha: float, start: float) -> Score:
        model = self.model.variant(variant) if variant else self.model
        score = model.score(config, alpha, self.tolerance, stripped=self._stripped, gaps=self._gaps)
        for run in model.scored(runs):
            if is_told(score):
                break
            if self.bounds.runs is not None and len(score.runs) >= self.bounds.runs:
                break
            if self.bounds.minutes is not None and time.monotonic() - start > 60 * self.bounds.minutes:
                break
            score.add(run)
        return score


def _asked(variant: str, config: SamplingConfig) -> str:
    """What a group of runs was asked for, in few words."""
    changes = (f"{name} {'>'.join(value) if name == 'order' else value}" for name, value in config.changes.items())
    return " ".join([*([variant] if variant else []), *changes]) or "the defaults"


def _together(found: Sequence[Finding]) -> Finding:
    worst = min(found, key=lambda finding: OUTCOMES.index(finding.outcome))
    return replace(worst, n=sum(finding.n for finding in found))
