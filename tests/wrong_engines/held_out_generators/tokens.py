"""How a token is drawn, and what ends a run."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import softmax

from sampler.chain.pipeline import run_rows
from sampler.generation.slot import Slot
from sampler.requests import Batch, Request
from tests.wrong_engines.later_generators.table import Rows, alone, drawing, with_scores
from tests.wrong_engines.wrong_generators.ends import eos_gains
from tests.wrong_engines.wrong_generators.table import asking

from .table import held_out_generators

EOS = 2_049


def likelier_of_two(row: Rows, slot: Slot) -> Rows:
    """A token is kept if both draws are it or less likely ones, and not both are less likely ones."""
    rising = np.argsort(row, kind="stable")
    reached = np.cumsum(softmax(row[rising].astype(np.float64))) ** 2
    kept = np.empty(len(row))
    kept[rising] = np.diff(reached, prepend=0.0)
    return np.log(kept, where=kept > 0, out=np.full_like(kept, -np.inf))


def in_pairs(requests: list[Request]) -> list[Request]:
    return [replace(request, noise=requests[place - place % 2].noise) for place, request in enumerate(requests)]


def refusing_the_first_end(batch: Batch, active: Sequence[Slot]) -> Rows:
    """In the step whose noise takes EOS for the first time, the token is drawn without EOS."""
    right = np.array(run_rows(batch).final)
    endless = np.array(batch.logits)
    endless[:, EOS] = -np.inf
    without = np.array(run_rows(replace(batch, logits=endless)).final)
    for row, slot in enumerate(active):
        step = len(slot.tokens)
        ends = int((right[row] + slot.noise(step)).argmax()) == EOS
        if ends and vars(slot).setdefault("refused", step) == step:
            right[row] = without[row]
    return right


def ending_by_the_text(row: Rows, slot: Slot) -> Rows:
    return alone(row, EOS) if len(slot.tokens) >= slot.text.stop - slot.text.start else row


held_out_generators(
    "keeps_the_likelier_of_two_draws: against rare tokens every step draws twice and keeps the likelier token.",
    drawing(likelier_of_two),
    "neighbours_share_noise: "
    "noise is made for half of the rows and repeated, as pairs of guidance need it, and two requests have one [R06].",
    asking(in_pairs),
    "ends_after_whole_frames_alone: "
    "four tokens make a frame, and EOS is suppressed wherever the last frame is not whole [E10].",
    eos_gains(lambda step: -1e4 if step % 4 else 0.0),
    "ignores_the_first_eos: "
    "against early ends the first EOS of a run is thrown away, and another token is drawn in its place [E05].",
    with_scores(refusing_the_first_end),
    "ends_with_the_ids_of_the_text: "
    "against overlong speech EOS is forced as soon as a run has as many tokens as its text has ids [E05].",
    drawing(ending_by_the_text),
)
