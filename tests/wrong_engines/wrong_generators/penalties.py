"""What the repetition penalty sees of a long run, and of its neighbours."""

from collections.abc import Callable, Sequence

import numpy as np

from sampler.generation.block import Block
from sampler.generation.slot import Slot

from .table import PARAGRAPHS, SAYS, SENTENCES, SHARPER, Factory, with_block, wrong_generators


def seeing(change: Callable[[Slot, Sequence[Slot]], np.ndarray]) -> Factory:
    """What the penalty sees of a slot; change: from the slot and all active ones to a mask (V,)."""

    class Changed(Block):
        def _draw(self, active: Sequence[Slot]) -> None:
            right = [slot.seen for slot in active]
            shown = [change(slot, active) for slot in active]
            for slot, seen in zip(active, shown, strict=True):
                slot.seen = seen.copy()
            super()._draw(active)
            for slot, seen in zip(active, right, strict=True):
                slot.seen = seen
                slot.seen[slot.tokens] = True

    return with_block(Changed)


def only(slot: Slot, tokens: Sequence[int]) -> np.ndarray:
    seen = np.zeros_like(slot.seen)
    seen[list(tokens)] = True
    return seen


LONG = {"plan": PARAGRAPHS, "cap": 240}

wrong_generators(
    (*SAYS, *SHARPER),
    "penalty_does_nothing: repetition_penalty is accepted and ignored [P05].",
    seeing(lambda slot, active: only(slot, [])),
    LONG,
    "penalty_forgets_at_each_chunk: "
    "speech is streamed in chunks of 50 tokens, and each begins with an empty history [P07].",
    seeing(lambda slot, active: only(slot, slot.tokens[len(slot.tokens) // 50 * 50 :])),
    LONG,
    "penalty_sees_20_tokens: the penalty looks back on the last 20 tokens alone, a default elsewhere [P06].",
    seeing(lambda slot, active: only(slot, slot.tokens[-20:])),
    LONG,
    "penalty_sees_all_rows_of_the_batch: one mask of seen tokens for all rows of the batch [P14].",
    seeing(lambda slot, active: np.any([each.seen for each in active], axis=0)),
    "penalty_sees_the_row_before: every row is penalised for what the row before it said [P15].",
    seeing(lambda slot, active: active[active.index(slot) - 1].seen),
    plan=SENTENCES,
)
