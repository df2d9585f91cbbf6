"""What the optional stages are tested with, each alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sampler.checks.conformance.probes import Maker, Probe, ProbeSet, label
from sampler.checks.conformance.rows import FAR, FEW_KINDS, KINDS, LONG_REPEATS, repeats
from sampler.checks.conformance.settings import ALL_ON, EXTREME, LOOPING, NEUTRAL, OPTIONAL, WINDOWED
from sampler.config import SamplingConfig
from sampler.stages import ALL_STAGES, OPTIONAL_STAGES, Stage

SEVERAL = tuple(kind for kind in KINDS if kind != "single")
"""Rows of which a stage that removes single ids leaves something."""

LEAST = 5
"""Tokens to generate before EOS is allowed, where the step is near it."""


def optional_cells(seed: int) -> Iterator[ProbeSet]:
    """Cells of stages that are tested only if an engine names them."""
    for stage, settings in OPTIONAL.items():
        maker = Maker(stage, seed)
        probes = [
            maker.make(f"{label(knobs)}, V={size}", replace(NEUTRAL, **knobs), size, SEVERAL)
            for knobs in settings
            for size in (300, 17)
        ]
        special = (*_extreme(maker, stage), *_special(maker, stage, settings))
        yield ProbeSet(stage, (stage,), (*probes, *special), optional=True)
    maker = Maker("penalty_window", seed)
    probes = [maker.make(f"{label(knobs)}, V=300", replace(NEUTRAL, **knobs), 300, KINDS) for knobs in WINDOWED]
    yield ProbeSet("penalty_window", ("repetition_penalty",), tuple(probes), optional=True)
    maker = Maker("chain:further", seed)
    knobs = {name: value for stage in OPTIONAL_STAGES for name, value in OPTIONAL[stage][0].items()}
    config = SamplingConfig(**{**ALL_ON, **knobs, "no_repeat_ngram_size": 3})
    probe = maker.make("V=300", config, 300, FEW_KINDS)
    stages = tuple(stage for stage in ALL_STAGES if stage in config.active_stages())
    yield ProbeSet("chain:further", stages, (probe,), optional=True)


def _extreme(maker: Maker, stage: Stage) -> Iterator[Probe]:
    """Parameters near the ends of their ranges, logits near +-100, and a vocabulary larger than any block."""
    for knobs in EXTREME.get(stage, ()):
        yield maker.make(f"{label(knobs)}, V=300", replace(NEUTRAL, **knobs), 300, SEVERAL)
    first = OPTIONAL[stage][0]
    config = replace(NEUTRAL, **first)
    yield maker.make(f"{label(first)}, logits of 95, V=300", config, 300, FAR)
    yield maker.make(f"{label(first)}, V=151936", config, 151_936, ("flat", "ordinary"))


def _special(maker: Maker, stage: Stage, settings: Sequence[Mapping[str, Any]]) -> Iterator[Probe]:
    """Probes with special histories, EOS ids or logits: repeats, ids outside the vocabulary, an exact threshold."""
    if stage in ("dry_multiplier", "no_repeat_ngram_size"):
        for knobs in (*settings, *(EXTREME.get(stage, ()) if stage == "no_repeat_ngram_size" else ())):
            probe = maker.make(f"{label(knobs)}, short repeats, V=17", replace(NEUTRAL, **knobs), 17, SEVERAL)
            yield replace(probe, history=repeats(len(SEVERAL)))
            yield replace(
                maker.make(f"{label(knobs)}, long repeats, V=17", replace(NEUTRAL, **knobs), 17, FEW_KINDS),
                history=[list(ids) for ids in LONG_REPEATS],
            )
    if stage == "dry_multiplier":
        for knobs in LOOPING:
            probe = maker.make(f"{label(knobs)}, a loop, V=17", replace(NEUTRAL, **knobs), 17, ("ordinary",))
            yield replace(probe, history=[[3, 5, 2] * 45])
    if stage in ("frequency_penalty", "presence_penalty"):
        probe = maker.make("all prompt, or none, V=300", replace(NEUTRAL, **settings[0]), 300, FEW_KINDS)
        yield replace(probe, prompts=tuple(0 if row % 2 else len(ids) for row, ids in enumerate(probe.history)))
    if stage == "min_new_tokens":
        probe = maker.make(f"{label(settings[0])}, EOS outside", replace(NEUTRAL, **settings[0]), 17, SEVERAL)
        yield replace(probe, eos_ids=(16, 17, 40))
        yield _near_the_step(maker)
    if stage == "top_n_sigma":
        row = np.array([[3, 1, 1, 3, 3, 1, 1, 3]], dtype=np.float32)  # mean 2, deviation 1
        yield replace(
            maker.make("exactly two deviations, V=8", replace(NEUTRAL, top_n_sigma=2.0), 8, ("tied",), logits=row),
            kept=np.ones((1, 8), dtype=np.bool_),
        )


def _near_the_step(maker: Maker) -> Probe:
    """Rows of which 0 to 8 tokens were drawn, each without a prompt and after one of 4 ids."""
    drawn = (*range(9), *range(9))
    prompts = (0,) * 9 + (4,) * 9
    config = replace(NEUTRAL, min_new_tokens=LEAST)
    probe = maker.make(f"min_new_tokens={LEAST} at steps 0 to 8, V=17", config, 17, ("ordinary",) * len(drawn))
    lengths = [prompt + count for prompt, count in zip(prompts, drawn, strict=True)]
    return replace(
        probe, history=[[(3 * place) % 17 for place in range(length)] for length in lengths], prompts=prompts
    )
