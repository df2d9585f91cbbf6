"""What the checks of a cell look at: its runs, the reference, and ways to generate a run once more."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sampler.engines.base import Engine, Explains, Generation, Request


@dataclass(frozen=True)
class Evidence:
    """What the checks of a cell look at.

    reference: the chain in float64. oracle: an engine that others wrote (HuggingFace), or None and why it is missing.
    alone: request 0 again, by itself, in the same slot, twice. prefix: ids that the history of every run begins with
    (BOS, as upstream's penalty sees it). other_noise: generates request 0 alone with noise of another key; other_seed:
    with another seed as well. exact: the engine promises equal bits, not only equal tokens, for equal requests.
    """

    engine: Engine
    reference: Explains
    oracle: Engine | None
    oracle_missing: str
    requests: Sequence[Request]
    generations: Sequence[Generation]
    alone: Sequence[Generation] = ()
    prefix: tuple[int, ...] = ()
    other_noise: Callable[[], Generation] | None = None
    other_seed: Callable[[], Generation] | None = None
    exact: bool = True
    known: dict[tuple[int, int], tuple[NDArray[np.uint8], ...]] = field(default_factory=dict)
    """What the reference said of some steps (request, length of the first history), for the checks that come after."""

    def ignores_noise(self) -> bool:
        """Whether other noise makes no difference to an engine that should draw at random."""
        return self._same_with(self.other_noise)

    def ignores_seed(self) -> bool:
        """Whether another seed and other noise make no difference to an engine that should draw at random."""
        return self._same_with(self.other_seed)

    def _same_with(self, other: Callable[[], Generation] | None) -> bool:
        if other is None or self.requests[0].config.greedy or not self.alone:
            return False
        return other().tokens == self.alone[0].tokens
