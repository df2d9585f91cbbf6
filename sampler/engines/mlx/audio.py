"""mlx-audio's logits processors and sampler (`mlx_audio/lm/sample_utils.py`, read in 0.6.2), a copy of mlx-lm's.

Its own `generate_step` passes log-probabilities to the sampler, as the docstring of `make_sampler` requires. Several of
its models pass raw logits instead; that is a separate engine (`docs/findings.md`).
"""

from sampler.engines.mlx.sampling import MakeSamplerEngine, Source


class MlxAudioEngine(MakeSamplerEngine):
    """Called as `lm/generate.py` of mlx-audio calls them."""

    source = Source("mlx-audio", "mlx_audio", "lm/sample_utils.py", "pip install --no-deps mlx-audio==0.6.2")
    dialect = "mlx-audio"
