"""Finch's corpus: spoken and coded sentences, with the text position of every code."""

import io
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sampler.finch.training import sentences, speech
from sampler.runtime.files import write_whole
from sampler.t3.tokenizer import lower_nfkd

Result = TypeVar("Result")
Progress = Callable[[int], None]

NEUTRAL_EMOTION = 0.5
MANY, LONG_SENTENCE = 8, 60
"""Half of the texts with more than MANY sentences use only sentences of LONG_SENTENCE characters or more."""


@dataclass(frozen=True)
class Plan:
    """Parameters of the corpus. texts: utterances to train on; voices: how many of speech.VARIANTS are used."""

    languages: tuple[str, ...] = ("en", "de", "fr", "es", "it")
    texts: int = 14_000
    texts_for_codes: int = 3_000
    codes: int = 2_048
    most_sentences: int = 12
    voices: int = len(speech.VARIANTS)
    open_share: float = 0.4
    seed: int = 1


@dataclass(frozen=True)
class Utterance:
    """One text to be spoken. emotion is upstream's exaggeration: here it sets the speed."""

    text: str
    language: str
    espeak: str
    voice: int
    emotion: float
    seed: int

    @property
    def words_per_minute(self) -> int:
        """140 at emotion 0, 175 at the neutral 0.5, 210 at 1."""
        return round(140 + 70 * self.emotion)


def utterances(plan: Plan, held_out: frozenset[str] = frozenset()) -> Iterator[Utterance]:
    """Yield training utterances without end: one to twelve joined sentences, none of them in `held_out`."""
    rng = np.random.default_rng([plan.seed, 1])
    sources = [_source(language, plan, held_out) for language in plan.languages]
    counts = np.arange(1, plan.most_sentences + 1)
    for index in itertools.count():
        grammar, stream = sources[index % len(sources)]
        # The same amount of speech from every count: most texts are short, and most codes are in long ones.
        count = int(rng.choice(counts, p=(1 / counts) / (1 / counts).sum()))
        # Twelve long sentences reach the longest text, which twelve of any length rarely do.
        if count > MANY and rng.random() < 0.5:
            stream = (sentence for sentence in stream if len(sentence) >= LONG_SENTENCE)
        yield Utterance(
            text=sentences.joined(stream, count),
            language=grammar.language,
            espeak=grammar.espeak,
            voice=int(rng.integers(plan.voices)),
            emotion=round(float(rng.uniform(0.2, 1.0)), 2),
            seed=int(rng.integers(2**31)),
        )


def _source(language: str, plan: Plan, held_out: frozenset[str]) -> tuple[sentences.Grammar, Iterator[str]]:
    grammar = sentences.Grammar.load(language)
    stream = sentences.sentences(grammar.with_open_lists(), plan.seed, plan.open_share)
    return grammar, (sentence for sentence in stream if sentence not in held_out)


@dataclass(frozen=True)
class Wanted:
    """A held-out text of each language: its group in `prompts.json`, its largest number of sentences and characters."""

    group: str
    count: int
    characters: int = sentences.LONGEST_TEXT
    shortest_sentence: int = 0


def held_out_utterances(plan: Plan, wanted: Sequence[Wanted]) -> tuple[list[Utterance], frozenset[str]]:
    """Texts excluded from training, and their sentences.

    One text for each entry of `wanted` and each language, in voice 0 at neutral emotion.
    """
    result, seen = [], set[str]()

    def fresh(stream: Iterator[str], shortest: int) -> Iterator[str]:
        for sentence in stream:
            if sentence not in seen and len(sentence) >= shortest:
                seen.add(sentence)
                yield sentence

    for language in plan.languages:
        grammar = sentences.Grammar.load(language)
        stream = sentences.sentences(grammar, plan.seed + 1_000_003)
        for index, entry in enumerate(wanted):
            text = sentences.joined(fresh(stream, entry.shortest_sentence), entry.count, entry.characters)
            result.append(Utterance(text, language, grammar.espeak, 0, NEUTRAL_EMOTION, index))
    return result, frozenset(seen)


