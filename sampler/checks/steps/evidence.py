"""The input of the checks of a cell: its runs, the reference, and functions that generate a run again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sampler.engines.base import Engine, Explains, Generation, Request


@dataclass(frozen=True)
class Evidence:
    """The input of the checks of a cell.

    reference: the chain in float64. oracle: an independent engine (HuggingFace), or None and why it is missing.
    reordered: the first, a middle and the last request again, by their places, in the reverse order; alone: request 0
    again, alone; all in the slots that they had. reorder, repeat: generate these two once more. prefix: ids that the
    history of every run begins with (BOS, to which upstream's penalty applies). other_noise: generates request 0 alone
    with noise of another key; other_seed: with another seed as well. exact: the engine promises equal bits, not only
    equal tokens, for equal requests.
    """

    engine: Engine
    reference: Explains
    oracle: Engine | None
    oracle_missing: str
    requests: Sequence[Request]
    generations: Sequence[Generation]
    reordered: Mapping[int, Generation] = field(default_factory=dict)
    alone: Generation | None = None
    reorder: Callable[[], Mapping[int, Generation]] | None = None
    repeat: Callable[[], Generation] | None = None
    prefix: tuple[int, ...] = ()
    other_noise: Callable[[], Generation] | None = None
    other_seed: Callable[[], Generation] | None = None
    exact: bool = True
    known: dict[tuple[int, int], tuple[NDArray[np.uint8], ...]] = field(default_factory=dict)
    """Cached bounds of the reference by request and length of the first history."""

    def ignores_noise(self) -> bool:
        """Whether an engine that should draw at random ignores other noise."""
        return self._same_with(self.other_noise)

    def ignores_seed(self) -> bool:
        """Whether an engine that should draw at random ignores another seed and other noise."""
        return self._same_with(self.other_seed)

    def _same_with(self, other: Callable[[], Generation] | None) -> bool:
        if other is None or self.requests[0].config.greedy:
            return False
        return other().tokens == (self.alone or self.generations[0]).tokens
