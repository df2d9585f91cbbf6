"""Every format that a command reads from outside: a right file of each, the command, and the ways to spoil it."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import torch
from safetensors.numpy import save_file
from tokenizers import AddedToken, ByteLevelBPETokenizer, Tokenizer, models

from sampler import NoiseKey, SamplingConfig
from sampler.checks.verdict import Verdict
from sampler.requests import Steps
from sampler.results.store import reference_runs
from sampler.results.store.attachments import ATTENTION, TOKENS
from sampler.results.store.crash import write_crashes
from sampler.results.store.reference_runs import COLUMNS, FORMAT
from sampler.results.store.scoring import SCORING
from sampler.t3 import checkpoint
from sampler.t3.byte_level import SETTINGS
from sampler.t3.checkpoint import OWN_FILES
from tests import pages
from tests.support import TINY, TURBO_TINY, random_weights
from tests.tools.fuzzing import mutations
from tests.tools.fuzzing.mutations import BINARY, TEXT, Mutation, in_place
from tests.tools.fuzzing.pickled import pickled_changed

MATRIX = """\
why = "A small one: é."
design = "all"
most_cells = 100

[generation]
prompts = ["Come and see.", "The harbour is quiet tonight."]
requests = 2
runs = 1
max_new_tokens = 20
width = 2
language = "en"
expected = [3, 20]

[knobs]
min_p = 0.05

[axes]
temperature = [0.5, 0.8]
variant = ["mtl-0.1.6"]

[[cells]]
top_k = 5
order = ["cfg", "top_k", "temperature"]

[[exclude]]
temperature = 0.5
why = "as an example"

[longform]
reference = ""
false_alarms = 1e-6
most_incomplete = 0.2
weights = { all = 1.0, cells = 1.0 }
detect = { cells = { share = 0.5, superiority = 0.9 } }
left_out = { cells = ["entropy"] }

