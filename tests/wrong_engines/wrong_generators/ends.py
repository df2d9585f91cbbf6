"""EOS: never, early, late, beside the filters, forced, or only said."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import mlx.core as mx
import numpy as np

from sampler.alignment import AnalyzerConfig
from sampler.chain.pipeline import Scores, run_rows
from sampler.generation.block import Block
from sampler.generation.generator import Generator
from sampler.generation.slot import Slot
from sampler.requests import Batch, Request

from .table import SENTENCES, STOP, Factory, answering, asking, cut, with_block, with_chain, wrong_generators


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


def exempting_eos(batch: Batch) -> Scores:
    right = run_rows(batch)
    eos = mx.arange(right.final.shape[-1])[None] == right.final.shape[-1] - 1
    floor = mx.logsumexp(right.final, axis=-1, keepdims=True) - float(np.log(50))
    return Scores(*(mx.where(eos, mx.maximum(scores, floor), scores) for scores in right))


def at_most_20_tokens(requests: list[Request]) -> list[Request]:
    return [replace(request, max_new_tokens=min(20, request.max_new_tokens)) for request in requests]


class GoesOn(Block):
    """Another id is tested than the one that the model ends with; only every second EOS ends a run."""

    def _note(self, active: Sequence[Slot], *rest: object) -> None:
        super()._note(active, *rest)
        for slot in active:
            if slot.stop_reason == "eos" and slot.tokens.count(self.model.config.eos_id) == 1:
                full = len(slot.tokens) == slot.request.max_new_tokens
                slot.stop_reason = "length" if full else None


EARLY = {"questions": ("stopping/early", "drift/length"), "plan": SENTENCES}

wrong_generators(
    ("stopping/missing",),
    "never_ends: EOS is removed at every step, as an `ignore_eos` that was left on [E04].",
    eos_gains(lambda step: -1e4),
    {"cap": 80},
    "ends_early: the logit of EOS is raised by 12 [E05].",
    eos_gains(lambda step: 12.0),
    EARLY,
    "eos_gains_with_every_token: a bias of EOS grows by 0.5 with every token, against runs that never end [E05].",
    eos_gains(lambda step: 0.5 * step),
    EARLY,
    "holds_eos_back_for_60_tokens: "
    "a least number of tokens that nobody asked for: EOS is suppressed for the first 60 [E05].",
    eos_gains(lambda step: -1e4 if step < 60 else 0.0),
    {"questions": ("stopping/late", "drift/length", "stopping/missing"), "stages": ("stop", "draw")},
    "eos_is_exempt_from_the_filters: EOS keeps a probability of at least a fiftieth, whatever the filters say [E02].",
    with_chain(exempting_eos),
    {**EARLY, "stages": ("draw", "stop")},
    "is_cut_at_20_tokens: a limit of the server cuts what is longer [U01].",
    asking(at_most_20_tokens),
    "says_eos_without_it: EOS is taken off, and the run still says that it ended with it [E07].",
    answering(lambda generation: cut(generation, slice(-1))),
    {"questions": ("stopping/ends",)},
    "goes_on_after_the_first_eos: "
    "of two ids that end a run only one is looked for, and speech goes on after the first EOS [E01].",
    with_block(GoesOn),
    {"questions": ("stopping/ends",), "cap": 80},
    "a_guard_cuts_hanging_ends: "
    "an analyzer that the reference does not have, whose long tail ends a run at once [A04].",
    partial(Generator, analyzer=AnalyzerConfig(tail_threshold=0.5, suppress=False)),
    {"questions": ("stopping/forced",), "plan": SENTENCES},
    stages=STOP,
)
