"""Finch, 64 requests with guidance, beside upstream's `T3.inference` with the same weights, one request at a time.

Tokens a second are those of whole generations of exactly 150 or 500 tokens, on both sides with prefill and chain,
after one short generation that is not counted. The texts are those whose true length is nearest to that number.
Upstream speaks some of the 64, evenly chosen: its time a token hardly depends on the text.
"""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from tests.benchmarks import endless, roofline
from tests.benchmarks.child import PEAK_MEMORY
from tests.benchmarks.clock import threads
from tests.benchmarks.rows import UPSTREAM, Figure, Row
from tests.benchmarks.runner import Comparison

REQUESTS, WIDTH = 64, 64
GOALS = {150: 8.0, 500: 4.0}
THEIR_REQUESTS, THEIR_QUICK_REQUESTS = 4, 2
BOS_ROWS = 2


def texts(tokens: int) -> list[Any]:
    """The 64 held-out prompts whose speech is nearest to so many tokens."""
    from sampler import finch

    every = [prompt for group in ("sentences", "paragraphs", "long") for prompt in finch.prompts(group)]
    return sorted(every, key=lambda prompt: (abs(prompt.tokens - tokens), prompt.id))[:REQUESTS]


def encoded(tokens: int) -> list[tuple[int, ...]]:
    """The ids of those texts."""
    from sampler import finch

    tokenizer = finch.load().tokenizer
    return [tuple(tokenizer.encode(prompt.text, prompt.language)) for prompt in texts(tokens)]


def requests(prompts: list[tuple[int, ...]], tokens: int) -> list[Any]:
    """One request for each text, with the default knobs, guidance among them."""
    from sampler.config import SamplingConfig
    from sampler.requests import Request

    return [Request(ids, SamplingConfig(), seed, tokens) for seed, ids in enumerate(prompts)]


def ours(*, quick: bool) -> Iterator[tuple[str, float]]:
    """Tokens a second of a block of 64 slots."""
    from sampler.generation.generator import Generator

    generator = Generator(endless.checkpoint(*endless.finch_tensors()), width=WIDTH)
    generator.generate(requests(encoded(150), 5))
    for tokens in GOALS:
        asked = requests(encoded(tokens), tokens)
        start = time.perf_counter()
        endless.check_lengths(generator.generate(asked), asked)
        yield str(tokens), REQUESTS * tokens / (time.perf_counter() - start)


def upstreams(*, quick: bool) -> Iterator[tuple[str, float]]:
    """Tokens a second of upstream's loop."""
    import torch

    torch.set_num_threads(threads())
    config, tensors = endless.finch_tensors()
    model, voice = endless.upstream_model(config, tensors), endless.checkpoint(config, tensors).voice
    endless.upstream_run(model, voice, encoded(150)[0], 5)
    count = THEIR_QUICK_REQUESTS if quick else THEIR_REQUESTS
    for tokens in GOALS:
        chosen = encoded(tokens)[:: REQUESTS // count][:count]
        start = time.perf_counter()
        for ids in chosen:
            endless.upstream_run(model, voice, ids, tokens)
        yield str(tokens), count * tokens / (time.perf_counter() - start)


def bound(*, quick: bool) -> Iterator[tuple[str, float]]:
    """Tokens a second at the roofline, at the mean length of the cache over the generation."""
    config, _ = endless.finch_tensors()
    lengths = {}
    for tokens in GOALS:
        prefix = sum(len(ids) for ids in encoded(tokens)) / REQUESTS + config.conditioning_length + BOS_ROWS
        lengths[str(tokens)] = prefix + (tokens - 1) / 2
    for name, value in roofline.measures(config, 2 * WIDTH, lengths, quick=quick):
        yield name, value * WIDTH if name in lengths else value


SIDES = {"ours": ours, "upstream": upstreams, "roofline": bound}


def _rows() -> Iterator[Row]:
    row = partial(Row, unit="tokens/s", better="more")
    for tokens, goal in GOALS.items():
        name, measure = f"Finch, 64 requests, {tokens} tokens", str(tokens)
        own = Figure("ours", measure)
        yield row(name, own, peer=Figure("upstream", measure), peer_name=UPSTREAM, goal=goal)
        yield row(
            f"{name}, share of the roofline", own, peer=Figure("roofline", measure, "largest"), peer_name="roofline"
        )
    yield Row(
        "Finch, peak memory",
        Figure("ours", PEAK_MEMORY),
        "MiB",
        Figure("upstream", PEAK_MEMORY),
        UPSTREAM,
    )


COMPARISON = Comparison(
    name="finch",
    module=__name__,
    turns=("ours", "upstream", "roofline", "ours", "upstream", "roofline"),
    quick_turns=("ours", "upstream", "roofline"),
    rows=tuple(_rows()),
)
