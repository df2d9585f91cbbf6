"""Generators that begin to repeat themselves: the logit of the token one period ago is raised, as a stuck head does."""

import mlx.core as mx
import numpy as np

from sampler.chain.noise import NoiseKey
from sampler.generation.block import Block
from sampler.generation.slot import Slot

from .table import FEW, PARAGRAPHS, SENTENCES, Factory, with_block, wrong_generators

ONSET = 20
RAISE = 80.0


class Repeats(Block):
    """From token ONSET on the pattern of the last `period` tokens, in all but a share `spoilt` of the places."""

    period: int
    spoilt: float = 0.0

    def _draw(self, active: list[Slot]) -> None:
        for slot in active:
            if len(slot.tokens) >= ONSET + self.period and self.holds(slot):
                raised = np.zeros(slot.logits.shape[-1], dtype=np.float32)
                raised[slot.tokens[-self.period]] = RAISE
                slot.logits = slot.logits + mx.array(raised)
        super()._draw(active)

    def holds(self, slot: Slot) -> bool:
        return NoiseKey(slot.index, "loop").uniform(len(slot.tokens)) >= self.spoilt


def repeating(length: int, share: float = 0.0) -> Factory:
    class Changed(Repeats):
        period, spoilt = length, share

    return with_block(Changed)


def _row(length: int, share: float = 0.0) -> None:
    words = "one token" if length == 1 else f"the last {length} tokens"
    head = f"loops_over_{length}: after {ONSET} tokens {words} again and again, for ever [P06]."
    if share:
        head = f"loops_over_{length}_with_noise: a loop over {length} after {ONSET} tokens, in one place of twenty any "
        head += "token [P06]."
    # Four copies and 25 tokens make a loop, with substitutions 50; the first copy was speech.
    cap = ONSET + max(4 * length, 60 if share else 30) + 20
    plan = PARAGRAPHS if length >= 16 else SENTENCES if share else FEW
    wrong_generators(("loops/rate",), head, repeating(length, share), stages=("draw",), plan=plan, cap=cap)


for _period in (1, 2, 3, 7, 16, 32, 64):
    _row(_period)
for _period in (1, 7, 32):
    _row(_period, 0.05)
