"""The tables of wrong and right generators, the texts that they speak, and what most faults share."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sampler import finch
from sampler.chain.pipeline import Scores
from sampler.checks.longform.runs import TokenRun
from sampler.finch import Prompt
from sampler.generation.block import Block
from sampler.generation.generator import Generator
from sampler.requests import Generation, Request
from sampler.t3.checkpoint import Checkpoint
from tests.wrong_engines.tables import flat

LANGUAGES = ("en", "de", "fr", "es", "it")

SHARPER = ("drift/entropy", "drift/margin", "drift/surprisal", "drift/rank")
"""Questions about how sure the model is; a warmer or colder distribution shows in these first."""

READS = ("stopping/missing", "stopping/early", "stopping/late", "drift/length")
"""Whether the text is read to its end, and at what speed."""

SAYS = ("drift/tokens", "drift/bigrams", "drift/repetition")
"""What is said."""

ANYTHING = (*READS, *SAYS, *SHARPER)
"""Questions that a model may fail which computes something else."""

STOP = ("stop",)

UNSEEN = "Finch speaks much as before, so that its runs do not show it; one run with upstream's noise does"


@dataclass(frozen=True)
class Plan:
    """Which texts, how many runs of each. least, most: their true lengths in tokens. first: of each language."""

    name: str
    group: str
    texts: int
    runs: int
    least: int
    most: int
    first: int = 0

    @property
    def prompts(self) -> list[Prompt]:
        """Fitting texts of each language in turn, the same ones in every plan of a group that begins at one place."""
        fitting = [prompt for prompt in finch.prompts(self.group) if self.least <= prompt.tokens <= self.most]
        by_language = [[prompt for prompt in fitting if prompt.language == each] for each in LANGUAGES]
        by_language = [row[self.first % len(row) :] + row[: self.first % len(row)] for row in by_language]
        turns = [row[turn] for turn in range(max(map(len, by_language))) for row in by_language if turn < len(row)]
        return turns[: self.texts]


FEW = Plan("6 sentences x 5 runs", "sentences", 6, 5, 38, 52)
SENTENCES = Plan("12 sentences x 8 runs", "sentences", 12, 8, 38, 52)
PARAGRAPHS = Plan("6 paragraphs x 10 runs", "paragraphs", 6, 10, 100, 160)
PLANS = (FEW, SENTENCES, PARAGRAPHS)


Factory = Callable[[Checkpoint, int], Any]


@dataclass(frozen=True)
class WrongGenerator:
    """A wrong generator and what is to be found out about it.

    factory: from checkpoint and width. stages: of which a verdict that failed may name one first. questions: of which
    at least one must fail, with the runs of `plan`. cap: tokens of a run, at most. unseen: why whole runs do not show
    it on these texts, but one run with upstream's noise does; empty where they must.
    """

    name: str
    fault: str
    factory: Factory
    questions: tuple[str, ...]
    stages: tuple[str, ...] = ("draw", "stop")
    plan: Plan = FEW
    cap: int = 120
    unseen: str = ""


def same_runs(run: TokenRun) -> TokenRun:
    return run


@dataclass(frozen=True)
class RightGenerator:
    """A generator that looks different and is right. change: what is done to its runs before they are judged."""

    name: str
    why: str
    factory: Factory
    plan: Plan = SENTENCES
    change: Callable[[TokenRun], TokenRun] = same_runs


WRONG_GENERATORS: dict[str, WrongGenerator] = {}
RIGHT_GENERATORS: dict[str, RightGenerator] = {}


def wrong_generators(questions: tuple[str, ...], *items: Any, **common: Any) -> None:
    """Put the rows of a flat table into that of wrong generators: "name: fault", factory, a dict of what differs."""
    for name, fault, (factory, *special) in flat(*items):
        assert name not in WRONG_GENERATORS
        options = {"questions": questions, **common, **(special[0] if special else {})}
        WRONG_GENERATORS[name] = WrongGenerator(name, fault, factory, **options)


def right_generators(*items: Any) -> None:
    """Put the rows of a flat table into that of right generators: "name: what looks different", factory, options."""
    for name, why, (factory, *special) in flat(*items):
        assert name not in RIGHT_GENERATORS
        RIGHT_GENERATORS[name] = RightGenerator(name, why, factory, **(special[0] if special else {}))


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


def asking(ask: Callable[[list[Request]], list[Request]]) -> Factory:
    return lambda checkpoint, width: Around(Generator(checkpoint, width), ask)


def answering(answer: Callable[[Generation], Generation]) -> Factory:
    return lambda checkpoint, width: Around(Generator(checkpoint, width), answer=answer)


def cut(generation: Generation, part: slice) -> Generation:
    """Part of the tokens, and of what was recorded with them."""
    recorded = ("logprob", "rank", "entropy", "margin")
    record = replace(generation.record, **{name: getattr(generation.record, name)[part] for name in recorded})
    return replace(generation, tokens=generation.tokens[part], record=record)


def remade(thing: Any, kind: type, **changes: Any) -> Any:
    """A shallow copy of another class, with other attributes: the original stays as it is."""
    other = copy.copy(thing)
    other.__class__ = kind
    vars(other).update(changes)
    return other
