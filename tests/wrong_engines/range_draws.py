"""Engines that only draw, and are wrong near the end of a range, in an optional stage, or at temperature 0."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from .chain import Array
from .engines import inverse_cdf, uniforms
from .ranges import EVERY_STAGE, LOOP, EveryStage, asked, knobs, reading
from .tables import DRAW, WRONG, example, named, right_rows, wrong, wrong_rows


@dataclass(frozen=True)
class OnlyDraws:
    """Draws from the scores of an engine that has every stage, and does not show them."""

    engine: Any

    @property
    def info(self):
        return replace(self.engine.info)

    def draw(self, logits, history, config, n, seed, uncond_logits=None, context=None) -> Array:
        uncond = None if uncond_logits is None else uncond_logits[None]
        scores = self.engine.process(logits[None], [history], config, uncond, context=context)[0]
        return inverse_cdf(scores, uniforms(seed, n))


BEHIND = (
    "temperature_is_at_least_a_twentieth", "temperature_is_at_most_two_and_a_half", "temperature_is_at_most_10",
    "top_p_over_995_per_mille_is_off", "top_p_over_999_per_mille_is_off", "min_p_below_a_hundredth_is_off",
    "min_p_is_at_least_a_thousandth", "penalty_is_at_most_3", "penalty_is_at_most_20", "penalty_is_at_least_a_tenth",
    "bias_is_at_most_50", "frequency_penalty_is_at_most_2", "presence_penalty_is_at_most_2", "ngrams_of_1_are_allowed",
    "ngrams_have_at_most_3", "ngrams_over_4_are_off", "typical_p_over_95_percent_is_off", "top_n_sigma_is_at_most_3",
    "xtc_threshold_is_at_least_a_hundredth", "min_new_tokens_one_too_many", "min_new_tokens_one_too_few",
    "min_new_tokens_counts_the_prompt", "bias_is_ignored_at_0", "ngrams_are_allowed_at_0", "typical_p_is_ignored_at_0",
    "dry_is_ignored_at_0", "xtc_is_ignored_at_0", "penalty_is_ignored_at_0",
)  # fmt: skip
"""Engines of ranges.py, whose faults and stages are those of the engines here."""

TOKENS = np.linspace(2.0, -1.5, 25, dtype=np.float32)
SHOWS = {
    "temperature_is_at_least_a_twentieth": example(TOKENS / 100, temperature=0.01),
    "min_p_is_at_least_a_thousandth": example([0.0, *[-6.96] * 300], min_p=1e-4),
    "penalty_is_at_most_3": example([10.0, *TOKENS], [0], repetition_penalty=5.0),
    "penalty_is_at_most_20": example([100.0, *TOKENS], [0], repetition_penalty=100.0),
    "penalty_is_at_least_a_tenth": example([-50.0, *(TOKENS - 3)], [0], repetition_penalty=0.01),
    "ngrams_have_at_most_3": example([*[0.0] * 9, 3.0, *[0.0] * 9], LOOP, no_repeat_ngram_size=5),
}
"""Inputs on which draws show a fault that scores show elsewhere."""

for _name in BEHIND:
    _wrong = WRONG[_name]
    _made = partial(lambda name: OnlyDraws(WRONG[name].factory()), _name)
    _shows = SHOWS.get(_name, _wrong.shows)
    wrong(_wrong.stage, _shows, offers=DRAW, also=_wrong.also)(named(_made, f"draw_{_name}", _wrong.factory.__doc__))


def without(stage: str):
    return lambda: OnlyDraws(asked(lambda config: config.without([stage])))


def raw_at_0(config):
    return config.without([stage for stage in config.order if stage != "temperature"]) if config.greedy else config


REPEATED = [3, 5, 7, 3, 5, 7, 3, 5]
HIGH = [*[0.0] * 7, 3.0, *[0.0] * 7]

wrong_rows(
    "dry_multiplier",
    "draw_without_dry: DRY is accepted and ignored.",
    without("dry_multiplier"),
    knobs(REPEATED, dry_multiplier=3.0, logits=HIGH),
    "draw_without_a_bias: the logit bias is accepted and ignored.",
    without("logit_bias"),
    knobs(logit_bias={3: 5.0}),
    {"stage": "logit_bias"},
    "draw_without_suppression: suppressed tokens are drawn.",
    without("suppressed_tokens"),
    knobs(suppressed_tokens=(3, 5)),
    {"stage": "suppressed_tokens"},
    "draw_without_the_presence_penalty: the presence penalty is accepted and ignored.",
    without("presence_penalty"),
    knobs([3, 5, 5, 0, 7, 12], presence_penalty=3.0),
    {"stage": "presence_penalty"},
    "draw_has_one_base_of_dry: the base of DRY is always 1.75.",
    lambda: OnlyDraws(reading("dry_base", lambda value: 1.75)()),
    knobs(REPEATED, dry_multiplier=0.5, dry_base=4.0, logits=HIGH),
    "draw_guides_by_at_most_5: weights of guidance above 5 are taken as 5.",
    lambda: OnlyDraws(reading("cfg_weight", lambda value: min(value, 5.0))()),
    example(TOKENS, uncond=TOKENS * 0.9, cfg_weight=10.0),
    {"stage": "cfg"},
    "draw_has_a_top_k_of_at_most_100: top_k above 100 is taken as 100.",
    lambda: OnlyDraws(reading("top_k", lambda value: min(value, 100))()),
    example(np.linspace(0, 1, 300), top_k=150),
    {"stage": "top_k"},
    "draw_takes_the_largest_logit_at_0: temperature 0 looks at the logits as they are given.",
    lambda: OnlyDraws(asked(raw_at_0)),
    knobs(logit_bias={3: 50.0}, temperature=0.0),
    {"stage": "temperature"},
    offers=DRAW,
)

right_rows(
    "right_only_draws_every_stage: has every optional stage, and only draws.",
    lambda: OnlyDraws(EveryStage(info=EVERY_STAGE)),
)
