"""The rows of the duel: the wrong generators, DiFR's ladder, noise in the weights, and engines that are right."""

from dataclasses import dataclass

from sampler import SamplingConfig, finch
from sampler.generation.generator import Generator
from tests.duel import faults
from tests.wrong_engines.wrong_generators import WRONG_GENERATORS
from tests.wrong_engines.wrong_generators.table import PLANS, SENTENCES, Factory, Plan

WRONG, LADDER, WEIGHTS, RIGHT = "wrong generators", "DiFR's ladder", "noise in the weights", "right engines"
DEFAULT = SamplingConfig()


@dataclass(frozen=True)
class Row:
    """One engine. config: what it is asked for, and judged by. cap: tokens of a run, at most."""

    name: str
    group: str
    factory: Factory
    plan: Plan = SENTENCES
    cap: int = 120
    config: SamplingConfig = DEFAULT

    @property
    def title(self) -> str:
        return f"right core, {self.plan.texts} {self.plan.group}" if self.factory is Generator else self.name


def right(plan: Plan, cap: int = 400, config: SamplingConfig = DEFAULT) -> Row:
    """Reference runs for a row: the core itself, with noise of its own."""
    name = f"right core, {plan.name}, {cap} tokens, top_p {config.top_p}"
    return Row(name, RIGHT, Generator, plan, cap, config)


BFLOAT16 = Row(
    "right core in bfloat16", RIGHT, lambda checkpoint, width: Generator(finch.load("bfloat16"), width), cap=400
)

LADDERS = {
    LADDER: {
        "temperature .7 for .8": faults.with_parameters(temperature=0.7),
        "temperature .9 for .8": faults.with_parameters(temperature=0.9),
        "top-p .90 for .95": faults.with_parameters(top_p=0.9),
        "another seed": faults.with_another_seed(),
        "second best in 1 % of steps": faults.second_best(0.01),
        "second best in 5 % of steps": faults.second_best(0.05),
        "4-bit weights": faults.quantized_weights(4),
        "8-bit weights": faults.quantized_weights(8),
        "KV cache in bfloat16": faults.rounded_cache(faults.to_bfloat16),
        "KV cache in 8 bits": faults.rounded_cache(faults.to_8_bits),
    },
    WEIGHTS: {f"noise of {size:g}": faults.noisy_weights(size) for size in (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)},
}
ASKED = {"top-p .90 for .95": SamplingConfig(top_p=0.95)}
"""What engines are asked for, where it is not the default."""

ROWS = [
    *(Row(one.name, WRONG, one.factory, one.plan, one.cap) for one in WRONG_GENERATORS.values()),
    *(
        Row(name, group, factory, config=ASKED.get(name, DEFAULT))
        for group, ladder in LADDERS.items()
        for name, factory in ladder.items()
    ),
    *(right(plan) for plan in PLANS),
]
