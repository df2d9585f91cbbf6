"""Wrong rules of generation: a variant in, the same with one fault out. Upstream's own loop is the oracle.

None of these shows in an engine's own logits, so `sampler check` of one engine alone passes over them.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sampler.variants import Variant
from tests.wrong_engines.tables import flat, named

Fault = Callable[[Variant], Variant]


def rules(*items: Any) -> tuple[Fault, ...]:
    """From rows "name: fault", changes of a variant; those of its analyzer and its config stand in a dict within."""

    def fault(changes: dict[str, Any]) -> Fault:
        def change(variant: Variant) -> Variant:
            parts = {
                name: replace(getattr(variant, name), **value) if isinstance(value, dict) else value
                for name, value in changes.items()
            }
            return variant.model_copy(update=parts)

        return change

    return tuple(named(fault(changes), name, f"Fault: {sentence}") for name, sentence, (changes,) in flat(*items))


ONE_BOS = "misses_the_second_bos: one BOS row in place of two, so that every rotary position is one too low [A10]."

WRONG_RULES: dict[str, tuple[Fault, ...]] = {
    "en-0.1.3": rules(ONE_BOS, {"bos_count": 1}),
    "en-0.1.2-nocfg": rules(
        "has_a_second_bos: two BOS rows where upstream without guidance has one [A10].",
        {"bos_count": 2},
    ),
    "mtl-0.1.6": rules(
        ONE_BOS,
        {"bos_count": 1},
        "waits_for_three_equal_tokens: "
        "three equal tokens force EOS, as upstream's comment says and its code does not [A11].",
        {"analyzer": {"equal_tokens": 3}},
        "suppresses_after_it_forced: EOS is suppressed after it was forced: every token is equally likely [A12].",
        {"analyzer": {"force_wins": False}},
        "never_suppresses: EOS is drawn before the text was read [A13].",
        {"analyzer": {"suppress": False}},
        "has_no_analyzer: the analyzer was not ported [A14].",
        {"analyzer": None},
        "lets_short_texts_pass: texts are spoken on which upstream as it is raises [A15].",
        {"analyzer": {"short_texts": "guard"}},
    ),
    "turbo": rules(
        "penalizes_bos_at_every_step: BOS stays in the history behind the first step [P07].",
        {"penalty_history": "bos_and_generated"},
        "never_penalizes_bos: BOS is not in the history at all [P07].",
        {"penalty_history": "generated"},
        "penalizes_before_the_filters: the penalty comes first, where Turbo has it last [T01].",
        {"config": {"order": ("repetition_penalty", "temperature", "top_k", "top_p")}},
        "ends_with_the_first_token: EOS as the first token ends the run, where Turbo does not check it [E03].",
        {"first_token_ends": True},
        "stops_at_the_cap: the cap is the number of tokens, where Turbo draws one more [E02].",
        {"beyond_cap": 0},
    ),
}
