"""Wrong rules of generation: a variant in, the same with one lie out. The oracle that sees them is upstream's own loop.

None of these shows in an engine's own logits, so `sampler check` of one engine alone passes over them.
"""

from collections.abc import Callable
from dataclasses import replace

from sampler.variants import Variant

Lie = Callable[[Variant], Variant]


def misses_the_second_bos(variant: Variant) -> Variant:
    """Lie: one BOS row in place of two, so that every rotary position is one too low [A10]."""
    return variant.model_copy(update={"bos_count": 1})


def has_a_second_bos(variant: Variant) -> Variant:
    """Lie: two BOS rows where upstream without guidance has one [A10]."""
    return variant.model_copy(update={"bos_count": 2})


def waits_for_three_equal_tokens(variant: Variant) -> Variant:
    """Lie: three equal tokens force EOS, as upstream's comment says and its code does not [A11]."""
    return variant.model_copy(update={"analyzer": replace(variant.analyzer, equal_tokens=3)})


def suppresses_after_it_forced(variant: Variant) -> Variant:
    """Lie: EOS is suppressed after it was forced, so that every token is equally likely [A12]."""
    return variant.model_copy(update={"analyzer": replace(variant.analyzer, force_wins=False)})


def never_suppresses(variant: Variant) -> Variant:
    """Lie: EOS is drawn before the text was read [A13]."""
    return variant.model_copy(update={"analyzer": replace(variant.analyzer, suppress=False)})


def has_no_analyzer(variant: Variant) -> Variant:
    """Lie: the analyzer was not ported [A14]."""
    return variant.model_copy(update={"analyzer": None})


def lets_short_texts_pass(variant: Variant) -> Variant:
    """Lie, to one who asks for upstream as it is: texts on which it raises are spoken [A15]."""
    return variant.model_copy(update={"analyzer": replace(variant.analyzer, short_texts="guard")})


def penalizes_bos_at_every_step(variant: Variant) -> Variant:
    """Lie: BOS stays in the history behind the first step [P07]."""
    return variant.model_copy(update={"penalty_history": "bos_and_generated"})


def never_penalizes_bos(variant: Variant) -> Variant:
    """Lie: BOS is not in the history at all [P07]."""
    return variant.model_copy(update={"penalty_history": "generated"})


def penalizes_before_the_filters(variant: Variant) -> Variant:
    """Lie: the penalty comes first, where Turbo has it last [T01]."""
    order = ("repetition_penalty", "temperature", "top_k", "top_p")
    return variant.model_copy(update={"config": replace(variant.config, order=order)})


def ends_with_the_first_token(variant: Variant) -> Variant:
    """Lie: EOS as the first token ends the run, where Turbo does not look [E03]."""
    return variant.model_copy(update={"first_token_ends": True})


def stops_at_the_cap(variant: Variant) -> Variant:
    """Lie: the cap is the number of tokens, where Turbo draws one more [E02]."""
    return variant.model_copy(update={"beyond_cap": 0})


LIES: dict[str, tuple[Lie, ...]] = {
    "en-0.1.3": (misses_the_second_bos,),
    "en-0.1.2-nocfg": (has_a_second_bos,),
    "mtl-0.1.6": (
        misses_the_second_bos,
        waits_for_three_equal_tokens,
        suppresses_after_it_forced,
        never_suppresses,
        has_no_analyzer,
        lets_short_texts_pass,
    ),
    "turbo": (
        penalizes_bos_at_every_step,
        never_penalizes_bos,
        penalizes_before_the_filters,
        ends_with_the_first_token,
        stops_at_the_cap,
    ),
}
