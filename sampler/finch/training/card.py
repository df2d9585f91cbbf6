"""The model card: data, training and quality of Finch, with figures measured when it is written."""

import importlib.metadata
from pathlib import Path

import numpy as np
from safetensors import safe_open

from sampler.config import SamplingConfig
from sampler.finch import Prompt, prompts_in
from sampler.finch.training.batches import Recipe
from sampler.finch.training.corpus import Corpus, Plan
from sampler.finch.training.measure import (
    LONG_CAP,
    LONG_TOKENS,
    endings,
    held_out_speech,
    long_prompts,
    measure_speech,
    over_languages,
    share_by_text,
    speak,
    text_losses,
)
from sampler.finch.training.publish import SHIPPED
from sampler.finch.training.speech import VARIANTS, Espeak
from sampler.t3.checkpoint import Checkpoint, load_checkpoint

SENTENCES, TEXT_LOSSES, LONG_TEXTS, LONG_SEEDS = 200, 100, 20, 10


INTRODUCTION = """# Finch, second edition

A small T3 (the text-to-speech-token model of Chatterbox) for tests of samplers. It speaks in the codes of a
synthesiser, not in those of Chatterbox; nothing of Chatterbox's weights or training data is in it. This card is written
by `python -m sampler.finch.train`.

`sampler say "text" -o out.wav` speaks: `codebook.safetensors` has the spectra that the codes stand for.
"""

LICENCES = """## Licences of the inputs

| input | licence | use |
|---|---|---|
| grammar and word lists (`languages/*.toml`) | MIT, written for this project | texts, held-out prompts |
| wonderwords {words} | MIT | further words in training texts |
| espeak-ng {espeak} (espeakng-loader {loader}) | GPL-3.0 (the program, which is not shipped) | speech |

Finch itself is MIT, as the rest of the project.
"""


def write_card(folder: Path, plan: Plan, recipe: Recipe, data: Corpus, losses: dict[str, float]) -> None:
    """Measure the model in `folder` and write `folder/MODEL_CARD.md`."""
    licences = LICENCES.format(
        words=importlib.metadata.version("wonderwords"),
        espeak=Espeak().version,
        loader=importlib.metadata.version("espeakng-loader"),
    )
    sections = [INTRODUCTION, _sizes(folder), _data(plan, data), _training(recipe, losses), _quality(folder), licences]
    (folder / "MODEL_CARD.md").write_text("\n".join(sections), encoding="utf-8")


def _table(title: str, rows: list[tuple[str, object]]) -> str:
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"## {title}\n\n| what | figure |\n|---|---|\n{lines}\n"


def _sizes(folder: Path) -> str:
    with safe_open(folder / "weights.safetensors", framework="numpy") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    config = load_checkpoint(folder).config
    parameters = sum(int(np.prod(shape)) for shape in shapes)
    sizes = (config.num_layers, config.hidden_size, config.num_heads, config.intermediate_size)
    languages = ", ".join(f"[{name}]" for name in config.languages)
    size = sum((folder / name).stat().st_size for name in SHIPPED) / 2**20
    return _table(
        "Size",
        [
            ("parameters", f"{parameters:,}, stored as float16, computed as float32"),
            ("layers, width, heads, MLP", ", ".join(map(str, sizes))),
            ("speech vocabulary", f"{config.bos_id:,} codes, BOS {config.bos_id}, EOS {config.eos_id}"),
            ("text vocabulary", f"{config.text_vocab_size}: characters, {languages} and upstream's special tokens"),
            ("aligned (layer, head) pairs", ", ".join(map(str, config.aligned_heads))),
            ("longest text, longest speech", f"{config.max_text_tokens} and {config.max_speech_tokens} tokens"),
            ("files", f"{size:.1f} MiB"),
        ],
    )


def _data(plan: Plan, data: Corpus) -> str:
    used = np.bincount(data.codes, minlength=plan.codes)
    shares = used[used > 0] / used.sum()
    voices = ", ".join(variant or "plain" for variant in VARIANTS[: plan.voices])
    hours = len(data.codes) / 25 / 3600
    return _table(
        "Data",
        [
            ("text", f"{len(data):,} texts of 1 to {plan.most_sentences} sentences from a grammar, seed {plan.seed}"),
            ("languages", ", ".join(plan.languages)),
            ("speech", f"{hours:.0f} hours, espeak-ng {Espeak().version}, voices {voices}"),
            ("codes", "25 a second: k-means over pairs of 40-band log-mel frames at 50 Hz"),
            (
                "codes in use",
                f"{len(shares):,} of {plan.codes:,}, entropy {-np.sum(shares * np.log2(shares)):.1f} bits",
            ),
            ("emotion", "sets the speed: 140 words a minute at 0, 175 at 0.5 (neutral), 210 at 1"),
        ],
    )


