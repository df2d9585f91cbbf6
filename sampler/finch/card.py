"""The model card: what Finch is made of and how good it is, every figure measured when it is written."""

import importlib.metadata
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors import safe_open

from sampler.config import SamplingConfig
from sampler.finch import prompts_in
from sampler.finch.batches import Recipe
from sampler.finch.corpus import Corpus, Plan
from sampler.finch.measure import held_out_speech, measure_speech, speak, text_losses
from sampler.finch.publish import SHIPPED
from sampler.finch.speech import VARIANTS, Espeak
from sampler.t3.checkpoint import load_checkpoint

SENTENCES, LONG_RUNS, TEXT_LOSSES = 200, 20, 100


INTRODUCTION = """# Finch, first edition

A small T3 (the text-to-speech-token model of Chatterbox) for tests of samplers. It speaks in the codes of a
synthesiser, not in those of Chatterbox; nothing of Chatterbox's weights or training data is in it. This card is written
by `python -m sampler.finch.train`.
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
            ("optimiser", f"AdamW, learning rate {recipe.learning_rate:g} with warm-up and cosine"),
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
    sentences = prompts_in(folder, "sentences")[:SENTENCES]
    measured = [
        measure_speech(run, prompt)
        for run, prompt in zip(speak(checkpoint, sentences, config, seed=0), sentences, strict=True)
    ]
    ratios = np.percentile([each.ratio for each in measured], [0, 50, 100])
    right = sum(each.right_length for each in measured)
    speech = held_out_speech(folder, TEXT_LOSSES)
    plain, guided = (text_losses(checkpoint, sentences[:TEXT_LOSSES], speech, weight) for weight in (0.0, 0.5))
    codes = _distinct_codes(folder)
    distinct = f"{np.mean(codes):.0f}, mean of {len(codes)} runs" if codes else f"none of {LONG_RUNS} runs is as long"
    return _table(
        "Quality, on held-out texts",
        [
            ("config", f"`{config}`"),
            ("ended by themselves", f"{sum(each.ended for each in measured)} of {len(measured)}"),
            ("length 0.7 to 1.4 times the true one", f"{right} of {len(measured)}"),
            ("least, median and largest length ratio", ", ".join(f"{ratio:.2f}" for ratio in ratios)),
            (
                "attention rises with time, Spearman > 0.95",
                f"{sum(e.rank_correlation > 0.95 for e in measured)} of {len(measured)}",
            ),
            (
                "loss of true speech in the default voice, own and wrong text",
                f"{plain[0]:.2f} and {plain[1]:.2f} nats a token",
            ),
            ("the same with guidance 0.5", f"{guided[0]:.2f} and {guided[1]:.2f} nats a token"),
            ("doubled tokens", f"{np.mean([each.doubled for each in measured]):.2%}"),
            ("distinct codes in the first 500 tokens", distinct),
        ],
    )


def _distinct_codes(folder: Path) -> list[int]:
    """How many different codes the first 500 tokens have, in runs of a long paragraph and one more sentence."""
    paragraphs = sorted(prompts_in(folder, "paragraphs"), key=lambda prompt: -prompt.tokens)[:LONG_RUNS]
    sentences = prompts_in(folder, "sentences")
    longer = [
        replace(paragraph, text=f"{paragraph.text} {sentence.text}")
        for paragraph, sentence in zip(paragraphs, sentences, strict=False)
    ]
    runs = speak(load_checkpoint(folder), longer, SamplingConfig(), seed=1)
    return [len(set(run.tokens[:500])) for run in runs if len(run.tokens) >= 500]
