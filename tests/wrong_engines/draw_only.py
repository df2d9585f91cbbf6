"""Engines without process(): what is wrong in their chain shows in tokens alone."""

from .engines import OnlyDraws
from .penalties import LONG
from .tables import DRAW, WRONG, example, wrong

ROW = [[2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5]]
OTHER = [[0.0, 1.5, 2.0, -0.5, 1.0, -1.5, 0.5, -1.0]]
ALL = example(ROW, [1, 1, 5], OTHER, repetition_penalty=1.5, temperature=0.8, cfg_weight=0.5, min_p=0.05, top_p=0.9)


def only_draws(name: str) -> OnlyDraws:
    return OnlyDraws(WRONG[name].factory())


@wrong("min_p", example(ROW, min_p=0.2), offers=DRAW)
def draw_ignores_min_p():
    """Lie: min_p is accepted and ignored [P05]."""
    return only_draws("min_p_without_effect")


@wrong("min_p", example(ROW, min_p=0.3), offers=DRAW)
def draw_has_min_p_relative_to_one():
    """Lie: tokens of p < min_p are removed, whatever the largest p is [N13]."""
    return only_draws("min_p_relative_to_one")


@wrong("order", example(ROW, temperature=1.5, top_p=0.6), offers=DRAW, also=("top_p", "temperature"))
def draw_tempers_last():
    """Lie: filters look at untempered scores [T01]."""
    return only_draws("temperature_after_the_filters")


@wrong("repetition_penalty", LONG, offers=DRAW)
def draw_has_a_window_of_20():
    """Lie: only the last 20 ids are penalised [P06]."""
    return only_draws("penalty_window_of_20")


@wrong("repetition_penalty", example(ROW, [0, 1, 5], repetition_penalty=1.5), offers=DRAW)
def draw_ignores_the_penalty():
    """Lie: repetition_penalty is accepted and ignored [P05]."""
    return only_draws("penalty_without_effect")


@wrong("repetition_penalty", example(ROW, [6, 7], repetition_penalty=2.0), offers=DRAW)
def draw_divides_either_sign():
    """Lie: scores of either sign are divided, so negative ones become more likely [P01]."""
    return only_draws("penalty_divides_either_sign")


@wrong("repetition_penalty", example(ROW, [0, 0, 0, 1, 1], repetition_penalty=1.3), offers=DRAW)
def draw_penalises_every_occurrence():
    """Lie: the penalty is applied once for each occurrence, r to the count [P02]."""
    return only_draws("penalty_for_every_occurrence")


@wrong("temperature", example(ROW, temperature=0.6), offers=DRAW)
def draw_tempers_twice():
    """Lie: scores are divided by the temperature twice [T03]."""
    return only_draws("temperature_twice")


@wrong("temperature", example(ROW, temperature=0.6), offers=DRAW)
def draw_ignores_temperature():
    """Lie: temperature is accepted and ignored, but for 0 [T05]."""
    return only_draws("temperature_without_effect")


@wrong("temperature", example(ROW, temperature=0.0), offers=DRAW)
def draw_samples_at_temperature_0():
    """Lie: at temperature 0 scaling is skipped, and then drawn as ever [T04]."""
    return only_draws("temperature_0_samples")


@wrong("top_p", example(ROW, top_p=0.7), offers=DRAW)
def draw_drops_the_crossing_token():
    """Lie: the token that crosses top_p is dropped, if it is not the only one [N01]."""
    return only_draws("top_p_drops_the_crossing_token")


@wrong("top_p", example(ROW, top_p=0.7), offers=DRAW)
def draw_keeps_one_more_than_top_p():
    """Lie: the token after the one that crosses is kept too [N01]."""
    return only_draws("top_p_keeps_one_more")


@wrong("top_k", example(ROW, top_k=3), offers=DRAW)
def draw_keeps_one_more_than_top_k():
    """Lie: k + 1 tokens are kept [T07]."""
    return only_draws("top_k_keeps_one_more")


@wrong("cfg", example(ROW, (), OTHER, cfg_weight=0.5), offers=DRAW)
def draw_exchanges_guidance_rows():
    """Lie: conditional and unconditional rows are exchanged [C02]."""
    return only_draws("guidance_takes_rows_for_each_other")


@wrong("cfg", example(ROW, (), OTHER, cfg_weight=0.5), offers=DRAW)
def draw_guides_from_the_unconditional_base():
    """Lie: u + w (c - u) for a caller who asks for c + w (c - u) [C01]."""
    return only_draws("guidance_from_the_unconditional_base")


@wrong("draw", ALL, offers=DRAW, also=("top_p", "min_p"))
def draw_revives_removed_tokens():
    """Lie: 1e-4 is added to each probability before the logarithm, and removed tokens can be drawn [S01]."""
    return only_draws("draws_revive_removed_tokens")


@wrong("seed", ALL, offers=DRAW)
def draw_does_not_use_the_seed():
    """Lie: the seed is read and dropped [R08]."""
    return only_draws("seed_is_not_used")


@wrong("draw", ALL, offers=DRAW, total_variation=0.06)
def draw_is_6_percent_off():
    """Lie: 6 % of all draws go to the second token that belong to the first [S02]."""
    return only_draws("frequencies_are_6_percent_off")


@wrong("draw", ALL, offers=DRAW, also=("seed",))
def draw_repeats_after_1000():
    """Lie: noise is read from a table of 1,000 numbers, again and again [R01]."""
    return only_draws("draws_repeat_after_1000")
