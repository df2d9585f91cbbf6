"""The tables of wrong and right generators, the texts that they speak, and what most lies share."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sampler import finch
from sampler.chain.pipeline import Scores
from sampler.checks.longform.runs import TokenRun
from sampler.finch import Prompt
from sampler.generation.block import Block
from sampler.generation.generator import Generator
from sampler.requests import Generation, Request
from sampler.t3.checkpoint import Checkpoint

LANGUAGES = ("en", "de", "fr", "es", "it")

SHARPER = ("drift/entropy", "drift/margin", "drift/surprisal", "drift/rank")
"""Questions about how sure the model is; a warmer or colder distribution shows in these first."""

READS = ("stopping/missing", "stopping/early", "stopping/late", "drift/length")
"""Whether the text is read to its end, and at what speed."""

SAYS = ("drift/tokens", "drift/bigrams", "drift/repetition")
"""What is said."""

ANYTHING = (*READS, *SAYS, *SHARPER)
"""Questions that a model may fail which computes something else."""


UNSEEN = "Finch speaks much as before, so that its runs do not show it; one run with upstream's noise does"


@dataclass(frozen=True)
class Plan:
    """Which texts, how many runs of each. least, most: their true lengths in tokens."""

    name: str
    group: str
    texts: int
    runs: int
    least: int
    most: int

    @property
    def prompts(self) -> list[Prompt]:
        """The first fitting texts of each language in turn, the same ones in every plan of a group."""
        fitting = [prompt for prompt in finch.prompts(self.group) if self.least <= prompt.tokens <= self.most]
        by_language = [[prompt for prompt in fitting if prompt.language == each] for each in LANGUAGES]
        turns = [row[turn] for turn in range(max(map(len, by_language))) for row in by_language if turn < len(row)]
        return turns[: self.texts]


FEW = Plan("6 sentences x 5 runs", "sentences", 6, 5, 38, 52)
SENTENCES = Plan("12 sentences x 8 runs", "sentences", 12, 8, 38, 52)
PARAGRAPHS = Plan("6 paragraphs x 10 runs", "paragraphs", 6, 10, 100, 160)
PLANS = (FEW, SENTENCES, PARAGRAPHS)


class Generates:
    """What a factory gives: a generator, or something around one."""

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        raise NotImplementedError


Factory = Callable[[Checkpoint, int], Any]


@dataclass(frozen=True)
class WrongGenerator:
    """A wrong generator and what is to be found out about it.

    factory: from checkpoint and width. stages: of which a verdict that failed may name one first. questions: of which
    at least one must fail, with the runs of `plan`. cap: tokens of a run, at most. unseen: why whole runs do not show
    it on these texts, but one run with upstream's noise does; empty where they must.
    """

    name: str
    lie: str
    factory: Factory
    stages: tuple[str, ...]
    questions: tuple[str, ...]
    plan: Plan
    cap: int
    unseen: str = ""


@dataclass(frozen=True)
class RightGenerator:
    """A generator that looks different and is right. change: what is done to its runs before they are judged."""

    name: str
    why: str
    factory: Factory
    plan: Plan
    change: Callable[[TokenRun], TokenRun]


WRONG_GENERATORS: dict[str, WrongGenerator] = {}
RIGHT_GENERATORS: dict[str, RightGenerator] = {}


def wrong_generator(
    *questions: str,
    stages: tuple[str, ...] = ("draw", "stop"),
    plan: Plan = FEW,
    cap: int = 120,
    unseen: str = "",
) -> Callable[[Factory], Factory]:
    """Put a factory into the table of wrong generators; its docstring is the lie."""

    def register(factory: Factory) -> Factory:
        name, lie = factory.__name__, factory.__doc__ or ""
        assert name not in WRONG_GENERATORS
        assert lie.startswith("Lie: ")
        WRONG_GENERATORS[name] = WrongGenerator(name, lie, factory, stages, questions, plan, cap, unseen)
        return factory

    return register


def right_generator(
    plan: Plan = SENTENCES, change: Callable[[TokenRun], TokenRun] = lambda run: run
) -> Callable[[Factory], Factory]:
    """Put a factory into the table of right generators; its docstring says why it looks different."""

    def register(factory: Factory) -> Factory:
        name, why = factory.__name__, factory.__doc__ or ""
        assert name not in RIGHT_GENERATORS
        assert why.startswith("No lie: ")
        RIGHT_GENERATORS[name] = RightGenerator(name, why, factory, plan, change)
        return factory

    return register


@dataclass(frozen=True)
class WithBlock(Generator):
    """A generator whose blocks are of another class."""

    block: type[Block] = Block

    def _block(self, requests: Any, prompts: Any, *, guided: bool, analyzed: bool) -> Block:
        return self.block(self, requests, prompts, guided=guided, analyzed=analyzed)


def with_block(block: type[Block], **fields: Any) -> Factory:
    return lambda checkpoint, width: WithBlock(checkpoint, width, block=block, **fields)


def with_chain(chain: Callable[..., Scores]) -> Factory:
    return lambda checkpoint, width: Generator(checkpoint, width, chain=chain)


@dataclass(frozen=True)
class Around:
    """A right generator that is asked for something else than its caller asked for, or whose answers are changed."""

    generator: Generator
    ask: Callable[[list[Request]], list[Request]] = lambda requests: requests
    answer: Callable[[Generation], Generation] = lambda generation: generation

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        return [self.answer(generation) for generation in self.generator.generate(self.ask(list(requests)))]


def remade(thing: Any, kind: type, **changes: Any) -> Any:
    """A shallow copy of another class, with other attributes: the original stays as it is."""
    other = copy.copy(thing)
    other.__class__ = kind
    vars(other).update(changes)
    return other