[[known]]
cell = "top_k:5+order:cfg.top_k.temperature"
check = "looping"
share = 0.5
finding = "as an example"
"""

Make = Callable[[Path], None]
Ready = Callable[[Path], None]


def ready(folder: Path) -> None:
    """Nothing else has to fit the spoiled file."""


@dataclass(frozen=True)
class Format:
    """A format. target: the file that is spoiled; commands: what reads it; make: writes right files into a folder.

    spoil: the ways to spoil the file. fit: makes what names the file by its checksum fit again. prepare: before each
    command. is_optional: whether there may be no such file.
    """

    name: str
    target: str
    commands: tuple[tuple[str, ...], ...]
    make: Make
    spoil: tuple[Mutation, ...]
    fit: Ready = ready
    prepare: Ready = ready
    is_optional: bool = False

    @property
    def mutations(self) -> tuple[Mutation, ...]:
        return (*self.spoil * 3, in_place)


def write_matrix(folder: Path) -> None:
    (folder / "small.toml").write_text(MATRIX, encoding="utf-8")


def write_run(folder: Path) -> None:
    """A run with a failing cell that has pictures, and a passing one."""
    verdicts = [pages.verdict("top_p:0.5", "failed", request=0, p_value=1e-9), pages.verdict("top_p:0.9")]
    runs = [pages.token_run("top_p:0.5", 0, 8), pages.token_run("top_p:0.9", 0, 8)]
    header: dict[str, Any] = {"width": 8, "engine_name": "core", "weights": {"path": "x", "sha256": "5d2b"}}
    scored = {f"made/top_p:{value}": pages.scored(count) for value, count in ((0.5, 1), (0.9, 0))}
    maps = [pages.attention_run("top_p:0.5", 0, 8)]
    pages.write_made(folder / "run", verdicts, runs, maps, scored, **header)


def fit_run(folder: Path) -> None:
    """Give the footer the checksums of the files beside it."""
    path = folder / "run" / "run.jsonl"
    *lines, last = path.read_text(encoding="utf-8").splitlines(keepends=True)
    footer = json.loads(last)
    files = [folder / "run" / name for name in (TOKENS, ATTENTION, SCORING)]
    digests = {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in files if small(each)}
    path.write_text(
        "".join([*lines, json.dumps(footer | {"files": footer["files"] | digests}) + "\n"]), encoding="utf-8"
    )


def small(path: Path) -> bool:
    """Whether a file is one whose checksum is soon known."""
    return path.is_file() and path.stat().st_size < 1 << 30


def write_crash(folder: Path) -> None:
    logits = np.array([2.0, 0.0, -np.inf, -9.0, 1.5], dtype=np.float32)[None]
    noise = NoiseKey(1, "crash").gumbel(0, 5)[None]
    config = SamplingConfig(temperature=0.8, min_p=0.1)
    step = Steps(logits, [(4, 4, 1)], [config], logits + 1, gumbel=noise, tokens=np.array([3]), scores=logits)
    verdict = Verdict("smoke/base/allowed", "draw", "allowed", "min_p", "failed", 1, reproduce="sampler ...")
    path = write_crashes(folder, [(verdict, step)])[verdict.case]
    path.rename(folder / "crash.json")


def token_lines(count: int = 6) -> str:
    lines = []
    for index in range(count):
        rng = np.random.default_rng(index)
        entropy = rng.uniform(0, 4, 12).round(3).tolist()
        lines.append({
            "prompt": f"text {index % 3}", "tokens": rng.integers(0, 50, 12).tolist(), "stop_reason": "eos",
            "logprobs": (-rng.uniform(0, 4, 12)).round(3).tolist(), "entropy": entropy,
            "rank": rng.integers(0, 5, 12).tolist(), "margin": [None, *entropy[1:]],
            "position": sorted(rng.integers(0, 5, 12).tolist()), "text_length": 5,
            "expected_length": 12.0, "seed": index,
        })  # fmt: skip
    return "".join(json.dumps(line) + "\n" for line in lines)


def write_tokens(folder: Path) -> None:
    for name in ("runs.jsonl", "others.jsonl"):
        (folder / name).write_text(token_lines(), encoding="utf-8")
    (folder / "mine.toml").write_text(
        'why = "x"\n[longform]\nreference = "others.jsonl"\n[generation]\nruns = 1\n', encoding="utf-8"
    )


NAMES = ["[STOP]", "[UNK]", "[SPACE]", "[START]", *"abcdefghijklmnopqrstuvwxyzH.,!?'-", "x1", "x2", "x3"]


def write_weights(folder: Path) -> None:
    """A folder like Finch's, of a tiny T3."""
    own = folder / "weights"
    own.mkdir()
    weights, config, tokenizer, voice = (own / name for name in OWN_FILES)
    save_file({name: np.array(value) for name, value in random_weights(TINY, 0).items()}, weights)
    config.write_text(json.dumps(TINY.to_dict(), indent=1), encoding="utf-8")
    built = Tokenizer(models.BPE(vocab={name: index for index, name in enumerate(NAMES)}, merges=[], unk_token="[UNK]"))
    built.add_special_tokens([AddedToken(name, special=True) for name in NAMES[:4]])
    built.save(str(tokenizer))
    mx.save_safetensors(
        str(voice),
        {
            "t3.speaker_emb": mx.ones((1, 256)) / 16,
            "t3.cond_prompt_speech_tokens": mx.arange(20)[None],
            "t3.emotion_adv": mx.full((1, 1, 1), 0.5),
        },
    )


TURBO = "t3_turbo_v1.safetensors"
ADDED = ("[laugh]", "[sigh]")


def write_turbo(folder: Path) -> None:
    """A folder with Turbo's own file names, of a tiny T3."""
    own = folder / "turbo"
    own.mkdir()
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        ["The harbour is quiet tonight. [laugh]"] * 3, vocab_size=270, min_frequency=2, show_progress=False
    )
    bpe.save_model(str(own))
    vocabulary = json.loads((own / "vocab.json").read_text(encoding="utf-8"))
    vocabulary["<|endoftext|>"] = len(vocabulary)
    added = {name: len(vocabulary) + place for place, name in enumerate(ADDED)}
    remarks = {str(place): {"content": name, "lstrip": True, "normalized": False} for name, place in added.items()}
    settings = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 60, "added_tokens_decoder": remarks}
    for name, data in (("vocab.json", vocabulary), ("added_tokens.json", added), (SETTINGS, settings)):
        (own / name).write_text(json.dumps(data), encoding="utf-8")
    (folder / "size").write_text(str(len(vocabulary) + len(added)), encoding="ascii")
    config = turbo_config(len(vocabulary) + len(added))
    save_file({name: np.array(value) for name, value in random_weights(config, 0).items()}, own / TURBO)
    voice = {"speaker_emb": torch.ones(1, 256) / 16, "cond_prompt_speech_tokens": torch.arange(20)[None]}
    torch.save({"t3": {**voice, "emotion_adv": None}, "gen": {}}, own / "conds.pt")


