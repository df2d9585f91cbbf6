"""Finch, 64 requests with guidance, beside upstream's `T3.inference` with the same weights, one request at a time.

Tokens a second are those of whole generations of exactly 150 or 500 tokens, on both sides with prefill and chain,
after one short generation that is not counted. The texts are those whose true length is nearest to that number.
Upstream speaks some of the 64, evenly chosen: its time a token hardly depends on the text.
"""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from sampler import finch
from sampler.config import SamplingConfig
from sampler.generation.generator import Generator
from sampler.requests import Request
from tests.benchmarks import endless, roofline
from tests.benchmarks.child import PEAK_MEMORY
from tests.benchmarks.clock import threads
from tests.benchmarks.rows import UPSTREAM, Figure, Row
from tests.benchmarks.runner import Comparison

REQUESTS, WIDTH = 64, 64
GOALS = {150: 10.0, 500: 7.0}
THEIR_REQUESTS, THEIR_QUICK_REQUESTS = 4, 2
BOS_ROWS = 2


def texts(tokens: int) -> list[Any]:
    every = [prompt for group in ("sentences", "paragraphs", "long") for prompt in finch.prompts(group)]
    return sorted(every, key=lambda prompt: (abs(prompt.tokens - tokens), prompt.id))[:REQUESTS]


def requests(of: int, tokens: int) -> list[Any]:
    """A request for so many tokens with each of the texts of that length, and the default parameters."""
    tokenizer = finch.load().tokenizer
    prompts = [tuple(tokenizer.encode(prompt.text, prompt.language)) for prompt in texts(of)]
    return [Request(ids, SamplingConfig(), seed, tokens) for seed, ids in enumerate(prompts)]


def ours(*, quick: bool) -> Iterator[tuple[str, float]]:
    generator = Generator(endless.checkpoint(*endless.finch_tensors()), width=WIDTH)
    generator.generate(requests(150, 5))
    for tokens in GOALS:
        asked = requests(tokens, tokens)
        start = time.perf_counter()
        endless.check_lengths(generator.generate(asked), asked)
        yield str(tokens), REQUESTS * tokens / (time.perf_counter() - start)


def upstreams(*, quick: bool) -> Iterator[tuple[str, float]]:
    import torch

    torch.set_num_threads(threads())
    config, tensors = endless.finch_tensors()
    model, voice = endless.upstream_model(config, tensors), endless.checkpoint(config, tensors).voice
    endless.upstream_run(model, voice, requests(150, 5)[0].prompt, 5)
    count = THEIR_QUICK_REQUESTS if quick else THEIR_REQUESTS
    for tokens in GOALS:
        chosen = requests(tokens, tokens)[:: REQUESTS // count][:count]
        start = time.perf_counter()
        for request in chosen:
            endless.upstream_run(model, voice, request.prompt, tokens)
        yield str(tokens), count * tokens / (time.perf_counter() - start)


def bound(*, quick: bool) -> Iterator[tuple[str, float]]:
    config, _ = endless.finch_tensors()
    lengths = {}
    for tokens in GOALS:
        text = sum(len(request.prompt) for request in requests(tokens, tokens)) / REQUESTS
        lengths[str(tokens)] = text + config.conditioning_length + BOS_ROWS + (tokens - 1) / 2
    for name, value in roofline.measures(config, 2 * WIDTH, lengths, quick=quick):
        yield name, value * WIDTH if name in lengths else value


SIDES = {"ours": ours, "upstream": upstreams, "roofline": bound}


def _rows() -> Iterator[Row]:
    row = partial(Row, unit="tokens/s", better="more")
    for tokens, goal in GOALS.items():
        name, measure = f"Finch, 64 requests, {tokens} tokens", str(tokens)
        own = Figure("ours", measure)
        yield row(name, own, peer=Figure("upstream", measure), peer_name=UPSTREAM, goal=goal)
        best = Figure("roofline", measure, "largest")
        yield row(f"{name}, share of the roofline", own, peer=best, peer_name="roofline")
    yield Row("Finch, peak memory", Figure("ours", PEAK_MEMORY), "MiB", Figure("upstream", PEAK_MEMORY), UPSTREAM)


COMPARISON = Comparison("finch", __name__, ("ours", "upstream", "roofline") * 2, tuple(_rows()))
