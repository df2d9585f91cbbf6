"""How far half precision moves what bets pay: `python -m tests.tools.measurements.half_precision bfloat16`.

Our core speaks Finch's held-out texts in half precision. Each token is judged twice, under the float32 reference as
scoring does it, and under what engines of that precision draw: our core, upstream's T3, and upstream's T3 with the
chain in half precision too. So the expectation of every bet is known exactly and nothing is sampled. Printed are chi
distances, the probability of tokens beyond each edge, and of tokens that cannot have won with the engine's noise on
logits within it, the largest mean advantage of an alternative, and the largest sum of ln E over consecutive steps
(`sampler.checks.scoring.tolerance`, which must be below the slack): as it is, as it would be if each step's error
favoured the bet as much as any error of its chi distance can, of rare tokens and of lost ones.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from transformers import MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, TopPLogitsWarper

from sampler import SamplingConfig, finch
from sampler.checks.scoring.bounds import seen_bounds
from sampler.checks.scoring.score import Run, Score
from sampler.checks.scoring.tolerance import TOLERANCES, Beyond
from sampler.engines.core import CoreEngine
from sampler.engines.reference.chain import ReferenceEngine
from sampler.requests import Request, Steps
from sampler.run.scoring import Model
from sampler.statistics.bets import FRACTIONS, STAKES, Bets, payoffs
from sampler.t3.weights import Dtype, read_weights
from tests import upstream
from tests.precision import their_logits
from tests.tools.measurements.alignment import say

Array = NDArray[np.float64]

CONFIGS = {
    "default": SamplingConfig(),
    "temperature 1.2": SamplingConfig(temperature=1.2),
    "temperature 0.4": SamplingConfig(temperature=0.4),
    "top_p 0.8": SamplingConfig(top_p=0.8),
    "no min_p": SamplingConfig(min_p=0.0),
    "penalty 1": SamplingConfig(repetition_penalty=1.0),
    "penalty 2": SamplingConfig(repetition_penalty=2.0),
    "guidance 1": SamplingConfig(cfg_weight=1.0),
    "no guidance": SamplingConfig(cfg_weight=0.0),
}
QUANTILES = (0.5, 0.9, 0.99, 1.0)
PLAIN = ReferenceEngine()

LEAST = 1e-9
"""The probability of a token that counts, for what is lost."""


class Watched(Bets):
    """Keeps what was bet on in place of paying."""

    def place(self, p, q, drawn, error=0.0, kappa=None, **more) -> None:
        self.watched = (p, payoffs(p, q.reshape(-1, *p.shape)), kappa)

    def happened(self, events, steps) -> None:
        pass


@dataclass
class Found:
    """Of one engine and config. chi: (N,). gains, aligned: ln E of bets (A, fractions, N). rare, lost: (edges, T)."""

    chi: list[Array] = field(default_factory=list)
    advantage: list[Array] = field(default_factory=list)
    gains: list[Array] = field(default_factory=list)
    aligned: list[Array] = field(default_factory=list)
    rare: list[Array] = field(default_factory=list)
    lost: list[Array] = field(default_factory=list)

    def add(self, p: Array, pays: Array, kappa: Array, right: Array) -> None:
        """Steps that are bet on. right: what the engine draws, given the same tokens."""
        chi = np.sqrt((p * (np.divide(right, p, out=np.zeros_like(p), where=p > 0) - 1) ** 2).sum(axis=-1))
        deviation = np.sqrt((p * (pays - 1) ** 2).sum(axis=-1))
        stakes, advantage = FRACTIONS[:, None], ((right * pays).sum(axis=-1) - 1)[:, None]
        allowed = np.log1p(stakes * (kappa * deviation)[:, None])
        self.chi.append(chi)
        self.advantage.append(advantage[:, 0])
        self.gains.append(np.log1p(stakes * advantage) - allowed)
        self.aligned.append(np.log1p(stakes * (chi * deviation)[:, None]) - allowed)

    @property
    def shares(self) -> Array:
        """The mean probability of tokens beyond each edge, narrowest first."""
        return np.concatenate(self.rare, axis=-1).mean(axis=-1)

    @property
    def shares_lost(self) -> Array:
        """The mean probability of tokens that cannot have won, likewise."""
        return np.concatenate(self.lost, axis=-1).mean(axis=-1)

    def sums(self, beyond: Sequence[Beyond]) -> list[float]:
        """The largest sums of ln E: as it is, as it would be at worst, of the bets on rare tokens and on lost ones."""
        sums = [largest_sum(np.concatenate(of, axis=-1)) for of in (self.gains, self.aligned)]
        for found, rates in ((self.rare, [each.rate for each in beyond]), (self.lost, [each.lost for each in beyond])):
            times = np.concatenate(found, axis=-1)[:-1, None] / np.array(rates)[:, None, None]
            sums.append(largest_sum(np.log1p(STAKES[:, None] * (times - 1))))
        return sums

    def row(self, beyond: Sequence[Beyond]) -> list[str]:
        chi, mean = np.concatenate(self.chi), np.concatenate(self.advantage, axis=-1).mean(axis=-1).max()
        return [
            " ".join(f"{value:.3f}" for value in np.quantile(chi, QUANTILES)),
            f"{chi.mean():.3f}",
            " ".join(f"{share:.1e}" for share in self.shares),
            " ".join(f"{share:.1e}" for share in self.shares_lost),
            f"{mean:.4f}",
            *(f"{value:.2f}" for value in self.sums(beyond)),
        ]


def largest_sum(gains: Array) -> float:
    """The largest sum over consecutive steps, the last axis, of any bet."""
    total = np.cumsum(gains, axis=-1)
    before = np.concatenate([np.zeros((*gains.shape[:-1], 1)), total[..., :-1]], axis=-1)
    return float((total - np.minimum.accumulate(before, axis=-1)).max())


def in_half(logits: Array, tokens: list[int], config: SamplingConfig, bos: int, dtype: torch.dtype) -> Array:
    """What upstream's chain in a type draws from logits (2, T, V) of that type: (T, V)."""
    penalty = RepetitionPenaltyLogitsProcessor(penalty=float(config.repetition_penalty))
    filters = [MinPLogitsWarper(min_p=config.min_p)] if config.min_p else []
    result = []
    for step, (conditional, unconditional) in enumerate(torch.from_numpy(np.array(logits)).to(dtype).swapaxes(0, 1)):
        guided = conditional + torch.as_tensor(config.cfg_weight, dtype=dtype) * (conditional - unconditional)
        ids = torch.tensor([[bos, *tokens[:step]]])
        scores = penalty(ids, guided[None]) / config.temperature
        for kept in (*filters, TopPLogitsWarper(top_p=config.top_p)):
            scores = kept(ids, scores)
        p = torch.softmax(scores, dim=-1)[0].double().numpy()
        result.append(p / p.sum())
    return np.array(result)


