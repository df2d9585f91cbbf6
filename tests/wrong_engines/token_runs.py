"""Sources of token runs that cost next to nothing: a right one, wrong ones of one fault each, all of them seeded.

The right one is a Markov chain with Chatterbox's chain behind it: repetition penalty, temperature, min-p, Gumbel noise
of its own for every run and step, and EOS the likelier the longer a run is beside its text's length. Which place of the
text a step reads is drawn beside that (`readers.py`): seven places for ten tokens, all of them up to EOS.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from sampler.checks.longform.runs import TokenRun
from tests.wrong_engines.readers import Reader, ends_early, skips_a_third, starts_again, stays, wanders

Array = NDArray[np.float64]
VOCABULARY = 40
EOS = VOCABULARY  # the last of VOCABULARY + 1 ids


@dataclass(frozen=True)
class Source:
    """Makes runs of texts of `lengths` tokens.

    eos_slope: by how much EOS's logit grows over a text's length. stretch: of the length at which it is level with the
    others. eos_bias: that it gains at every step. eos_leak: how often it is drawn whatever the filters say.
    forced_share: of runs that a guard cuts. late_temperature: from position late_from on, if not None. noise: `fresh`,
    `frozen` (one for a text) or `each step the same`. reader: how it reads.
    """

    lengths: tuple[int, ...] = (50, 70, 90, 110)
    temperature: float = 0.8
    min_p: float = 0.05
    penalty: float = 1.2
    eos_slope: float = 60.0
    eos_bias: float = 0.0
    eos_leak: float = 0.0
    stretch: float = 1.0
    late_temperature: float | None = None
    late_from: int = 60
    forced_share: float = 0.0
    cap: int = 220
    noise: str = "fresh"
    reader: Reader = field(default_factory=Reader)
    table: Array = field(default_factory=lambda: np.random.default_rng(99).normal(0, 2, (VOCABULARY, VOCABULARY)))

    def runs(self, count: int, seed: int) -> list[TokenRun]:
        """`count` runs of each text; the noise of other seeds is other noise."""
        texts = np.repeat(np.arange(len(self.lengths)), count)
        state = _State(self, texts, np.random.default_rng(seed))
        while state.going.any():
            state.advance()
        return state.finished()


class _State:
    """All runs at once, a step at a time."""

    def __init__(self, source: Source, texts: NDArray[np.int64], rng: np.random.Generator) -> None:
        self.source, self.texts, self.rng = source, texts, rng
        self.count = len(texts)
        self.lengths = np.array(source.lengths, dtype=np.float64)[texts]
        self.last, self.seen = texts % VOCABULARY, np.zeros((self.count, VOCABULARY + 1), dtype=bool)
        self.going, self.step = np.ones(self.count, dtype=bool), 0
        self.reasons = np.full(self.count, "length", dtype=object)
        self.columns: list[tuple[Array, ...]] = []
        self.frozen = rng.gumbel(size=(self.count, VOCABULARY + 1))
        self.leaks = rng.random(self.count)
        self.forced = rng.random(self.count) < source.forced_share
        (self.reading,) = rng.spawn(1)

    def advance(self) -> None:
        scores = self._scores()
        log_p = log_softmax(scores, axis=1)
        raced = scores + self._gumbel()
        tokens = raced.argmax(axis=1)
        if self.source.eos_leak:  # EOS is drawn beside the filters
            tokens = np.where(self.rng.random(self.count) < self.source.eos_leak, EOS, tokens)
        forced = self.forced & (self.step >= 0.8 * self.lengths)
        tokens = np.where(forced, EOS, tokens)
        rows = np.arange(self.count)
        own = log_p[rows, tokens]
        finite = np.where(np.isfinite(log_p), log_p, 0.0)
        entropy = -(np.exp(log_p) * finite).sum(axis=1)
        rank = (log_p > own[:, None]).sum(axis=1)
        others = np.where(np.arange(VOCABULARY + 1) == tokens[:, None], -np.inf, raced).max(axis=1)
        margin = raced[rows, tokens] - others
        self.columns.append(
            (tokens, np.maximum(own, -60.0), entropy, rank, np.maximum(margin, -60.0), self.going.copy())
        )
        self.reasons[self.going & (tokens == EOS)] = "eos"
        self.reasons[self.going & forced] = "forced_eos"
        self.seen[rows, tokens] = True
        self.last = np.where(tokens == EOS, self.last, tokens)
        self.step += 1
        self.going &= (tokens != EOS) & (self.step < self.source.cap)

    def _scores(self) -> Array:
        source = self.source
        logits = np.empty((self.count, VOCABULARY + 1))
        logits[:, :EOS] = source.table[self.last]
        ahead = self.step / (source.stretch * self.lengths) - 1
        logits[:, EOS] = np.clip(3 + source.eos_slope * ahead, -40, 12) + source.eos_bias * self.step
        logits = np.where(self.seen, np.where(logits < 0, logits * source.penalty, logits / source.penalty), logits)
        late = (
            source.late_temperature if source.late_temperature and self.step >= source.late_from else source.temperature
        )
        scores = logits / late
        best = scores.max(axis=1, keepdims=True)
        return np.where(scores < best + np.log(source.min_p), -np.inf, scores)

    def _gumbel(self) -> Array:
        fresh = self.rng.gumbel(size=(self.count, VOCABULARY + 1))
        if self.source.noise == "frozen":  # every run of a text has the noise of its first one
            return fresh[np.searchsorted(self.texts, self.texts)]
        return self.frozen if self.source.noise == "each step the same" else fresh

    def finished(self) -> list[TokenRun]:
        tokens, logprobs, entropy, rank, margin, going = (
            np.stack(column, axis=1) for column in zip(*self.columns, strict=True)
        )
        runs = []
        for place, text in enumerate(self.texts):
            some, text_length = going[place], round(0.7 * float(self.lengths[place]))
            columns = (column[place][some] for column in (logprobs, entropy, rank.astype(np.float64), margin))
            places = self.source.reader.places(int(some.sum()), text_length, self.reading)
            run = (f"text {text}", tuple(tokens[place][some].tolist()), self.reasons[place], *columns)
            runs.append(TokenRun(*run, float(self.lengths[place]), places, text_length))
        return runs


RIGHT = Source()


@dataclass(frozen=True)
class WrongSource:
    """A source, its fault in a sentence, the checks that must detect it, the first of them with the announced runs."""

    source: Source
    fault: str
    checks: tuple[str, ...]


def wrong(fault: str, *checks: str, **changes: Any) -> WrongSource:
    return WrongSource(replace(RIGHT, **changes), fault, checks)


EARLY = ("drift/length", "stopping/early")
WRONG = {
    "eos_never": wrong("EOS never comes.", "stopping/missing", stretch=1e9),
    "eos_early": wrong("EOS is exempt from the filters.", "stopping/early", eos_leak=0.02),
    "eos_bias_grows": wrong("A bias of EOS grows with every step.", *EARLY, eos_bias=0.1),
    "ten_percent_shorter": wrong("Runs end a tenth too early.", *EARLY, stretch=0.9),
    "ten_percent_longer": wrong("Runs end a tenth too late.", "drift/length", "stopping/late", stretch=1.1),
    "forced_ends": wrong("Half of the runs are cut by a guard.", "stopping/forced", forced_share=0.5),
    "warmer": wrong("The temperature is 0.85 where 0.8 was requested.", "drift/entropy", temperature=0.85),
    "penalty_dropped": wrong("The penalty does nothing.", "drift/repetition", "drift/tokens", penalty=1.0),
    "min_p_dropped": wrong("Min-p does nothing.", "drift/bigrams", "drift/entropy", min_p=1e-9),
    "frozen_noise": wrong("All runs of a text have the same noise.", "seeds/distinct", noise="frozen"),
    "noise_of_the_first_step": wrong(
        "All steps have the same noise.", "drift/repetition", "drift/bigrams", noise="each step the same"
    ),
    "collapses_late": wrong("From token 60 on the temperature is 0.3.", "drift/entropy", late_temperature=0.3),
    "skips_a_third_of_the_text": wrong("A third is not read.", "alignment/covering", reader=Reader(skips_a_third)),
    "leaves_the_end_unread": wrong("Three tenths are not read.", "alignment/covering", reader=Reader(ends_early)),
    "starts_again": wrong("Runs go back to the beginning once.", "alignment/back", reader=Reader(starts_again)),
    "wanders": wrong("Any step reads any place.", "alignment/monotone", "alignment/back", reader=Reader(wanders)),
    "stays_at_one_place": wrong(
        "All steps read one place.", "alignment/covering", "alignment/monotone", reader=Reader(stays, slips=0.0)
    ),
}
