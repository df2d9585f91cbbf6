"""Wrong in guidance: base, sign, weight, and what is done without unconditional logits."""

from dataclasses import replace

import numpy as np

from sampler.stages import STAGES

from .chain import Array, Call, from_conditional, from_unconditional, log_softmax, mixed, softmax, unchanged
from .engines import INFO, Miniature, stage_at, with_config, with_order, with_stage
from .engines import behind as moved_behind
from .tables import PROCESS, example, replace_config, spread, wrong, wrong_rows

CONVENTIONS = replace(INFO, supports=frozenset({*STAGES, "min_tokens_to_keep", "cfg_convention"}))
OTHER = np.roll(spread(), 2) * np.float32(0.7)
UNGUIDED = example(cfg_weight=0.5)
PENALISED = example(history=[3, 5, 0, 7], uncond=OTHER, cfg_weight=0.5, repetition_penalty=1.5)
TWO = np.concatenate([spread(), OTHER])


wrong_rows(
    "cfg",
    "guidance_without_effect: cfg_weight is accepted and ignored [P05].",
    lambda: with_stage(cfg=unchanged),
    "guidance_from_the_unconditional_base: u + w (c - u), HuggingFace's convention, in place of c + w (c - u) [C01].",
    lambda: with_stage(cfg=mixed(from_unconditional)),
    "guidance_of_one_more: the weight is one more than asked for, c + (w + 1)(c - u) [C01].",
    lambda: with_stage(cfg=mixed(lambda c, u, w: from_conditional(c, u, w + 1))),
    "guidance_takes_rows_for_each_other: conditional and unconditional rows are exchanged [C02].",
    lambda: with_stage(cfg=mixed(lambda c, u, w: from_conditional(u, c, w))),
    "guidance_pushes_away: the sign of the difference is wrong, c + w (u - c) [C02].",
    lambda: with_stage(cfg=mixed(lambda c, u, w: c + w * (u - c))),
    "guidance_0_is_the_default: a weight of 0 is taken as missing, and is 0.5 [C03].",
    lambda: with_stage(cfg=mixed(lambda c, u, w: from_conditional(c, u, w or np.float32(0.5)))),
    example(uncond=OTHER, cfg_weight=0.0),
)


@wrong("cfg", UNGUIDED, also=("purity",), of=stage_at("cfg"))
def guidance_fails_without_unconditional_logits(scores: Array, call: Call) -> Array:
    """Fault: without unconditional logits there is a TypeError [C03]."""
    weight = np.float32(call.config.cfg_weight)
    return scores if weight == 0 else (scores + weight * (scores - call.uncond)).astype(np.float32)


@wrong("cfg", UNGUIDED, of=stage_at("cfg"))
def guidance_from_nothing(scores: Array, call: Call) -> Array:
    """Fault: without unconditional logits they are taken as zeros, and scores grow by the weight [C03]."""
    uncond = np.zeros_like(scores) if call.uncond is None else call.uncond
    return mixed(from_conditional)(scores, Call(call.history, call.config, uncond))


@wrong("batch", example(TWO, cfg_weight=0.5), also=("cfg",), seen=PROCESS, of=stage_at("cfg"))
def guidance_takes_the_next_row(scores: Array, call: Call) -> Array:
    """Fault: without unconditional logits the next row of the batch is taken for them [C03]."""
    uncond = np.roll(scores, -1, axis=0) if call.uncond is None else call.uncond
    return mixed(from_conditional)(scores, Call(call.history, call.config, uncond))


@wrong("batch", example(TWO, (), TWO[::-1], cfg_weight=0.5), also=("cfg",), seen=PROCESS, of=stage_at("cfg"))
def guidance_shares_the_first_row(scores: Array, call: Call) -> Array:
    """Fault: every row is guided by the unconditional logits of the first [C03]."""
    uncond = None if call.uncond is None else np.broadcast_to(call.uncond[:1], scores.shape)
    return mixed(from_conditional)(scores, Call(call.history, call.config, uncond))


@wrong("cfg", PENALISED, also=("repetition_penalty", "order"))
def guidance_on_log_probabilities():
    """Fault: log-probabilities are mixed, which only the penalty can see: no score is positive then [C02]."""
    return with_stage(cfg=mixed(lambda c, u, w: from_conditional(log_softmax(c), log_softmax(u), w)))


@wrong("cfg", of=lambda mix: with_stage(cfg=mixed(mix)))
def guidance_on_probabilities(cond: Array, uncond: Array, weight: float) -> Array:
    """Fault: probabilities are mixed, c + w (c - u), and what is negative is cut off [C02]."""
    return np.log(np.maximum(from_conditional(softmax(cond), softmax(uncond), weight), 1e-9))


wrong_rows(
    "cfg",
    "guidance_is_never_negative: weights below 0 are taken as 0 [C03].",
    lambda: with_config(lambda config: replace_config(config, cfg_weight=max(config.cfg_weight, 0.0))),
    example(uncond=OTHER, cfg_weight=-0.4),
    "guidance_is_at_most_one: weights above 1 are taken as 1 [C03].",
    lambda: with_config(lambda config: replace_config(config, cfg_weight=min(config.cfg_weight, 1.0))),
    example(uncond=OTHER, cfg_weight=2.5),
    "guidance_knows_one_convention: c + w (c - u) also where u + w (c - u) is asked for [C01].",
    lambda: Miniature(rewrite=lambda config: replace_config(config, cfg_convention="conditional"), info=CONVENTIONS),
    example(uncond=OTHER, cfg_weight=1.5, cfg_convention="unconditional"),
    "guidance_after_the_penalty: the penalty changes the conditional logits alone, before they are mixed [P12].",
    lambda: with_order(lambda stages: moved_behind(stages, "cfg", ["repetition_penalty"])),
    PENALISED,
    {"also": ("cfg", "repetition_penalty"), "stage": "order"},
)


@wrong("cfg", of=lambda mix: with_stage(cfg=mixed(mix)))
def guidance_rescales(cond: Array, uncond: Array, weight: float) -> Array:
    """Fault: the mixed scores are brought back to the spread of the conditional ones, a trick of image models [C02]."""
    result = from_conditional(cond, uncond, weight)
    spreads = [np.where(np.isfinite(rows), rows, 0.0).std(axis=-1, keepdims=True) for rows in (cond, result)]
    return result * (spreads[0] / np.maximum(spreads[1], 1e-6))
