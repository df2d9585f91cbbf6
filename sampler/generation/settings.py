"""Settings of generation with a checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from sampler.alignment import AnalyzerConfig
from sampler.chain.pipeline import Scores, run_rows
from sampler.errors import ConfigError
from sampler.requests import Request
from sampler.t3.checkpoint import Checkpoint
from sampler.variants import PenaltyHistory

Chain = Callable[..., Scores]
"""As `run_rows`: a Batch, and the decisions of an analyzer if there is one, to scores."""


@dataclass(frozen=True)
class Settings:
    """One checkpoint and the rules of its generation. width: slots of a block.

    chain: logits to scores, exchangeable to test the checks with a wrong chain. analyzer: decides at the stage
    `alignment`; None: no analyzer. bos_count: BOS rows of the prefix, None for upstream's number; it and the fields
    after analyzer are those of `Variant`. attention: of steps; `mlx` computes each slot with MLX's own operation,
    `auto` uses, on the CPU in float32, a kernel that reads all slots' keys and values in place.
    """

    checkpoint: Checkpoint
    width: int = 16
    bos_count: int | None = None
    keep_logits: bool = False
    keep_attention: bool = False
    chain: Chain = run_rows
    analyzer: AnalyzerConfig | None = None
    penalty_history: PenaltyHistory = "bos_and_generated"
    first_token_ends: bool = True
    beyond_cap: int = 0
    attention: Literal["auto", "mlx"] = "auto"

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"width = {self.width} slots", hint="expected 1 or more")
        if self.bos_count not in (None, 1, 2):
            raise ConfigError(f"bos_count = {self.bos_count}", hint="expected 1 or 2")
        if self.analyzer is not None and not self.checkpoint.config.aligned_heads:
            name = self.checkpoint.config.name
            raise ConfigError(f"{name} has no aligned heads", hint="an analyzer reads their attention; give none")

    def positions(self, request: Request, text: Sequence[int]) -> int:
        """The largest number of positions of a request: prefix and speech."""
        before = self.checkpoint.model.prefix_length(text, self.checkpoint.voice, self.bos_count)
        return before + request.max_new_tokens + self.beyond_cap
