"""How good a model of Finch's kind is: does it stop, follow the text, use the text, and vary."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy.special import log_softmax
from scipy.stats import spearmanr

from sampler.chain.noise import NoiseKey
from sampler.config import SamplingConfig
from sampler.finch import Prompt
from sampler.generation import Generation, Generator, Request
from sampler.t3.checkpoint import Checkpoint

SHORTEST, LONGEST = 0.7, 1.4
"""A run of the right length has so many times the tokens of the true speech."""


@dataclass(frozen=True)
class SpeechMeasures:
    """Of one run. ratio: length over true length. rank_correlation: of attended text position and time (Spearman)."""

    ended: bool
    ratio: float
    rank_correlation: float
    doubled: float
    distinct: int

    @property
    def right_length(self) -> bool:
        """Ended by itself, neither too early nor too late."""
        return self.ended and SHORTEST <= self.ratio <= LONGEST


def speak(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    config: SamplingConfig,
    seed: int,
    width: int = 32,
    cap: int = 1_000,
) -> list[Generation]:
    """Generate one run for each prompt, with the attention of the aligned heads."""
    vocab_size = checkpoint.config.speech_vocab_size
    keys = [NoiseKey(seed, "measure", index) for index in range(len(prompts))]
    requests = [
        Request(prompt.text, config, seed, cap, lambda step, key=key: key.gumbel(step, vocab_size), prompt.language)  # type: ignore[misc]
        for prompt, key in zip(prompts, keys, strict=True)
    ]
    return Generator(checkpoint, width=width, keep_attention=True).generate(requests)


def measure_speech(generation: Generation, prompt: Prompt) -> SpeechMeasures:
    """Measure one run against its prompt; EOS counts as no token of speech."""
    ended = generation.stop_reason == "eos"
    tokens = np.array(generation.tokens[:-1] if ended else generation.tokens)
    return SpeechMeasures(
        ended=ended,
        ratio=len(tokens) / prompt.tokens,
        rank_correlation=alignment_correlation(generation),
        doubled=float(np.mean(tokens[1:] == tokens[:-1])) if len(tokens) > 1 else 0.0,
        distinct=len(set(tokens.tolist())),
    )


def alignment_correlation(generation: Generation) -> float:
    """Spearman correlation of step and attended text column, the mean of the aligned heads' attention."""
    if generation.record is None or generation.record.attention is None or len(generation.tokens) < 3:
        return float("nan")
    attended = generation.record.attention.mean(axis=0).argmax(axis=-1)
    return float(spearmanr(np.arange(len(attended)), attended).statistic)


def held_out_speech(directory: Path, count: int) -> list[NDArray[np.int64]]:
    """Codes of the first `count` held-out sentences as espeak-ng speaks them."""
    data = load_file(directory / "held_out.safetensors")
    starts = data["starts"]
    return [data["codes"][starts[index] : starts[index + 1]].astype(np.int64) for index in range(count)]


def text_losses(
    checkpoint: Checkpoint, prompts: Sequence[Prompt], speech: Sequence[NDArray[np.int64]], cfg_weight: float
) -> tuple[float, float]:
    """Mean cross-entropy of true speech, in nats a token, given its own text and given the next prompt's text."""
    totals, count = np.zeros(2), 0
    texts = [checkpoint.tokenizer.encode(prompt.text, prompt.language) for prompt in prompts]
    for index, codes in enumerate(speech):
        targets = [*codes.tolist(), checkpoint.config.eos_id]
        count += len(targets)
        for which, text in enumerate((texts[index], texts[(index + 1) % len(texts)])):
            logits = np.array(checkpoint.model.teacher_forced(text, checkpoint.voice, codes.tolist()), dtype=np.float64)
            mixed = logits[0] + cfg_weight * (logits[0] - logits[1])
            totals[which] -= log_softmax(mixed, axis=-1)[np.arange(len(targets)), targets].sum()
    own, wrong = totals / count
    return float(own), float(wrong)