_espeak: speech.Espeak | None = None


def _spoken(utterance: Utterance) -> speech.Speech:
    global _espeak  # noqa: PLW0603 - the library has global state, so there is one per process
    if _espeak is None:
        _espeak = speech.Espeak()
    return _espeak.say(utterance.text, utterance.espeak + speech.VARIANTS[utterance.voice], utterance.words_per_minute)


def _features(utterance: Utterance) -> NDArray[np.float32]:
    return speech.features(_spoken(utterance).samples, utterance.seed)


@dataclass(frozen=True)
class Encoder:
    """Speaks an utterance and codes it; picklable, so that processes can share the work."""

    codebook: NDArray[np.float32]

    def __call__(self, utterance: Utterance) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        """Return (codes (T,), text position of each code (T,)) of `utterance`."""
        spoken = _spoken(utterance)
        codes = speech.nearest_codes(speech.features(spoken.samples, utterance.seed), self.codebook)
        return codes, speech.positions(spoken, utterance.text, lower_nfkd)


def _single_thread() -> None:
    import torch

    torch.set_num_threads(1)


def spread(
    function: Callable[[Utterance], Result], items: Sequence[Utterance], progress: Progress = lambda done: None
) -> list[Result]:
    """Apply `function` to every item on all cores, in order; `progress` gets the number of finished items."""
    results = []
    with ProcessPoolExecutor(os.cpu_count(), initializer=_single_thread) as pool:
        for done, result in enumerate(pool.map(function, items, chunksize=64), start=1):
            results.append(result)
            progress(done)
    return results


def learn_codebook(plan: Plan, progress: Progress = lambda done: None) -> NDArray[np.float32]:
    """Cluster the spectra of the first utterances: (codes, 80)."""
    from sklearn.cluster import MiniBatchKMeans

    items = list(itertools.islice(utterances(plan), plan.texts_for_codes))
    vectors = np.concatenate(spread(_features, items, progress))
    clusters = MiniBatchKMeans(
        plan.codes, batch_size=16_384, max_iter=30, n_init=1, random_state=plan.seed, reassignment_ratio=0.001
    )
    clusters.fit(vectors)
    centers: NDArray[np.float32] = clusters.cluster_centers_.astype(np.float32)
    return centers


def save_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Write .npz; the file appears under its name only when it is complete."""
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_whole(path, content.getvalue())


@dataclass(frozen=True)
class Corpus:
    """Coded utterances in flat arrays: utterance i has codes[starts[i]:starts[i + 1]]."""

    utterances: list[Utterance]
    codes: NDArray[np.uint16]
    positions: NDArray[np.float32]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.utterances)

    def codes_of(self, index: int) -> NDArray[np.uint16]:
        return self.codes[self.starts[index] : self.starts[index + 1]]

    def positions_of(self, index: int) -> NDArray[np.float32]:
        """Text position (in characters of the normalised text) of each of its codes: (T,)."""
        return self.positions[self.starts[index] : self.starts[index + 1]]

    def save(self, path: Path) -> None:
        text = json.dumps([asdict(item) for item in self.utterances])
        items = np.frombuffer(text.encode(), dtype=np.uint8)
        save_arrays(path, items=items, codes=self.codes, positions=self.positions, starts=self.starts)

    @classmethod
    def load(cls, path: Path) -> "Corpus":
        with np.load(path) as data:
            items = [Utterance(**item) for item in json.loads(data["items"].tobytes())]
            return cls(items, data["codes"], data["positions"], data["starts"])


def encode(items: Sequence[Utterance], codebook: NDArray[np.float32], progress: Progress = lambda done: None) -> Corpus:
    """Speak and code every utterance, on all cores."""
    spoken = spread(Encoder(codebook), items, progress)
    lengths = [len(codes) for codes, _ in spoken]
    return Corpus(
        utterances=list(items),
        codes=np.concatenate([codes for codes, _ in spoken]),
        positions=np.concatenate([position for _, position in spoken]),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )
