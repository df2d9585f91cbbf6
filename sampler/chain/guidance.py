"""Classifier-free guidance: mixing conditional and unconditional logits."""

import numpy as np

from sampler.chain.knobs import Knobs
from sampler.chain.survivors import FloatRows


def guide(logits: FloatRows, uncond_logits: FloatRows, knobs: Knobs) -> FloatRows:
    """Mix raw logits: c + w (c - u), or u + w (c - u) in the `unconditional` convention; (B, V) -> (B, V).

    Tokens that are removed in the conditional logits stay removed. Sources: `T3.inference` in `models/t3/t3.py` of
    chatterbox-tts 0.1.7 and DiaClassifierFreeGuidanceLogitsProcessor of transformers (conditional);
    arXiv:2306.05284 (MusicGen), section 2.2 (unconditional). The two are equal where the second weight is 1 + w.
    """
    mixed = logits - uncond_logits
    mixed *= knobs.cfg_weight
    away = knobs.from_unconditional
    mixed += np.where(away, uncond_logits, logits) if away.any() else logits
    neutral = (knobs.cfg_weight == 0) & ~away  # 0 times an infinite difference would be NaN
    for stays in (neutral, logits == -np.inf):
        if stays.any():
            np.copyto(mixed, logits, where=stays)
    return mixed
