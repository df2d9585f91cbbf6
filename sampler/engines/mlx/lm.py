"""mlx-lm's logits processors and sampler (`mlx_lm/sample_utils.py`, read in 0.32.2)."""

from sampler.engines.mlx.sampling import MakeSamplerEngine, Source


class MlxLmEngine(MakeSamplerEngine):
    """Called as `BatchGenerator` of mlx-lm calls them: the penalty row by row, the rest on the batch."""

    source = Source("mlx-lm", "mlx_lm", "sample_utils.py", "pip install mlx-lm==0.32.2")
    dialect = "mlx-lm"
