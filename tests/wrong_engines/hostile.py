"""Engines that break their process, their answers or what is around them, at any method: `sys_exit_in_generate`.

Loaded by its path, alone. Every engine has one misdeed at one level; all else in it is right: it supports `temperature`
and nothing else, and generates from logits that it records. `right` has no misdeed.
"""

import ctypes
import functools
import gc
import hashlib
import json
import mmap
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from sampler.engines.base import EngineInfo
from sampler.requests import Generation, Record

SIZE, EOS = 40, 39
LEVELS = ("process", "draw", "predict", "generate", "info", "factory")
KEEP = object()
"""What a misdeed returns that leaves the right answer as it is."""


# Right answers.


def tempered(logits: Any, config: Any) -> np.ndarray:
    logits = np.array(logits, dtype=np.float32)
    if "temperature" not in config.order:
        return logits
    if config.temperature == 0:
        first = np.arange(logits.shape[-1]) == logits.argmax(axis=-1)[..., None]
        return np.where(first, logits, np.float32(-np.inf))
    return logits / np.float32(config.temperature)


def logits_of(prompt: Any, tokens: Any) -> np.ndarray:
    """Of the next token: EOS is ever more likely."""
    number = hash_of(f"{prompt}{list(tokens)[-3:]}{len(tokens)}")
    row = np.random.default_rng(number).normal(0, 2, SIZE).astype(np.float32)
    row[EOS] = np.float32(-6 + 0.5 * len(tokens))
    return row


