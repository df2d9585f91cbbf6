"""Engines of one lie each, and right ones that look different; the docstring names the lie.

All of them are Finch on the MLX core with one part exchanged, so that nothing but the lie can be seen. Ids in brackets
are kinds of real bugs (docs/decisions.md, "Miniatures").
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np

from sampler import NoiseKey, SamplingConfig
from sampler.chain.pipeline import Scores, run_rows
from sampler.engines.base import EngineInfo
from sampler.engines.core import CoreEngine
from sampler.engines.reference.chain import ReferenceEngine
from sampler.errors import Unsupported
from sampler.generation.generator import Generator
from sampler.requests import Batch, Generation, Request

try:
    from tests.wrong_engines import FACTORIES
except ModuleNotFoundError:  # this file is loaded by its path, from another folder
    from wrong_engines import FACTORIES

globals().update(FACTORIES)  # those that process and draw

Rewrite = Callable[[SamplingConfig], SamplingConfig]


def finch_with(chain: Callable[..., Scores]) -> CoreEngine:
    """Finch whose generation uses another chain; `process` stays the right one."""
    return replaced(CoreEngine.load(width=2), chain=chain)


def replaced(engine: CoreEngine, **changes: object) -> CoreEngine:
    return CoreEngine(replace(engine.generator, **changes))


def with_configs(rewrite: Rewrite) -> CoreEngine:
    """Finch that runs the chain with other knobs than it was asked for."""
    return finch_with(lambda batch: run_rows(rewritten(batch, rewrite)))


def rewritten(batch: Batch, rewrite: Rewrite) -> Batch:
    """The same rows under other configs."""
    return replace(batch, configs=[rewrite(config) for config in batch.configs])


def every_id(batch: Batch) -> mx.array:
    """The ids of the vocabulary: (1, V)."""
    return mx.arange(batch.logits.shape[-1])[None]


def ignores_min_p() -> CoreEngine:
    """Lie: min_p is accepted and ignored [P05]."""
    return with_configs(lambda config: replace(config, min_p=0.0))


def ignores_top_p() -> CoreEngine:
    """Lie: top_p is accepted and ignored."""
    return with_configs(lambda config: replace(config, top_p=1.0))


def truncates_before_temperature() -> CoreEngine:
    """Lie: filters before temperature, mlx-lm's order, for a caller who asks for HuggingFace's [T01]."""
    order = ("cfg", "repetition_penalty", "top_k", "min_p", "top_p", "temperature")
    return with_configs(lambda config: replace(config, order=order))


def tempers_twice() -> CoreEngine:
    """Lie: temperature is applied twice [T03]."""
    return with_configs(lambda config: replace(config, temperature=config.temperature**2))


def ignores_the_penalty() -> CoreEngine:
    """Lie: repetition_penalty is accepted and ignored."""
    return with_configs(lambda config: replace(config, repetition_penalty=1.0))


def always_greedy() -> CoreEngine:
    """Lie: at any temperature only the most likely token comes out [T05]."""

    def chain(batch: Batch) -> Scores:
        scores = run_rows(batch)
        best = mx.argmax(scores.final, axis=-1, keepdims=True) == every_id(batch)
        return Scores(mx.where(best, scores.final, -mx.inf), scores.ranked)

    return finch_with(chain)


def returns_places_in_the_sorted_order() -> CoreEngine:
    """Lie: draws from sorted scores and returns the place, not the id; under a temperature of 0.01 it is greedy [N09].

    At 0.001 it is right token for token, and at 0.8 it gives token 0 for ever.
    """

    def chain(batch: Batch) -> Scores:
        greedy = mx.array([[config.temperature < 0.01] for config in batch.configs])
        return Scores(*(mx.where(greedy, scores, -mx.sort(-scores, axis=-1)) for scores in run_rows(batch)))

    return finch_with(chain)


def swaps_guidance() -> CoreEngine:
    """Lie: conditional and unconditional logits are exchanged [C02]."""
    return finch_with(lambda batch: run_rows(replace(batch, logits=batch.uncond_logits, uncond_logits=batch.logits)))


def divides_negative_scores() -> CoreEngine:
    """Lie: the penalty divides scores of either sign, so negative ones become more likely [P01]."""

    def chain(batch: Batch) -> Scores:
        mixed = run_rows(rewritten(batch, lambda config: replace(config, order=("cfg",)))).final
        penalty = mx.array([[config.repetition_penalty] for config in batch.configs])
        penalized = mx.where(mx.array(batch.seen), mixed / penalty, mixed)
        order = ("temperature", "top_k", "min_p", "top_p")
        rest = rewritten(batch, lambda config: replace(config, order=order))
        return run_rows(replace(rest, logits=penalized, uncond_logits=None))

    return finch_with(chain)


def forgets_bos() -> CoreEngine:
    """Lie: BOS is not in the history that is penalised; it is never likely, so only its score differs [P07]."""
    bos = np.arange(2_050) == 2_048
    return finch_with(lambda batch: run_rows(replace(batch, seen=np.array(batch.seen) & ~bos)))


@dataclass(frozen=True)
class Changed:
    """Finch behind a generate() that changes requests or answers."""

    engine: CoreEngine
    change: Callable[[int, Sequence[Request], Request], Request]

    @property
    def info(self) -> EngineInfo:
        return self.engine.info

    def process(self, *inputs: object) -> np.ndarray:
        return self.engine.process(*inputs)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        changed = [self.change(index, requests, request) for index, request in enumerate(requests)]
        return self.engine.generate(changed)


def changed(change: Callable[[int, Sequence[Request], Request], Request]) -> Changed:
    return Changed(CoreEngine.load(width=2), change)


def freezes_noise() -> Changed:
    """Lie: every step draws with the noise of the first [R01]."""
    return changed(lambda index, requests, request: replace(request, noise=lambda step: request.noise(0)))


def ignores_the_seed() -> Changed:
    """Lie: noise comes from a generator of its own, the seed has no effect [R08]."""
    calls = itertools.count()

    def change(index: int, requests: Sequence[Request], request: Request) -> Request:
        key = NoiseKey(next(calls), "entropy")
        return replace(request, noise=lambda step: key.gumbel(step, 2_050))

    return changed(change)


def ignores_guidance() -> Changed:
    """Lie: cfg_weight is accepted and ignored, and only the conditional logits are recorded."""
    return changed(lambda index, requests, request: replace(request, config=request.config.without(["cfg"])))


def seeds_by_slot() -> Changed:
    """Lie: a request's noise depends on how many others are in the batch [R06]."""

    def change(index: int, requests: Sequence[Request], request: Request) -> Request:
        return replace(request, noise=lambda step: request.noise(step + len(requests) - 1))

    return changed(change)


