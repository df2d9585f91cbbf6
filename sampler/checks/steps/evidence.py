"""The input of the checks of a cell: its runs, the reference, and functions that generate a run again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampler.checks.steps.precision import Precision, precision_of
from sampler.checks.verdict import Finding
from sampler.engines.base import Engine, Explains, Generation, Predicts, Request


@dataclass(frozen=True)
class Evidence:
    """The input of the checks of a cell.

    reference: the chain in float64. oracle: an independent engine (HuggingFace), or None and why it is missing.
    reordered: the first, a middle and the last request again, by their places, in the reverse order; alone: request 0
    again, alone; all in the slots that they had. reorder, repeat: generate these two once more. prefix: ids that the
    history of every run begins with (BOS, to which upstream's penalty applies). other_noise: generates request 0 alone
    with noise of another key; other_seed: with another seed as well. exact: the engine promises equal bits, not only
    equal tokens, for equal requests. reseeded: what other_seed gave. model: predicts the logits of the engine's model:
    the engine itself or one of the suite's; None if neither is known. model_name: for messages. analyzed: whether the
    engine has an alignment analyzer, None if it does not say. alpha: the false-alarm rate of a statistical check.
    further: generates more runs of the cell's texts with other seeds, from the number of the first one and how many are
    wanted; it may give fewer. own_noise: whether the engine is known to ignore the suite's noise.
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
    reseeded: Generation | None = None
    model: Predicts | None = None
    model_name: str = ""
    analyzed: bool | None = None
    alpha: float = 1e-6
    further: Callable[[int, int], tuple[Sequence[Request], Sequence[Generation]]] | None = None
    own_noise: bool = False
    known: dict[tuple[int, int], tuple[NDArray[np.uint8], ...]] = field(default_factory=dict)
    """Cached bounds of the reference by request and length of the first history."""

    noise: dict[tuple[int, int], NDArray[np.float32]] = field(default_factory=dict)
    """Cached noise of the suite, likewise."""

    judged: dict[int, NDArray[np.bool_]] = field(default_factory=dict)
    """Cached answers of `judged_steps`, by request."""

    findings: dict[str, Finding] = field(default_factory=dict)
    """Answers that another check needs, by check."""

    def of_others(self, requests: Sequence[Request], generations: Sequence[Generation]) -> "Evidence":
        """The same for other runs of an engine that is known to draw with noise of its own, and nothing cached."""
        own: dict[str, Any] = {name: {} for name in ("known", "noise", "judged", "findings")}
        own |= {"further": None, "other_seed": None, "own_noise": True}
        return replace(self, requests=requests, generations=generations, **own)

    @cached_property
    def precision(self) -> Precision:
        """That of the recorded logits."""
        return precision_of(self.engine.info.dtype, self.generations)

    def guided(self, index: int) -> bool:
        """Whether a request asks for guidance."""
        return "cfg" in self.requests[index].config.active_stages()

    def ignores_noise(self) -> bool:
        """Whether an engine that should draw at random ignores other noise."""
        if self.own_noise:
            return True
        if self.other_noise is None or self.requests[0].config.greedy:
            return False
        return self.other_noise().tokens == (self.alone or self.generations[0]).tokens
