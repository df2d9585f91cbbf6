"""Wrong only near the end of a range, at temperature 0, in one order of two stages, or where a stage is off."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sampler.config import SamplingConfig
from sampler.engines.base import EVERYTHING, EngineInfo
from sampler.engines.reference.chain import ReferenceEngine
from sampler.requests import Batch, Context
from sampler.stages import ALL_STAGES, NEUTRAL

from .chain import STAGES, Array, Call, keep, keep_best, softmax
from .engines import INFO, with_config, with_stage
from .tables import BOTH, PROCESS, example, replace_config, right_rows, spread, wrong_rows

REFERENCE = ReferenceEngine()
EVERY_STAGE = replace(INFO, supports=EVERYTHING)


@dataclass(frozen=True)
class EveryStage:
    """The reference, which has every stage, with changed rows and scores."""

    change: Callable[[Batch], Batch] = lambda batch: batch
    finish: Callable[[Array], Array] = lambda scores: scores
    info: EngineInfo = EVERY_STAGE

    def process(self, logits, history, config, uncond_logits=None, *, context=None) -> Array:
        batch = Batch(np.asarray(logits), history, (config,) * len(logits), uncond_logits, context)
        return self.finish(REFERENCE.evaluate(self.change(batch))[-1].scores.astype(np.float32))


def asked(rewrite: Callable[[SamplingConfig], SamplingConfig]) -> EveryStage:
    """Every stage, asked for something else than the caller asks for."""
    return EveryStage(lambda batch: batch.with_config(rewrite(batch.config)))


def reading(knob: str, read: Callable[[Any], Any]) -> Callable[[], EveryStage]:
    """Every stage, with another value of one parameter."""
    return lambda: asked(lambda config: replace_config(config, **{knob: read(getattr(config, knob))}))


def at_step(change: Callable[[Context], Any]) -> Callable[[], EveryStage]:
    """Every stage, with another number of generated tokens for `min_new_tokens`."""

    def moved(batch: Batch) -> Batch:
        if batch.context is None or not batch.config.min_new_tokens:
            return batch
        return replace(batch, context=batch.context._replace(step=change(batch.context)))

    return lambda: EveryStage(moved)


def ignored_at_0(stage: str) -> Callable[[], EveryStage]:
    """Every stage; one is off at temperature 0."""
    return lambda: asked(lambda config: config.without([stage]) if config.greedy else config)


def before(stage: str, other: str) -> Callable[[], EveryStage]:
    """Every stage; one is run before another whatever is asked for."""

    def moved(config: SamplingConfig) -> SamplingConfig:
        rest = [each for each in config.order if each != stage]
        if stage not in config.order or other not in rest:
            return config
        rest.insert(min(rest.index(other), config.order.index(stage)), stage)
        return replace(config, order=tuple(rest))

    return lambda: asked(moved)


def acting_when_off(stage: str, when: Callable[[SamplingConfig], bool] = lambda config: True, **knobs: Any) -> Any:
    """Every stage; one acts although it is off."""

    def on(config: SamplingConfig) -> SamplingConfig:
        off = all(getattr(config, knob) == value for knob, value in NEUTRAL[stage].items())
        return replace(config, **knobs) if stage in config.order and off and when(config) else config

    return lambda: asked(on)


BIASED = example(logit_bias={3: 100.0, 5: 98.0})
SEEN = example(history=[3, 5, 5, 0, 7, 12])
LOOP = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 6, 7, 8]


def knobs(history: Any = (), **values: Any) -> Any:
    """An input whose history was generated."""
    return example(history=history, context=Context(np.array([0]), np.array([len(history)])), **values)


def clipped(values: Any, most: float) -> Any:
    return {token: max(-most, min(most, bias)) for token, bias in values.items()}


wrong_rows(
    "temperature",
    "temperature_is_at_least_a_twentieth: temperatures below 0.05 are taken as 0.05 [T04].",
    reading("temperature", lambda value: max(value, 0.05) if value else value),
    knobs(temperature=0.01),
    "temperature_is_at_least_a_thousandth: temperatures below 0.001 are taken as 0.001 [T04].",
    reading("temperature", lambda value: max(value, 0.001) if value else value),
    example(spread(25, -0.0004, 0.0004), temperature=0.0002),
    "temperature_is_at_most_two_and_a_half: temperatures above 2.5 are taken as 2.5 [T04].",
    reading("temperature", lambda value: min(value, 2.5)),
    knobs(temperature=5.0),
    "temperature_is_at_most_10: temperatures above 10 are taken as 10 [T04].",
    reading("temperature", lambda value: min(value, 10.0)),
    knobs(temperature=100.0),
    "top_p_over_995_per_mille_is_off: top_p above 0.995 is taken as 1 [T06].",
    reading("top_p", lambda value: 1.0 if value > 0.995 else value),
    example(spread(301, -9, 0), top_p=0.999),
    {"stage": "top_p"},
    "top_p_over_999_per_mille_is_off: top_p above 0.999 is taken as 1 [T06].",
    reading("top_p", lambda value: 1.0 if value > 0.999 else value),
    example(spread(301, -19, 0), top_p=0.9999),
    {"stage": "top_p"},
    "top_p_has_four_decimals: top_p is rounded to four decimals [T06].",
    reading("top_p", lambda value: round(value, 4)),
    example(spread(17, -19, 0), top_p=0.99999),
    {"stage": "top_p"},
    "min_p_below_a_hundredth_is_off: min_p below 0.01 is taken as 0 [T07].",
    reading("min_p", lambda value: value if value >= 0.01 else 0.0),
    example(spread(301, -9, 0), min_p=0.005),
    {"stage": "min_p"},
    "min_p_is_at_least_a_thousandth: min_p above 0 and below 0.001 is taken as that [T07].",
    reading("min_p", lambda value: max(value, 0.001) if value else 0.0),
    example(spread(301, -15, 0), min_p=1e-4),
    {"stage": "min_p"},
    "penalty_is_at_most_3: repetition penalties above 3 are taken as 3 [P07].",
    reading("repetition_penalty", lambda value: min(value, 3.0)),
    knobs(SEEN.history[0], repetition_penalty=5.0),
    {"stage": "repetition_penalty"},
    "penalty_is_at_most_20: repetition penalties above 20 are taken as 20 [P07].",
    reading("repetition_penalty", lambda value: min(value, 20.0)),
    knobs(SEEN.history[0], repetition_penalty=100.0),
    {"stage": "repetition_penalty"},
    "penalty_is_at_least_a_tenth: repetition penalties below 0.1 are taken as 0.1 [P07].",
    reading("repetition_penalty", lambda value: max(value, 0.1)),
    knobs(SEEN.history[0], repetition_penalty=0.01),
    {"stage": "repetition_penalty"},
    "penalty_has_one_decimal: repetition penalties are rounded to tenths [P07].",
    reading("repetition_penalty", lambda value: max(0.1, round(value, 1)) if value > 0.2 else value),
    knobs(SEEN.history[0], repetition_penalty=1.01),
    {"stage": "repetition_penalty"},
    "bias_is_at_most_50: biases are cut off at 50 and -50.",
    reading("logit_bias", lambda value: clipped(value, 50.0)),
    BIASED,
    {"stage": "logit_bias"},
    "bias_has_one_decimal: biases are rounded to tenths.",
    reading("logit_bias", lambda value: {token: round(bias, 1) for token, bias in value.items()}),
    knobs(logit_bias={3: 0.02}),
    {"stage": "logit_bias"},
    "frequency_penalty_is_at_most_2: the frequency penalty is cut off at 2 and -2, the range of a web service.",
    reading("frequency_penalty", lambda value: max(-2.0, min(2.0, value))),
    knobs(SEEN.history[0], frequency_penalty=5.0),
    {"stage": "frequency_penalty"},
    "presence_penalty_is_at_most_2: the presence penalty is cut off at 2 and -2.",
    reading("presence_penalty", lambda value: max(-2.0, min(2.0, value))),
    knobs(SEEN.history[0], presence_penalty=5.0),
    {"stage": "presence_penalty"},
    "ngrams_of_1_are_allowed: an n-gram size of 1 is taken as off.",
    reading("no_repeat_ngram_size", lambda value: value if value > 1 else 0),
    knobs([3, 5], no_repeat_ngram_size=1),
    {"stage": "no_repeat_ngram_size"},
    "ngrams_have_at_most_3: n-gram sizes above 3 are taken as 3.",
    reading("no_repeat_ngram_size", lambda value: min(value, 3)),
    knobs(LOOP, no_repeat_ngram_size=5),
    {"stage": "no_repeat_ngram_size"},
    "ngrams_over_4_are_off: n-gram sizes above 4 are taken as off.",
    reading("no_repeat_ngram_size", lambda value: value if value <= 4 else 0),
    knobs([1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5], no_repeat_ngram_size=5),
    {"stage": "no_repeat_ngram_size"},
    "typical_p_over_95_percent_is_off: typical_p above 0.95 is taken as 1.",
    reading("typical_p", lambda value: 1.0 if value > 0.95 else value),
    knobs(typical_p=0.99),
    {"stage": "typical_p"},
    "top_n_sigma_is_at_most_3: top_n_sigma above 3 is taken as 3.",
    reading("top_n_sigma", lambda value: min(value, 3.0)),
    example(np.append(spread(301, -2, 2), [4.9, 0.1]), top_n_sigma=4.0),
    {"stage": "top_n_sigma"},
    "xtc_threshold_is_at_least_a_hundredth: thresholds of XTC below 0.01 are taken as 0.01.",
    reading("xtc_threshold", lambda value: max(value, 0.01)),
    knobs(xtc_probability=1.0, xtc_threshold=0.001),
    {"stage": "xtc_probability"},
    offers=PROCESS,
)

EARLY = Context(np.array([4]), np.array([4]), (3,))
MIN_NEW = replace(knobs([1, 2, 4, 5, 6, 7, 8, 9], min_new_tokens=5), context=EARLY)

wrong_rows(
    "min_new_tokens",
    "min_new_tokens_one_too_many: EOS is removed for one more step than asked for.",
    reading("min_new_tokens", lambda value: value + 1 if value else 0),
    replace(MIN_NEW, context=EARLY._replace(step=np.array([5]), prompt_length=np.array([3]))),
    "min_new_tokens_one_too_few: EOS is allowed one step before.",
    reading("min_new_tokens", lambda value: max(value - 1, 0)),
    MIN_NEW,
    "min_new_tokens_counts_the_prompt: the ids of the prompt count as generated.",
    at_step(lambda context: context.step + context.prompt_length),
    MIN_NEW,
    "min_new_tokens_takes_off_the_prompt: the length of the prompt is subtracted from the step once more.",
    at_step(lambda context: context.step - context.prompt_length),
    replace(MIN_NEW, context=EARLY._replace(step=np.array([6]), prompt_length=np.array([2]))),
    offers=PROCESS,
)

wrong_rows(
    "logit_bias",
    "bias_is_ignored_at_0: the logit bias is left out at temperature 0.",
    ignored_at_0("logit_bias"),
    knobs(logit_bias={3: 50.0}, temperature=0.0),
    "ngrams_are_allowed_at_0: repeated n-grams are allowed at temperature 0.",
    ignored_at_0("no_repeat_ngram_size"),
    example([[1.0, 3.0, 2.0]], [0, 1, 0], no_repeat_ngram_size=2, temperature=0.0),
    {"stage": "no_repeat_ngram_size"},
    "typical_p_is_ignored_at_0: typical_p is left out at temperature 0.",
    ignored_at_0("typical_p"),
    example([[3.0, *([0.0] * 60)]], typical_p=0.5, temperature=0.0),
    {"stage": "typical_p"},
    "dry_is_ignored_at_0: DRY is left out at temperature 0.",
    ignored_at_0("dry_multiplier"),
    example([[1.0, 3.0, 2.0]], [0, 1, 0], dry_multiplier=9.0, dry_allowed_length=1, temperature=0.0),
    {"stage": "dry_multiplier"},
    "xtc_is_ignored_at_0: XTC is left out at temperature 0.",
    ignored_at_0("xtc_probability"),
    knobs(xtc_probability=1.0, xtc_threshold=0.02, temperature=0.0),
    {"stage": "xtc_probability"},
    "penalty_is_ignored_at_0: the repetition penalty is left out at temperature 0, and nothing else.",
    ignored_at_0("repetition_penalty"),
    example([[2.0, 1.9, -1.0]], [0], temperature=0.0, repetition_penalty=2.0),
    {"stage": "repetition_penalty"},
    offers=PROCESS,
)

HEAD = example([[3.0, 2.9, 2.0, 1.0, 0.0, -1.0]], [0, 1], typical_p=0.5, repetition_penalty=3.0)
PENALISED = replace(
    knobs([0], top_k=2, frequency_penalty=1.5), logits=np.array([[3.0, 2.5, 2.0, 1.0]], dtype=np.float32)
)
KEEPS = ("cfg", "alignment", "repetition_penalty", "temperature", "top_k", "min_p", "top_p", "typical_p")
ASKED = ("typical_p", *(stage for stage in KEEPS if stage != "typical_p"))

wrong_rows(
    "order",
    "typical_p_before_the_penalty: typical_p looks at the scores before the repetition penalty.",
    before("typical_p", "repetition_penalty"),
    HEAD,
    "top_k_before_the_frequency_penalty: top_k looks at the scores before the frequency penalty.",
    before("top_k", "frequency_penalty"),
    PENALISED,
    "xtc_before_the_bias: XTC looks at the scores before the logit bias.",
    before("xtc_probability", "logit_bias"),
    knobs(logit_bias={3: 9.0}, xtc_probability=1.0),
    "typical_p_after_the_penalty: typical_p never runs before the repetition penalty, though it is asked to.",
    before("repetition_penalty", "typical_p"),
    replace(HEAD, config=replace(HEAD.config, order=ASKED)),
    offers=PROCESS,
)


def tail_removed(scores: Array, call: Call) -> Array:
    if call.config.top_p < 1:
        return STAGES["top_p"](scores, call)
    return keep(scores, softmax(scores) > 1e-5)


def least_removed(scores: Array, call: Call) -> Array:
    if call.config.min_p > 0:
        return STAGES["min_p"](scores, call)
    return keep(scores, scores - scores.max(axis=-1, keepdims=True) >= np.log(1e-6))


def rounding(scores: Array, call: Call) -> Array:
    if call.config.repetition_penalty != 1:
        return STAGES["repetition_penalty"](scores, call)
    return scores.astype(np.float16).astype(np.float32)


wrong_rows(
    "top_k",
    "top_k_0_keeps_one_token: a top_k of 0, which is off, keeps one token.",
    lambda: with_stage(
        top_k=lambda scores, call: STAGES["top_k"](scores, call) if call.config.top_k else keep_best(scores, call)
    ),
    example(),
    {"offers": BOTH, "seen": PROCESS},
    "top_k_0_is_40_beside_a_temperature: a top_k of 0 keeps 40 tokens where the temperature is not 1.",
    lambda: with_config(
        lambda config: (
            replace(config, top_k=40)
            if config.temperature not in (0, 1) and not config.top_k and "top_k" in config.order
            else config
        )
    ),
    example(spread(301), temperature=0.8),
    {"offers": BOTH, "seen": PROCESS},
    "top_p_1_removes_the_tail: a top_p of 1, which is off, removes what is less likely than 1e-5.",
    lambda: with_stage(top_p=tail_removed),
    example(spread(25, -15, 0)),
    {"stage": "top_p", "offers": BOTH, "seen": PROCESS},
    "min_p_0_removes_the_tail: a min_p of 0, which is off, removes what is a millionth as likely as the best.",
    lambda: with_stage(min_p=least_removed),
    example(spread(25, -19, 0)),
    {"stage": "min_p", "offers": BOTH, "seen": PROCESS},
    "penalty_1_rounds: a repetition penalty of 1, which is off, rounds the scores to float16.",
    lambda: with_stage(repetition_penalty=rounding),
    {"stage": "repetition_penalty", "shows": example(spread(25, -9.7, 9.3)), "offers": BOTH, "seen": PROCESS},
    "typical_p_1_filters: a typical_p of 1, which is off, acts as 0.95.",
    acting_when_off("typical_p", typical_p=0.95),
    {"stage": "typical_p", "shows": example(order=ALL_STAGES)},
    "top_n_sigma_0_filters: a top_n_sigma of 0, which is off, acts as 2.",
    acting_when_off("top_n_sigma", top_n_sigma=2.0),
    {"stage": "top_n_sigma", "shows": example(order=ALL_STAGES)},
    "presence_penalty_0_acts_beside_a_penalty: the presence penalty acts where the repetition penalty is on.",
    acting_when_off("presence_penalty", lambda config: config.repetition_penalty != 1, presence_penalty=1.0),
    {"stage": "presence_penalty", "shows": knobs([3, 5], repetition_penalty=1.5, order=ALL_STAGES)},
    offers=PROCESS,
)

MASK = np.float32(-10_000)


def halves(scores: Array) -> Array:
    with np.errstate(over="ignore"):
        return scores.astype(np.float16).astype(np.float32)


def logarithms(scores: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(softmax(scores)).astype(np.float32)


def in_half_precision() -> EveryStage:
    """Logits and scores are rounded to float16, which it says."""

    def rounded(batch: Batch) -> Batch:
        uncond = None if batch.uncond_logits is None else halves(np.asarray(batch.uncond_logits))
        return replace(batch, logits=halves(np.asarray(batch.logits)), uncond_logits=uncond)

    return EveryStage(rounded, halves, replace(EVERY_STAGE, dtype="float16"))


right_rows(
    "right_with_every_stage: has every optional stage.",
    EveryStage,
    "right_with_every_stage_and_a_finite_mask: a removed token has the score -10,000.",
    lambda: EveryStage(finish=lambda scores: np.maximum(scores, MASK)),
    "right_with_every_stage_in_half_precision: logits and scores have eleven bits.",
    in_half_precision,
    "right_with_every_stage_in_log_probabilities: what comes back is normalised.",
    lambda: EveryStage(finish=logarithms),
    "right_with_float32_sums: top_p adds probabilities term by term in float32.",
    lambda: with_stage(top_p=float32_sums),
)


def float32_sums(scores: Array, call: Call) -> Array:
    if call.config.top_p == 1:
        return scores
    ids = np.argsort(-scores, axis=-1, kind="stable")
    weights = np.take_along_axis(softmax(scores, np.float32), ids, axis=-1)
    sums = np.cumsum(weights, axis=-1, dtype=np.float32) - weights
    kept = (sums < np.float32(call.config.top_p)) | (np.arange(scores.shape[-1]) < call.config.min_tokens_to_keep)
    result = np.empty_like(kept)
    np.put_along_axis(result, ids, kept, axis=-1)
    return keep(scores, result)
