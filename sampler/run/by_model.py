"""What a model says of a log that it is to score: how its runs may begin, and whether its ids are the model's."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from sampler.checks.longform.log.by_runs import beyond_all
from sampler.checks.longform.log.edits import Fix
from sampler.checks.longform.log.faults import body, common_prefix, repeats
from sampler.checks.longform.runs import TokenRun
from sampler.checks.scoring.tolerance import SINGLE, Tolerance
from sampler.engines.reference.chain import ReferenceEngine
from sampler.run.scoring import Model
from sampler.run.spoken import Spoken

TRIED: Final = 4
"""Runs, of different texts where there are any, whose beginning is put through the model."""

PUT: Final = 40
"""Tokens of a run that tell by how much its ids are shifted."""

LONGEST: Final = 300
"""Tokens of a prompt at the beginning of a run that is alone."""

SHIFTS: Final = 24
"""Shifts that are tried."""

LIKELY: Final = 0.6
"""The share of tokens that the model can draw, of a log whose ids are the model's; a wrong chain draws others too."""

SEVERAL: Final = 3
"""Runs that begin with one token, which no wrong draw makes them do."""

NEVER: Final = -50.0
"""Nats for a token that cannot be drawn."""

BEYOND: Final = 0.05
"""The share of tokens beyond the vocabulary of which a log is one of another model; fewer are the engine's fault."""


class Start(NamedTuple):
    """What a run may begin with. may: which ids, (V,); logs: their log-probabilities, (V,)."""

    may: NDArray[np.bool_]
    logs: NDArray[np.float64]

    def of(self, token: int) -> float:
        known = 0 <= token < len(self.may) and self.may[token]
        return max(NEVER, float(self.logs[token])) if known else NEVER


