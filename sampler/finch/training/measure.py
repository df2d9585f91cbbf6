"""Measure the quality of a model like Finch: does it stop, follow its text, depend on the text, and vary."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy.optimize import brentq
from scipy.special import log_softmax, rel_entr
from scipy.stats import spearmanr

from sampler.chain.noise import NoiseKey, RequestNoise
from sampler.config import SamplingConfig
from sampler.finch import Prompt, prompts_in
from sampler.generation.generator import Generator
from sampler.requests import Generation, Request
from sampler.t3.checkpoint import Checkpoint

SHORTEST, LONGEST = 0.7, 1.4
"""Limits of the length of a run relative to the true speech."""

WIDTH = 32
LONG_TOKENS = (500, 900)
LONG_CAP = 1_500
"""Tokens after which a text of 500 to 900 counts as not ending."""


@dataclass(frozen=True)
class SpeechMeasures:
    """Measures of one run. ratio: length over true length. rank_correlation: Spearman's, of position and time."""

    ended: bool
    ratio: float
    rank_correlation: float
    doubled: float
    distinct: int

    @property
    def right_length(self) -> bool:
        return self.ended and SHORTEST <= self.ratio <= LONGEST


def speak(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    config: SamplingConfig,
    seed: int,
    width: int = WIDTH,
    cap: int = 1_000,
) -> list[Generation]:
    """Generate one run for each prompt, with the attention of the aligned heads."""
    requests = [_request(checkpoint, prompt, config, seed, index, cap) for index, prompt in enumerate(prompts)]
    return Generator(checkpoint, width=width, keep_attention=True).generate(requests)


def _request(
    checkpoint: Checkpoint, prompt: Prompt, config: SamplingConfig, seed: int, index: int, cap: int
) -> Request:
    noise = RequestNoise(NoiseKey(seed, "measure", index), checkpoint.config.speech_vocab_size)
    return Request(prompt.text, config, seed, cap, noise, prompt.language)


def measure_speech(generation: Generation, prompt: Prompt) -> SpeechMeasures:
    """Measure one run of a prompt; EOS is not counted as speech."""
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
    """Spearman correlation of step and attended text column, from the mean attention of the aligned heads."""
    if generation.record is None or generation.record.attention is None or len(generation.tokens) < 3:
        return float("nan")
    attended = generation.record.attention.mean(axis=0).argmax(axis=-1)
    return float(spearmanr(np.arange(len(attended)), attended).statistic)


def over_languages(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """The first prompts of every language, equally many of each; `count` in all."""
    languages = list(dict.fromkeys(prompt.language for prompt in prompts))
    chosen = [[prompt for prompt in prompts if prompt.language == name] for name in languages]
    return [prompt for group in chosen for prompt in group[: count // len(languages)]]


def long_prompts(directory: Path, count: int) -> list[Prompt]:
    """Held-out texts of 500 to 900 tokens, equally many of each language."""
    low, high = LONG_TOKENS
    return over_languages([prompt for prompt in prompts_in(directory, "long") if low <= prompt.tokens <= high], count)


def held_out_speech(directory: Path, prompts: Sequence[Prompt]) -> list[NDArray[np.int64]]:
    """Codes of held-out prompts as spoken by espeak-ng."""
    data = load_file(directory / "held_out.safetensors")
    starts = data["starts"]
    return [data["codes"][starts[prompt.index] : starts[prompt.index + 1]].astype(np.int64) for prompt in prompts]


@dataclass(frozen=True)
class Share:
    """Share of `runs` runs that ended, from `texts` texts with equally many runs; low, high: its 95 % interval."""

    ended: int
    runs: int
    texts: int
    low: float
    high: float


def share_by_text(ended: NDArray[np.bool_], confidence: float = 0.95) -> Share:
    """Interval of the share of runs that end, with the text as the unit: `ended` (texts, runs).

    It holds for finite samples and any dependence within a text: a mean of `texts` independent numbers in [0, 1] is
    this far from its expectation with a probability of at most 1 - confidence (Hoeffding 1963, equation 2.1).
    """
    texts, runs = ended.shape
    share = float(ended.mean())
    reach = math.log(2 / (1 - confidence)) / texts

    def gap(bound: float) -> float:
        divergence: float = rel_entr(share, bound) + rel_entr(1 - share, 1 - bound) - reach
        return divergence

    low = brentq(gap, 1e-12, share) if share > 0 else 0.0
    high = brentq(gap, share, 1 - 1e-12) if share < 1 else 1.0
    return Share(int(ended.sum()), texts * runs, texts, float(low), float(high))


def endings(
    checkpoint: Checkpoint, prompts: Sequence[Prompt], config: SamplingConfig, seeds: int, cap: int
) -> NDArray[np.bool_]:
    """Which runs end by themselves before `cap` tokens: (texts, seeds)."""
    requests = [_request(checkpoint, prompt, config, seed, 0, cap) for prompt in prompts for seed in range(seeds)]
    runs = Generator(checkpoint, width=WIDTH).generate(requests)
    return np.array([run.stop_reason == "eos" for run in runs]).reshape(len(prompts), seeds)


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