def _training(recipe: Recipe, losses: dict[str, float]) -> str:
    weights = f"speech + {recipe.text_weight:g} text + {recipe.alignment_weight:g} alignment"
    return _table(
        "Training",
        [
            ("steps", f"{recipe.steps:,} of about {recipe.rows_per_batch:,} rows, seed {recipe.seed}"),
            (
                "optimiser",
                f"Muon for the layers' matrices, else AdamW; rates {recipe.learning_rate:g}, {recipe.restart_rate:g}",
            ),
            (
                "schedule",
                f"{recipe.warmup} steps up, the last {recipe.decay:.0%} down; from step {recipe.restart:,} again",
            ),
            (
                "texts",
                f"the first {recipe.short_steps:,} steps with at most {recipe.short_rows} rows, then all",
            ),
            ("loss", f"{weights} (-log of the attention near the spoken character)"),
            ("rows without text, for guidance", f"{recipe.blank_text:.0%}"),
            (
                "last losses in training, with slips put into the input",
                ", ".join(f"{name} {value:.3f}" for name, value in losses.items()),
            ),
        ],
    )


def _quality(folder: Path) -> str:
    checkpoint, config = load_checkpoint(folder), SamplingConfig()
    prompts = prompts_in(folder, "sentences")
    sentences = over_languages(prompts, SENTENCES)
    runs = speak(checkpoint, sentences, config, seed=0)
    measured = [measure_speech(run, prompt) for run, prompt in zip(runs, sentences, strict=True)]
    ratios = np.percentile([speech.ratio for speech in measured], [0, 50, 100])
    right = sum(speech.right_length for speech in measured)
    rows: list[tuple[str, object]] = [
        ("config", f"`{config}`"),
        ("sentences", f"{len(sentences)}, as many of each language"),
        ("ended by themselves", f"{sum(speech.ended for speech in measured)} of {len(measured)}"),
        ("length 0.7 to 1.4 times the true one", f"{right} of {len(measured)}"),
        ("least, median and largest length ratio", ", ".join(f"{ratio:.2f}" for ratio in ratios)),
        (
            "attention rises with time, Spearman > 0.95",
            f"{sum(e.rank_correlation > 0.95 for e in measured)} of {len(measured)}",
        ),
        ("doubled tokens", f"{np.mean([speech.doubled for speech in measured]):.2%}"),
    ]
    texts = over_languages(prompts, TEXT_LOSSES)
    return _table("Quality, on held-out texts", rows + _text_rows(folder, checkpoint, texts) + _long_rows(folder))


def _text_rows(folder: Path, checkpoint: Checkpoint, texts: list[Prompt]) -> list[tuple[str, object]]:
    speech = held_out_speech(folder, texts)
    plain, guided = (text_losses(checkpoint, texts, speech, weight) for weight in (0.0, 0.5))
    return [
        (
            "loss of true speech in the default voice, own and wrong text",
            f"{plain[0]:.2f} and {plain[1]:.2f} nats a token",
        ),
        ("the same with guidance 0.5", f"{guided[0]:.2f} and {guided[1]:.2f} nats a token"),
    ]


def _long_rows(folder: Path) -> list[tuple[str, object]]:
    """Quality on texts of 500 to 900 tokens with several seeds: endings, lengths and alignment."""
    checkpoint, config = load_checkpoint(folder), SamplingConfig()
    prompts = long_prompts(folder, LONG_TEXTS)
    share = share_by_text(endings(checkpoint, prompts, config, LONG_SEEDS, LONG_CAP))
    runs = speak(checkpoint, prompts, config, seed=100, cap=LONG_CAP)
    measured = [measure_speech(run, prompt) for run, prompt in zip(runs, prompts, strict=True)]
    codes = [len(set(run.tokens[:500])) for run in runs if len(run.tokens) >= 500]
    distinct = f"{min(codes)} to {max(codes)} in {len(codes)} runs" if codes else f"none of {len(runs)} runs is as long"
    low, high = LONG_TOKENS
    return [
        (
            f"{len(prompts)} texts of {low} to {high} tokens, {LONG_SEEDS} seeds each: ended before {LONG_CAP:,}",
            f"{share.ended} of {share.runs}; share {share.low:.3f} to {share.high:.3f} at 95 %, the text as the unit",
        ),
        (
            "the same texts, one more seed: length 0.7 to 1.4 times the true one",
            f"{sum(speech.right_length for speech in measured)} of {len(measured)}",
        ),
        (
            "attention rises with time, Spearman > 0.95",
            f"{sum(e.rank_correlation > 0.95 for e in measured)} of {len(measured)}",
        ),
        ("distinct codes in the first 500 tokens", distinct),
    ]