def never_stops() -> CoreEngine:
    """Lie: EOS is removed before the chain, as an `ignore_eos` that was left on [E04]."""

    def chain(batch: Batch) -> Scores:
        eos = every_id(batch) == batch.logits.shape[-1] - 1
        return run_rows(replace(batch, logits=mx.where(eos, -mx.inf, mx.array(batch.logits))))

    return finch_with(chain)


Process = Callable[..., np.ndarray]


@dataclass(frozen=True)
class WithProcess(CoreEngine):
    """Right in generation; `process` is what `change` makes of the right one."""

    change: Callable[..., np.ndarray]

    def process(self, logits: np.ndarray, history: object, config: SamplingConfig, uncond: object = None) -> np.ndarray:
        return self.change(super().process, logits, history, config, uncond)


def with_process(change: Callable[..., np.ndarray]) -> WithProcess:
    return WithProcess(CoreEngine.load(width=2).generator, change)


def drops_the_crossing_token() -> WithProcess:
    """Lie: `process` drops the token that crosses top_p [N01]."""

    def change(process: Process, logits: np.ndarray, history: object, config: SamplingConfig, uncond: object):
        scores = process(logits, history, config, uncond)
        if config.top_p < 1 and "top_p" in config.order:
            last = np.where(scores > -np.inf, scores, np.inf).argmin(axis=-1)
            several = (scores > -np.inf).sum(axis=-1) > 1
            scores[several, last[several]] = -np.inf
        return scores

    return with_process(change)


