"""Engines without process(): what is wrong in their chain shows in tokens alone."""

from functools import partial

from .engines import OnlyDraws
from .penalties import LONG
from .tables import DRAW, WRONG, example, named, wrong

ROW = [[2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5]]
OTHER = [[0.0, 1.5, 2.0, -0.5, 1.0, -1.5, 0.5, -1.0]]
ALL = example(ROW, [1, 1, 5], OTHER, repetition_penalty=1.5, temperature=0.8, cfg_weight=0.5, min_p=0.05, top_p=0.9)

ENGINES = {
    "draw_ignores_min_p": ("min_p_without_effect", example(ROW, min_p=0.2)),
    "draw_has_min_p_relative_to_one": ("min_p_relative_to_one", example(ROW, min_p=0.3)),
    "draw_tempers_last": ("temperature_after_the_filters", example(ROW, temperature=1.5, top_p=0.6)),
    "draw_has_a_window_of_20": ("penalty_window_of_20", LONG),
    "draw_ignores_the_penalty": ("penalty_without_effect", example(ROW, [0, 1, 5], repetition_penalty=1.5)),
    "draw_divides_either_sign": ("penalty_divides_either_sign", example(ROW, [6, 7], repetition_penalty=2.0)),
    "draw_penalises_every_occurrence": (
        "penalty_for_every_occurrence",
        example(ROW, [0, 0, 0, 1, 1], repetition_penalty=1.3),
    ),
    "draw_tempers_twice": ("temperature_twice", example(ROW, temperature=0.6)),
    "draw_ignores_temperature": ("temperature_without_effect", example(ROW, temperature=0.6)),
    "draw_samples_at_temperature_0": ("temperature_0_samples", example(ROW, temperature=0.0)),
    "draw_drops_the_crossing_token": ("top_p_drops_the_crossing_token", example(ROW, top_p=0.7)),
    "draw_keeps_one_more_than_top_p": ("top_p_keeps_one_more", example(ROW, top_p=0.7)),
    "draw_keeps_one_more_than_top_k": ("top_k_keeps_one_more", example(ROW, top_k=3)),
    "draw_exchanges_guidance_rows": ("guidance_takes_rows_for_each_other", example(ROW, (), OTHER, cfg_weight=0.5)),
    "draw_guides_from_the_unconditional_base": (
        "guidance_from_the_unconditional_base",
        example(ROW, (), OTHER, cfg_weight=0.5),
    ),
    "draw_revives_removed_tokens": ("draws_revive_removed_tokens", ALL),
    "draw_does_not_use_the_seed": ("seed_is_not_used", ALL),
    "draw_is_6_percent_off": ("frequencies_are_6_percent_off", ALL),
    "draw_repeats_after_1000": ("draws_repeat_after_1000", ALL),
}
"""Of each: the engine behind it, whose fault and stage are its own, and an input that shows it."""

ALSO = {"draw_tempers_last": ("top_p", "temperature"), "draw_revives_removed_tokens": ("top_p", "min_p")}


def only_draws(name: str) -> OnlyDraws:
    return OnlyDraws(WRONG[name].factory())


for _name, (_behind, _shows) in ENGINES.items():
    _wrong = WRONG[_behind]
    _options = {"also": ALSO.get(_name, _wrong.also), "total_variation": _wrong.total_variation}
    _factory = named(partial(only_draws, _behind), _name, _wrong.factory.__doc__)
    wrong(_wrong.stage, _shows, offers=DRAW, **_options)(_factory)
