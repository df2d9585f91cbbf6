"""The known mistakes in each stage, as functions of float64 scores: a diagnosis compares answers with them.

Each row is one mistake or dialect that was found in a real sampler. It computes the scores of an engine with this
mistake where the stage runs alone.
"""

from sampler.checks.conformance.diagnosis.alternatives.base import IGNORED, Alternative, agreement, ignored, in_float64
from sampler.checks.conformance.diagnosis.alternatives.filters import MIN_P, TOP_K, TOP_P
from sampler.checks.conformance.diagnosis.alternatives.idle import IDLE
from sampler.checks.conformance.diagnosis.alternatives.occurrence import FREQUENCY, MIN_NEW, PRESENCE, WINDOW
from sampler.checks.conformance.diagnosis.alternatives.padding import padded, sigma, typical
from sampler.checks.conformance.diagnosis.alternatives.scaling import CFG, PENALTY, STRAY_IDS, TEMPERATURE
from sampler.stages import OPTIONAL_STAGES

__all__ = ["ALTERNATIVES", "IGNORED", "STRAY_IDS", "Alternative", "agreement", "in_float64"]

ALTERNATIVES: dict[str, tuple[Alternative, ...]] = {
    **{stage: ignored(stage) for stage in OPTIONAL_STAGES},
    "nothing": IDLE,
    "cfg": CFG,
    "repetition_penalty": PENALTY,
    "temperature": TEMPERATURE,
    "top_k": TOP_K,
    "min_p": MIN_P,
    "top_p": TOP_P,
    "penalty_window": WINDOW,
    "frequency_penalty": FREQUENCY,
    "presence_penalty": PRESENCE,
    "min_new_tokens": MIN_NEW,
    "typical_p": (*ignored("typical_p"), *padded("typical_p", typical, up_to_ties=True)),
    "top_n_sigma": (*ignored("top_n_sigma"), *padded("top_n_sigma", sigma)),
}
"""By the cell that tests the stage alone. The first one that fits is named, so the simple ones come first."""
