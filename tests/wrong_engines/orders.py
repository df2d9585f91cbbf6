"""Every stage is right, and their order is not the one that was asked for."""

from dataclasses import replace

from sampler.stages import STAGES

from .chain import Array, Call, keep_best
from .engines import behind, stage_at, with_config, with_order
from .tables import example, wrong, wrong_rows

FILTERS = ("top_k", "min_p", "top_p")


wrong_rows(
    "order",
    "penalty_after_the_filters: the penalty comes after the filters, so that what they keep ignores it [P12].",
    lambda: with_order(lambda stages: behind(stages, "repetition_penalty", FILTERS)),
    "temperature_after_the_filters: filters look at untempered scores, the order of llama.cpp and mlx-lm [T01].",
    lambda: with_order(lambda stages: behind(stages, "temperature", FILTERS)),
    example(temperature=1.5, min_p=0.05, top_p=0.7),
)


@wrong("order", example(temperature=1.5, top_p=0.7, order=("top_p", "temperature")), of=with_order)
def temperature_before_the_filters(stages):
    """Fault: temperature comes first even where the caller asks for it last [T02]."""
    for stage in FILTERS:
        stages = behind(stages, stage, ["temperature"])
    return stages


ORDER = ("temperature", "top_p", "min_p")


wrong_rows(
    "order",
    "top_p_before_min_p: top_p comes before min_p, so that its mass is not of what min_p left [N15].",
    lambda: with_order(lambda stages: behind(stages, "min_p", ["top_p"])),
    example(min_p=0.3, top_p=0.6),
    "top_p_before_top_k: top_p comes before top_k, so that its mass is not of what top_k left [N15].",
    lambda: with_order(lambda stages: behind(stages, "top_k", ["top_p"])),
    example(top_k=4, top_p=0.6),
    "order_is_always_the_default: any order is accepted, and the default one is run [P12].",
    lambda: with_config(
        lambda config: replace(config, order=tuple(stage for stage in STAGES if stage in config.order))
    ),
    example(min_p=0.3, top_p=0.6, order=ORDER),
    "order_is_reversed: processors run from the last to the first [P12].",
    lambda: with_order(lambda stages: stages[::-1]),
)


@wrong("order", example(min_p=0.3, top_p=0.6), also=("top_p",), of=with_config)
def order_loses_its_last_stage(config):
    """Fault: with two stages or more at work the last one of the order is not run [P17]."""
    at_work = [stage for stage in config.order if stage in config.active_stages()]
    return config.without(at_work[-1:]) if len(at_work) > 1 else config


@wrong("alignment", example([[0.0, 1.0, 2.0]]), also=("order",), of=stage_at("alignment"))
def alignment_forces_an_end(scores: Array, call: Call) -> Array:
    """Fault: `alignment`, which does nothing in `process`, ends the text: only the last id is left [A07]."""
    return keep_best(scores[:, ::-1] * 0, call)[:, ::-1] + scores
