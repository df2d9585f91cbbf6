"""Turning a trained network into the files that ship: weights, tokenizer, voice, prompts."""

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from sampler.finch.batches import speaker_embedding
from sampler.finch.corpus import NEUTRAL_EMOTION, Corpus
from sampler.t3.config import T3Config

SENTENCES, PARAGRAPHS = 240, 100
"""Held-out texts: so many of one sentence, and so many of two to six."""


SHIPPED = (
    "weights.safetensors",
    "config.json",
    "tokenizer.json",
    "conds.safetensors",
    "prompts.json",
    "held_out.safetensors",
)


def held_out_counts() -> list[int]:
    """Sentences in each held-out text, in the order of `prompts.json`."""
    return [1] * SENTENCES + [2 + index % 5 for index in range(PARAGRAPHS)]


def publish(
    folder: Path,
    network: dict[str, torch.Tensor],
    config: T3Config,
    tokenizer: Tokenizer,
    codebook: NDArray[np.float32],
    data: Corpus,
    held_out: Corpus,
) -> None:
    """Write everything that `sampler.finch.load` reads into `folder`, but for the model card."""
    folder.mkdir(parents=True, exist_ok=True)
    # float16 halves the package; it is read as float32, so every program computes with the same numbers.
    weights = {name: value.to(torch.float16).numpy() for name, value in network.items() if "rotary" not in name}
    save_file(weights, folder / "weights.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=1) + "\n", encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file(default_voice(data, codebook, config), folder / "conds.safetensors")
    save_file({"codes": held_out.codes, "starts": held_out.starts}, folder / "held_out.safetensors")
    (folder / "prompts.json").write_text(json.dumps(_prompts(held_out), indent=1) + "\n", encoding="utf-8")


def default_voice(data: Corpus, codebook: NDArray[np.float32], config: T3Config) -> dict[str, NDArray[np.generic]]:
    """Voice 0, spoken at the most neutral speed: what upstream keeps in `conds.pt`."""
    long_enough = [
        index
        for index, item in enumerate(data.utterances)
        if item.voice == 0 and len(data.codes_of(index)) >= config.prompt_length
    ]
    chosen = min(long_enough, key=lambda index: abs(data.utterances[index].emotion - NEUTRAL_EMOTION))
    prompt = data.codes_of(chosen)[: config.prompt_length]
    return {
        "t3.speaker_emb": speaker_embedding(prompt, codebook, config.speaker_size)[None],
        "t3.cond_prompt_speech_tokens": prompt.astype(np.int64)[None],
        "t3.emotion_adv": np.full((1, 1, 1), NEUTRAL_EMOTION, dtype=np.float32),
    }


def _prompts(held_out: Corpus) -> dict[str, list[dict[str, object]]]:
    """Texts and true lengths; the i-th entry over both groups is the i-th utterance of `held_out.safetensors`."""
    groups: dict[str, list[dict[str, object]]] = {"sentences": [], "paragraphs": []}
    per_language = SENTENCES + PARAGRAPHS
    for index, item in enumerate(held_out.utterances):
        place = index % per_language
        group = "sentences" if place < SENTENCES else "paragraphs"
        number = place if place < SENTENCES else place - SENTENCES
        groups[group].append(
            {
                "id": f"{item.language}-{group[:-1]}-{number:03d}",
                "text": item.text,
                "language": item.language,
                "tokens": len(held_out.codes_of(index)),
            }
        )
    return groups
