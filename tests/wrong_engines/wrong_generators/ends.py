"""EOS: never, early, late, beside the filters, forced, or only said."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np

from sampler.alignment import AnalyzerConfig
from sampler.chain.pipeline import Scores, run_rows
from sampler.generation.block import Block
from sampler.generation.generator import Generator
from sampler.generation.slot import Slot
from sampler.requests import Batch, Generation, Request
from sampler.t3.checkpoint import Checkpoint
from tests.wrong_engines.wrong_generators.table import (
    SENTENCES,
    Around,
    Factory,
    with_block,
    with_chain,
    wrong_generator,
)

STOP = ("stop",)


def eos_gains(change: Callable[[int], float]) -> Factory:
    """What is added to the logit of EOS; change: from the number of tokens so far."""

    class Changed(Block):
        def _draw(self, active: Sequence[Slot]) -> None:
            for slot in active:
                gain = np.zeros(slot.logits.shape[-1], dtype=np.float32)
                gain[self.model.config.eos_id] = change(len(slot.tokens))
                slot.logits = slot.logits + mx.array(gain)
            super()._draw(active)

    return with_block(Changed)


@wrong_generator("stopping/missing", stages=STOP, cap=80)
def never_ends(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: EOS is removed at every step, as an `ignore_eos` that was left on [E04]."""
    return eos_gains(lambda step: -1e4)(checkpoint, width)


@wrong_generator("stopping/early", "drift/length", stages=STOP, plan=SENTENCES)
def ends_early(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: the logit of EOS is raised by 12 [E05]."""
    return eos_gains(lambda step: 12.0)(checkpoint, width)


@wrong_generator("stopping/early", "drift/length", stages=STOP, plan=SENTENCES)
def eos_gains_with_every_token(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: a bias of EOS grows by 0.5 with every token, against runs that never end [E05]."""
    return eos_gains(lambda step: 0.5 * step)(checkpoint, width)


@wrong_generator("stopping/late", "drift/length", "stopping/missing", stages=("stop", "draw"))
def holds_eos_back_for_60_tokens(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: a least number of tokens that nobody asked for: EOS is suppressed for the first 60 [E05]."""
    return eos_gains(lambda step: -1e4 if step < 60 else 0.0)(checkpoint, width)


@wrong_generator("stopping/early", "drift/length", plan=SENTENCES)
def eos_is_exempt_from_the_filters(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: EOS keeps a probability of at least a fiftieth, whatever the filters say [E02]."""

    def chain(batch: Batch) -> Scores:
        right = run_rows(batch)
        eos = mx.arange(right.final.shape[-1])[None] == right.final.shape[-1] - 1
        floor = mx.logsumexp(right.final, axis=-1, keepdims=True) - float(np.log(50))
        return Scores(*(mx.where(eos, mx.maximum(scores, floor), scores) for scores in right))

    return with_chain(chain)(checkpoint, width)


@wrong_generator("stopping/missing", stages=STOP)
def is_cut_at_20_tokens(checkpoint: Checkpoint, width: int) -> Around:
    """Lie: a limit of the server cuts what is longer [U01]."""

    def ask(requests: list[Request]) -> list[Request]:
        return [replace(request, max_new_tokens=min(20, request.max_new_tokens)) for request in requests]

    return Around(Generator(checkpoint, width), ask)


@wrong_generator("stopping/ends", stages=STOP)
def says_eos_without_it(checkpoint: Checkpoint, width: int) -> Around:
    """Lie: EOS is taken off, and the run still says that it ended with it [E07]."""

    def answer(generation: Generation) -> Generation:
        record = generation.record
        kept = {name: getattr(record, name)[:-1] for name in ("logprob", "rank", "entropy", "margin")}
        return replace(generation, tokens=generation.tokens[:-1], record=replace(record, **kept))

    return Around(Generator(checkpoint, width), answer=answer)


class GoesOn(Block):
    """Another id is tested than the one that the model ends with; only every second EOS ends a run."""

    def _note(self, active: Sequence[Slot], *rest: object) -> None:
        super()._note(active, *rest)
        for slot in active:
            if slot.stop_reason == "eos" and slot.tokens.count(self.model.config.eos_id) == 1:
                full = len(slot.tokens) == slot.request.max_new_tokens
                slot.stop_reason = "length" if full else None


@wrong_generator("stopping/ends", stages=STOP, cap=80)
def goes_on_after_the_first_eos(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: of two ids that end a run only one is looked for, and speech goes on after the first EOS [E01]."""
    return with_block(GoesOn)(checkpoint, width)


@wrong_generator("stopping/forced", stages=STOP, plan=SENTENCES)
def a_guard_cuts_hanging_ends(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: an analyzer that the reference does not have, whose long tail ends a run at once [A04]."""
    return Generator(checkpoint, width, analyzer=AnalyzerConfig(tail_threshold=0.5, suppress=False))