def answers_with_nan() -> WithProcess:
    """Lie: one score of the last row is NaN."""

    def change(process: Process, *inputs: object) -> np.ndarray:
        scores = process(*inputs)
        scores[-1, 0] = np.nan
        return scores

    return with_process(change)


def writes_its_input() -> WithProcess:
    """Lie: the scores are right, and the logits that were lent are overwritten with them."""

    def change(process: Process, logits: np.ndarray, *rest: object) -> np.ndarray:
        logits[:] = process(logits.copy(), *rest)
        return logits

    return with_process(change)


def takes_the_history_of_another_row() -> WithProcess:
    """Lie: every row is penalised for the history of the last one in the batch."""

    def change(process: Process, logits: np.ndarray, history: list[list[int]], *rest: object) -> np.ndarray:
        return process(logits, [history[-1]] * len(history), *rest)

    return with_process(change)


@dataclass(frozen=True)
class Answers:
    """Finch whose answers are changed after the fact."""

    engine: CoreEngine
    change: Callable[[list[Generation]], list[Generation]]

    @property
    def info(self) -> EngineInfo:
        return self.engine.info

    def process(self, *inputs: object) -> np.ndarray:
        return self.engine.process(*inputs)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        return self.change(self.engine.generate(requests))


def counts_in_numpy() -> Answers:
    """Lie: min_p is ignored; and no lie: tokens are an array, its numbers NumPy's."""

    def change(generations: list[Generation]) -> list[Generation]:
        return [replace(generation, tokens=np.array(generation.tokens)) for generation in generations]

    return Answers(ignores_min_p(), change)


def says_that_it_is_done() -> Answers:
    """Lie: a stop reason that there is not."""
    return Answers(CoreEngine.load(width=2), lambda all_: [replace(each, stop_reason="done") for each in all_])


def rounds_otherwise_in_a_batch() -> Answers:
    """No lie: among others the recorded logits differ from the lonely ones in the last bit."""

    def change(generations: list[Generation]) -> list[Generation]:
        if len(generations) == 1:
            return generations
        records = [replace(each.record, logits=each.record.logits * np.float32(1 + 1e-7)) for each in generations]
        return [replace(each, record=record) for each, record in zip(generations, records, strict=True)]

    return Answers(CoreEngine.load(width=2), change)


def says_eos_at_the_cap() -> Answers:
    """Lie: a run that ends with EOS has lost it, and still says `eos` [E02]."""

    def change(generations: list[Generation]) -> list[Generation]:
        return [
            replace(each, tokens=each.tokens[:-1], record=replace(each.record, logits=each.record.logits[:-1]))
            for each in generations
        ]

    return Answers(CoreEngine.load(width=2), change)


def loses_a_request() -> Answers:
    """Lie: of several requests the last one gets no answer."""
    return Answers(CoreEngine.load(width=2), lambda generations: generations[: max(1, len(generations) - 1)])


@dataclass(frozen=True)
class Says(CoreEngine):
    """Finch that says something else of itself."""

    changes: dict[str, object]

    @property
    def info(self) -> EngineInfo:
        return replace(super().info, **self.changes)


@dataclass(frozen=True)
class SaysAndProcesses(WithProcess):
    """Both: `process` is changed, and info says so."""

    changes: dict[str, object]

    @property
    def info(self) -> EngineInfo:
        return replace(super().info, **self.changes)


def without_top_p() -> Says:
    """No lie: does not have top_p, and says so."""
    supports = frozenset({"cfg", "repetition_penalty", "temperature", "top_k", "min_p"})
    return Says(CoreEngine.load(width=2).generator, {"supports": supports})


ITS_ORDER = ("cfg", "repetition_penalty", "min_p", "temperature", "top_k", "top_p")


def in_bfloat16() -> Says:
    """No lie: scores are rounded to eight bits, and it says so."""

    def change(process: Process, *inputs: object) -> np.ndarray:
        return np.array(mx.array(process(*inputs)).astype(mx.bfloat16).astype(mx.float32))

    return SaysAndProcesses(CoreEngine.load(width=2).generator, change, {"dtype": "torch.bfloat16"})