def hash_of(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generation_of(request: Any) -> Generation:
    tokens: list[int] = []
    rows = []
    while len(tokens) < request.max_new_tokens and (not tokens or tokens[-1] != EOS):
        rows.append(logits_of(request.prompt, tokens))
        scores = tempered(rows[-1], request.config) + request.noise(len(tokens))
        tokens.append(int(scores.argmax()))
    empty = np.zeros(0, dtype=np.float32)
    logits = np.stack(rows)[:, None]
    record = Record(empty, empty.astype(np.int32), empty, empty, 0, 1, logits=logits)
    return Generation(tuple(tokens), "eos" if tokens[-1] == EOS else "length", record)


INFO = EngineInfo("hostile", "1", vocab_size=SIZE, eos_ids=(EOS,), cfg=False, supports=frozenset({"temperature"}))


@dataclass(frozen=True)
class Hostile:
    """level: where the misdeed happens."""

    level: str
    misdeed: Any

    def _at(self, level: str, given: Any, right: Any) -> Any:
        """The right answer, unless the misdeed has another one; it may change what is given."""
        answer = self.misdeed(level, given) if level == self.level else KEEP
        return right() if answer is KEEP else answer

    @property
    def info(self) -> EngineInfo:
        return self._at("info", None, lambda: INFO)

    def process(self, logits, history, config, uncond_logits=None) -> Any:
        return self._at("process", (logits, history, config), lambda: tempered(logits, config))

    def draw(self, logits, history, config, n, seed, uncond_logits=None) -> Any:
        def right() -> np.ndarray:
            noise = np.random.default_rng(seed).gumbel(size=(n, len(logits)))
            return (tempered(logits, config) + noise).argmax(axis=-1)

        return self._at("draw", (logits, history, config), right)

    def predict(self, prompt, tokens) -> Any:
        def right() -> np.ndarray:
            return np.stack([logits_of(prompt, tokens[:step]) for step in range(len(tokens) + 1)])

        return self._at("predict", (prompt, tokens), right)

    def generate(self, requests) -> Any:
        return self._at("generate", requests, lambda: [generation_of(request) for request in requests])


def right() -> Hostile:
    """No fault."""
    return Hostile("", None)


# Misdeeds: each gets the level and the arguments.

ENDS: dict[str, Any] = {}
WAITS: dict[str, Any] = {}
LEAVES: dict[str, Any] = {}
RAISES: dict[str, Any] = {}
ANSWERS: dict[str, Any] = {}
SPOILS: dict[str, Any] = {}
RUNS: dict[str, Any] = {}


def into(table: dict[str, Any]) -> Any:
    """Put a misdeed into a table under its name."""

    def put(misdeed: Any) -> Any:
        table[misdeed.__name__] = misdeed
        return misdeed

    return put


def raising(make: Any) -> Any:
    def misdeed(level: str, given: Any) -> Any:
        raise make()

    return misdeed


def answering(make: Any) -> Any:
    return lambda level, given: make()


def kills(number: int, whom: Any) -> Any:
    def misdeed(level: str, given: Any) -> Any:
        os.kill(whom(), number)
        time.sleep(600)

    return misdeed


ENDS |= {
    "leaves_with_0": lambda level, given: os._exit(0),
    "leaves_with_7": lambda level, given: os._exit(7),
    "aborts": lambda level, given: os.abort(),
    "segfaults": lambda level, given: ctypes.string_at(0),
    "kills_itself": kills(signal.SIGKILL, os.getpid),
    "terminates_itself": kills(signal.SIGTERM, os.getpid),
    "stops_itself": kills(signal.SIGSTOP, os.getpid),
    "kills_its_supervisor": kills(signal.SIGKILL, os.getppid),
    "stops_its_supervisor": kills(signal.SIGSTOP, os.getppid),
}


@into(ENDS)
def leaves_from_a_thread(level, given):
    threading.Thread(target=lambda: os._exit(0)).start()
    time.sleep(600)


@into(ENDS)
def closes_all_descriptors(level, given):
    os.closerange(0, 256)
    return KEEP


@into(ENDS)
def closes_its_sockets(level, given):
    for each in gc.get_objects():
        if isinstance(each, socket.socket):
            each.close()
    return KEEP


@into(ENDS)
def writes_into_all_descriptors(level, given):
    for end in range(3, 64):
        try:
            os.set_blocking(end, False)
            os.write(end, b"garbage" * 50)
        except OSError:
            continue
    return KEEP


@into(ENDS)
def forges_a_message(level, given):
    for end in range(3, 64):
        try:
            os.write(end, b"sampler\n\x02\x00\x00\x00{}")
        except OSError:
            continue
    return KEEP


@into(ENDS)
def runs_out_of_processor_time(level, given):
    resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
    while True:
        pass


@into(ENDS)
def takes_memory(level, given):
    kept = []
    while True:
        kept.append(np.ones(10**6))


@into(ENDS)
def takes_shared_memory(level, given):
    kept = []
    while True:
        kept.append(mmap.mmap(-1, 2**23))
        kept[-1].write(b"x" * 2**23)


@into(ENDS)
def takes_memory_in_a_child(level, given):
    if os.fork() == 0:
        takes_memory(level, given)
    time.sleep(600)


# Hangs.


@into(WAITS)
def computes_for_ever(level, given):
    while True:
        pass


@into(WAITS)
def sleeps_for_ever(level, given):
    while True:
        time.sleep(60)


@into(WAITS)
def ignores_every_signal(level, given):
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(60)


@into(WAITS)
def waits_for_its_own_lock(level, given):
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


@into(WAITS)
def iterates_for_ever(level, given):
    return iter(functools.partial(time.sleep, 0.01), 0)


# Leaves something running or changed, and answers rightly.


@into(LEAVES)
def leaves_children(level, given):
    for _ in range(3):
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
    return KEEP


@into(LEAVES)
def leaves_daemons(level, given):
    for _ in range(2):
        child = os.fork()
        if child == 0:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(600)
            os._exit(0)
        os.waitpid(child, 0)
    return KEEP


@into(LEAVES)
def leaves_threads(level, given):
    threading.Thread(target=time.sleep, args=(600,)).start()
    return KEEP


@into(LEAVES)
def floods_stdout(level, given):
    for _ in range(64):
        sys.stdout.write("\x1b[2J" + "x" * 100_000)
    return KEEP


@into(LEAVES)
def floods_stderr(level, given):
    sys.stderr.write("y" * 5_000_000)
    return KEEP


@into(LEAVES)
def closes_stdout(level, given):
    os.closerange(0, 3)
    return KEEP


@into(LEAVES)
def goes_elsewhere(level, given):
    os.chdir(tempfile.mkdtemp())
    return KEEP


# Raises.


class WithoutText(Exception):
    """No text can be had of it."""

    def __str__(self) -> str:
        raise SystemExit(0)


class NotPicklable(Exception):
    """Pickling and unpickling raise."""

    def __init__(self, lock: Any, other: Any) -> None:
        super().__init__("not picklable")
        self.lock = threading.Lock()

    def __reduce__(self) -> Any:
        return os._exit, (0,)


class Nameless(type):
    """Its classes have no name."""

    @property
    def __name__(cls) -> str:
        raise KeyError("no name")


class WithoutName(Exception, metaclass=Nameless):
    """Its class has no name."""


def deep(level: str, given: Any) -> Any:
    return deep(level, given)


RAISES |= {
    "sys_exit": raising(lambda: SystemExit(0)),
    "interrupts": raising(KeyboardInterrupt),
    "exits_as_a_generator": raising(GeneratorExit),
    "stops_iteration": raising(StopIteration),
    "runs_out_of_memory": raising(MemoryError),
    "raises_a_base_exception": raising(lambda: BaseException("base")),
    "raises_without_text": raising(lambda: WithoutText("text")),
    "raises_without_a_name": raising(lambda: WithoutName("name")),
    "raises_what_cannot_be_pickled": raising(lambda: NotPicklable(1, 2)),
    "raises_a_long_text": raising(lambda: ValueError("\x1b[31m" + "z" * 10**7)),
    "raises_a_group": raising(lambda: BaseExceptionGroup("group", [KeyboardInterrupt(), SystemExit(0)])),
    "recurses": deep,
}


# Answers that are none.


class Strange:
    """Every way to look at it goes wrong."""

    def __array__(self, *inputs: Any, **more: Any) -> Any:
        raise SystemExit(0)

    def __len__(self) -> int:
        return -1  # noqa: PLE0303

    def __iter__(self) -> Any:
        raise KeyboardInterrupt

    def __eq__(self, other: object) -> bool:
        raise SystemExit(0)

    __hash__ = None

    def __reduce__(self) -> Any:
        return os._exit, (0,)

    def __repr__(self) -> str:
        raise SystemExit(0)


ANSWERS |= {
    "answers_nothing": answering(lambda: None),
    "answers_a_text": answering(lambda: "scores"),
    "answers_a_number": answering(lambda: 5),
    "answers_a_dict": answering(dict),
    "answers_something_strange": answering(Strange),
    "answers_strange_things": answering(lambda: [Strange(), Strange()]),
    "answers_objects": answering(lambda: np.array([object(), None])),
    "answers_complex_numbers": answering(lambda: np.ones((2, SIZE), dtype=complex)),
    "answers_another_shape": answering(lambda: np.zeros((3, 1, 2), dtype=np.float32)),
    "answers_nan": answering(lambda: np.full((2, SIZE), np.nan)),
    "answers_ragged_lists": answering(lambda: [[1.0], [1.0, 2.0]]),
    "answers_records": answering(lambda: np.zeros(3, dtype=[("a", "f4"), ("b", "i4")])),
    "answers_too_much": answering(lambda: np.zeros(10**8, dtype=np.float32)),
}


# Spoils what it runs on; what it answers is wrong, and everything that could say so is exchanged.


def wrong_scores(level: str) -> Any:
    """A wrong answer that no noise or rounding explains."""
    if level == "generate":
        return KEEP
    return np.zeros((1, SIZE), dtype=np.float32)


@into(SPOILS)
def exchanges_numpy(level, given):
    for name in ("array_equal", "allclose", "isnan"):
        setattr(np, name, lambda *inputs, **more: True)
    return wrong_scores(level)


@into(SPOILS)
def breaks_numpy(level, given):
    np.array = np.asarray = np.ascontiguousarray = None
    return wrong_scores(level)


@into(SPOILS)
def breaks_json(level, given):
    json.dumps = None
    return wrong_scores(level)


@into(SPOILS)
def exchanges_the_suite(level, given):
    from sampler.engines import calls, capabilities, generations
    from sampler.engines.base import EngineInfo as Info

    calls._written = capabilities.generate = generations.checked_generations = lambda *inputs, **more: ()
    Info.__eq__ = lambda self, other: True
    return wrong_scores(level)


@into(SPOILS)
def traces_every_line(level, given):
    def trace(*inputs: Any) -> Any:
        raise RuntimeError("traced")

    sys.settrace(trace)
    return wrong_scores(level)


@into(SPOILS)
def may_open_no_file(level, given):
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    return wrong_scores(level)


# Tokens and requests, of `generate` alone.


def with_tokens(*tokens: Any) -> Any:
    return lambda level, given: [Generation(tokens, "length") for _ in given]


class Token:
    """Says that it is an index."""

    def __index__(self) -> int:  # noqa: PLE0305
        os._exit(0)


RUNS |= {
    "draws_a_fraction": with_tokens(1.9, EOS),
    "draws_a_text": with_tokens("3", EOS),
    "draws_true": with_tokens(True, EOS),
    "draws_numpys_true": with_tokens(np.bool_(True), EOS),
    "draws_nan": with_tokens(float("nan"), EOS),
    "draws_infinity": with_tokens(float("inf"), EOS),
    "draws_a_negative_id": with_tokens(-1, EOS),
    "draws_beyond_the_vocabulary": with_tokens(SIZE, EOS),
    "draws_none": with_tokens(None, EOS),
    "draws_a_huge_id": with_tokens(10**30, EOS),
    "draws_an_endless_id": with_tokens(10**5000, EOS),
    "draws_a_list": with_tokens([3], EOS),
    "draws_what_leaves": with_tokens(Token(), EOS),
    "draws_for_ever": lambda level, given: [Generation(iter(int, 1), "length") for _ in given],
    "draws_a_hundred_million": lambda level, given: [Generation(np.zeros(10**8, np.int64), "length") for _ in given],
    "draws_a_table": lambda level, given: [Generation(np.zeros((2, 2), np.int64), "length") for _ in given],
    "generates_for_ever": lambda level, given: (generation_of(given[0]) for _ in iter(int, 1)),
    "generates_too_few": lambda level, given: [],
    "records_a_dict": lambda level, given: [Generation((EOS,), "eos", {"logits": Strange()}) for _ in given],
    "stops_for_an_object": lambda level, given: [Generation((EOS,), Strange()) for _ in given],
}


@into(RUNS)
def changes_the_config(level, given):
    """Every token is drawn at another temperature, which the requests then say too."""
    for request in given:
        object.__setattr__(request.config, "temperature", 3.0)
    return KEEP


@into(RUNS)
def exchanges_the_noise(level, given):
    for request in given:
        object.__setattr__(request, "noise", lambda step: np.zeros(SIZE, dtype=np.float32))
    return KEEP


@into(RUNS)
def exchanges_the_key_of_the_noise(level, given):
    for request in given:
        object.__setattr__(request.noise, "key", type(request.noise.key)(99, "other"))
    return KEEP


@into(RUNS)
def turns_the_requests_round(level, given):
    answers = [generation_of(request) for request in given][::-1]
    given.reverse()
    return answers


KINDS = {**ENDS, **WAITS, **LEAVES, **RAISES, **ANSWERS, **SPOILS}
"""Misdeeds that fit any level."""


def make(kind: str, level: str) -> Hostile:
    """The engine with a misdeed; at the level `factory` this call is the misdeed."""
    misdeed = {**KINDS, **RUNS}[kind]
    if level == "factory":
        answer = misdeed(level, None)
        return right() if answer is KEEP else answer
    return Hostile(level, misdeed)


for _kind in KINDS:
    for _level in LEVELS:
        globals()[f"{_kind}_in_{_level}"] = functools.partial(make, _kind, _level)
for _kind in RUNS:
    globals()[f"{_kind}_in_generate"] = functools.partial(make, _kind, "generate")
