"""Engines of one fault each, and right ones that look different.

All of them are Finch on the MLX core with one part exchanged, so that nothing but the fault can be detected. Ids in
brackets are kinds of real bugs (docs/decisions.md, "Miniatures").
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import mlx.core as mx
import numpy as np

from sampler import NoiseKey, SamplingConfig
from sampler.chain.pipeline import Scores, run_rows
from sampler.engines.base import EngineInfo
from sampler.engines.core import CoreEngine
from sampler.engines.reference.chain import ReferenceEngine
from sampler.errors import Unsupported
from sampler.generation.generator import Generator
from sampler.requests import Batch, Generation, Noise, Request

try:
    from tests.wrong_engines import FACTORIES
    from tests.wrong_engines.own_noise import OWN_NOISE
    from tests.wrong_engines.repeating import REPEATING
    from tests.wrong_engines.tables import flat, named
except ModuleNotFoundError:  # this file is loaded by its path, from another folder
    from wrong_engines import FACTORIES
    from wrong_engines.own_noise import OWN_NOISE
    from wrong_engines.repeating import REPEATING
    from wrong_engines.tables import flat, named

Rewrite = Callable[[SamplingConfig], SamplingConfig]
Process = Callable[..., np.ndarray]
SIZE, BOS = 2_050, 2_048
BEFORE_TEMPERATURE = ("cfg", "repetition_penalty", "top_k", "min_p", "top_p", "temperature")
TEMPERATURE_FIRST = ("cfg", "temperature", "repetition_penalty", "top_k", "min_p", "top_p")
ITS_ORDER = ("cfg", "repetition_penalty", "min_p", "temperature", "top_k", "top_p")
ALL_BUT_TOP_P = frozenset({"cfg", "repetition_penalty", "temperature", "top_k", "min_p"})


# Engines whose generation uses another chain; `process` stays the right one.


def finch_with(chain: Callable[[Batch], Scores]) -> CoreEngine:
    return CoreEngine(replace(CoreEngine.load(width=2).generator, chain=chain))


def with_configs(rewrite: Rewrite) -> CoreEngine:
    """Finch that runs the chain with other sampling parameters than it was asked for."""
    return finch_with(lambda batch: run_rows(rewritten(batch, rewrite)))


def with_values(**changes: Any) -> CoreEngine:
    return with_configs(lambda config: replace(config, **changes))


def rewritten(batch: Batch, rewrite: Rewrite) -> Batch:
    """The same rows under other configs."""
    return replace(batch, configs=[rewrite(config) for config in batch.configs])


def every_id(batch: Batch) -> mx.array:
    """The ids of the vocabulary: (1, V)."""
    return mx.arange(batch.logits.shape[-1])[None]


def best_alone(batch: Batch) -> Scores:
    scores = run_rows(batch)
    best = mx.argmax(scores.final, axis=-1, keepdims=True) == every_id(batch)
    return Scores(mx.where(best, scores.final, -mx.inf), scores.ranked)


def places(batch: Batch) -> Scores:
    """At a temperature of 0.001 this is right token for token, and at 0.8 it gives token 0 for ever."""
    greedy = mx.array([[config.temperature < 0.01] for config in batch.configs])
    return Scores(*(mx.where(greedy, scores, -mx.sort(-scores, axis=-1)) for scores in run_rows(batch)))


def divided(batch: Batch) -> Scores:
    mixed = run_rows(rewritten(batch, lambda config: replace(config, order=("cfg",)))).final
    penalty = mx.array([[config.repetition_penalty] for config in batch.configs])
    penalized = mx.where(mx.array(batch.seen), mixed / penalty, mixed)
    rest = rewritten(batch, lambda config: replace(config, order=("temperature", "top_k", "min_p", "top_p")))
    return run_rows(replace(rest, logits=penalized, uncond_logits=None))


def without_eos(batch: Batch) -> Scores:
    eos = every_id(batch) == batch.logits.shape[-1] - 1
    return run_rows(replace(batch, logits=mx.where(eos, -mx.inf, mx.array(batch.logits))))


def in_float64(batch: Batch) -> Scores:
    uncond = None if batch.uncond_logits is None else np.array(batch.uncond_logits)
    rows = []
    for row, config in enumerate(batch.configs):
        history = np.flatnonzero(np.array(batch.seen[row])).tolist()
        other = None if uncond is None else uncond[row : row + 1]
        rows.append(ReferenceEngine().process(np.array(batch.logits)[row : row + 1], [history], config, other))
    scores = mx.array(np.concatenate(rows))
    return Scores(scores, scores)


# Engines around a generate() whose requests or answers are changed.


@dataclass(frozen=True)
class Around:
    """ask: from a request and the number of all, what Finch is asked. answer: from its answers, those given."""

    engine: CoreEngine
    ask: Callable[[Request, int], Request] = lambda request, count: request
    answer: Callable[[list[Generation]], list[Generation]] = lambda generations: generations

    @property
    def info(self) -> EngineInfo:
        return self.engine.info

    def process(self, *inputs: object) -> np.ndarray:
        return self.engine.process(*inputs)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        return self.answer(self.engine.generate([self.ask(request, len(requests)) for request in requests]))


def asking(ask: Callable[[Request, int], Request]) -> Around:
    return Around(CoreEngine.load(width=2), ask)


def answering(change: Callable[[Generation], Generation], engine: CoreEngine | None = None) -> Around:
    return Around(engine or CoreEngine.load(width=2), answer=lambda all_: [change(each) for each in all_])


def with_noise(noise: Callable[[Request, int], Noise]) -> Around:
    return asking(lambda request, count: replace(request, noise=noise(request, count)))


def of_key(seed: int, name: str) -> Noise:
    key = NoiseKey(seed, name)
    return lambda step: key.gumbel(step, SIZE)


def with_its_own_seeds() -> Around:
    calls = itertools.count()
    return with_noise(lambda request, count: of_key(next(calls), "entropy"))


def rounded_among_others(generations: list[Generation]) -> list[Generation]:
    if len(generations) == 1:
        return generations
    records = [replace(each.record, logits=each.record.logits * np.float32(1 + 1e-7)) for each in generations]
    return [replace(each, record=record) for each, record in zip(generations, records, strict=True)]


def without_its_last(generation: Generation) -> Generation:
    record = replace(generation.record, logits=generation.record.logits[:-1])
    return replace(generation, tokens=generation.tokens[:-1], record=record)


# Engines that are right in generation, and whose process() or info is changed.


@dataclass(frozen=True)
class Changed(CoreEngine):
    """change: what process() makes of the right one and its inputs. says: what info says otherwise."""

    change: Process = lambda process, *inputs: process(*inputs)
    says: dict[str, object] = field(default_factory=dict)

    @property
    def info(self) -> EngineInfo:
        return replace(super().info, **self.says)

    def process(self, logits: np.ndarray, history: object, config: SamplingConfig, uncond: object = None) -> np.ndarray:
        return self.change(super().process, logits, history, config, uncond)


def changed(*change: Process, generator: Generator | None = None, **says: object) -> Changed:
    return Changed(generator or CoreEngine.load(width=2).generator, *change, says=says)


def in_one_order(*change: Process) -> Changed:
    return changed(*change, generator=with_values(order=ITS_ORDER).generator, orders=(ITS_ORDER,))


def without_crossing(process: Process, logits: np.ndarray, history: object, config: SamplingConfig, uncond: object):
    scores = process(logits, history, config, uncond)
    if config.top_p < 1 and "top_p" in config.order:
        last = np.where(scores > -np.inf, scores, np.inf).argmin(axis=-1)
        several = (scores > -np.inf).sum(axis=-1) > 1
        scores[several, last[several]] = -np.inf
    return scores


def without_crossing_in_its_order(process: Process, logits, history, config: SamplingConfig, uncond):
    return without_crossing(process, logits, history, replace(config, order=ITS_ORDER), uncond)


def refusing_other_orders(process: Process, logits, history, config: SamplingConfig, uncond):
    if config.order != ITS_ORDER:
        raise Unsupported(f"the order {config.order}")
    return without_crossing_in_its_order(process, logits, history, config, uncond)


def with_nan(process: Process, *inputs: object) -> np.ndarray:
    scores = process(*inputs)
    scores[-1, 0] = np.nan
    return scores


def written_over(process: Process, logits: np.ndarray, *rest: object) -> np.ndarray:
    logits[:] = process(logits.copy(), *rest)
    return logits


def as_bfloat16(process: Process, *inputs: object) -> np.ndarray:
    return np.array(mx.array(process(*inputs)).astype(mx.bfloat16).astype(mx.float32))


@dataclass(frozen=True)
class ReadsContext(CoreEngine):
    """Counts the ids of a history by what the context says of it."""

    def process(self, logits, history, config, uncond_logits=None, *, context) -> np.ndarray:
        lengths = [len(row) for row in history]
        if (context.prompt_length + context.step).tolist() != lengths or context.eos_ids != self.info.eos_ids:
            raise ValueError(f"context {context} for histories of {lengths}")
        return super().process(logits, history, config, uncond_logits)


class Raises:
    """Fault: says that it generates, and raises."""

    info = EngineInfo(name="raises", version="1", vocab_size=SIZE, bos_id=BOS)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        raise ValueError("no such device")


class OnlyProcesses(ReferenceEngine):
    """No fault: an engine without generate()."""


def make_generator() -> Generator:
    """No engine at all: a factory that gives something else."""
    return CoreEngine.load(width=2).generator


FINCH: dict[str, Callable[[], Any]] = {}


def put(prefix: str, *rows: Any) -> None:
    FINCH.update({name: named(make, name, f"{prefix}: {text}") for name, text, (make,) in flat(*rows)})


put(
    "Fault",
    "ignores_min_p: min_p is accepted and ignored [P05].",
    lambda: with_values(min_p=0.0),
    "ignores_top_p: top_p is accepted and ignored.",
    lambda: with_values(top_p=1.0),
    "truncates_before_temperature: filters before temperature, mlx-lm's order, in place of HuggingFace's [T01].",
    lambda: with_values(order=BEFORE_TEMPERATURE),
    "tempers_twice: temperature is applied twice [T03].",
    lambda: with_configs(lambda config: replace(config, temperature=config.temperature**2)),
    "ignores_the_penalty: repetition_penalty is accepted and ignored.",
    lambda: with_values(repetition_penalty=1.0),
    "always_greedy: at any temperature only the most likely token comes out [T05].",
    lambda: finch_with(best_alone),
    "returns_places_in_the_sorted_order: "
    "draws from sorted scores and returns the place, not the id; under a temperature of 0.01 it is greedy [N09].",
    lambda: finch_with(places),
    "swaps_guidance: conditional and unconditional logits are exchanged [C02].",
    lambda: finch_with(lambda batch: run_rows(replace(batch, logits=batch.uncond_logits, uncond_logits=batch.logits))),
    "divides_negative_scores: the penalty divides scores of either sign, so negative ones become more likely [P01].",
    lambda: finch_with(divided),
    "forgets_bos: BOS is not in the history that is penalised; it is never likely, so only its score differs [P07].",
    lambda: finch_with(lambda batch: run_rows(replace(batch, seen=np.array(batch.seen) & (np.arange(SIZE) != BOS)))),
    "never_stops: EOS is removed before the chain, as an `ignore_eos` that was left on [E04].",
    lambda: finch_with(without_eos),
    "freezes_noise: every step draws with the noise of the first [R01].",
    lambda: with_noise(lambda request, count: lambda step: request.noise(0)),
    "ignores_the_seed: noise comes from a generator of its own, the seed has no effect [R08].",
    with_its_own_seeds,
    "ignores_guidance: cfg_weight is accepted and ignored, and only the conditional logits are recorded.",
    lambda: asking(lambda request, count: replace(request, config=request.config.without(["cfg"]))),
    "seeds_by_slot: a request's noise depends on how many others are in the batch [R06].",
    lambda: with_noise(lambda request, count: lambda step: request.noise(step + count - 1)),
    "drops_the_crossing_token: `process` drops the token that crosses top_p [N01].",
    lambda: changed(without_crossing),
    "drops_the_crossing_token_in_its_one_order: the same, in an engine that always keeps to one order [N01].",
    lambda: in_one_order(without_crossing_in_its_order),
    "drops_the_crossing_token_and_refuses_other_orders: as above, and other orders are refused [N01].",
    lambda: in_one_order(refusing_other_orders),
    "answers_with_nan: one score of the last row is NaN.",
    lambda: changed(with_nan),
    "writes_its_input: the scores are right, and the logits that were lent are overwritten with them.",
    lambda: changed(written_over),
    "takes_the_history_of_another_row: every row is penalised for the history of the last one in the batch.",
    lambda: changed(lambda process, rows, history, *rest: process(rows, [history[-1]] * len(history), *rest)),
    "counts_in_numpy: min_p is ignored; and no fault: tokens are an array, its numbers NumPy's.",
    lambda: answering(lambda each: replace(each, tokens=np.array(each.tokens)), with_values(min_p=0.0)),
    "says_that_it_is_done: a stop reason that does not exist.",
    lambda: answering(lambda each: replace(each, stop_reason="done")),
    "says_eos_at_the_cap: a run that ends with EOS has lost it, and still says `eos` [E02].",
    lambda: answering(without_its_last),
    "loses_a_request: of several requests the last one gets no answer.",
    lambda: Around(CoreEngine.load(width=2), answer=lambda all_: all_[: max(1, len(all_) - 1)]),
)
put(
    "No fault",
    "right: the core.",
    lambda: CoreEngine.load(width=2),
    "right_in_float64: the chain of every step in NumPy float64, one row after the other.",
    lambda: finch_with(in_float64),
    "right_with_another_but_equivalent_order: penalty and temperature commute, a positive scale keeps the sign.",
    lambda: with_values(order=TEMPERATURE_FIRST),
    "rounds_otherwise_in_a_batch: among others the recorded logits differ in the last bit from those of one alone.",
    lambda: Around(CoreEngine.load(width=2), answer=rounded_among_others),
    "without_top_p: does not have top_p, and says so.",
    lambda: changed(supports=ALL_BUT_TOP_P),
    "in_bfloat16: scores are rounded to eight bits, and it says so.",
    lambda: changed(as_bfloat16, dtype="torch.bfloat16"),
    "reads_the_context: its process has the further keyword `context`, and needs it.",
    lambda: ReadsContext(CoreEngine.load(width=2).generator),
    "in_its_one_order: knows one order, says so, and keeps to it whatever it is asked for.",
    in_one_order,
    "draws_with_its_own_generator: the seed decides, by another generator than the suite's.",
    lambda: with_noise(lambda request, count: of_key(request.seed, "its own")),
)
FINCH.update(REPEATING | OWN_NOISE)
globals().update({**FACTORIES, **FINCH})  # all of them are attributes of this module
