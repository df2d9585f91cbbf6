"""Wrong beyond a limit that ordinary inputs do not reach, and right engines at limits of their own."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import softmax

from sampler.config import SamplingConfig
from sampler.errors import Unsupported

from .chain import Array
from .engines import Miniature, OnlyProcesses, uniforms, with_config
from .penalties import distinct, with_penalty
from .tables import DRAW, PROCESS, example, replace_config, right, spread, wrong

LONG = example(spread(301), history=[3, *([7, 9, 11] * 400)], repetition_penalty=1.5)
WIDE = example(spread(2_001), top_k=1_500)


@wrong("repetition_penalty", LONG, seen=PROCESS)
def penalty_window_of_1024():
    """Lie: only the last 1,024 ids are penalised [P06]."""
    return with_penalty(lambda call, row, size: distinct(call.history[row][-1_024:], size))


@wrong("top_k", WIDE, seen=PROCESS)
def top_k_is_at_most_1024():
    """Lie: a kernel holds 1,024 tokens, and a larger k is taken as that [N14]."""
    return with_config(lambda config: replace_config(config, top_k=min(config.top_k, 1_024)))


@wrong("top_p", example(spread(301, -9, 0), top_p=0.99), seen=PROCESS)
def top_p_is_off_from_99_percent_on():
    """Lie: top_p of 0.99 and more is taken as 1 [T06]."""
    return with_config(lambda config: replace_config(config, top_p=config.top_p if config.top_p < 0.99 else 1.0))


@wrong("seed", seen=DRAW, also=("draw",))
def seed_has_16_bits():
    """Lie: a seed is cut off after 16 bits [R08]."""
    return Miniature(noise=lambda seed, count: uniforms(seed & 0xFFFF, count))


@dataclass
class CapsItsNoise(Miniature):
    """Picks with noise that never exceeds 8."""

    def pick(self, scores, gumbel) -> Array:
        return super().pick(scores, np.clip(gumbel, -8, 8))


@wrong("draw", seen=DRAW)
def pick_caps_its_noise_at_8():
    """Lie: noise beyond 8 is cut off, so that rare tokens never win [S04]."""
    return CapsItsNoise()


@right
def right_in_probabilities():
    """No lie: works on probabilities and returns their logarithms; what rounds to 0 is removed."""

    class InProbabilities(Miniature):
        def process(self, logits, history, config, uncond_logits=None) -> Array:
            scores = super().process(logits, history, config, uncond_logits)
            with np.errstate(divide="ignore"):
                return np.log(softmax(scores, axis=-1).astype(np.float32))

    return InProbabilities()


@dataclass(frozen=True)
class Without(OnlyProcesses):
    """Has no argument for unconditional logits."""

    @property
    def info(self):
        return replace(self.engine.info, cfg=False)

    def process(self, logits, history, config) -> Array:
        return self.engine.process(logits, history, config)


@right
def right_that_does_not_know_of_guidance():
    """No lie: has no guidance, says so, and has no argument for it."""
    return Without(Miniature())


RAW_GREEDY = example(history=[7], temperature=0.0, repetition_penalty=3.0, order=("repetition_penalty", "temperature"))


@wrong("temperature", RAW_GREEDY, offers=PROCESS)
def without_guidance_greedy_takes_the_raw_logits():
    """Lie: at temperature 0 nothing else counts, in an engine that has no guidance [T05]."""

    def raw(config):
        return config.without(["repetition_penalty"]) if config.greedy else config

    return Without(with_config(raw))


@wrong("order", example(order=("top_p", "temperature"), temperature=2.5, top_p=0.7), offers=PROCESS)
def without_guidance_keeps_to_one_order():
    """Lie: whatever order it is asked for, it is the default one, in an engine that has no guidance [O01]."""
    return Without(with_config(lambda config: replace_config(config, order=SamplingConfig().order)))


@wrong("purity", example(spread(1_009)), offers=PROCESS)
def large_vocabularies_are_padded():
    """Lie: rows of more than 1,000 tokens are filled up to a multiple of 64 and not cut again [S07]."""

    class Padded(OnlyProcesses):
        def process(self, logits, history, config, uncond_logits=None) -> Array:
            scores = super().process(logits, history, config, uncond_logits)
            missing = -scores.shape[-1] % 64 if scores.shape[-1] > 1_000 else 0
            return np.pad(scores, [(0, 0), (0, missing)], constant_values=-np.inf)

    return Padded(Miniature())


class RefusesAll:
    """No lie, and no engine: every config is refused."""

    info = Miniature().info

    def process(self, logits, history, config, uncond_logits=None) -> Array:
        raise Unsupported("any config")
