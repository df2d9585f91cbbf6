"""By how much right engines of a precision may differ from the reference."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """By how much a right engine's logits may differ from the reference's, in nats.

    edge: before a token counts as impossible. logit: for what bets are paid.
    """

    name: str
    edge: float
    logit: float


SINGLE = Tolerance("float32", edge=2e-3, logit=5e-5)
"""Right float32 implementations of Finch differ by at most 1.4e-5 (docs/decisions.md, "Scoring")."""