def reads_the_context() -> "ReadsContext":
    """No lie: its process has the further keyword `context`, and needs it."""
    return ReadsContext(CoreEngine.load(width=2).generator)


@dataclass(frozen=True)
class ReadsContext(CoreEngine):
    """Counts the ids of a history by what the context says of it."""

    def process(self, logits, history, config, uncond_logits=None, *, context) -> np.ndarray:
        lengths = [len(row) for row in history]
        if (context.prompt_length + context.step).tolist() != lengths or context.eos_ids != self.info.eos_ids:
            raise ValueError(f"context {context} for histories of {lengths}")
        return super().process(logits, history, config, uncond_logits)


@dataclass(frozen=True)
class OneOrderWrong(Says):
    """`process` keeps to its one order, and drops the last token of top_p there."""

    refuses: bool = False

    def process(self, logits, history, config, uncond_logits=None) -> np.ndarray:
        if self.refuses and config.order != ITS_ORDER:
            raise Unsupported(f"the order {config.order}")
        scores = super().process(logits, history, replace(config, order=ITS_ORDER), uncond_logits)
        if config.top_p < 1:
            last = np.where(scores > -np.inf, scores, np.inf).argmin(axis=-1)
            several = (scores > -np.inf).sum(axis=-1) > 1
            scores[several, last[several]] = -np.inf
        return scores


def drops_the_crossing_token_in_its_one_order() -> OneOrderWrong:
    """Lie: as `drops_the_crossing_token`, in an engine that has one order, whatever it is asked for [N01]."""
    engine = with_configs(lambda config: replace(config, order=ITS_ORDER))
    return OneOrderWrong(engine.generator, {"orders": (ITS_ORDER,)})


def drops_the_crossing_token_and_refuses_other_orders() -> OneOrderWrong:
    """Lie: as above, and other orders are refused [N01]."""
    return replace(drops_the_crossing_token_in_its_one_order(), refuses=True)


def in_its_one_order() -> Says:
    """No lie: knows one order, says so, and keeps to it whatever it is asked for."""
    engine = with_configs(lambda config: replace(config, order=ITS_ORDER))
    return Says(engine.generator, {"orders": (ITS_ORDER,)})


def draws_with_its_own_generator() -> Changed:
    """No lie: the seed decides, by another generator than the suite's."""

    def change(index: int, requests: Sequence[Request], request: Request) -> Request:
        key = NoiseKey(request.seed, "its own")
        return replace(request, noise=lambda step: key.gumbel(step, 2_050))

    return changed(change)


class Raises:
    """Lie: says that it generates, and breaks."""

    info = EngineInfo(name="raises", version="1", vocab_size=2_050, bos_id=2_048)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        raise ValueError("no such device")


class OnlyProcesses(ReferenceEngine):
    """No lie: an engine without generate()."""


def right() -> CoreEngine:
    """No lie: the core."""
    return CoreEngine.load(width=2)


def right_in_float64() -> CoreEngine:
    """No lie: the chain of every step in NumPy float64, one row after the other."""
    reference = ReferenceEngine()

    def chain(batch: Batch) -> Scores:
        logits = np.array(batch.logits)
        uncond = None if batch.uncond_logits is None else np.array(batch.uncond_logits)
        rows = []
        for row, config in enumerate(batch.configs):
            history = np.flatnonzero(np.array(batch.seen[row])).tolist()
            other = None if uncond is None else uncond[row : row + 1]
            rows.append(reference.process(logits[row : row + 1], [history], config, other))
        scores = mx.array(np.concatenate(rows))
        return Scores(scores, scores)

    return finch_with(chain)


def right_with_another_but_equivalent_order() -> CoreEngine:
    """No lie: penalty and temperature commute, a positive scale keeps the sign."""
    order = ("cfg", "temperature", "repetition_penalty", "top_k", "min_p", "top_p")
    return with_configs(lambda config: replace(config, order=order))


def make_generator() -> Generator:
    """No engine at all: a factory that gives something else."""
    return CoreEngine.load(width=2).generator
