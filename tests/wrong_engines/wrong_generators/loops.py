"""Generators that begin to repeat themselves: the logit of the token one period ago is raised, as a stuck head does."""

import mlx.core as mx
import numpy as np

from sampler.chain.noise import NoiseKey
from sampler.generation.block import Block
from sampler.generation.slot import Slot
from tests.wrong_engines.wrong_generators.table import FEW, PARAGRAPHS, SENTENCES, Factory, with_block, wrong_generator

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


def _register(name: str, lie: str, length: int, share: float = 0.0) -> None:
    factory = repeating(length, share)
    factory.__name__, factory.__doc__, factory.__module__ = name, lie, __name__
    # Four copies and 25 tokens make a loop, with substitutions 50; the first copy was speech.
    cap = ONSET + max(4 * length, 60 if share else 30) + 20
    plan = PARAGRAPHS if length >= 16 else SENTENCES if share else FEW
    wrong_generator("loops/rate", stages=("draw",), plan=plan, cap=cap)(factory)


for _period in (1, 2, 3, 7, 16, 32, 64):
    _words = "one token" if _period == 1 else f"the last {_period} tokens"
    _register(f"loops_over_{_period}", f"Lie: after {ONSET} tokens {_words} again and again, for ever [P06].", _period)
for _period in (1, 7, 32):
    _lie = f"Lie: a loop over {_period} after {ONSET} tokens, in one place of twenty any token [P06]."
    _register(f"loops_over_{_period}_with_noise", _lie, _period, 0.05)
