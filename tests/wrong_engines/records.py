"""Engines that generate, whose records are no evidence or say something else than they should; and right ones.

All of them are Finch. What it generates is kept, so that an engine that only changes its answers costs no generation.
An engine here gets a request and all answers, and gives its own; `says` are other fields of its info.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from sampler import NoiseKey
from sampler.checks.verdict import Outcome
from sampler.engines.base import EngineInfo, Generation, Request
from sampler.engines.core import CoreEngine
from sampler.engines.reference.chain import ReferenceEngine
from sampler.requests import Batch

from .tables import flat, named

Answers = list[Generation]
Change = Callable[[Answers, Sequence[Request]], Answers]
Rows = Callable[[np.ndarray, Generation, Request], Any]

KEPT: dict[tuple[Any, ...], Generation] = {}
SIZE = 2_050


@cache
def finch() -> CoreEngine:
    return CoreEngine.load(width=2)


def spoken(requests: Sequence[Request]) -> Answers:
    """Finch's answers, generated once."""
    keys = [
        (one.prompt, str(one.config), one.seed, one.max_new_tokens, one.noise and float(one.noise(0)[0]))
        for one in requests
    ]
    new = {key: replace(one, slot=None) for key, one in zip(keys, requests, strict=True) if key not in KEPT}
    KEPT.update(zip(new, finch().generate(list(new.values())), strict=True))
    return [copied(KEPT[key]) for key in keys]


def copied(generation: Generation) -> Generation:
    assert generation.record is not None
    return replace(generation, record=replace(generation.record, logits=generation.record.logits.copy()))


@dataclass(frozen=True)
class Recording:
    """ask: what Finch is asked for. change: what is made of its answers. says: fields of the info."""

    change: Change = lambda answers, requests: answers
    ask: Callable[[Request], Request] = lambda request: request
    says: dict[str, Any] = field(default_factory=dict)

    @property
    def info(self) -> EngineInfo:
        return replace(finch().info, **self.says)

    def process(self, *inputs: Any) -> np.ndarray:
        return finch().process(*inputs)

    def generate(self, requests: Sequence[Request]) -> Answers:
        return self.change(spoken([self.ask(request) for request in requests]), requests)


@dataclass(frozen=True)
class Predicting(Recording):
    """The same, with predict()."""

    def predict(self, prompt: str, tokens: Sequence[int]) -> np.ndarray:
        return finch().predict(prompt, tokens)


STRANGER = {"name": "a port", "version": "1"}
"""Says nothing of Finch, so that nobody knows its model."""


def rows(change: Rows, **further: Any) -> Recording:
    """Other recorded logits (T, rows, V) for every request."""

    def changed(answers: Answers, requests: Sequence[Request]) -> Answers:
        return [
            with_logits(one, change(one.record.logits, one, own)) for one, own in zip(answers, requests, strict=True)
        ]

    return Recording(changed, **further)


def with_logits(generation: Generation, logits: Any) -> Generation:
    return replace(generation, record=replace(generation.record, logits=logits))


def ends(change: Callable[[Generation], Generation], **further: Any) -> Recording:
    return Recording(lambda answers, requests: [change(one) for one in answers], **further)


def flagged(flags: Callable[[int], tuple[str, ...]], reason: str) -> Recording:
    return ends(lambda one: replace(one, stop_reason=reason, record=replace(one.record, flags=flags(len(one.tokens)))))


def mixed(logits: np.ndarray) -> np.ndarray:
    return logits[:, :1] + np.float32(0.5) * (logits[:, :1] - logits[:, 1:])


def after(logits: np.ndarray, one: Generation, request: Request, *stages: str) -> np.ndarray:
    """The scores after some stages of the config, in every row."""
    histories = [[SIZE - 2, *one.tokens[:step]] for step in range(len(logits))]
    config = request.config.without([stage for stage in request.config.order if stage not in stages])
    uncond = logits[:, 1] if "cfg" in stages else None
    batch = Batch(logits[:, 0], histories, (config,) * len(logits), uncond)
    scores = ReferenceEngine().evaluate(batch)[-1].scores.astype(np.float32)
    return np.repeat(scores[:, None], logits.shape[1], axis=1)


