"""Sources of token runs that cost next to nothing: a right one, wrong ones of one lie each, all of them seeded.

The right one is a Markov chain with Chatterbox's chain behind it: repetition penalty, temperature, min-p, Gumbel noise
of its own for every run and step, and EOS the likelier the longer a run is beside its text's length. Which place of the
text a step reads is drawn beside that (`readers.py`): seven places for ten tokens, all of them up to EOS.
"""

from dataclasses import dataclass, field, replace

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
            runs.append(
                TokenRun(
                    f"text {text}",
                    tuple(int(token) for token in tokens[place][some]),
                    self.reasons[place],
                    logprobs[place][some],
                    entropy[place][some],
                    rank[place][some].astype(np.float64),
                    margin[place][some],
                    float(self.lengths[place]),
                    self.source.reader.places(int(some.sum()), text_length, self.reading),
                    text_length,
                )
            )
        return runs


RIGHT = Source()


@dataclass(frozen=True)
class WrongSource:
    """A source, the lie in a sentence, and the checks that must see it, the first of them with the announced runs."""

    source: Source
    lie: str
    checks: tuple[str, ...]


WRONG = {
    "eos_never": WrongSource(replace(RIGHT, stretch=1e9), "EOS never comes.", ("stopping/missing",)),
    "eos_early": WrongSource(replace(RIGHT, eos_leak=0.02), "EOS is exempt from the filters.", ("stopping/early",)),
    "eos_bias_grows": WrongSource(
        replace(RIGHT, eos_bias=0.1), "A bias of EOS grows with every step.", ("drift/length", "stopping/early")
    ),
    "ten_percent_shorter": WrongSource(
        replace(RIGHT, stretch=0.9), "Runs end a tenth too early.", ("drift/length", "stopping/early")
    ),
    "ten_percent_longer": WrongSource(
        replace(RIGHT, stretch=1.1), "Runs end a tenth too late.", ("drift/length", "stopping/late")
    ),
    "forced_ends": WrongSource(
        replace(RIGHT, forced_share=0.5), "Half of the runs are cut by a guard.", ("stopping/forced",)
    ),
    "warmer": WrongSource(
        replace(RIGHT, temperature=0.85), "The temperature is 0.85 where 0.8 was asked for.", ("drift/entropy",)
    ),
    "penalty_dropped": WrongSource(
        replace(RIGHT, penalty=1.0), "The repetition penalty does nothing.", ("drift/repetition", "drift/tokens")
    ),
    "min_p_dropped": WrongSource(replace(RIGHT, min_p=1e-9), "Min-p does nothing.", ("drift/bigrams", "drift/entropy")),
    "frozen_noise": WrongSource(
        replace(RIGHT, noise="frozen"), "All runs of a text have the same noise.", ("seeds/distinct",)
    ),
    "noise_of_the_first_step": WrongSource(
        replace(RIGHT, noise="each step the same"),
        "The generator is seeded anew at every step.",
        ("drift/repetition", "drift/bigrams"),
    ),
    "collapses_late": WrongSource(
        replace(RIGHT, late_temperature=0.3), "From token 60 on the temperature is 0.3.", ("drift/entropy",)
    ),
    "skips_a_third_of_the_text": WrongSource(
        replace(RIGHT, reader=Reader(skips_a_third)),
        "The middle third of the text is not read.",
        ("alignment/covering",),
    ),
    "leaves_the_end_unread": WrongSource(
        replace(RIGHT, reader=Reader(ends_early)), "Runs end with three tenths unread.", ("alignment/covering",)
    ),
    "starts_again": WrongSource(
        replace(RIGHT, reader=Reader(starts_again)), "Runs go back to the beginning once.", ("alignment/back",)
    ),
    "wanders": WrongSource(
        replace(RIGHT, reader=Reader(wanders)),
        "Any step may read any place.",
        ("alignment/monotone", "alignment/back"),
    ),
    "stays_at_one_place": WrongSource(
        replace(RIGHT, reader=Reader(stays, slips=0.0)),
        "All steps read one place.",
        ("alignment/covering", "alignment/monotone"),
    ),
}