def rare(score: Score, steps: Steps, right: Array) -> Array:
    """The probability of tokens beyond each edge, narrowest first: (edges, T)."""
    result = []
    for place, edges in enumerate((score.edges, *score.wider)):
        if place == 0:
            may = edges.bounds(steps)[1]
        else:
            rows = np.flatnonzero((right * ~may).sum(axis=-1)).tolist()
            may[rows] = edges.bounds(steps.only(rows))[1] if rows else may[rows]
        result.append((right * ~may).sum(axis=-1))
    return np.array(result)


def chance_lost(p: Array, right: Array, must: Array, may: Array, reach: Array) -> float:
    """How likely a draw of `right` cannot have won under p (K,) although both have the same noise.

    must, may: which tokens p keeps, (K,). reach: by how many nats each score may be off, (K,). The formula of
    `sampler.checks.scoring.margin` with the pair's own x.
    """
    drawn = np.flatnonzero(may & (right > 0))
    ahead = np.where(must, p * np.exp(-reach), 0.0)
    odds = np.divide(right * np.exp(-reach), p, out=np.zeros_like(p), where=p > 0)[drawn]
    return float(1 - (right[drawn] / np.maximum(right, ahead * odds[:, None]).sum(axis=-1)).sum())


def lost(score: Score, steps: Steps, right: Array) -> Array:
    """The probability of tokens that cannot have won on logits within each edge, narrowest first: (edges, T)."""
    result = np.zeros((1 + len(score.wider), len(right)))
    for place, edges in enumerate((score.edges, *score.wider)):
        must, may = seen_bounds(edges, steps)
        final = edges.last(steps, "generous")
        p = softmax(final.scores, axis=-1)
        for row in range(len(right)):
            ids = np.flatnonzero((right[row] > LEAST) | must[row])
            given = (of[row, ids] for of in (p, right, must, may, final.error))
            result[place, row] = chance_lost(*given)
    return result


