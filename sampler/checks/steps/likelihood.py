"""Whether tokens that an engine drew with noise of its own follow the chain's distribution of its recorded logits."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax

from sampler.checks.steps.draw_alternatives import (
    FACTORS,
    LIFTS,
    TILTS,
    Memories,
    Memory,
    Step,
    looser_configs,
    other_configs,
)
from sampler.checks.steps.evidence import Evidence
from sampler.checks.steps.named import Named
from sampler.checks.steps.other_chains import OtherChains
from sampler.checks.steps.recorded import kept_bounds, recorded_steps
from sampler.checks.verdict import Finding
from sampler.config import SamplingConfig
from sampler.requests import Steps
from sampler.statistics.bets import LEAST_ERROR, Bets

REQUIRED = 0.5
"""The relative change of the temperature that `passed` has to detect: half of it, or twice."""

UNIT = "relative change of the temperature"


@dataclass
class Wagers:
    """Bets on other temperatures, penalties, filters, EOS and reused noise: right draws make none of them rich.

    runs, outside: of the runs so far, and of their tokens that no reading of the chain keeps.

    Each bet is on the token given that it is one that the chain keeps for sure; of others `allowed` tells. In half
    precision the tolerance of the records widens what a right engine may draw (Bets.place).
    """

    config: SamplingConfig
    alpha: float
    runs: int = 0
    outside: int = 0
    names: list[Named] = field(init=False)
    bets: Bets = field(init=False)
    _configs: list[SamplingConfig] = field(init=False)
    _steps: dict[int, Memory] = field(default_factory=lambda: defaultdict(Memory))
    _cell: Memory = field(default_factory=Memory)

    def __post_init__(self) -> None:
        others = list(other_configs(self.config))
        self._configs = [config for _, config in others]
        self.names = [*(named for named, _ in others), *(named for named, _ in TILTS)]
        self.bets = Bets(len(self.names))

    def add(self, evidence: Evidence) -> None:
        """Further runs, all with the same config."""
        memories, request = Memories(cell=self._cell), -1
        for steps in recorded_steps(evidence):
            if steps.request != request:
                memories, request = Memories(cell=self._cell), steps.request
            _, may = kept_bounds(evidence, steps)
            self.outside += int((~may[np.arange(len(steps.tokens)), steps.tokens]).sum())
            for row, step, others in self._sure(evidence, steps):
                memories.runs = self._steps[len(steps.history[row])]
                drawn = int(np.searchsorted(step.ids, steps.tokens[row]))
                q = np.array([*others, *(tilt(step, memories) for _, tilt in TILTS)])
                self.bets.place(step.p, q, drawn, step.error)
                memories.learn(step, drawn)
        self.runs += len(evidence.generations)

    def _sure(self, evidence: Evidence, steps: Steps) -> Iterator[tuple[int, Step, list[np.ndarray]]]:
        """The steps at which the drawn token is surely kept, and so is another one: row, step, the other chains' p."""
        must, _ = kept_bounds(evidence, steps)
        final = evidence.reference.evaluate(steps)[-1]
        chains = OtherChains.of(steps, np.where(must, final.scores, -np.inf), evidence.reference)
        others, ids = [chains.scores(config) for config in self._configs], chains.ids
        rounding = evidence.precision.rounding
        for row, token in enumerate(steps.tokens.tolist()):
            sure = must[row, ids[row]]
            kept = ids[row, sure]
            if len(kept) < 2 or token not in kept:
                continue
            p = softmax(final.scores[row, kept])
            error = final.error[row, kept] + max(LEAST_ERROR, rounding)
            eos = np.isin(kept, evidence.engine.info.eos_ids)
            yield row, Step(kept, p, eos, error), chains.among(row, sure, others, p)

    @property
    def rejected(self) -> bool:
        return self.bets.judge(self.alpha).rejected

    @property
    def settled(self) -> bool:
        """Whether more runs are not worth while: the required change is detected, and no bet has grown."""
        return bool(self.bets.wealth <= 0) and 1 - 1 / (self._smallest("temperature", FACTORS) or np.inf) <= REQUIRED

    def finding(self) -> Finding:
        judged, best = self.bets.judge(self.alpha), self.names[self.bets.best]
        factor, lift = self._smallest("temperature", FACTORS), self._smallest("EOS", LIFTS)
        said = "it draws with noise of its own"
        if judged.rejected:
            message = (
                f"{said}, not from the chain's distribution: with {best.text} its {judged.n} tokens are "
                f"e^{self.bets.logs[self.bets.best].max():.1f} times as likely (e^{judged.bound:.1f} is proof, over "
                f"{len(self.names)} alternatives)"
            )
        else:
            temperature = f"a temperature {factor:g} times off" if factor else "no temperature"
            eos = f"EOS {lift:g} nats off" if lift else "no EOS"
            message = (
                f"{said}: {judged.n} tokens of {self.runs} runs fit the chain's distribution; they detect "
                f"{temperature}, {eos}"
            )
        stage = best.stage if judged.rejected else "draw"
        detectable = 1 - 1 / factor if factor else 1.0
        figures: dict[str, Any] = {"alpha": self.alpha, "detectable": detectable, "required": REQUIRED, "unit": UNIT}
        return Finding.of_test("draw", stage, judged, message, **figures)

    def _smallest(self, family: str, sizes: Sequence[float]) -> float:
        """The smallest size that is detected in both directions, as are all above it; 0 if there is none."""
        detected = self.bets.detected(self.alpha)
        smallest = 0.0
        for size in sorted(sizes, reverse=True):
            both = (1 / size, size) if family == "temperature" else (-size, size)
            found = [
                bool(seen)
                for named, seen in zip(self.names, detected, strict=True)
                if named.family == family and any(np.isclose(named.size, one) for one in both)
            ]
            if len(found) < 2 or not all(found):
                break
            smallest = size
        return smallest


def likeliest(evidence: Evidence) -> Named | None:
    """The other chain, of those that can draw every token, under which the runs are most likely; None if there is none.

    Among the others are those that keep more, and those that lack one stage.
    """
    config = evidence.requests[0].config
    totals = dict.fromkeys([*looser_configs(config), *other_configs(config)], 0.0)
    for steps in recorded_steps(evidence):
        for name, other in list(totals):
            scores = evidence.reference.evaluate(steps.with_config(other), "generous")[-1].scores
            own = log_softmax(scores, axis=-1)[np.arange(len(steps.tokens)), steps.tokens].sum()
            totals[name, other] += float(own)
    best = max(totals, key=lambda pair: totals[pair], default=None)
    return best[0] if best is not None and np.isfinite(totals[best]) else None
