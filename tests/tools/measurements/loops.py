"""At which settings Finch loops: `python -m tests.tools.measurements.loops [--texts N] [--cap T]`.

Long held-out texts in all languages, one run each at every setting, without a repetition penalty; runs that loop
(`sampler.loops`), that never end, and how many tokens they have.
"""

import argparse
import itertools
from functools import partial

from sampler import SamplingConfig, finch
from sampler.chain.noise import NoiseKey
from sampler.checks.longform.loop_rate import LoopingRuns
from sampler.generation.generator import Generator
from sampler.requests import Request
from sampler.run.prompts import in_turn
from tests.tools.measurements.alignment import say, share

TEMPERATURES = (0.0, 0.3, 0.8, 1.3, 2.0)
OTHERS = ({"cfg_weight": 0.5, "min_p": 0.05}, {"cfg_weight": 0.0, "min_p": 0.05}, {"cfg_weight": 0.5, "min_p": 0.0})


def measure(config: SamplingConfig, texts: int, cap: int) -> list[str]:
    """One run of each text: how many loop, how many never end, tokens, the worst loop."""
    checkpoint = finch.load()
    prompts = in_turn([each for each in finch.prompts("long") if 500 <= each.tokens <= 900])[:texts]
    size, keys = checkpoint.config.speech_vocab_size, (NoiseKey(5, str(config), index) for index in range(texts))
    requests = [
        Request(each.text, config, 0, cap, noise=partial(key.gumbel, vocab_size=size), language=each.language)
        for each, key in zip(prompts, keys, strict=False)
    ]
    runs = Generator(checkpoint, width=texts).generate(requests)
    found = LoopingRuns.of({str(index): [run.tokens] for index, run in enumerate(runs)})
    endless, tokens = sum(run.stop_reason == "length" for run in runs), sum(len(run.tokens) for run in runs)
    worst = str(found.worst[2]) if found.worst else ""
    return [share(sum(found.counts), len(runs)), str(endless), f"{tokens:,}", worst]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.tools.measurements.loops")
    parser.add_argument("--texts", type=int, default=10)
    parser.add_argument("--cap", type=int, default=4000)
    options = parser.parse_args()
    say("temperature | guidance | min_p | loop (95 %) | never end | tokens | the worst")
    for temperature, others in itertools.product(TEMPERATURES, OTHERS):
        config = SamplingConfig(temperature=temperature, repetition_penalty=1.0, **others)
        setting = [f"{value:g}" for value in (temperature, others["cfg_weight"], others["min_p"])]
        say(" | ".join([*setting, *measure(config, options.texts, options.cap)]))


if __name__ == "__main__":
    main()