def turbo_config(size: int) -> Any:
    return replace(TURBO_TINY, name="chatterbox-turbo", text_vocab_size=size)


def prepare_turbo(folder: Path) -> None:
    """The sizes under upstream's names are cut down; the code path is not."""
    known: Any = checkpoint.UPSTREAM_FILES
    known[TURBO] = (turbo_config(int((folder / "size").read_text(encoding="ascii"))), "vocab.json")


def write_reference(folder: Path) -> None:
    """Runs in the form of those that ship, and token runs beside them."""
    write_tokens(folder)
    runs = [
        {"prompt": f"text {place}", "stop_reason": "eos", "expected": 12.0, "text_length": 5, "steps": 12}
        for place in range(3)
    ]
    about = [{"cell": "base", "source": "a wheel", "config": "x", "runs": runs}]
    columns = {f"0.{name}": np.ones(36, dtype=kind) for name, kind in COLUMNS.items()}
    metadata = {"format": FORMAT, "cells": json.dumps(about), "provenance": json.dumps({"made_by": "this"})}
    save_file(columns, folder / "made.safetensors", metadata=metadata)


def prepare_reference(folder: Path) -> None:
    reference_runs.read_reference.cache_clear()
    place: Any = reference_runs
    place.shipped_reference = lambda name: folder / f"{name}.safetensors"


def at(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in names)


REPORT = (("report", "run"),)
CHECK = (("check", "runs.jsonl"), ("check", "runs.jsonl", "--against", "others.jsonl"))
SPEAK = ("--max-new-tokens", "3", "--out", "out.svg")
TRACE = (("trace", "attention", "hide", "--weights", "weights", *SPEAK),)
TRACE_TURBO = (("trace", "attention", "harbour", "--weights", "turbo", "--cfg-weight", "0", *SPEAK),)
JSON, LINES = (*TEXT, *[mutations.json_changed] * 6), (*TEXT, *[mutations.json_line_changed] * 6)
LOGS = tuple(map(mutations.of_a_log, LINES))
TENSORS, TOML = (*BINARY, *[mutations.tensors_changed] * 6), (*TEXT, *[mutations.toml_changed] * 6)
WEIGHTS, CONFIG, TOKENIZER, VOICE = at("weights", *OWN_FILES)

FORMATS: tuple[Format, ...] = (
    Format("matrix", "small.toml", (("list", "small.toml"), ("plan", "small.toml")), write_matrix, TOML),
    Format("run file", "run/run.jsonl", REPORT, write_run, LINES),
    Format("tokens of a run", "run/tokens.jsonl", REPORT, write_run, LINES, fit_run, is_optional=True),
    Format("attention", "run/attention.safetensors", REPORT, write_run, TENSORS, fit_run, is_optional=True),
    Format("scoring", "run/scoring.json", REPORT, write_run, JSON, fit_run, is_optional=True),
    Format("crash file", "crash.json", (("replay", "crash.json"),), write_crash, JSON),
    Format("token runs", "runs.jsonl", CHECK, write_tokens, LOGS),
    Format("reference token runs", "others.jsonl", CHECK[1:], write_tokens, LOGS),
    Format("config.json", CONFIG, TRACE, write_weights, JSON),
    Format("weights", WEIGHTS, TRACE, write_weights, TENSORS),
    Format("tokenizer.json", TOKENIZER, TRACE, write_weights, JSON),
    Format("voice", VOICE, TRACE, write_weights, TENSORS),
    Format(
        "pickled voice",
        "turbo/conds.pt",
        TRACE_TURBO,
        write_turbo,
        (*BINARY, *[pickled_changed] * 6),
        prepare=prepare_turbo,
    ),
    *(
        Format(name, f"turbo/{name}", TRACE_TURBO, write_turbo, JSON, ready, prepare_turbo, name == SETTINGS)
        for name in ("vocab.json", "added_tokens.json", SETTINGS)
    ),
    Format("merges.txt", "turbo/merges.txt", TRACE_TURBO, write_turbo, TEXT, prepare=prepare_turbo),
    Format(
        "shipped runs",
        "made.safetensors",
        (("check", "runs.jsonl", "--against", "made/base"),),
        write_reference,
        TENSORS,
        prepare=prepare_reference,
    ),
)
