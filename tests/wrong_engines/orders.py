"""Every stage is right, and their order is not the one that was asked for."""

from dataclasses import replace

from sampler.stages import STAGES

from .chain import Array, Call, keep_best
from .engines import behind, with_config, with_order, with_stage
from .tables import example, wrong

FILTERS = ("top_k", "min_p", "top_p")


@wrong("order")
def penalty_after_the_filters():
    """Lie: the penalty comes after the filters, so that what they keep ignores it [P12]."""
    return with_order(lambda stages: behind(stages, "repetition_penalty", FILTERS))


@wrong("order", example(temperature=1.5, min_p=0.05, top_p=0.7))
def temperature_after_the_filters():
    """Lie: filters look at untempered scores, the order of llama.cpp and mlx-lm [T01]."""
    return with_order(lambda stages: behind(stages, "temperature", FILTERS))


@wrong("order", example(temperature=1.5, top_p=0.7, order=("top_p", "temperature")))
def temperature_before_the_filters():
    """Lie: temperature comes first even where the caller asks for it last [T02]."""

    def rearrange(stages):
        for stage in FILTERS:
            stages = behind(stages, stage, ["temperature"])
        return stages

    return with_order(rearrange)


ORDER = ("temperature", "top_p", "min_p")


@wrong("order", example(min_p=0.3, top_p=0.6))
def top_p_before_min_p():
    """Lie: top_p comes before min_p, so that its mass is not of what min_p left [N15]."""
    return with_order(lambda stages: behind(stages, "min_p", ["top_p"]))


@wrong("order", example(top_k=4, top_p=0.6))
def top_p_before_top_k():
    """Lie: top_p comes before top_k, so that its mass is not of what top_k left [N15]."""
    return with_order(lambda stages: behind(stages, "top_k", ["top_p"]))


@wrong("order", example(min_p=0.3, top_p=0.6, order=ORDER))
def order_is_always_the_default():
    """Lie: any order is accepted, and the default one is run [P12]."""
    return with_config(lambda config: replace(config, order=tuple(stage for stage in STAGES if stage in config.order)))


@wrong("order")
def order_is_reversed():
    """Lie: processors run from the last to the first [P12]."""
    return with_order(lambda stages: stages[::-1])


@wrong("order", example(min_p=0.3, top_p=0.6, order=("temperature", "min_p")), also=("top_p",))
def order_is_completed():
    """Lie: a stage that the order leaves out runs all the same, at the end [P17]."""
    return with_order(lambda stages: (*stages, *(stage for stage in STAGES if stage not in stages)))


@wrong("order", example(min_p=0.3, top_p=0.6), also=("top_p",))
def order_loses_its_last_stage():
    """Lie: with two stages or more at work the last one of the order is not run [P17]."""

    def rewrite(config):
        at_work = [stage for stage in config.order if stage in config.active_stages()]
        return config.without(at_work[-1:]) if len(at_work) > 1 else config

    return with_config(rewrite)


@wrong("alignment", example([[0.0, 1.0, 2.0]]), also=("order",))
def alignment_forces_an_end():
    """Lie: `alignment`, which does nothing in `process`, ends the text: only the last id is left [A07]."""

    def stage(scores: Array, call: Call) -> Array:
        return keep_best(scores[:, ::-1] * 0, call)[:, ::-1] + scores

    return with_stage(alignment=stage)
