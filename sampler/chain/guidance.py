"""Classifier-free guidance: mixing conditional and unconditional logits."""

import mlx.core as mx

from sampler.chain.knobs import Knobs


def guide(logits: mx.array, uncond_logits: mx.array, knobs: Knobs) -> mx.array:
    """Mix raw logits: c + w (c - u), or u + w (c - u) in the `unconditional` convention; (B, V) -> (B, V).

    What is removed in the conditional logits stays removed. Sources: `T3.inference` in `models/t3/t3.py` of
    chatterbox-tts 0.1.7 and DiaClassifierFreeGuidanceLogitsProcessor of transformers (conditional);
    arXiv:2306.05284 (MusicGen), section 2.2 (unconditional). The two are equal where the second weight is 1 + w.
    """
    base = mx.where(knobs.from_unconditional, uncond_logits, logits)
    mixed = base + knobs.cfg_weight * (logits - uncond_logits)
    neutral = (knobs.cfg_weight == 0) & ~knobs.from_unconditional  # else 0 times an infinite difference would be NaN
    return mx.where(neutral | (logits == -mx.inf), logits, mixed)
