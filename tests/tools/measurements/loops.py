"""At which settings Finch loops: `python -m tests.tools.measurements.loops [--texts N] [--cap T]`.

Long held-out texts in all languages, one run each at every setting, without a repetition penalty; runs that loop
(`sampler.loops`), that never end, and how many tokens they have.
"""

import argparse
import itertools
import sys
from functools import partial

from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from sampler import SamplingConfig, finch
from sampler.chain.noise import NoiseKey
from sampler.checks.longform.loop_rate import LoopingRuns
from sampler.generation.generator import Generator
from sampler.requests import Generation, Request
from sampler.run.prompts import in_turn

TEMPERATURES = (0.0, 0.3, 0.8, 1.3, 2.0)
OTHERS = ({"cfg_weight": 0.5, "min_p": 0.05}, {"cfg_weight": 0.0, "min_p": 0.05}, {"cfg_weight": 0.5, "min_p": 0.0})


def speak(config: SamplingConfig, texts: int, cap: int) -> list[Generation]:
    """One run of each text."""
    checkpoint = finch.load()
    prompts = in_turn([each for each in finch.prompts("long") if 500 <= each.tokens <= 900])[:texts]
    size = checkpoint.config.speech_vocab_size
    requests = [
        Request(
            prompt.text,
            config,
            0,
            cap,
            noise=partial(NoiseKey(5, str(config), index).gumbel, vocab_size=size),
            language=prompt.language,
        )
        for index, prompt in enumerate(prompts)
    ]
    return Generator(checkpoint, width=texts).generate(requests)


def main() -> int:
    """Print a line for every setting as it is measured, and a table in the end."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.measurements.loops")
    parser.add_argument("--texts", type=int, default=10)
    parser.add_argument("--cap", type=int, default=4000)
    options = parser.parse_args()
    console = Console(soft_wrap=True, markup=False, highlight=False)
    table = Table("temperature", "guidance", "min_p", "loop", "95 %", "never end", "tokens", "the worst")
    for temperature, others in itertools.product(TEMPERATURES, OTHERS):
        config = SamplingConfig(temperature=temperature, repetition_penalty=1.0, **others)
        runs = speak(config, options.texts, options.cap)
        found = LoopingRuns.of({str(index): [run.tokens] for index, run in enumerate(runs)})
        count = sum(found.counts)
        interval = binomtest(count, len(runs)).proportion_ci(0.95)
        row = [
            f"{temperature:g}",
            f"{others['cfg_weight']:g}",
            f"{others['min_p']:g}",
            f"{count} of {len(runs)}",
            f"{interval.low:.0%} to {interval.high:.0%}",
            str(sum(run.stop_reason == "length" for run in runs)),
            f"{sum(len(run.tokens) for run in runs):,}",
            str(found.worst[2]) if found.worst else "",
        ]
        table.add_row(*row)
        console.print(" | ".join(row))
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
