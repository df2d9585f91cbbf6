"""Wrong engines that declare what they do not do, or hide behind a tolerance."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from sampler.engines.base import EngineInfo
from sampler.stages import STAGES as NAMES

from .chain import STAGES, Array
from .engines import INFO, Miniature, OnlyProcesses, WithoutPick, with_stage
from .right_answers import masking, rounded, to_bfloat16
from .right_limits import saying
from .right_rules import MLX_LM, WITH_EOS, declaring, every_tie, exactly_k, in_order, on_top_p, window
from .tables import PROCESS, Example, example, spread, wrong_rows

TIED = np.array([[2.0, 1.0, 1.0, 1.0, 0.5, 1.0, -1.0, 0.0]])


def liar(
    rule: str, value: Any = True, engine: Callable[[], Any] = Miniature, info: EngineInfo = INFO
) -> Callable[[], Any]:
    """Declares a rule that it does not follow."""
    return lambda: WithoutPick(saying(engine(), replace(info, rules={rule: value})))


def rounded_and_colder() -> Any:
    engine = rounded(to_bfloat16, to_bfloat16, "bfloat16").engine
    process = engine.process

    def colder(logits: Array, history: Any, config: Any, uncond_logits: Array | None = None) -> Array:
        off = config.temperature if config.temperature == 1 else config.temperature * 0.92
        return process(logits, history, replace(config, temperature=off), uncond_logits)

    engine.process = colder
    return OnlyProcesses(engine)


LONG: Example = example(history=[3, 5, *[7] * 40], repetition_penalty=1.5)

wrong_rows(
    "top_k",
    "declares_exactly_k_and_keeps_ties: says that top_k keeps exactly k at ties, and keeps them all [T07].",
    liar("top_k_ties", "exact"),
    example(TIED, top_k=2),
    "declares_every_tie_and_drops_some: says that top_p keeps every tie with its last token, and does not [T06].",
    liar("top_p_ties", "all"),
    example(TIED, top_p=0.6),
    {"stage": "top_p"},
    "declares_a_dropped_token_and_keeps_it: says that top_p drops the token that crosses, and keeps it [T06].",
    liar("top_p_crossing", "dropped"),
    example(top_p=0.7),
    {"stage": "top_p"},
    "declares_that_the_mass_exceeds_and_stops_there: says that the mass must exceed top_p, and it need not [T06].",
    liar("top_p_crossing", "exceeds"),
    example(np.zeros((1, 8)), top_p=0.5),
    {"stage": "top_p"},
    "declares_an_absolute_min_p_and_has_none: says that min_p is absolute, and it is not [T03].",
    liar("min_p_relative_to", "total"),
    example(min_p=0.2),
    {"stage": "min_p"},
    "declares_a_window_of_64_and_has_32: says that the penalty sees 64 ids, and it sees 32 [P06].",
    liar("penalty_window", 64, lambda: with_stage(repetition_penalty=window(32))),
    LONG,
    {"stage": "repetition_penalty"},
    "declares_a_window_and_has_none: says that the penalty sees 64 ids, and it sees all [P06].",
    liar("penalty_window", 64),
    example(history=[3, 5, *[7] * 80], repetition_penalty=1.5),
    {"stage": "repetition_penalty"},
    "declares_counts_and_has_none: says that the penalty acts for each occurrence, and it acts once [P04].",
    liar("penalty_counts"),
    example(history=[3, 3, 3, 5], repetition_penalty=1.5),
    {"stage": "repetition_penalty"},
    "declares_that_eos_is_kept_and_removes_it: says that no filter removes EOS, and top_k does [E01].",
    liar("filters_spare_eos", info=WITH_EOS),
    example(spread(), top_k=1),
    {"stage": "top_k", "also": ("min_p", "top_p"), "seen": PROCESS},
    "declares_temperature_last_and_has_it_first: says that temperature comes last, and does what the order says [T01].",
    liar("temperature_last"),
    example(temperature=1.5, min_p=0.05, top_p=0.7),
    {"stage": "order"},
    "declares_the_highest_id_and_takes_the_lowest: says that greedy takes the highest id, and it does not [T05].",
    liar("greedy_ties", "highest"),
    example([[1.0, 2.0, 2.0]], temperature=0.0),
    {"stage": "temperature"},
    "declares_mlx_lm_and_keeps_ties: says that it is as mlx-lm, and top_k keeps every tie [T07].",
    lambda: declaring(in_order(MLX_LM, top_p=on_top_p(every_tie)), dialect="mlx-lm"),
    example(TIED, top_k=2, order=MLX_LM),
    "declares_mlx_lm_and_tempers_first: says that it is as mlx-lm, and runs the default order [T01].",
    lambda: declaring(in_order(NAMES, top_k=exactly_k, top_p=on_top_p(every_tie)), dialect="mlx-lm"),
    example(temperature=1.5, min_p=0.05, top_p=0.7, order=MLX_LM),
    {"stage": "order"},
)

wrong_rows(
    "draw",
    "mask_of_40_nats: removed tokens are 40 nats below the best, which is within reach [S01].",
    lambda: masking(lambda scores: scores.max(axis=-1, keepdims=True) - 40),
    example(top_k=3),
    {"also": ("purity",), "seen": PROCESS},
    "mask_of_70_nats: removed tokens are 70 nats below the best, which the contract does not allow [S01].",
    lambda: masking(lambda scores: scores.max(axis=-1, keepdims=True) - 70),
    example(top_k=3),
    {"also": ("purity",), "seen": PROCESS},
    "bfloat16_that_is_off_by_more: says that it computes in bfloat16, and its temperature is 8 % too low [S05].",
    rounded_and_colder,
    example(temperature=0.8),
    {"stage": "temperature", "offers": PROCESS, "also": ("purity",)},
    "claims_typical_p_and_has_none: names typical_p, and ignores it [N14].",
    lambda: OnlyProcesses(
        Miniature(
            {**STAGES, "typical_p": lambda scores, call: scores},
            info=replace(INFO, supports=frozenset({*NAMES, "typical_p"})),
        )
    ),
    example(typical_p=0.5),
    {"stage": "typical_p", "offers": PROCESS},
)
