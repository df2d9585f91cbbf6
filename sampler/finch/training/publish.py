"""Turn a trained network into the files that ship: weights, tokenizer, voice, prompts."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from sampler.finch.training.batches import speaker_embedding
from sampler.finch.training.corpus import NEUTRAL_EMOTION, Corpus, Wanted
from sampler.t3.config import T3Config

SENTENCES, PARAGRAPHS = 100, 40
"""Held-out texts per language with one sentence, and with two to six."""

LONG = (*((12, characters, 0) for characters in range(480, 620, 20)), (12, 760, 60), (12, 1_000, 75))
"""Long held-out texts: largest numbers of sentences and characters, and the shortest sentence."""

SINGULAR = {"sentences": "sentence", "paragraphs": "paragraph", "long": "long"}

SHIPPED = (
    "weights.safetensors",
    "codebook.safetensors",
    "config.json",
    "tokenizer.json",
    "conds.safetensors",
    "prompts.json",
    "held_out.safetensors",
)


def wanted() -> list[Wanted]:
    """Held-out texts of each language, in the order of `prompts.json`."""
    return [
        *(Wanted("sentences", 1) for _ in range(SENTENCES)),
        *(Wanted("paragraphs", 2 + index % 5) for index in range(PARAGRAPHS)),
        *(Wanted("long", *sizes) for sizes in LONG),
    ]


def publish(
    folder: Path,
    network: dict[str, torch.Tensor],
    config: T3Config,
    tokenizer: Tokenizer,
    codebook: NDArray[np.float32],
    data: Corpus,
    held_out: Corpus,
) -> None:
    """Write everything that `sampler.finch.load` reads into `folder`, except the model card."""
    folder.mkdir(parents=True, exist_ok=True)
    # float16 halves the package; it is loaded as float32, so every program computes with the same numbers.
    weights = {name: value.to(torch.float16).numpy() for name, value in network.items() if "rotary" not in name}
    save_file(weights, folder / "weights.safetensors", metadata={"format": "pt"})
    save_file({"codebook": codebook.astype(np.float16)}, folder / "codebook.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=1) + "\n", encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file(default_voice(data, codebook, config), folder / "conds.safetensors")
    save_file({"codes": held_out.codes, "starts": held_out.starts}, folder / "held_out.safetensors")
    (folder / "prompts.json").write_text(json.dumps(_prompts(held_out), indent=1) + "\n", encoding="utf-8")


def default_voice(data: Corpus, codebook: NDArray[np.float32], config: T3Config) -> dict[str, NDArray[np.generic]]:
    """Voice 0, spoken at the most neutral speed, which upstream keeps in `conds.pt`."""
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
    """Texts and true lengths; `index` is the place in `held_out.safetensors`."""
    texts = wanted()
    groups: dict[str, list[dict[str, object]]] = {text.group: [] for text in texts}
    numbers: Counter[tuple[str, str]] = Counter()
    for index, item in enumerate(held_out.utterances):
        group = texts[index % len(texts)].group
        number = numbers[item.language, group]
        numbers[item.language, group] += 1
        groups[group].append(
            {
                "id": f"{item.language}-{SINGULAR[group]}-{number:03d}",
                "text": item.text,
                "language": item.language,
                "tokens": len(held_out.codes_of(index)),
                "index": index,
            }
        )
    return groups
