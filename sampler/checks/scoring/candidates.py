"""The tokens that matter at each step of drawn runs, with scores as functions of the sampling parameters."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sampler.config import SamplingConfig
from sampler.requests import Steps

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Places = NDArray[np.int64]

TOKENS = 256
"""Tokens of each step that are looked at, beside the drawn one."""

REACH = 8.0
"""Nats below the best token within which tokens are looked at, times the temperature asked for if that is above 1."""

WEIGHT, PENALTY, TEMPERATURE = range(3)
"""Places in a vector of values (3,): the CFG weight, and the logarithms of the repetition penalty and temperature."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """N steps with K tokens altogether, those of a step side by side.

    logits: conditional ones, float64 (K,). guidance: these less the unconditional ones, (K,), 0 without guidance. seen:
    whether the history has the token, (K,). likely: False for a token that is here only because it was drawn, (K,).
    starts: the first token of each step, (N,). drawn: the place of the drawn one, (N,).
    """

    config: SamplingConfig
    logits: Array
    guidance: Array
    seen: Mask
    likely: Mask
    starts: Places
    drawn: Places

    @classmethod
    def of(cls, config: SamplingConfig, runs: Iterable[Steps]) -> Self | None:
        """The likeliest tokens of all steps under some configs near the asked one. None without a step.

        A step whose drawn token the model never gives is left out.
        """
        parts = [part for steps in runs for part in cls._parts(config, steps)]
        if not parts:
            return None
        offsets = np.cumsum([0, *(len(part.logits) for part in parts[:-1])])
        joined = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("logits", "guidance", "seen", "likely")
        }
        starts, drawn = (
            np.concatenate([getattr(part, name) + offset for part, offset in zip(parts, offsets, strict=True)])
            for name in ("starts", "drawn")
        )
        return cls(config, **joined, starts=starts, drawn=drawn)

    @classmethod
    def _parts(cls, config: SamplingConfig, steps: Steps) -> Iterator[Self]:
        """Each step by itself."""
        for row, token in enumerate(steps.tokens.tolist()):
            logits = np.asarray(steps.logits[row], dtype=np.float64)
            uncond = None if steps.uncond_logits is None else np.asarray(steps.uncond_logits[row], dtype=np.float64)
            usable = np.isfinite(logits) & (True if uncond is None else np.isfinite(uncond))
            if not 0 <= token < len(logits) or not usable[token]:
                continue
            seen = np.zeros(len(logits), dtype=np.bool_)
            history = np.asarray(steps.history[row], dtype=np.int64)[-config.penalty_window :]
            seen[history[(history >= 0) & (history < len(logits))]] = True
            ids = np.flatnonzero(usable)
            guidance = np.zeros(len(ids)) if uncond is None else logits[ids] - uncond[ids]
            start, drawn = np.zeros(1, dtype=np.int64), np.searchsorted(ids, [token])
            whole = cls(config, logits[ids], guidance, seen[ids], np.ones(len(ids), dtype=np.bool_), start, drawn)
            yield whole._likeliest()

    def _likeliest(self) -> Self:
        """One step with its likeliest tokens, chosen without a look at the drawn one, which joins them."""
        asked = asked_values(self.config)
        weights = {0.0, asked[WEIGHT], 1.0} if self.guidance.any() else {0.0}
        corners = [np.array([*pair, 0.0]) for pair in product(weights, {0.0, asked[PENALTY]})]
        depths = np.min([self.depths(corner) for corner in corners], axis=0)
        likely = depths <= REACH * max(1.0, self.config.temperature)
        if likely.sum() > TOKENS:
            likely &= depths <= np.partition(depths, TOKENS - 1)[TOKENS - 1]
        kept = likely.copy()
        kept[self.drawn] = True
        return replace(self, likely=likely).cut(kept)

    def among(self, kept: Mask) -> Self:
        """The steps whose drawn token is kept, (K,), and which keep another one, with the kept tokens alone.

        What was drawn at these steps follows the chain's distribution, renormalised: conditioning.
        """
        telling = kept[self.drawn] & (np.add.reduceat(kept, self.starts, dtype=np.int64) > 1)
        return self.cut(kept & telling[self.steps])

    def even(self, most: int) -> Self:
        """At most so many of the steps, an even choice."""
        chosen = np.linspace(0, len(self) - 1, min(len(self), most)).round().astype(np.int64)
        return self.cut(np.isin(self.steps, chosen))

    def cut(self, kept: Mask) -> Self:
        """The kept tokens alone, (K,). A step keeps its drawn token or none."""
        left = np.add.reduceat(kept, self.starts, dtype=np.int64)
        place = np.cumsum(kept) - 1
        used = left > 0
        return replace(
            self,
            logits=self.logits[kept],
            guidance=self.guidance[kept],
            seen=self.seen[kept],
            likely=self.likely[kept],
            starts=(np.cumsum(left) - left)[used],
            drawn=place[self.drawn[used]],
        )

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def steps(self) -> Places:
        """The step of each token, (K,)."""
        return np.repeat(np.arange(len(self.starts)), np.diff([*self.starts, len(self.logits)]))

    def scores(self, values: Array) -> Array:
        """Logits after guidance and penalty, (K,), before the temperature, which commutes with both."""
        return self._after(values, _ranking(self.config))

    def depths(self, values: Array) -> Array:
        """How many nats each token lies below the best one where min_p looks at it, without temperature: (K,).

        0 for those that min_tokens_to_keep protects.
        """
        return self.scores_and_depths(values)[1]

    def scores_and_depths(self, values: Array) -> tuple[Array, Array]:
        """Both, at the cost of one where guidance and penalty precede min_p."""
        ranking, order = _ranking(self.config), self.config.order
        before = order[: order.index("min_p")] if "min_p" in order else order
        early = [stage for stage in ranking if stage in before or stage not in order]
        scores = self.scores(values)
        compared = scores if early == ranking else self._after(values, early)
        depths = np.maximum.reduceat(compared, self.starts)[self.steps] - compared
        if self.config.min_tokens_to_keep > 1:
            depths[self._ranks(compared) < self.config.min_tokens_to_keep] = 0
        return scores, np.asarray(depths)

    def _after(self, values: Array, stages: Sequence[str]) -> Array:
        scores, bare = self.logits, self.logits - self.guidance
        for stage in stages:
            if stage == "cfg":
                base = scores if self.config.cfg_convention == "conditional" else bare
                scores = base + values[WEIGHT] * (scores - bare)
            elif values[PENALTY]:
                penalty = np.exp(values[PENALTY])
                factor = np.where(scores < 0, penalty, 1 / penalty)
                scores = np.where(self.seen, scores * factor, scores)
        return scores

    def deepest(self, values: Array) -> float:
        """The largest depth of a drawn token."""
        return float(self.depths(values)[self.drawn].max())

    def _ranks(self, scores: Array) -> Places:
        """The place of each token in its step, the best first: (K,)."""
        ranks = np.empty(len(scores), dtype=np.int64)
        ranks[np.lexsort((-scores, self.steps))] = np.arange(len(scores)) - self.starts[self.steps]
        return ranks

    def kept(self, values: Array, edge: float) -> Mask:
        """What the filters keep, (K,): those of depth at most `edge`, and of them what top_k and top_p leave."""
        config, active = self.config, self.config.active_stages()
        kept = np.ones(len(self.logits), dtype=np.bool_)
        order = config.order if "min_p" in config.order else (*config.order, "min_p")
        for place, stage in enumerate(order):
            if stage == "min_p":
                kept &= self.depths(values) <= edge
            elif stage in ("top_k", "top_p") and stage in active:
                before = order[:place]
                scores = self._after(values, [one for one in _ranking(config) if one in before or one not in order])
                tempered = scores / (np.exp(values[TEMPERATURE]) if "temperature" in before else 1.0)
                kept &= self._top(stage, np.where(kept, tempered, -np.inf))
        return kept

    def _top(self, stage: str, scores: Array) -> Mask:
        ranks = self._ranks(scores)
        if stage == "top_k":
            return np.asarray(ranks < max(self.config.top_k, self.config.min_tokens_to_keep))
        order = np.lexsort((-scores, self.steps))
        weights = np.exp(scores - np.maximum.reduceat(scores, self.starts)[self.steps])
        sums = np.cumsum(weights[order]) - weights[order]
        before = np.empty(len(scores))
        before[order] = sums - sums[self.starts][self.steps]
        total = np.add.reduceat(weights, self.starts)[self.steps]
        return np.asarray((before < self.config.top_p * total) | (ranks < self.config.min_tokens_to_keep))


def asked_values(config: SamplingConfig) -> Array:
    """The values (3,) that a config asks for; a stage that the order leaves out is neutral, temperature 0 near 0."""
    on = config.order
    neutral = 0.0 if config.cfg_convention == "conditional" else 1.0
    penalty = config.repetition_penalty if "repetition_penalty" in on else 1.0
    temperature = config.temperature if "temperature" in on else 1.0
    return np.array([config.cfg_weight if "cfg" in on else neutral, np.log(penalty), np.log(max(temperature, 0.05))])


def _ranking(config: SamplingConfig) -> list[str]:
    """Guidance and penalty in the order of the config, those that it leaves out in front."""
    both = ("cfg", "repetition_penalty")
    return [*(stage for stage in both if stage not in config.order), *(one for one in config.order if one in both)]