def judged(score: Score, run: Run, engines: dict[str, Array], found: dict[str, Found]) -> None:
    """Add a run. engines: what each draws at every step, (T, V)."""
    wagers, start, seen = score.wagers, 0, {}
    sure = wagers._sure
    wagers._sure = lambda block: seen.setdefault("sure", sure(block))
    wagers.bets = Watched(wagers.bets.count, rates=wagers.bets.rates)
    score.runs.append(run)

    def watch() -> Iterator:
        nonlocal start
        for block in score._blocks(run):
            seen.clear()
            yield block
            rows = range(start, start + len(block.steps.tokens))
            for name, right in engines.items():
                part = right[rows]
                found[name].rare.append(rare(score, block.steps, part))
                found[name].lost.append(lost(score, block.steps, part))
                if seen.get("sure") is not None:
                    p, pays, kappa = wagers.bets.watched
                    own = np.where(p > 0, np.take_along_axis(part[seen["sure"].rows], seen["sure"].step.ids, -1), 0.0)
                    found[name].add(p, pays, kappa, own / own.sum(axis=-1, keepdims=True))
            start = rows.stop

    wagers.add(watch())
    wagers._sure = sure


def measure(dtype: Dtype, config: SamplingConfig, texts: int) -> dict[str, Found]:
    """Of every engine, over one run of each text."""
    exact, half = Model(CoreEngine.load(width=1), networks=False), CoreEngine.load(width=16, dtype=dtype)
    checkpoint = exact.engine.generator.checkpoint
    tensors = read_weights(finch.folder() / "weights.safetensors", checkpoint.config)
    theirs = upstream.build(checkpoint.config, tensors, dtype=getattr(torch, dtype))
    prompts = finch.prompts("sentences")[:texts]
    requests = [Request(one.text, config, seed, 250, language=one.language) for seed, one in enumerate(prompts)]
    score = exact.score(config, 1e-6, TOLERANCES[dtype])
    found = {name: Found() for name in ("core", "torch", "torch, chain too")}
    for request, one in zip(requests, half.recording(logits=False, attention=False).generate(requests), strict=True):
        tokens, text = list(one.tokens), exact.engine.ids(request.prompt, request.language)
        run = exact.run("", request, one.tokens, one.stop_reason)
        mine = half.predict(text, tokens[:-1])
        torch_logits = their_logits(theirs, checkpoint.config, checkpoint.voice, text, tokens[:-1])
        engines = {}
        for name, logits in (("core", mine), ("torch", torch_logits)):
            rows = np.ascontiguousarray(logits.transpose(1, 0, 2))[:, : 1 + run.steps.guided]
            scores = [PLAIN.last(steps).scores for steps in run.steps._steps(rows, config)]
            engines[name] = softmax(np.concatenate(scores), axis=-1)
        own = in_half(torch_logits, tokens, config, checkpoint.config.bos_id, getattr(torch, dtype))
        judged(score, run, engines | {"torch, chain too": own}, found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.tools.measurements.half_precision")
    parser.add_argument("dtype", choices=["float16", "bfloat16"])
    parser.add_argument("--texts", type=int, default=12)
    parser.add_argument("--config", choices=CONFIGS, action="append")
    options = parser.parse_args()
    tolerance = TOLERANCES[options.dtype]
    say(f"chi {QUANTILES} | mean | beyond {tolerance.edges} | lost | advantage | sum | aligned | of rare | of lost")
    for name in options.config or CONFIGS:
        for engine, found in measure(options.dtype, CONFIGS[name], options.texts).items():
            say(
                " | ".join(
                    [options.dtype, name, engine, str(len(np.concatenate(found.chi))), *found.row(tolerance.beyond)]
                )
            )


if __name__ == "__main__":
    main()
