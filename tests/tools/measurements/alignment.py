"""What upstream's analyzer does to Finch: `python -m tests.tools.measurements.alignment pairs` or `hooks`.

pairs: how many runs the analyzer of chatterbox-tts 0.1.3 to 0.1.7 cuts, at repetition penalty 2.0 and 1.2; with 2, 3 or
no equal tokens. Upstream's own loop (0.1.7) speaks the first of the texts with the same noise.
hooks: whether tokens depend on how often `inference` was called in the process before, and how many hooks stay.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

from rich.console import Console
from scipy.stats import binomtest

from sampler import finch
from sampler.chain.noise import NoiseKey
from sampler.finch import Prompt
from sampler.finch.training.measure import SHORTEST
from sampler.generation.generator import Generator
from sampler.requests import Generation, Request
from sampler.variants import analyzer, variant
from tests import wheels
from tests.wheel_runs import KNOBS

VARIANT = variant("mtl-0.1.6")
PENALTIES = (2.0, 1.2)
ANALYZERS = {"two equal tokens (upstream)": "upstream", "three equal tokens": "three-equal", "no analyzer": "none"}
LOG_NAMES = {"long_tail", "alignment_repetition", "token_repetition"}
say = Console(soft_wrap=True, markup=False, highlight=False).print
CAP, NOISE = 300, (3, "measurement")


def speak(prompts: list[Prompt], penalty: float, judge: str) -> list[Generation]:
    checkpoint, config = finch.load(), replace(VARIANT.config, repetition_penalty=penalty)
    size = checkpoint.config.speech_vocab_size
    requests = [
        Request(prompt.text, config, 0, CAP, partial(NoiseKey(*NOISE, index).gumbel, vocab_size=size), prompt.language)
        for index, prompt in enumerate(prompts)
    ]
    rules = {**VARIANT.rules(), "analyzer": analyzer(judge)}
    return Generator(checkpoint, width=16, **rules).generate(requests)


def upstream_runs(prompts: list[Prompt], penalty: float, **settings: Any) -> list[dict[str, Any]]:
    checkpoint, config = finch.load(), replace(VARIANT.config, repetition_penalty=penalty)
    always = {"rows": 2, "cap": CAP, "knobs": {name: getattr(config, name) for name in KNOBS}, "pushed": []}
    texts = [checkpoint.tokenizer.encode(prompt.text, prompt.language) for prompt in prompts]
    runs = [{"text": text, "noise": [*NOISE, index], **always} for index, text in enumerate(texts)]
    job = {"folder": str(wheels.need("0.1.7")), "loop": "multilingual", "runs": runs, **settings}
    command = [sys.executable, "-m", "tests.wheel_runs"]
    result = subprocess.run(command, input=json.dumps([job]), capture_output=True, text=True, check=True)
    (answers,) = json.loads(result.stdout)
    return answers


def describe(answers: list[Generation], prompts: list[Prompt]) -> str:
    """Shares of runs that were forced to end, by flag, and that are shorter than SHORTEST of the true speech."""
    forced = [answer for answer in answers if answer.stop_reason == "forced_eos"]
    flags = Counter(flag for answer in forced for flag in set(answer.record.flags[-1].split("+")) & LOG_NAMES)
    pairs = zip(answers, prompts, strict=True)
    short = sum(len(answer.tokens) - 1 < SHORTEST * prompt.tokens for answer, prompt in pairs)
    by_flag = ", ".join(f"{name} {count}" for name, count in sorted(flags.items())) or "-"
    return f"{share(len(forced), len(answers))} | {by_flag} | {share(short, len(answers))}"


def share(count: int, total: int) -> str:
    """A count with its exact 95 % interval (Clopper and Pearson)."""
    low, high = binomtest(count, total).proportion_ci(0.95, "exact")
    return f"{count} of {total} ({low:.1%} to {high:.1%})"


def measure_pairs(count: int, shared: int) -> None:
    prompts = finch.prompts("sentences")[:count]
    say("| penalty | analyzer | forced EOS | by | shorter than 0.7 of the true length |")
    for penalty in PENALTIES:
        runs = {name: speak(prompts, penalty, judge) for name, judge in ANALYZERS.items()}
        for name, answers in runs.items():
            say(f"| {penalty} | {name} | {describe(answers, prompts)} |")
        theirs = upstream_runs(prompts[:shared], penalty)
        ours = runs["two equal tokens (upstream)"][:shared]
        same = sum(list(left.tokens) == right["tokens"] for left, right in zip(ours, theirs, strict=True))
        forced = sum(bool(answer["forced"]) for answer in theirs)
        say(f"penalty {penalty}: upstream's own loop cuts {forced} of the first {shared}; same tokens in {same}")


def measure_hooks(count: int) -> None:
    prompts = finch.prompts("sentences")[:count]
    for attention in ("eager", "sdpa"):
        one, fresh = (upstream_runs(prompts, 1.2, fresh=each, attention=attention) for each in (False, True))
        same = sum(left["tokens"] == right["tokens"] for left, right in zip(one, fresh, strict=True))
        hooks = [answer["hooks"] for answer in one]
        say(f"{attention}: same tokens in {same} of {count} runs; hooks after each call {hooks}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["pairs", "hooks"])
    parser.add_argument("--count", type=int, help="how many of Finch's held-out sentences (64 for pairs, 10 for hooks)")
    parser.add_argument("--shared", type=int, default=16, help="how many of them upstream speaks as well")
    given = parser.parse_args()
    if given.what == "pairs":
        measure_pairs(given.count or 64, given.shared)
    else:
        measure_hooks(given.count or 10)
