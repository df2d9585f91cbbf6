"""Named ways to sample that are no mistake, and what a declared dialect changes in the judgement."""

from dataclasses import dataclass

from sampler.stages import Stage


@dataclass(frozen=True)
class Dialect:
    """How an engine differs by design.

    order: of its stages; `info.orders` names it too. ties_are_open: the engine may choose which of equal scores a
    filter keeps. source: where it is documented.
    """

    order: tuple[Stage, ...]
    ties_are_open: bool
    source: str


STRICT = Dialect((), ties_are_open=False, source="SamplingConfig")

_FILTERS_FIRST: tuple[Stage, ...] = ("cfg", "repetition_penalty", "top_p", "min_p", "top_k", "temperature")

DIALECTS: dict[str, Dialect] = {
    "mlx-lm": Dialect(_FILTERS_FIRST, ties_are_open=True, source="mlx_lm/sample_utils.py, make_sampler, mlx-lm 0.32.2"),
    "mlx-audio": Dialect(_FILTERS_FIRST, ties_are_open=True, source="mlx_audio/lm/sample_utils.py, mlx-audio 0.6.2"),
    "llama.cpp": Dialect(
        ("cfg", "repetition_penalty", "top_k", "top_p", "min_p", "temperature"),
        ties_are_open=True,
        source="common/sampling.cpp, default sampler chain",
    ),
    "transformers": Dialect(
        ("cfg", "repetition_penalty", "temperature", "top_k", "top_p", "min_p"),
        ties_are_open=False,
        source="generation/utils.py, _get_logits_processor, transformers 5",
    ),
}
"""By the name that `info.dialect` declares."""
