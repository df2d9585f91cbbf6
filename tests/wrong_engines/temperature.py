"""Wrong in temperature: how it scales, and what 0 means."""

import numpy as np

from .chain import STAGES, Array, Call, keep, keep_best, tempered, unchanged
from .engines import Processing, stage_at, with_config, with_stage
from .tables import PROCESS, example, replace_config, spread, wrong, wrong_rows

TEMPERATURE = "temperature"
GREEDY = example(temperature=0.0)
TIED = np.tile(np.array([[1.0, 3.0, 0.5, 3.0, -2.0, 3.0]]), (2, 1))
GREEDY_OF_TIES = example(TIED, temperature=0.0)
LATE_PENALTY = example(
    [[2.0, 1.9, -1.0]], [0], temperature=0.0, repetition_penalty=2.0, order=(TEMPERATURE, "repetition_penalty")
)


wrong_rows(
    TEMPERATURE,
    "temperature_twice: scores are divided by the temperature twice [T03].",
    lambda: with_stage(temperature=tempered(lambda temperature: temperature**2)),
    "temperature_without_effect: temperature is accepted and ignored, but for 0 [T05].",
    lambda: with_stage(temperature=unchanged),
    "temperature_multiplies: scores are multiplied by the temperature [T03].",
    lambda: with_stage(temperature=tempered(lambda temperature: 1 / temperature)),
    "temperature_of_its_root: scores are divided by the square root of the temperature [T03].",
    lambda: with_stage(temperature=tempered(lambda temperature: temperature**0.5)),
    "temperature_is_at_least_a_tenth: temperatures below 0.1 are taken as 0.1 [T04].",
    lambda: with_stage(temperature=tempered(lambda temperature: max(temperature, 0.1))),
    example(temperature=0.05),
    "temperature_is_at_most_one: temperatures above 1 are taken as 1 [T04].",
    lambda: with_stage(temperature=tempered(lambda temperature: min(temperature, 1.0))),
    example(temperature=1.7),
    "temperature_is_at_most_two: temperatures above 2 are taken as 2, a limit of a web form [T04].",
    lambda: with_stage(temperature=tempered(lambda temperature: min(temperature, 2.0))),
    example(temperature=2.5),
    "temperature_0_samples: at temperature 0 scaling is skipped, and then drawn as ever [T04].",
    lambda: with_stage(greedy=unchanged),
    GREEDY,
    "temperature_0_is_the_default: a temperature of 0 is taken as one that is missing, and is 0.8 [T04].",
    lambda: with_config(lambda config: replace_config(config, temperature=config.temperature or 0.8)),
    GREEDY,
    "temperature_0_is_tiny: at temperature 0 scores are divided by 1e-5, and equal ones stay equally likely [T04].",
    lambda: with_config(lambda config: replace_config(config, temperature=config.temperature or 1e-5)),
    GREEDY_OF_TIES,
    {"also": ("draw",)},
    "temperature_0_keeps_ties: at temperature 0 every token of the largest score is left [T04].",
    lambda: with_stage(greedy=lambda scores, call: keep(scores, scores == scores.max(axis=-1, keepdims=True))),
    GREEDY_OF_TIES,
)


@wrong(TEMPERATURE, GREEDY_OF_TIES, of=stage_at("greedy"))
def temperature_0_takes_the_highest_id(scores: Array, call: Call) -> Array:
    """Fault: among equal maxima the highest id is left, not the lowest [T04]."""
    return keep_best(scores[:, ::-1], call)[:, ::-1]


def raw_maximum(process, logits, history, config, uncond):
    if config.greedy:
        return keep_best(np.array(logits, dtype=np.float32), None)
    return process(logits, history, config, uncond)


wrong_rows(
    TEMPERATURE,
    "temperature_0_divides: at temperature 0 scores are divided by it, and there is NaN [T04].",
    lambda: with_stage(temperature=lambda scores, call: scores / np.float32(call.config.temperature)),
    GREEDY,
    {"also": ("purity",)},
    "temperature_0_takes_the_raw_maximum: at temperature 0 the largest logit wins, before penalty and guidance [T05].",
    lambda: Processing(raw_maximum),
    example([[2.0, 1.9, -1.0]], [0], temperature=0.0, repetition_penalty=2.0),
    {"also": ("repetition_penalty", "order")},
)


@wrong(TEMPERATURE, LATE_PENALTY, also=("order",), of=stage_at("temperature"))
def temperature_0_decides_in_its_place(scores: Array, call: Call) -> Array:
    """Fault: at temperature 0 the maximum is taken where the stage stands, before stages that follow it [T05]."""
    return keep_best(scores, call) if call.config.temperature == 0 else STAGES[TEMPERATURE](scores, call)


def rounded(round_off) -> Processing:
    return Processing(lambda process, logits, *rest: process(round_off(np.array(logits, dtype=np.float32)), *rest))


def float16(scores: Array) -> Array:
    return scores.astype(np.float16).astype(np.float32)


def bfloat16(rows: Array) -> Array:
    """Rounded to eight significant bits, to even where two are as near."""
    bits = rows.astype(np.float32).view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return nearest.view(np.float32)


PLAIN_LOGITS = example(spread(25, -9.7, 9.3))

wrong_rows(
    "precision",
    "temperature_in_steps: temperature is rounded up to a multiple of 0.2, the steps of a slider [T05].",
    lambda: with_stage(temperature=tempered(lambda temperature: np.ceil(temperature * 5) / 5)),
    {"stage": TEMPERATURE, "also": ("precision",), "shows": example(TIED, temperature=0.7)},
    "temperature_overflows_in_float16: "
    "scores pass through float16 after the temperature, large ones become infinite [S09].",
    lambda: with_stage(temperature=lambda scores, call: float16(STAGES[TEMPERATURE](scores, call))),
    example(spread(25, -50_000, 50_000), temperature=0.5),
    {"also": (TEMPERATURE, "purity"), "seen": PROCESS},
    "rounds_logits_to_bfloat16: says float32, and rounds the logits to eight bits [S05].",
    lambda: rounded(bfloat16),
    {"shows": PLAIN_LOGITS, "seen": PROCESS},
    "rounds_logits_to_float16: says float32, and rounds the logits to eleven bits [S05].",
    lambda: rounded(float16),
    {"shows": PLAIN_LOGITS, "seen": PROCESS},
)
