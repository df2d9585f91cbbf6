"""Whole generations on Finch: the MLX core and upstream's `T3.inference`, token for token.

Upstream draws with `torch.multinomial`; here that one call is answered with the suite's noise, argmax of log
probability plus Gumbel noise, so that both sides see the same randomness. Nothing else of upstream is changed.
"""

from functools import partial

import pytest

from sampler import SamplingConfig, finch
from sampler.chain.noise import NoiseKey
from sampler.generation.generator import Generator
from sampler.requests import Request
from sampler.t3.weights import read_weights
from tests import upstream
from tests.equivalence.pairs import first_difference
from tests.wheel_runs import KNOBS, infer

checkpoint = pytest.fixture(finch.load, scope="module")
SHORTEST = 50
CONFIG = SamplingConfig(temperature=0.8, cfg_weight=0.5, min_p=0.05, repetition_penalty=1.2)
GREEDY = {"min_p": 0.0, "repetition_penalty": 1.2}


@pytest.fixture(scope="module")
def their_tokens(checkpoint):
    """Upstream's tokens for a text, a config, a cap and the noise of a key, None for the most likely tokens."""
    theirs = upstream.build(checkpoint.config, read_weights(finch.folder() / "weights.safetensors", checkpoint.config))

    def tokens(prompt: finch.Prompt, config: SamplingConfig, cap: int, key: tuple[int, str, int] | None) -> list[int]:
        text, knobs = checkpoint.tokenizer.encode(prompt.text, prompt.language), {k: getattr(config, k) for k in KNOBS}
        run = {"text": text, "rows": 2, "cap": cap, "knobs": knobs, "noise": key, "pushed": ()}
        return infer(theirs, checkpoint.voice, run, "multilingual")["tokens"]

    return tokens


@pytest.mark.parametrize("steps", [40, pytest.param(300, marks=pytest.mark.nightly("300 steps of both sides"))])
def test_greedy_tokens_are_identical(checkpoint, their_tokens, steps):
    """Upstream has no greedy mode: temperature 1 without filters, and the most likely token for `multinomial`."""
    longest = max(finch.prompts("paragraphs"), key=lambda prompt: prompt.tokens)
    expected = their_tokens(longest, SamplingConfig(temperature=1.0, **GREEDY), steps, None)
    request = Request(longest.text, SamplingConfig(temperature=0.0, **GREEDY), 0, steps, language=longest.language)
    assert len(expected) == steps, "the text is too short for this test"
    assert list(Generator(checkpoint, width=1).generate([request])[0].tokens) == expected


@pytest.mark.parametrize(
    ("count", "cap"), [(3, 60), pytest.param(200, 150, marks=pytest.mark.nightly("200 generations of both sides"))]
)
def test_sampled_tokens_are_identical(checkpoint, their_tokens, record_property, count, cap):
    prompts = [prompt for prompt in finch.prompts("sentences") if prompt.tokens >= SHORTEST + 10]
    prompts = [*prompts, *finch.prompts("paragraphs")][: count + 10]
    keys = [(7, "parity", index) for index in range(len(prompts))]
    size = checkpoint.config.speech_vocab_size
    requests = [
        Request(prompt.text, CONFIG, 0, cap, partial(NoiseKey(*key).gumbel, vocab_size=size), prompt.language)
        for prompt, key in zip(prompts, keys, strict=True)
    ]
    ours = Generator(checkpoint, width=20, keep_logits=True).generate(requests)
    chosen = [index for index, answer in enumerate(ours) if len(answer.tokens) >= SHORTEST][:count]
    assert len(chosen) == count
    differences = []
    for index in chosen:
        expected = their_tokens(prompts[index], CONFIG, cap, keys[index])
        if list(ours[index].tokens) != expected:
            differences.append(first_difference(ours[index], expected, CONFIG, checkpoint.config.bos_id))
            record_property("difference", f"request {index}: {differences[-1]}")
    lengths = [len(ours[index].tokens) for index in chosen]
    figures = f"{count - len(differences)} of {count}, {min(lengths)} to {max(lengths)} tokens, {sum(lengths)} in all"
    record_property("identical", figures)
    assert len(differences) <= 0.01 * count, "\n".join(differences)
    assert not [difference for difference in differences if "not explained" in difference]
