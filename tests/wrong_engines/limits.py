"""Wrong beyond a limit that ordinary inputs do not reach, and right engines at limits of their own."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import softmax

from sampler.config import SamplingConfig
from sampler.errors import Unsupported

from .chain import Array
from .engines import Miniature, OnlyProcesses, Processing, uniforms, with_config
from .noise import Picks
from .penalties import distinct, with_penalty
from .tables import DRAW, PLAIN, PROCESS, example, replace_config, right, spread, wrong_rows

LONG = example(spread(301), history=[3, *([7, 9, 11] * 400)], repetition_penalty=1.5)
WIDE = example(spread(2_001), top_k=1_500)


wrong_rows(
    "repetition_penalty",
    "penalty_window_of_1024: only the last 1,024 ids are penalised [P06].",
    lambda: with_penalty(lambda call, row, size: distinct(call.history[row][-1_024:], size)),
    LONG,
    {"seen": PROCESS},
    "top_k_is_at_most_1024: a kernel holds 1,024 tokens, and a larger k is taken as that [N14].",
    lambda: with_config(lambda config: replace_config(config, top_k=min(config.top_k, 1_024))),
    WIDE,
    {"seen": PROCESS, "stage": "top_k"},
    "top_p_is_off_from_99_percent_on: top_p of 0.99 and more is taken as 1 [T06].",
    lambda: with_config(lambda config: replace_config(config, top_p=config.top_p if config.top_p < 0.99 else 1.0)),
    example(spread(301, -9, 0), top_p=0.99),
    {"seen": PROCESS, "stage": "top_p"},
    "seed_has_16_bits: a seed is cut off after 16 bits [R08].",
    lambda: Miniature(noise=lambda seed, count: uniforms(seed & 0xFFFF, count)),
    {"seen": DRAW, "also": ("draw",), "stage": "seed"},
    "pick_caps_its_noise_at_8: noise beyond 8 is cut off, so that rare tokens never win [S04].",
    lambda: Picks(noised=lambda scores, gumbel: scores + np.clip(gumbel, -8, 8)),
    {"seen": DRAW, "stage": "draw", "shows": PLAIN},
)


@right(of=Processing)
def right_in_probabilities(process, *inputs):
    """No fault: works on probabilities and returns their logarithms; what rounds to 0 is removed."""
    return np.log(softmax(process(*inputs), axis=-1).astype(np.float32))


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
    """No fault: has no guidance, says so, and has no argument for it."""
    return Without(Miniature())


def padded(process, logits, *rest):
    missing = -logits.shape[-1] % 64 if logits.shape[-1] > 1_000 else 0
    return np.pad(process(logits, *rest), [(0, 0), (0, missing)], constant_values=-np.inf)


wrong_rows(
    "order",
    "without_guidance_greedy_takes_the_raw_logits: at temperature 0 nothing else counts; it has no guidance [T05].",
    lambda: Without(with_config(lambda config: config.without(["repetition_penalty"]) if config.greedy else config)),
    example(history=[7], temperature=0.0, repetition_penalty=3.0, order=("repetition_penalty", "temperature")),
    {"stage": "temperature"},
    "without_guidance_keeps_to_one_order: any order is taken as the default one; it has no guidance [O01].",
    lambda: Without(with_config(lambda config: replace(config, order=SamplingConfig().order))),
    example(order=("top_p", "temperature"), temperature=2.5, top_p=0.7),
    "large_vocabularies_are_padded: rows of more than 1,000 tokens are padded to a multiple of 64 and not cut [S07].",
    lambda: OnlyProcesses(Processing(padded)),
    example(spread(1_009)),
    {"stage": "purity"},
    offers=PROCESS,
)


class RefusesAll:
    """No fault, and no engine: every config is refused."""

    info = Miniature().info

    def process(self, logits, history, config, uncond_logits=None) -> Array:
        raise Unsupported("any config")
