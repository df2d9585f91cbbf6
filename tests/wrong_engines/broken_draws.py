"""Right scores, and draws in a wrong form or from an engine that breaks."""

import os
import time

import numpy as np

from .draws import FILTERED, drawing
from .tables import DRAW, wrong


@wrong("purity", FILTERED, seen=DRAW, also=("draw",))
def draws_are_a_column():
    """Lie: tokens are (n, 1), not (n,) [N09]."""
    return drawing(lambda draw, *inputs: draw(*inputs)[:, None])


@wrong("purity", FILTERED, seen=DRAW, also=("draw",))
def draws_one_whatever_n():
    """Lie: one token comes back, however many are asked for [R12]."""
    return drawing(lambda draw, *inputs: draw(*inputs)[:1])


@wrong("purity", FILTERED, seen=DRAW, also=("draw",))
def draws_are_fractions():
    """Lie: tokens are float32, a little below the id [S05]."""
    return drawing(lambda draw, *inputs: (draw(*inputs) - 0.25).astype(np.float32))


@wrong("purity", FILTERED, seen=DRAW, also=("draw",))
def draws_are_nothing():
    """Lie: draw() prints its tokens and returns None [P17]."""
    return drawing(lambda draw, *inputs: None)


@wrong("purity", FILTERED, seen=DRAW, also=("draw",))
def draw_breaks():
    """Lie: process() is right, and draw() is a RuntimeError [N16]."""

    def change(draw, *inputs):
        raise RuntimeError("probability tensor contains either inf, nan or element < 0")

    return drawing(change)


@wrong("purity", FILTERED, seen=DRAW, also=("draw",))
def draw_hangs():
    """Lie: process() is right, and draw() sleeps for ever [R10]."""

    def change(draw, *inputs):
        while True:
            time.sleep(60)

    return drawing(change)


@wrong("purity", FILTERED, seen=DRAW, also=("draw",))
def draw_exits():
    """Lie: process() is right, and draw() ends the whole program [S07]."""
    return drawing(lambda draw, *inputs: os._exit(3))