@dataclass(frozen=True)
class ByModel:
    """Known of right runs: what the model can draw. runs: what was asked for, in the order of the log's."""

    model: Model
    runs: Sequence[Spoken]
    tolerance: Tolerance = SINGLE
    asked: Collection[Fix] = ()
    whose: str = "the model"

    @property
    def eos_ids(self) -> Collection[int]:
        return self.model.info.eos_ids

    @property
    def needs_eos(self) -> bool:
        """Tokens without EOS are scored given that there is none, unless the user wants it back."""
        return "eos" in self.asked

    @cached_property
    def size(self) -> int:
        return self.model.info.vocab_size or 0

    @cached_property
    def tried(self) -> list[int]:
        """The places of some runs."""
        by_text: dict[object, list[int]] = {}
        for place, run in enumerate(self.runs):
            by_text.setdefault(run.request.prompt, []).append(place)
        rows = [places[turn] for turn in range(TRIED) for places in by_text.values() if turn < len(places)]
        return rows[:TRIED]

    @cached_property
    def starts(self) -> dict[int, Start]:
        """What the tried runs may begin with, by place."""
        return {place: self._forced(place, (0,))[0] for place in self.tried}

    def _forced(self, place: int, tokens: Sequence[int]) -> list[Start]:
        """What may come at each step of a run as if it had these tokens, up to the first that is no id of the model."""
        run = self.runs[place]
        model = self.model.variant(run.variant) if run.variant else self.model
        reference = ReferenceEngine(rules=model.rules, input_error=self.tolerance.edge)
        found: list[Start] = []
        for steps in model.run(run.name, run.request, tuple(tokens), run.stop_reason).steps(run.request.config):
            _, may, final = reference.bounds(steps)
            found += map(Start, may, log_softmax(final.scores, axis=-1))
        return found

    def _possible(self, place: int, tokens: Sequence[int]) -> list[bool]:
        """Whether each token of a run can be drawn, given those before it; none can behind one that is no id."""
        found = [start.of(token) > NEVER for start, token in zip(self._forced(place, tokens), tokens, strict=False)]
        return found + [False] * (len(tokens) - len(found))

    def _begin(self, runs: Sequence[TokenRun], count: int) -> list[float]:
        """How likely what is behind the first tokens of the tried runs is at their beginning, in nats."""
        tokens = {place: runs[place].tokens[count : count + 1] for place in self.tried}
        return [self.starts[place].of(*token) for place, token in tokens.items() if token and token[0] >= 0]

    def _mostly(self, runs: Sequence[TokenRun], count: int) -> bool:
        """Whether at least half of them are possible there."""
        found = self._begin(runs, count)
        return 2 * sum(one > NEVER for one in found) >= len(found)

    def offset(self, runs: Sequence[TokenRun]) -> int:
        first = len(common_prefix(runs)) if len({run.tokens for run in runs}) > 1 else 0
        if self._mostly(runs, 0) or self._mostly(runs, first):
            return 0
        place = max(self.tried, key=lambda place: len(body(runs[place].tokens, first)))
        tokens = body(runs[place].tokens, first)[:PUT]
        enough = max(LIKELY, 2 * self._share(place, tokens, 0))
        shifts = self._shifts(runs, {0, 1, 2, first})
        return next((shift for shift in shifts if self._share(place, tokens, shift) >= enough), 0)

    def _shifts(self, runs: Sequence[TokenRun], counts: Collection[int]) -> list[int]:
        """The likeliest shifts: those by which runs would end in EOS, or begin as they may."""
        last = Counter(run.tokens[-1] for run in runs if run.ended and run.tokens)
        ends = [end - eos for end, _ in last.most_common(2) for eos in self.eos_ids]
        found: Counter[int] = Counter()
        for place, start in self.starts.items():
            for count in counts:
                ids = np.flatnonzero(start.may)
                for token in runs[place].tokens[count : count + 1]:
                    logs = dict(zip((token - ids).tolist(), (start.logs[ids] - NEVER).tolist(), strict=True))
                    found.update(logs)
        likeliest = [shift for shift, _ in found.most_common(SHIFTS)]
        return [shift for shift in dict.fromkeys((*ends, *likeliest)) if shift]

    def _share(self, place: int, tokens: Sequence[int], shift: int) -> float:
        """How many of the tokens, less a shift, can be drawn."""
        possible = self._possible(place, [token - shift for token in tokens])
        return sum(possible) / max(1, len(possible))

    def foreign(self, runs: Sequence[TokenRun], prefix: Sequence[int]) -> int:
        different = len({run.tokens for run in runs})
        lead = self._lead(runs, prefix, different)
        is_prefix = (
            different > 1 and len(prefix) > 1 and all(not all(self._possible(place, prefix)) for place in self.tried)
        )
        if different == 1 and len(prefix) > lead:
            return self._alone(prefix, lead)
        if not is_prefix:
            return lead
        counts = [count for count in range(max(lead, 1), len(prefix) + 1) if self._mostly(runs, count)]
        if not counts:
            return lead
        best = max(counts, key=lambda count: (self._behind(runs, count), sum(self._begin(runs, count))))
        return best if lead or len(set(prefix[:best])) > 1 else lead

    def _behind(self, runs: Sequence[TokenRun], count: int) -> int:
        """How many of the tokens behind the first ones of the tried runs can be drawn."""
        return sum(sum(self._possible(place, runs[place].tokens[count : count + PUT])) for place in self.tried)

    def _alone(self, tokens: Sequence[int], lead: int) -> int:
        """The same of one run alone: what is behind it can be drawn, and most of it cannot."""
        place = self.tried[0]
        before = self._possible(place, tokens[: LONGEST + PUT])
        if all(before[lead:PUT]):
            return lead
        for count in range(max(lead, 2), min(LONGEST, len(tokens) - PUT)):
            few = 2 * sum(before[:count]) < count and len(set(tokens[:count])) > 1
            may_begin = few and self.starts[place].of(tokens[count]) > NEVER
            if may_begin and all(self._possible(place, tokens[count : count + PUT])):
                return count
        return lead

    def _lead(self, runs: Sequence[TokenRun], prefix: Sequence[int], different: int) -> int:
        """How often a token stands at the beginning of all runs, and nowhere else, that none of them may begin with."""
        first = prefix[0]
        count = repeats(prefix)
        is_bos = first == self.model.info.bos_id or first >= self.size
        if not is_bos and (different < SEVERAL or any(first in run.tokens[count:] for run in runs)):
            return 0
        return 0 if any(start.of(first) > NEVER for start in self.starts.values()) else count

    def is_beyond(self, token: int) -> bool:
        return token >= self.size

    def vocabulary(self, runs: Sequence[TokenRun]) -> str:
        ids = beyond_all(runs, self.size - 1, BEYOND)
        return f"ids go up to {ids:,}, the model has {self.size:,}" if ids else ""
