"""Whole generations on Finch: the MLX core and upstream's `T3.inference`, token for token.

Upstream draws with `torch.multinomial`; here that one call is answered with the suite's noise, argmax of log
probability plus Gumbel noise, so that both sides see the same randomness. Nothing else of upstream is changed.
"""

from collections.abc import Sequence
from functools import partial

import pytest
import torch

from sampler import SamplingConfig, finch
from sampler.chain.noise import NoiseKey
from sampler.generation.generator import Generator
from sampler.requests import Generation, Request
from tests import upstream
from tests.support import kept_bounds

GREEDY_STEPS = 300
SAMPLED, FEWEST_IDENTICAL = 200, 198
SHORTEST, LONGEST = 50, 150
CONFIG = SamplingConfig(temperature=0.8, cfg_weight=0.5, min_p=0.05, repetition_penalty=1.2)


@pytest.fixture(scope="module")
def checkpoint():
    return finch.load()


@pytest.fixture(scope="module")
def theirs(checkpoint):
    from sampler.t3.weights import read_weights

    config = checkpoint.config
    return upstream.build(config, read_weights(finch.folder() / "weights.safetensors", config))


@pytest.fixture
def shared_noise(monkeypatch):
    """Let upstream draw with the noise of a key: `shared_noise(key)` before each call of `inference`."""
    step = 0
    key = NoiseKey(0)

    def use(new_key: NoiseKey) -> None:
        nonlocal key, step
        key, step = new_key, 0

    def multinomial(probabilities: torch.Tensor, num_samples: int) -> torch.Tensor:
        nonlocal step
        assert num_samples == 1
        gumbel = torch.from_numpy(key.gumbel(step, probabilities.shape[-1]))
        step += 1
        return torch.argmax(torch.log(probabilities) + gumbel, dim=-1, keepdim=True)

    monkeypatch.setattr(upstream.module("chatterbox.models.t3.t3").torch, "multinomial", multinomial)
    monkeypatch.setattr(upstream.module("chatterbox.models.t3.t3"), "tqdm", lambda steps, **_: steps)
    return use


def infer(theirs, checkpoint, text: Sequence[int], config: SamplingConfig, cap: int) -> list[int]:
    """Upstream's tokens, conditional row."""
    return theirs.inference(
        t3_cond=upstream.conditions(checkpoint.voice),
        text_tokens=torch.tensor([text, text]),
        max_new_tokens=cap,
        temperature=config.temperature,
        top_p=config.top_p,
        min_p=config.min_p,
        repetition_penalty=config.repetition_penalty,
        cfg_weight=config.cfg_weight,
    )[0].tolist()


def test_greedy_tokens_are_identical_for_300_steps(checkpoint, theirs, monkeypatch):
    """Upstream has no greedy mode: temperature 1 without filters, and the most likely token for `multinomial`."""
    monkeypatch.setattr(torch, "multinomial", lambda probabilities, num_samples: probabilities.argmax(-1, keepdim=True))
    longest = max(finch.prompts("paragraphs"), key=lambda prompt: prompt.tokens)
    text = checkpoint.tokenizer.encode(longest.text, longest.language)
    settings = {"min_p": 0.0, "repetition_penalty": 1.2}
    expected = infer(theirs, checkpoint, text, SamplingConfig(temperature=1.0, **settings), GREEDY_STEPS)
    request = Request(tuple(text), SamplingConfig(temperature=0.0, **settings), 0, GREEDY_STEPS)
    found = Generator(checkpoint, width=1).generate([request])[0]
    assert len(expected) == GREEDY_STEPS, "the text is too short for this test"
    assert list(found.tokens) == expected


def test_sampled_tokens_are_identical(checkpoint, theirs, shared_noise, record_property):
    """200 sequences of 50 to 150 tokens: at least 198 identical, each difference with its margin and its reason."""
    prompts = [prompt for prompt in finch.prompts("sentences") if prompt.tokens >= SHORTEST + 10]
    prompts = [*prompts, *finch.prompts("paragraphs")][: SAMPLED + 10]
    keys = [NoiseKey(7, "parity", index) for index in range(len(prompts))]
    requests = [
        Request(
            prompt.text,
            CONFIG,
            0,
            LONGEST,
            partial(key.gumbel, vocab_size=checkpoint.config.speech_vocab_size),
            prompt.language,
        )
        for prompt, key in zip(prompts, keys, strict=True)
    ]
    ours = Generator(checkpoint, width=20, keep_logits=True).generate(requests)
    chosen = [index for index, answer in enumerate(ours) if len(answer.tokens) >= SHORTEST][:SAMPLED]
    assert len(chosen) == SAMPLED
    differences = []
    for index in chosen:
        shared_noise(keys[index])
        text = checkpoint.tokenizer.encode(prompts[index].text, prompts[index].language)
        expected = infer(theirs, checkpoint, text, CONFIG, LONGEST)
        if list(ours[index].tokens) != expected:
            differences.append(describe_difference(ours[index], expected, checkpoint.config.bos_id))
            record_property("difference", f"request {index}: {differences[-1]}")
    lengths = [len(ours[index].tokens) for index in chosen]
    identical = SAMPLED - len(differences)
    record_property(
        "identical", f"{identical} of {SAMPLED}, {min(lengths)} to {max(lengths)} tokens, {sum(lengths)} in all"
    )
    assert identical >= FEWEST_IDENTICAL, "\n".join(differences)
    assert not [difference for difference in differences if "not explained" in difference]


def describe_difference(generation: Generation, expected: Sequence[int], bos_id: int) -> str:
    """Where two runs part, by which margin, and whether min-p stood on its threshold there."""
    pairs = zip(generation.tokens, expected, strict=False)
    step = next((index for index, (one, other) in enumerate(pairs) if one != other), len(expected))
    record = generation.record
    history = [[bos_id, *generation.tokens[:step]]]
    logits, uncond = record.logits[step : step + 1, 0], record.logits[step : step + 1, 1]
    must, may = kept_bounds(logits, history, CONFIG, uncond)
    flipped = bool((may & ~must).any())
    margin = float(record.margin[step])
    reason = "a min-p threshold flipped" if flipped else "no threshold flipped"
    explained = "" if flipped or margin < 1e-4 else ", not explained"
    return f"step {step}, margin {margin:.2e}, {reason}{explained}"
