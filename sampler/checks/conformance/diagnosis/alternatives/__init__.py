"""What is known to go wrong in each stage, as functions of float64 scores: the library that a diagnosis compares with.

Each row is one mistake or dialect that was found in a real sampler. It gives the scores that an engine with this
mistake would have where the stage stands alone.
"""

from sampler.checks.conformance.diagnosis.alternatives.base import IGNORED, Alternative, agreement, in_float64
from sampler.checks.conformance.diagnosis.alternatives.filters import MIN_P, TOP_K, TOP_P
from sampler.checks.conformance.diagnosis.alternatives.idle import IDLE
from sampler.checks.conformance.diagnosis.alternatives.scaling import CFG, PENALTY, STRAY_IDS, TEMPERATURE

__all__ = ["ALTERNATIVES", "IGNORED", "STRAY_IDS", "Alternative", "agreement", "in_float64"]

ALTERNATIVES: dict[str, tuple[Alternative, ...]] = {
    "nothing": IDLE,
    "cfg": CFG,
    "repetition_penalty": PENALTY,
    "temperature": TEMPERATURE,
    "top_k": TOP_K,
    "min_p": MIN_P,
    "top_p": TOP_P,
}
"""By the cell in which the stage stands alone; the first that fits is named, so the plain ones come first."""
