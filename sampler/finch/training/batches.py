"""Batches for training: texts, codes and references of similar length, in an order that only the seed determines."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from sampler.errors import ConfigError
from sampler.finch.training.corpus import Corpus, Plan, Utterance
from sampler.finch.training.network import Batch
from sampler.finch.training.vocabulary import SPACE, START, STOP
from sampler.t3.config import T3Config
from sampler.t3.tokenizer import lower_nfkd, normalize_punctuation


@dataclass(frozen=True)
class Recipe:
    """How Finch is trained. rows_per_batch: approximate number of packed rows (conditioning, text, speech) per batch.

    decay: last share of the steps, in which the learning rate falls; at step `restart` it starts again with
    `restart_rate` and falls over the same share of the rest. shards: parts of a batch, each with texts of similar
    length and its own thread. short_steps: number of first steps that use only texts of at most `short_rows` rows.
    aligned_steps: steps of a text whose attention is trained each time. blank_text: share of rows trained without text,
    for guidance. single_bos: share of batches with one BOS. wrong_token: share of replaced input tokens, so that the
    model learns to recover from a wrong token.
    """

    steps: int = 4_500
    learning_rate: float = 3e-3
    warmup: int = 100
    decay: float = 0.5
    restart: int = 2_500
    restart_rate: float = 2e-3
    weight_decay: float = 0.05
    rows_per_batch: int = 4_000
    shards: int = 2
    short_steps: int = 1_000
    short_rows: int = 640
    aligned_steps: int = 64
    alignment_weight: float = 0.1
    text_weight: float = 0.02
    blank_text: float = 0.12
    single_bos: float = 0.2
    wrong_token: float = 0.02
    seed: int = 1


def finch_config(plan: Plan, tokenizer: Tokenizer) -> T3Config:
    """Sizes of Finch; the ids of BOS and EOS follow the codes."""
    names = tokenizer.get_vocab()
    return T3Config(
        name="finch",
        hidden_size=192,
        intermediate_size=512,
        num_layers=6,
        num_heads=4,
        text_vocab_size=tokenizer.get_vocab_size(),
        speech_vocab_size=plan.codes + 2,
        max_text_tokens=1024,
        max_speech_tokens=4096,
        start_text_id=names[START],
        stop_text_id=names[STOP],
        bos_id=plan.codes,
        eos_id=plan.codes + 1,
        aligned_heads=((2, 1), (3, 3), (4, 0)),
        tokenizer="multilingual",
        languages=plan.languages,
    )


def text_ids(tokenizer: Tokenizer, item: Utterance, config: T3Config) -> list[int]:
    """Ids of one text with language token, start and stop, equal to those of `TextTokenizer`."""
    normal = lower_nfkd(normalize_punctuation(item.text, config.tokenizer))
    text = f"[{item.language}]{normal}".replace(" ", SPACE)
    return [config.start_text_id, *tokenizer.encode(text).ids, config.stop_text_id]


def speaker_embedding(codes: NDArray[np.uint16], codebook: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Embed a voice from the spectra of some of its codes: unit length, not negative, like upstream's encoder.

    It is a fixed random projection of mean and standard deviation, centred over the codebook.
    """
    spectra = (codebook[codes] - codebook.mean(0)) / codebook.std(0)
    summary = np.concatenate([spectra.mean(0), spectra.std(0)])
    projection = np.random.default_rng(256).normal(size=(len(summary), size))
    positive = np.maximum(summary @ projection, 0.0)
    embedding: NDArray[np.float32] = (positive / np.linalg.norm(positive)).astype(np.float32)
    return embedding


