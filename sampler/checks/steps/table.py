"""The checks of a cell whose runs are judged step by step. To add one: a module here and a row in CHECKS."""

from collections.abc import Callable
from typing import Final, NamedTuple

from sampler.checks.steps.chain import chain
from sampler.checks.steps.coverage import within_records
from sampler.checks.steps.evidence import Evidence
from sampler.checks.steps.records import records
from sampler.checks.steps.repeats import repeats
from sampler.checks.steps.sampled import allowed, draws
from sampler.checks.steps.seeds import seeds
from sampler.checks.steps.stops import stops
from sampler.checks.verdict import Finding
from sampler.engines.base import Level


class StepCheck(NamedTuple):
    """One check. level, stage: those of the verdict if it could not run at all."""

    name: str
    ask: Callable[[Evidence], Finding]
    level: Level
    stage: str
    sentence: str


CHECKS: Final = (
    StepCheck(
        "allowed", within_records(allowed), "draw", "draw",
        "Every token that was drawn is one that the sampling chain keeps, evaluated in float64.",
    ),
    StepCheck(
        "draws", within_records(draws), "draw", "draw",
        "With the same noise the reference draws the same token; other noise gives the chain's distribution.",
    ),
    StepCheck(
        "chain", within_records(chain), "process", "order",
        "On the recorded logits the chain gives the distribution that HuggingFace's processors give.",
    ),
    StepCheck(
        "repeats", repeats, "generate", "seed",
        "The same requests give the same tokens again, in another order, alone and beside other requests.",
    ),
    StepCheck(
        "records", records, "generate", "cache",
        "Every step has recorded logits, and they are those of the model at that step, before the chain.",
    ),
    StepCheck(
        "seeds", seeds, "generate", "seed",
        "The same text with another seed gives other tokens.",
    ),
    StepCheck("stops", stops, "generate", "stop", "Every run ends with EOS before it reaches its maximum length."),
)  # fmt: skip
