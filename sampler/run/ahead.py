"""Teacher forcing of many runs, some of the next ones together with the one that is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sampler.checks.steps.teacher import predicted
from sampler.engines.base import Predicts
from sampler.engines.core import CoreEngine, Drawn
from sampler.requests import Logits, Request
from sampler.t3.branches import Prefixes

MOST_AT_ONCE = 2**27
"""Bytes of logits that are computed together, unless one run has more: 2,000 tokens of a full-size model."""

MOST_KEPT = 2**29
"""Bytes of logits that are kept; those of earlier runs are computed again when they are asked for."""

Predicted = tuple[Logits, Sequence[str]]
"""The logits of a run (T, 2 with guidance else 1, V), and what an analyzer says at each step, if there is one."""


@dataclass
class Ahead:
    """The logits of runs, each a request and its tokens, which are all ids of the vocabulary.

    prefixes: of the core's earlier passes.

    Most wrong engines show in their first run. So the core computes one run, then the next 2, 4, 8 ... in one pass;
    other engines are asked for each run.
    """

    engine: Predicts
    runs: Sequence[tuple[Request, Sequence[int]]]
    guided: bool
    prefixes: Prefixes | None = None
    _count: int = 1
    _known: dict[int, Predicted] = field(default_factory=dict)

    def of(self, place: int) -> Predicted:
        """The logits of a run that has a token."""
        if place not in self._known:
            self._compute(place)
        return self._known[place]

    def _compute(self, place: int) -> None:
        engine, (request, tokens) = self.engine, self.runs[place]
        if isinstance(engine, CoreEngine):
            analyzed = engine.analyzes and "alignment" in request.config.order
            chosen = self._next(place)
            drawn = [Drawn(one.prompt, ids[:-1], one.language) for one, ids in (self.runs[at] for at in chosen)]
            forced = engine.predict_together(drawn, guided=self.guided, analyzed=analyzed, prefixes=self.prefixes)
            found = {
                at: ((rows if rows.ndim == 3 else rows[None]).transpose(1, 0, 2), flags)
                for at, (rows, flags) in zip(chosen, forced, strict=True)
            }
            self._count *= 2
        else:
            found = {place: (predicted(engine, request, tokens[:-1], guided=self.guided), ())}
        while self._known and sum(logits.nbytes for logits, _ in [*self._known.values(), *found.values()]) > MOST_KEPT:
            del self._known[next(iter(self._known))]
        self._known |= found

    def _next(self, place: int) -> list[int]:
        """The run and those after it that have a token and fit."""
        later = [at for at in range(place, len(self.runs)) if self.runs[at][1] and at not in self._known]
        chosen = later[: self._count]
        size = (1 + self.guided) * 4 * (self.engine.info.vocab_size or 0)
        total = np.cumsum([size * len(self.runs[at][1]) for at in chosen])
        return chosen[: max(1, int(np.searchsorted(total, MOST_AT_ONCE, side="right")))]