class Batches:
    """Endless batches, in an order that only the seed determines."""

    def __init__(
        self, data: Corpus, tokenizer: Tokenizer, config: T3Config, codebook: NDArray[np.float32], recipe: Recipe
    ) -> None:
        self.data, self.config, self.recipe = data, config, recipe
        self.texts = [text_ids(tokenizer, item, config) for item in data.utterances]
        self.rows = np.array([len(ids) + len(data.codes_of(i)) for i, ids in enumerate(self.texts)])
        self.rows += config.conditioning_length + 2
        self.references: dict[int, list[int]] = {}
        for index, item in enumerate(data.utterances):
            if len(data.codes_of(index)) >= config.prompt_length:
                self.references.setdefault(item.voice, []).append(index)
        for voice in sorted({item.voice for item in data.utterances} - set(self.references)):
            raise ConfigError(
                f"voice {voice} has no utterance of {config.prompt_length} codes among {len(data)} texts",
                hint="more texts, or texts of more sentences",
            )
        starts = {voice: [self.prompt(index) for index in members] for voice, members in self.references.items()}
        self.speakers = {
            voice: np.stack([speaker_embedding(codes, codebook, config.speaker_size) for codes in prompts])
            for voice, prompts in starts.items()
        }

    def prompt(self, index: int) -> NDArray[np.uint16]:
        """First six seconds of an utterance, as upstream takes them from a reference recording."""
        return self.data.codes_of(index)[: self.config.prompt_length]

    def from_step(self, step: int) -> Iterator[tuple[Batch, ...]]:
        """Yield the shards of each step, from `step` on, without end; a step depends only on seed and number."""
        groups = self._order()
        for number in itertools.count():
            members = list(itertools.islice(groups, self.recipe.shards))
            if number >= step:
                rng = np.random.default_rng([self.recipe.seed, 3, number])
                bos_count = 1 if rng.random() < self.recipe.single_bos else 2
                yield tuple(self.batch(group, bos_count, rng) for group in members)

    def _order(self) -> Iterator[NDArray[np.int64]]:
        """Members of each shard: only short texts for `short_steps` steps, then all texts."""
        rng = np.random.default_rng([self.recipe.seed, 2])
        short = np.flatnonzero(self.rows <= self.recipe.short_rows)
        if len(short):
            yield from itertools.islice(self._epochs(short, rng), self.recipe.short_steps * self.recipe.shards)
        yield from self._epochs(np.arange(len(self.data)), rng)

    def _epochs(self, items: NDArray[np.int64], rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """Endless epochs over `items`, each grouped with others of its length."""
        while True:
            order = rng.permutation(items)
            for block in np.array_split(order, max(1, len(order) // 2_048)):
                groups = self._groups(block[np.argsort(self.rows[block], kind="stable")])
                for group in rng.permutation(len(groups)):
                    yield groups[group]

    def _groups(self, ordered: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        groups, start, most = [], 0, self.recipe.rows_per_batch / self.recipe.shards
        while start < len(ordered):
            end = start + 1
            while end < len(ordered) and (end + 1 - start) * self.rows[ordered[end]] <= most:
                end += 1
            groups.append(ordered[start:end])
            start = end
        return groups

    def batch(self, members: NDArray[np.int64], bos_count: int, rng: np.random.Generator) -> Batch:
        """Texts `members` of the corpus as one shard, beginning with `bos_count` BOS."""
        config, recipe = self.config, self.recipe
        bos = [config.bos_id] * bos_count
        texts = [torch.tensor(self.texts[index]) for index in members]
        codes = [self.data.codes_of(index).astype(np.int64) for index in members]
        inputs = [torch.tensor([*bos, *self._corrupted(row, rng)]) for row in codes]
        targets = [torch.tensor([*[-100] * (len(bos) - 1), *row, config.eos_id]) for row in codes]
        # Column 0 is the start token and column 1 the language token, so text character c is in column c + 2.
        positions = [
            torch.tensor([*[-1.0] * (len(bos) - 1), *(self.data.positions_of(index) + 2), len(self.texts[index]) - 1])
            for index in members
        ]
        voices = [self.data.utterances[index].voice for index in members]
        chosen = [int(rng.integers(len(self.references[voice]))) for voice in voices]
        prompts = [self.prompt(self.references[voice][pick]) for voice, pick in zip(voices, chosen, strict=True)]
        longest = max(len(row) for row in inputs)
        return Batch(
            text=_padded(texts, config.stop_text_id),
            text_lengths=torch.tensor([len(row) for row in texts]),
            speech=_padded(inputs, config.eos_id),
            speech_lengths=torch.tensor([len(row) for row in inputs]),
            targets=_padded(targets, -100),
            positions=_padded(positions, -1.0).float(),
            aligned=torch.stack([self._aligned(len(row), rng) for row in inputs]),
            # Both BOS rows are at position 0, the first generated token at 1 (T3.inference).
            speech_positions=torch.clamp(torch.arange(longest) - (len(bos) - 1), min=0),
            prompts=torch.tensor(np.stack(prompts).astype(np.int64)),
            speakers=torch.tensor(np.stack([self.speakers[v][p] for v, p in zip(voices, chosen, strict=True)])),
            emotions=torch.tensor([self.data.utterances[index].emotion for index in members]).float(),
            no_text=torch.tensor(rng.random(len(members)) < recipe.blank_text),
        )

    def _aligned(self, length: int, rng: np.random.Generator) -> Tensor:
        """Random steps of one row: attention of all steps of a long text would cost more than the layers."""
        return torch.tensor(rng.integers(0, length, self.recipe.aligned_steps))

    def _corrupted(self, row: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Replace a few input tokens by random ones, so that the model learns to recover from a wrong token."""
        wrong = rng.random(len(row)) < self.recipe.wrong_token
        return np.where(wrong, rng.integers(0, self.config.bos_id, len(row)), row)


def _padded(rows: list[Tensor], value: float) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)
