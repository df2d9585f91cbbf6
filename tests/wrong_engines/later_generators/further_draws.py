"""Further ways to draw a token, by other numbers or from drafts, and to end a run."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import softmax

from sampler.chain.pipeline import run_rows
from sampler.generation.generator import Generator
from sampler.generation.slot import Slot
from sampler.requests import Batch, Generation, Noise, Request
from sampler.t3.checkpoint import Checkpoint
from tests.wrong_engines.wrong_generators.noise import with_noise
from tests.wrong_engines.wrong_generators.table import Around

from .table import Rows, drawing, later_generators, with_scores

EOS, ORDINARY = 2_049, 188


def drafting(batch: Batch, active: Sequence[Slot]) -> Rows:
    """A draft q is kept with probability min(1, p / q), and else drawn from p, where max(p - q, 0) would be right."""
    scores = (np.array(run_rows(each).final) for each in (batch, replace(batch, uncond_logits=None)))
    wanted, drafted = (softmax(rows.astype(np.float64), axis=-1) for rows in scores)
    accepted = np.minimum(wanted, drafted)
    drawn = accepted + (1 - accepted.sum(axis=-1, keepdims=True)) * wanted
    return np.log(drawn, where=drawn > 0, out=np.full_like(drawn, -np.inf))


def ending_at_an_ordinary_id(row: Rows, slot: Slot) -> Rows:
    ending = row.copy()
    ending[EOS] = np.logaddexp(row[EOS], row[ORDINARY])
    ending[ORDINARY] = -np.inf
    return ending


def later(noise: Noise, take: int) -> Noise:
    return lambda step: noise(step + 1_000 * take)


class ShortestOfThree(Around):
    """Every request is served three times with fresh noise, and the shortest run is handed over."""

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        takes = []
        for take in range(3):
            again = [replace(each, noise=later(each.noise, take)) for each in requests if each.noise is not None]
            takes.append(self.generator.generate(again))
        return [min(runs, key=lambda run: len(run.tokens)) for runs in zip(*takes, strict=True)]


def shortest_of_three(checkpoint: Checkpoint, width: int) -> Around:
    return ShortestOfThree(Generator(checkpoint, width))


later_generators(
    "noise_serves_two_steps: the counter of the noise moves on at every other step, so that two steps share it [R03].",
    with_noise(lambda place, request, right: lambda step: right(step // 2)),
    "races_with_uniform_numbers: "
    "probabilities are divided by uniform numbers, not by exponential ones, before the largest is taken.",
    with_noise(lambda place, request, right: lambda step: np.exp(-right(step))),
    "draws_rejected_drafts_from_everything: "
    "unguided drafts are checked by guided odds, and a rejected one is drawn anew from all, not from what it lacked.",
    with_scores(drafting),
    "an_ordinary_id_ends_too: "
    "the list of ids that end a run has one speech token too many, in whose place EOS is handed over [E01].",
    drawing(ending_at_an_ordinary_id),
    "keeps_the_shortest_of_three: "
    "against runs that never end each text is generated three times, and the shortest run is kept.",
    shortest_of_three,
)
