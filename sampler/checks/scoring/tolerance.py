"""By how much right engines of a precision may differ from the reference: the classes of scoring.

What is proved: let a bet pay v_t >= 0 at step t, be divided by what it may expect in the class (`Bets.place`), and
E_t be the expectation of what is left under what the engine really draws, given everything before. The product of
v_s / E_s is a martingale, so that wealth above e^slack / alpha has a probability of at most alpha wherever the sum of
ln E_s over the steps so far never exceeds `slack`. Each bet begins with e^-slack, so that 1 / alpha is the bound.
A step of a chi distance of at most kappa_t has E_t <= 1 for every bet (`sampler.statistics.chi`), as has a step at
which tokens beyond an edge, or lost ones, have at most the declared probability; a distance of chi_t adds at most
ln(chi_t / kappa_t). In float32 the logits of right engines are within `logit` at each step, and slack is 0.

What is measured: chi distances of half precision have a long tail, ten times the median, so that a bound which holds at
every step would leave no bet anything to win. Over many steps the sum falls, as kappa is above the mean distance. The
largest sums that were found, of all alternatives, stand in docs/decisions.md ("Scoring");
`python -m tests.tools.measurements.half_precision` measures them.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from sampler.checks.scoring.named import Named


class Beyond(NamedTuple):
    """Tokens that no chain keeps on logits within `edge` nats of the reference's: at most `rate` of all tokens.

    lost: at most so many that cannot have won, on such logits, with the noise that the engine was given.
    """

    edge: float
    rate: float
    lost: float

    @property
    def named(self) -> Named:
        """What an engine does that draws more of them."""
        share = f"more than {self.rate:.2g} of the tokens beyond what logits {self.edge:g} nats off allow"
        return Named("precision", f"larger errors of the logits ({share})")


@dataclass(frozen=True)
class Tolerance:
    """By how much a right engine's logits may differ from the reference's, in nats.

    edge: before a token counts as impossible. logit: for what bets are paid: at every token, or, in a class with a
    slack, as the typical error of which kappa follows. beyond: tokens below the edge that are rare, the least deep ones
    first. slack: nats by which steps of larger errors may favour a bet, altogether.
    """

    name: str
    edge: float
    logit: float
    beyond: tuple[Beyond, ...] = ()
    slack: float = 0.0

    @property
    def edges(self) -> tuple[float, ...]:
        """All edges, the narrowest first; tokens within it are kept for sure."""
        return (*(each.edge for each in self.beyond), self.edge)

    @property
    def note(self) -> str:
        """For messages; empty for float32."""
        return f", in {self.name}'s tolerance" if self.slack else ""


SINGLE: Final = Tolerance("float32", edge=2e-3, logit=5e-5)
"""Logits of Finch differed by 1.4e-5 between implementations, and by up to 3.3e-5 between a run alone and the same
run beside others (docs/decisions.md, "Scoring")."""

TOLERANCES: Final = {
    "float32": SINGLE,
    "float16": Tolerance("float16", 0.05, 5.5e-3, (Beyond(4e-3, 1e-3, 3e-3), Beyond(0.01, 5e-4, 1e-3)), slack=2.0),
    "bfloat16": Tolerance("bfloat16", 0.4, 0.045, (Beyond(0.02, 3e-3, 2e-2), Beyond(0.06, 5e-4, 5e-3)), slack=2.0),
}
"""By precision of the network; the chain may be in the same precision."""


def tolerance_of(dtype: str) -> Tolerance:
    """The class of an engine's dtype; the widest for one that has none of its own."""
    return SINGLE if dtype == "float64" else TOLERANCES.get(dtype, TOLERANCES["bfloat16"])
