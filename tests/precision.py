"""How far half precision moves the next-token distribution: `python -m tests.precision` prints the table in the docs.

Teacher-forced over Finch's held-out true speech. Our core and upstream's T3, both cast as a whole to float16 or
bfloat16, are each compared with our core in float32, by total variation after the chain.
"""

import argparse
from collections.abc import Iterable, Sequence

import mlx.core as mx
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from sampler import SamplingConfig, finch, process
from sampler.finch.training.measure import held_out_speech
from sampler.statistics.distance import total_variation
from sampler.t3.conditioning import Voice
from sampler.t3.config import T3Config
from sampler.t3.model import T3
from sampler.t3.weights import Dtype, read_weights
from tests import upstream

CHAINS = {
    "default chain": SamplingConfig(),
    "without min-p": SamplingConfig(min_p=0.0),
    "temperature alone": SamplingConfig(min_p=0.0, repetition_penalty=1.0, cfg_weight=0.0),
}
QUANTILES = (0.5, 0.9, 0.99, 1.0)
Logits, Distances = NDArray[np.float32], NDArray[np.float64]


def their_logits(
    theirs: torch.nn.Module, config: T3Config, voice: Voice, text: Sequence[int], tokens: Sequence[int]
) -> Logits:
    """Upstream's teacher-forced logits, float32, in the layout of `T3.teacher_forced`; in the network's own type."""
    dtype, rows, tokens = theirs.speech_head.weight.dtype, 2 if config.guidance else 1, list(tokens)
    with torch.inference_mode():
        embeddings, _ = theirs.prepare_input_embeds(
            t3_cond=upstream.conditions(voice).to(dtype=dtype),
            text_tokens=torch.tensor([list(text)] * rows),
            speech_tokens=torch.tensor([[config.bos_id]] * rows),
            cfg_weight=0.5,
        )
        speech = theirs.speech_emb(torch.tensor([tokens if config.backbone == "gpt2" else [config.bos_id, *tokens]]))
        if config.backbone == "llama":  # the second BOS stands at position 0 as the first does
            speech = speech + theirs.speech_pos_emb.emb(torch.arange(len(tokens) + 1))[None]
        hidden = theirs.tfmr(inputs_embeds=torch.cat([embeddings, speech.expand(rows, -1, -1)], dim=1))[0]
        return theirs.speech_head(hidden[:, -(len(tokens) + 1) :]).float().numpy()


def total_variations(
    left: Logits, right: Logits, tokens: Sequence[int], config: T3Config, chain: SamplingConfig
) -> NDArray[np.float64]:
    """Total variation of the next-token distributions at each step; logits as `T3.teacher_forced` gives them."""
    histories = [[config.bos_id, *tokens[:step]] for step in range(len(tokens) + 1)]
    first, second = (
        np.array(process(logits[0], histories, chain, logits[1] if len(logits) == 2 else None))
        for logits in (left, right)
    )
    return total_variation(first, second)


def cast(tensors: dict[str, mx.array], dtype: Dtype) -> dict[str, mx.array]:
    return {name: value.astype(getattr(mx, dtype)) for name, value in tensors.items()}


def measure(
    tensors: dict[str, mx.array],
    config: T3Config,
    voice: Voice,
    runs: Iterable[tuple[Sequence[int], Sequence[int]]],
    dtype: Dtype,
    chains: Sequence[SamplingConfig],
) -> list[tuple[Distances, Distances]]:
    """For each chain, total variation from our float32 at every step: our half precision, upstream's."""
    exact, ours = T3(tensors, config), T3(cast(tensors, dtype), config)
    theirs = upstream.build(config, tensors, dtype=getattr(torch, dtype))
    found: list[tuple[list[Distances], list[Distances]]] = [([], []) for _ in chains]
    for text, tokens in runs:
        reference = np.array(exact.teacher_forced(text, voice, tokens))
        halves = (np.array(ours.teacher_forced(text, voice, tokens)), their_logits(theirs, config, voice, text, tokens))
        for chain, columns in zip(chains, found, strict=True):
            for column, half in zip(columns, halves, strict=True):
                column.append(total_variations(reference, half, tokens, config, chain))
    return [(np.concatenate(mine), np.concatenate(other)) for mine, other in found]


def held_out_runs(count: int) -> list[tuple[list[int], list[int]]]:
    checkpoint = finch.load()
    prompts = finch.prompts("sentences")[:count]
    texts = [checkpoint.tokenizer.encode(each.text, each.language) for each in prompts]
    return list(zip(texts, [codes.tolist() for codes in held_out_speech(finch.folder(), prompts)], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=40)
    count = parser.parse_args().sentences
    checkpoint, runs = finch.load(), held_out_runs(count)
    tensors = read_weights(finch.folder() / "weights.safetensors", checkpoint.config)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{count} sentences, {sum(len(tokens) + 1 for _, tokens in runs)} steps; quantiles {QUANTILES}")
    for dtype in ("float16", "bfloat16"):
        found = measure(tensors, checkpoint.config, checkpoint.voice, runs, dtype, list(CHAINS.values()))
        for name, columns in zip(CHAINS, found, strict=True):
            for who, distances in zip(("core", "torch"), columns, strict=True):
                quantiles = " ".join(f"{value:.1e}" for value in np.quantile(distances, QUANTILES))
                console.print(f"{dtype:9} {name:18} {who:6} {quantiles}  mean {distances.mean():.1e}")


if __name__ == "__main__":
    main()