def penalized(logits: np.ndarray, one: Generation, request: Request) -> np.ndarray:
    penalized_rows = [after(logits[:, row : row + 1], one, request, "repetition_penalty") for row in (0, 1)]
    return np.concatenate(penalized_rows, axis=1)


def anything(answers: Answers, requests: Sequence[Request]) -> Answers:
    """A question says something else, and has no record."""
    tokens = tuple(np.random.default_rng(3).integers(0, SIZE - 2, 40).tolist())
    spoken_otherwise = Generation((*tokens, SIZE - 1), "eos")
    return [
        spoken_otherwise if str(request.prompt).endswith("?") else one
        for one, request in zip(answers, requests, strict=True)
    ]


class AnswersByPrompt(Recording):
    """Keeps its answers by prompt and config."""

    def generate(self, requests: Sequence[Request]) -> Answers:
        known: dict[Any, Generation] = vars(self).setdefault("known", {})
        for request in requests:
            key = request.prompt, str(request.config)
            if key not in known:
                (known[key],) = spoken([request])
        return [copied(known[request.prompt, str(request.config)]) for request in requests]


def same_beginning(request: Request) -> Request:
    """The noise of the first 30 steps follows from the text alone."""
    key = NoiseKey(0, str(request.prompt))
    return replace(request, noise=lambda step: key.gumbel(step, SIZE) if step < 30 else request.noise(step))


def of_the_neighbour(answers: Answers, requests: Sequence[Request]) -> Answers:
    if len(answers) < 2:
        return answers
    count = min(len(one.tokens) for one in answers[:2])
    short = [replace(one, tokens=one.tokens[:count], stop_reason="length") for one in answers[:2]]
    logits = [one.record.logits[:count] for one in answers[:2]]
    return [with_logits(short[0], logits[1]), with_logits(short[1], logits[0]), *answers[2:]]


def of_the_greedy_run(logits: np.ndarray, one: Generation, request: Request) -> np.ndarray:
    (greedy,) = spoken([replace(request, config=replace(request.config, temperature=0.0))])
    found = greedy.record.logits[: len(logits)]
    return np.concatenate([found, np.repeat(found[-1:], len(logits) - len(found), axis=0)])


