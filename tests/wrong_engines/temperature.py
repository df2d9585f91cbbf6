"""Wrong in temperature: how it scales, and what 0 means."""

import numpy as np

from .chain import STAGES, Array, Call, keep, keep_best, run, tempered, unchanged
from .engines import Miniature, with_config, with_stage
from .tables import PROCESS, example, replace_config, spread, wrong

TEMPERATURE = "temperature"
GREEDY = example(temperature=0.0)
TIED = np.tile(np.array([[1.0, 3.0, 0.5, 3.0, -2.0, 3.0]]), (2, 1))
GREEDY_OF_TIES = example(TIED, temperature=0.0)
LATE_PENALTY = example(
    [[2.0, 1.9, -1.0]], [0], temperature=0.0, repetition_penalty=2.0, order=(TEMPERATURE, "repetition_penalty")
)


@wrong(TEMPERATURE)
def temperature_twice():
    """Lie: scores are divided by the temperature twice [T03]."""
    return with_stage(temperature=tempered(lambda temperature: temperature**2))


@wrong(TEMPERATURE)
def temperature_without_effect():
    """Lie: temperature is accepted and ignored, but for 0 [T05]."""
    return with_stage(temperature=unchanged)


@wrong(TEMPERATURE)
def temperature_multiplies():
    """Lie: scores are multiplied by the temperature [T03]."""
    return with_stage(temperature=tempered(lambda temperature: 1 / temperature))


@wrong(TEMPERATURE)
def temperature_of_its_root():
    """Lie: scores are divided by the square root of the temperature [T03]."""
    return with_stage(temperature=tempered(lambda temperature: temperature**0.5))


@wrong(TEMPERATURE, example(temperature=0.05))
def temperature_is_at_least_a_tenth():
    """Lie: temperatures below 0.1 are taken as 0.1 [T04]."""
    return with_stage(temperature=tempered(lambda temperature: max(temperature, 0.1)))


@wrong(TEMPERATURE, example(temperature=1.7))
def temperature_is_at_most_one():
    """Lie: temperatures above 1 are taken as 1 [T04]."""
    return with_stage(temperature=tempered(lambda temperature: min(temperature, 1.0)))


@wrong(TEMPERATURE, example(temperature=2.5))
def temperature_is_at_most_two():
    """Lie: temperatures above 2 are taken as 2, a limit of a web form [T04]."""
    return with_stage(temperature=tempered(lambda temperature: min(temperature, 2.0)))


@wrong(TEMPERATURE, GREEDY)
def temperature_0_samples():
    """Lie: at temperature 0 scaling is skipped, and then drawn as ever [T04]."""
    return with_stage(greedy=unchanged)


@wrong(TEMPERATURE, GREEDY)
def temperature_0_is_the_default():
    """Lie: a temperature of 0 is taken as one that is missing, and is 0.8 [T04]."""
    return with_config(lambda config: replace_config(config, temperature=config.temperature or 0.8))


@wrong(TEMPERATURE, GREEDY_OF_TIES, also=("draw",))
def temperature_0_is_tiny():
    """Lie: at temperature 0 scores are divided by 1e-5, and equal ones stay equally likely [T04]."""
    return with_config(lambda config: replace_config(config, temperature=config.temperature or 1e-5))


@wrong(TEMPERATURE, GREEDY_OF_TIES)
def temperature_0_keeps_ties():
    """Lie: at temperature 0 every token of the largest score is left [T04]."""
    return with_stage(greedy=lambda scores, call: keep(scores, scores == scores.max(axis=-1, keepdims=True)))


@wrong(TEMPERATURE, GREEDY_OF_TIES)
def temperature_0_takes_the_highest_id():
    """Lie: among equal maxima the highest id is left, not the lowest [T04]."""

    def stage(scores: Array, call: Call) -> Array:
        return keep_best(scores[:, ::-1], call)[:, ::-1]

    return with_stage(greedy=stage)


@wrong(TEMPERATURE, GREEDY, also=("purity",))
def temperature_0_divides():
    """Lie: at temperature 0 scores are divided by it, and there is NaN [T04]."""
    return with_stage(temperature=lambda scores, call: scores / np.float32(call.config.temperature))


@wrong(
    TEMPERATURE,
    example([[2.0, 1.9, -1.0]], [0], temperature=0.0, repetition_penalty=2.0),
    also=("repetition_penalty", "order"),
)
def temperature_0_takes_the_raw_maximum():
    """Lie: at temperature 0 the largest logit wins, before penalty and guidance [T05]."""

    class Raw(Miniature):
        def process(self, logits, history, config, uncond_logits=None):
            if config.greedy:
                return keep_best(np.array(logits, dtype=np.float32), None)
            return super().process(logits, history, config, uncond_logits)

    return Raw()


@wrong(TEMPERATURE, LATE_PENALTY, also=("order",))
def temperature_0_decides_in_its_place():
    """Lie: at temperature 0 the maximum is taken where the stage stands, before stages that follow it [T05]."""
    right = STAGES[TEMPERATURE]

    def stage(scores: Array, call: Call) -> Array:
        return keep_best(scores, call) if call.config.temperature == 0 else right(scores, call)

    return with_stage(temperature=stage)


@wrong(TEMPERATURE, example(TIED, temperature=0.7), also=("precision",))
def temperature_in_steps():
    """Lie: temperature is rounded up to a multiple of 0.2, the steps of a slider [T05]."""
    return with_stage(temperature=tempered(lambda temperature: np.ceil(temperature * 5) / 5))


@wrong("precision", example(spread(25, -50_000, 50_000), temperature=0.5), also=(TEMPERATURE, "purity"), seen=PROCESS)
def temperature_overflows_in_float16():
    """Lie: scores pass through float16 after the temperature, and large ones become infinite [S09]."""
    right = STAGES[TEMPERATURE]
    return with_stage(temperature=lambda scores, call: right(scores, call).astype(np.float16).astype(np.float32))


def rounded(round_off) -> Miniature:
    class Rounded(Miniature):
        def process(self, logits, history, config, uncond_logits=None):
            with np.errstate(all="ignore"):
                rounded_logits = round_off(np.array(logits, dtype=np.float32))
            return run(rounded_logits, Call(history, config, uncond_logits), self.stages)

    return Rounded()


def bfloat16(rows: Array) -> Array:
    """Rounded to eight significant bits, to even where two are as near."""
    bits = rows.astype(np.float32).view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return nearest.view(np.float32)


@wrong("precision", PLAIN_LOGITS := example(spread(25, -9.7, 9.3)), seen=PROCESS)
def rounds_logits_to_bfloat16():
    """Lie: says float32, and rounds the logits to eight bits [S05]."""
    return rounded(bfloat16)


@wrong("precision", PLAIN_LOGITS, seen=PROCESS)
def rounds_logits_to_float16():
    """Lie: says float32, and rounds the logits to eleven bits [S05]."""
    return rounded(lambda logits: logits.astype(np.float16).astype(np.float32))