def bfloat16(logits: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(logits).view(np.uint32)
    return (bits + np.uint32(0x8000) & np.uint32(0xFFFF0000)).view(np.float32)


def only_log_probabilities(one: Generation) -> Generation:
    return replace(one, record=replace(one.record, logits=None))


def own_noise(request: Request) -> Request:
    """Draws with noise of its own, which the seed decides."""
    key = NoiseKey(request.seed, "its own")
    return replace(request, noise=lambda step: key.gumbel(step, SIZE))


@dataclass(frozen=True)
class WrongRecords:
    """check, outcome, stage: what a run has to say; says: words of the message."""

    factory: Callable[[], Any]
    check: str
    outcome: Outcome
    stage: str
    says: str


def step(logits: np.ndarray, at: int) -> np.ndarray:
    """True at one step."""
    return (np.arange(len(logits)) == at)[:, None, None]


WITHOUT_GUIDANCE = lambda request: replace(request, config=request.config.without(["cfg"]))  # noqa: E731
BOTH_ROWS = lambda logits, one, request: np.repeat(logits[:, :1], 2, axis=1)  # noqa: E731

WRONG_RECORDS: dict[str, WrongRecords] = {}
RIGHT_RECORDS: dict[str, Callable[[], Any]] = {}


def put_wrong(*items: Any) -> None:
    """Rows: "name: fault", factory, (check, outcome, stage, words of the message)."""
    for name, fault, (factory, found) in flat(*items):
        WRONG_RECORDS[name] = WrongRecords(named(factory, name, f"Fault: {fault}"), *found)


def put_right(*items: Any) -> None:
    for name, why, (factory,) in flat(*items):
        RIGHT_RECORDS[name] = named(factory, name, f"No fault: {why}")


put_wrong(
    "records_one_row_twice: the conditional row is recorded twice, and guidance is off.",
    lambda: rows(BOTH_ROWS, ask=WITHOUT_GUIDANCE),
    ("records", "failed", "cfg", "both rows are the conditional one"),
    "a_stranger_records_one_row_twice: the same, of a model that nobody knows.",
    lambda: rows(BOTH_ROWS, ask=WITHOUT_GUIDANCE, says=STRANGER),
    ("records", "failed", "cfg", "so one row was recorded twice"),
    "records_one_row_twice_after_a_while: guidance goes off at step 10.",
    lambda: rows(
        lambda logits, *_: np.where(np.arange(len(logits))[:, None, None] < 10, logits, logits[:, :1]), says=STRANGER
    ),
    ("records", "failed", "cfg", "first at request 0, step 10"),
    "records_rows_a_constant_apart: rows that differ by a constant alone, which guidance does not see.",
    lambda: rows(lambda logits, *_: mixed(logits) + np.array([[[0.0], [3.0]]], np.float32), says=STRANGER),
    ("records", "failed", "cfg", "guidance of such rows changes nothing"),
    "records_logits_after_guidance: both rows hold the mixture.",
    lambda: rows(lambda logits, *_: np.repeat(mixed(logits), 2, axis=1)),
    ("records", "failed", "cfg", "it has the scores after cfg"),
    "records_the_mixture_in_the_first_row: the conditional row is the mixture.",
    lambda: rows(lambda logits, *_: np.concatenate([mixed(logits), logits[:, 1:]], axis=1)),
    ("records", "failed", "cfg", "it has the scores after cfg"),
    "records_rows_exchanged: the unconditional row first.",
    lambda: rows(lambda logits, *_: logits[:, ::-1]),
    ("records", "failed", "cfg", "exchanged"),
    "leaves_a_request_without_a_record: and draws anything there.",
    lambda: Recording(anything),
    ("records", "inconclusive", "cache", "recorded no logits: request 1"),
    "answers_by_prompt: a cache that forgets the seed.",
    AnswersByPrompt,
    ("seeds", "failed", "seed", "another seed and other noise gave the same"),
    "begins_by_prompt: the first 30 tokens follow from the text, whatever the seed.",
    lambda: Recording(ask=same_beginning),
    ("seeds", "failed", "seed", "gave the same first 30 tokens"),
    "records_20_steps: of a longer run.",
    lambda: rows(lambda logits, *_: logits[:20]),
    ("records", "inconclusive", "cache", "not recorded: request 0, steps 20 to"),
    "records_the_last_20_steps: a buffer that forgets the first ones.",
    lambda: rows(lambda logits, *_: logits[-20:]),
    ("records", "failed", "position", "the last 20 steps"),
    "records_one_step_late: each row is that of the step before.",
    lambda: rows(lambda logits, *_: np.concatenate([logits[:1], logits[:-1]])),
    ("records", "failed", "position", "one step late"),
    "records_one_step_ahead: each row is that of the next step.",
    lambda: rows(lambda logits, *_: np.concatenate([logits[1:], logits[-1:]])),
    ("records", "failed", "position", "one step ahead"),
    "a_stranger_records_one_step_ahead: the same, of a model that nobody knows.",
    lambda: rows(lambda logits, *_: np.concatenate([logits[1:], logits[-1:]]), says=STRANGER),
    ("records", "failed", "position", "records of other steps"),
    "records_the_neighbour: two requests have each other's records.",
    lambda: Recording(of_the_neighbour),
    ("records", "failed", "batch", "it is that of request 1"),
    "records_the_greedy_run: of the same text.",
    lambda: rows(of_the_greedy_run),
    ("records", "failed", "cache", "the greedy one of this text"),
    "records_after_the_penalty: in both rows.",
    lambda: rows(penalized),
    ("records", "failed", "repetition_penalty", "repetition_penalty was applied to it"),
    "records_after_temperature: logits are divided before they are recorded.",
    lambda: rows(lambda logits, *_: logits / np.float32(0.8)),
    ("records", "failed", "temperature", "temperature was applied to it"),
    "records_after_the_filters: in both rows, after guidance, penalty and temperature.",
    lambda: rows(lambda *given: after(*given, "cfg", "repetition_penalty", "temperature", "top_k", "min_p")),
    ("records", "failed", "min_p", "after min_p"),
    "a_stranger_records_after_the_filters: logits of tokens that the filters remove are gone.",
    lambda: rows(
        lambda logits, one, request: np.where(
            after(logits, one, request, *request.config.order) > -np.inf, logits, -np.inf
        ),
        says=STRANGER,
    ),
    ("records", "failed", "min_p", "nobody can see what it removed"),
    "records_one_buffer: every row is the last one, since the buffer is used again.",
    lambda: rows(lambda logits, *_: np.repeat(logits[-1:], len(logits), axis=0)),
    ("records", "failed", "cache", "a buffer that is used again"),
    "a_stranger_records_nothing_but_zeros: any token fits them.",
    lambda: rows(lambda logits, *_: np.zeros_like(logits), says=STRANGER, ask=own_noise),
    ("records", "inconclusive", "cfg", "guidance of such rows changes nothing"),
    "records_nan: at one step.",
    lambda: rows(lambda logits, *_: np.where(step(logits, 7), np.nan, logits)),
    ("records", "failed", "purity", "request 0, step 7"),
    "records_more_steps_than_tokens: one row too many.",
    lambda: rows(lambda logits, *_: np.concatenate([logits, logits[-1:]])),
    ("records", "errored", "cache", "logits of shape"),
    "records_another_width: a vocabulary of 2,000.",
    lambda: rows(lambda logits, *_: logits[..., :2_000]),
    ("records", "errored", "cache", "logits of shape"),
    "says_forced_eos: without an analyzer.",
    lambda: ends(lambda one: replace(one, stop_reason="forced_eos")),
    ("stops", "failed", "stop", "there is no alignment analyzer"),
    "a_stranger_says_forced_eos: and records no flags.",
    lambda: ends(lambda one: replace(one, stop_reason="forced_eos"), says=STRANGER),
    ("stops", "inconclusive", "stop", "no flag of an analyzer is recorded"),
    "says_forced_eos_where_nothing_forced: its analyzer has set no flag.",
    lambda: replace(flagged(lambda count: ("suppressed",) + ("",) * (count - 1), "forced_eos"), says=STRANGER),
    ("stops", "failed", "stop", "which force nothing"),
    "says_eos_where_the_end_was_forced: its flags say otherwise.",
    lambda: replace(flagged(lambda count: ("",) * (count - 1) + ("long_tail",), "eos"), says=STRANGER),
    ("stops", "failed", "stop", "which forces an end"),
    "lacks_flags: has fewer than tokens.",
    lambda: flagged(lambda count: ("",) * 3, "eos"),
    ("stops", "errored", "stop", "3 flags for"),
)
put_right(
    "right_records: as they are.",
    Recording,
    "right_records_of_a_stranger: of a model that nobody knows.",
    lambda: Recording(says=STRANGER),
    "right_records_beside_predict: with predict() of its own.",
    lambda: Predicting(says=STRANGER),
    "right_records_in_float16: rounded for the record, which info does not say.",
    lambda: rows(lambda logits, *_: logits.astype(np.float16)),
    "right_records_in_float16_said: the same, and info says so.",
    lambda: rows(lambda logits, *_: logits.astype(np.float16), says={"dtype": "float16"}),
    "right_records_in_bfloat16: rounded for the record, which info does not say.",
    lambda: rows(lambda logits, *_: bfloat16(logits)),
    "right_records_in_bfloat16_said: the same, and info says so.",
    lambda: rows(lambda logits, *_: bfloat16(logits), says={"dtype": "bfloat16"}),
    "right_records_as_lists: nested lists of numbers.",
    lambda: rows(lambda logits, *_: logits.tolist()),
)


def one_at_a_time(answers: Answers, requests: Sequence[Request]) -> Answers:
    return [spoken([request])[0] for request in requests]


put_right("right_records_of_batch_1: requests are served one after the other.", lambda: Recording(one_at_a_time))
with contextlib.suppress(ImportError):
    import torch

    put_right(
        "right_records_of_torch: a tensor.",
        lambda: rows(lambda logits, *_: torch.from_numpy(logits)),
        "right_records_of_torch_in_bfloat16: a type that NumPy lacks.",
        lambda: rows(lambda logits, *_: torch.from_numpy(logits).to(torch.bfloat16)),
    )

SILENT: dict[str, Callable[[], Any]] = {
    "records_nothing": lambda: ends(lambda one: replace(one, record=None)),
    "records_log_probabilities_alone": lambda: ends(only_log_probabilities),
}
"""Right engines whose records tell too little to agree."""
