"""Every variant of `variants.toml` against the wheels of upstream that it names: the same tokens, flags and errors.

Upstream's own loop runs in a process of its own for each release and class (`tests/wheel_runs.py` says what is
patched), with Finch's weights and the suite's noise; the MLX core is configured by the variant and nothing else. Knobs,
caps and what happens behind T3 are read from the source of the wheels.
"""

import ast
import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sampler import SamplingConfig, finch
from sampler.alignment import FINDING
from sampler.chain.noise import NoiseKey
from sampler.generation.generator import Generator
from sampler.requests import Generation, Request
from sampler.t3.model import T3
from sampler.variants import Variant, load_variants
from tests import wheels
from tests.equivalence.pairs import first_difference
from tests.wheel_runs import KNOBS, TURBO_KNOBS, Push, finch_tensors, pushed
from tests.wrong_engines.rules import WRONG_RULES

VARIANTS = load_variants()
CASES = [(name, version) for name, variant in VARIANTS.items() for version in variant.wheels]
NIGHTLY = pytest.mark.nightly(
    "upstream's loop of every release and rule; parity and reference runs are compared by day"
)
SOURCES = {"english": "tts.py", "multilingual": "mtl_tts.py", "turbo": "tts_turbo.py"}
EVERY_CASE = pytest.mark.parametrize(("name", "version"), CASES)
MOST_EXPLAINED = 1  # runs of a case that may part from upstream's at a near tie
BOS, EOS = 2048, 2049


@dataclass(frozen=True)
class Run:
    """One request to both sides. prompt: of Finch's sentences, or ids."""

    prompt: int | tuple[int, ...]
    cap: int = 60
    changes: tuple[tuple[str, float], ...] = ()
    pushed: tuple[Push, ...] = ()


WILD = (("temperature", 1.3), ("repetition_penalty", 1.0))  # doubled tokens are likely
UNGUIDED = (("cfg_weight", 0.0),)
NO_MIN_P, NO_FILTER = (("min_p", 0.0), ("top_p", 1.0)), (("top_k", 0), ("top_p", 1.0))
WINS = 1e4
RUNS = {
    "english": (
        Run(0),
        Run(1),
        Run(20, cap=30, changes=WILD),
        Run(3, cap=12, changes=NO_MIN_P, pushed=((0, BOS, WINS), (1, 7, WINS), (2, 7, WINS))),
        Run(2, cap=5, changes=NO_MIN_P, pushed=((0, EOS, WINS),)),
        Run(2, cap=3, changes=UNGUIDED),
    ),
    "multilingual": (
        Run(0),
        Run(4),
        Run(20, changes=WILD),
        Run(3, cap=12, changes=NO_MIN_P, pushed=((0, BOS, WINS), (1, BOS, WINS), (4, 7, WINS), (5, 7, WINS))),
        Run(2, cap=5, changes=NO_MIN_P, pushed=((0, EOS, WINS),)),
        Run(3, cap=10, changes=UNGUIDED),
        *(Run((*(3, 20, 10, 12)[:length], 0), cap=20) for length in (1, 2, 3, 4)),  # S of 2 to 5
        Run((3, 20, 10, 12, 14, 0), cap=20, changes=WILD),
    ),
    "turbo": (
        Run(0, cap=20),
        Run(4, cap=6),
        Run(9, cap=60, changes=(("top_k", 2), ("repetition_penalty", 3.0))),
        Run(6, cap=8, changes=NO_FILTER, pushed=((0, EOS, WINS), (3, BOS, WINS))),
        Run(7, cap=8, changes=NO_FILTER, pushed=((0, BOS, WINS), (1, 9, WINS), (2, 9, WINS))),
        Run(4, cap=8, changes=(*NO_FILTER, ("repetition_penalty", 50.0)), pushed=((0, BOS, 40), (3, BOS, 40))),
        Run(4, cap=8, changes=(*NO_FILTER, ("repetition_penalty", 50.0)), pushed=((0, BOS, 20), (3, BOS, 20))),
        Run(8, cap=8, changes=NO_FILTER, pushed=((4, EOS, WINS),)),
    ),
}


def loop_of(variant: Variant) -> str:
    return {"en": "english", "mtl": "multilingual", "turbo": "turbo"}[variant.name.partition("-")[0]]


def config_of(variant: Variant, run: Run) -> SamplingConfig:
    return replace(variant.config, **dict(run.changes))


def rows_of(variant: Variant, config: SamplingConfig) -> int:
    always = loop_of(variant) == "multilingual" or variant.name == "en-0.1.1"
    return 2 if always or config.cfg_weight > 0 else 1


@functools.cache
def sentences() -> list[list[int]]:
    prompts = sorted(finch.prompts("sentences"), key=lambda prompt: (prompt.tokens, prompt.id))
    return [finch.load().tokenizer.encode(prompt.text, prompt.language) for prompt in prompts]


def text_of(run: Run) -> list[int]:
    return list(run.prompt) if isinstance(run.prompt, tuple) else sentences()[run.prompt]


def job(variant: Variant, version: str) -> dict[str, Any]:
    loop = loop_of(variant)
    names = TURBO_KNOBS if loop == "turbo" else KNOBS
    if variant.name == "en-0.1.1":
        names = tuple(name for name in names if name != "min_p")  # which came later
    runs = [
        {
            "text": text_of(run),
            "rows": rows_of(variant, config_of(variant, run)),
            "cap": run.cap,
            "knobs": {name: getattr(config_of(variant, run), name) for name in names},
            "noise": [11, variant.name, index],
            "pushed": run.pushed,
        }
        for index, run in enumerate(RUNS[loop])
    ]
    return {"folder": str(wheels.folder(version)), "loop": loop, "runs": runs}


@functools.cache
def upstream_says() -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Upstream's answers to all runs of all cases whose release is there."""
    cases = [(name, version) for name, version in CASES if wheels.folder(version).exists()]
    jobs = json.dumps([job(VARIANTS[name], version) for name, version in cases])
    command = [sys.executable, "-m", "tests.wheel_runs"]
    result = subprocess.run(command, input=jobs, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return dict(zip(cases, json.loads(result.stdout), strict=True))


def theirs(name: str, version: str) -> list[dict[str, Any]]:
    wheels.need(version)
    return upstream_says()[name, version]


def generate(variant: Variant) -> list[Generation]:
    """The core's answers; without positions of speech for Turbo, as the side of upstream has them."""
    checkpoint, requests = finch.load(), []
    if loop_of(variant) == "turbo":
        checkpoint = replace(checkpoint, model=T3(finch_tensors({"loop": "turbo"}), checkpoint.config))
    for index, run in enumerate(RUNS[loop_of(variant)]):
        noise = partial(pushed(NoiseKey(11, variant.name, index), run.pushed), size=checkpoint.config.speech_vocab_size)
        requests.append(Request(tuple(text_of(run)), config_of(variant, run), 0, run.cap, noise))
    return Generator.of(checkpoint, variant, width=8, keep_logits=True).generate(requests)


@functools.cache
def ours(name: str) -> list[Generation]:
    return generate(VARIANTS[name])


def differences(variant: Variant, version: str, answers: list[Generation]) -> list[str]:
    triples = zip(answers, theirs(variant.name, version), RUNS[loop_of(variant)], strict=True)
    return [difference for triple in triples for difference in compare(variant, *triple)]


@NIGHTLY
@EVERY_CASE
def test_the_core_as_a_variant_gives_the_tokens_of_its_wheel(name, version):
    found = differences(VARIANTS[name], version, ours(name))
    assert not [difference for difference in found if "not explained" in difference], found
    assert len(found) <= MOST_EXPLAINED, found


@NIGHTLY
@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        pytest.param(name, wrong, id=f"{name}-{wrong.__name__}")
        for name, rules in WRONG_RULES.items()
        for wrong in rules
    ],
)
def test_a_wrong_rule_is_detected(name, wrong):
    found = differences(VARIANTS[name], VARIANTS[name].wheels[-1], generate(wrong(VARIANTS[name])))
    assert any("not explained" in difference for difference in found), found


def compare(variant: Variant, answer: Generation, other: dict[str, Any], run: Run) -> Iterator[str]:
    if "error" in other and variant.weight_zero == "raises" and config_of(variant, run).cfg_weight == 0:
        assert other["error"].startswith("RuntimeError: Sizes of tensors must match"), other
        return
    if "error" in other:
        assert other["error"].startswith("IndexError: max(): Expected reduction dim 1"), other
        if (answer.stop_reason, FINDING in answer.record.error) != ("error", True):
            yield f"{run}: upstream raises, ours ends with {answer.stop_reason} {answer.record.error}, not explained"
        return
    tokens = list(answer.tokens)
    if loop_of(variant) == "turbo" and answer.stop_reason == "eos":
        tokens = tokens[:-1]  # `inference_turbo` drops it
    if tokens != other["tokens"]:
        yield f"{run}: {first_difference(answer, other['tokens'], config_of(variant, run), BOS)}"
    elif forcing(answer) != [read_flags(message) for message in other["forced"]]:
        yield f"{run}: forced by {forcing(answer)}, upstream says {other['forced']}, not explained"
    elif (answer.stop_reason == "forced_eos") != bool(other["forced"]):
        yield f"{run}: ends with {answer.stop_reason}, upstream says {other['forced']}, not explained"


def read_flags(message: str) -> set[str]:
    pairs = (part.split("=") for part in message.partition(", ")[2].split(", "))
    return {name for name, value in pairs if "True" in value}


def forcing(generation: Generation) -> list[set[str]]:
    found = [set(flags.split("+")) - {"", "suppressed"} for flags in generation.record.flags]
    return [flags for flags in found if flags]


@NIGHTLY
def test_the_runs_reach_what_variants_differ_in():
    reasons = {name: {answer.stop_reason for answer in ours(name)} for name in ("en-0.1.3", "mtl-0.1.6")}
    assert reasons == {"en-0.1.3": {"eos", "length"}, "mtl-0.1.6": {"eos", "length", "forced_eos", "error"}}
    pairs = zip(ours("turbo"), RUNS["turbo"], strict=True)
    beyond = [len(answer.tokens) - run.cap for answer, run in pairs if answer.stop_reason == "length"]
    assert len(beyond) >= 3
    assert set(beyond) == {1}
    assert any(answer.tokens[0] == EOS and len(answer.tokens) > 1 for answer in ours("turbo"))


@NIGHTLY
@EVERY_CASE
def test_guidance_of_weight_zero_raises_where_the_variant_says_so(name, version):
    """English, 0.1.3 and later: one row of text meets two rows of BOS."""
    runs = zip(RUNS[loop_of(VARIANTS[name])], theirs(name, version), strict=True)
    raised = ["error" in answer for run, answer in runs if run.changes == UNGUIDED]
    assert raised in ([VARIANTS[name].weight_zero == "raises"], [])
    assert bool(raised) == (loop_of(VARIANTS[name]) != "turbo")


@EVERY_CASE
def test_knobs_and_cap_are_the_defaults_of_upstreams_generate(name, version):
    variant, package = VARIANTS[name], wheels.need(version) / "chatterbox"
    loop = "inference_turbo" if loop_of(variant) == "turbo" else "inference"
    generate = function(package / SOURCES[loop_of(variant)], "generate")
    inference = function(package / "models" / "t3" / "t3.py", loop)
    calls = (node for node in ast.walk(generate) if isinstance(node, ast.Call))
    call = next(node for node in calls if ast.unparse(node.func) == f"self.t3.{loop}")
    defaults, passed = default_values(generate), {each.arg: ast.unparse(each.value) for each in call.keywords}
    found = default_values(inference) | {name: defaults.get(value, value) for name, value in passed.items()}
    names = TURBO_KNOBS if loop == "inference_turbo" else KNOBS
    expected = {knob: getattr(variant.config, knob) for knob in names if knob in found}
    if name == "en-0.1.2-nocfg":
        assert expected.pop("cfg_weight") == 0
    assert {knob: float(found[knob]) for knob in expected} == expected
    missing = {knob: getattr(variant.config, knob) for knob in ("min_p", "top_k", "cfg_weight") if knob not in found}
    assert not any(missing.values())
    assert int(found["max_gen_len" if loop == "inference_turbo" else "max_new_tokens"]) == variant.cap


def function(path: Path, name: str) -> ast.FunctionDef:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name)


def default_values(node: ast.FunctionDef) -> dict[str, str]:
    given, only = node.args, zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    positional = zip(reversed([*given.posonlyargs, *given.args]), reversed(given.defaults), strict=False)
    return {argument.arg: ast.unparse(value) for argument, value in [*positional, *only] if value is not None}


@EVERY_CASE
def test_what_happens_behind_t3_is_in_upstreams_source(name, version):
    variant, package = VARIANTS[name], wheels.need(version) / "chatterbox"
    generate = ast.unparse(function(package / SOURCES[loop_of(variant)], "generate"))
    flow = (package / "models" / "s3gen" / "flow.py").read_text(encoding="utf-8")
    found = {
        "between_bos_and_eos": "drop_invalid_tokens(" in generate,
        "codes_only": "speech_tokens[speech_tokens < 6561]" in generate,
        "clamp_codes": "max=vocab_size" in flow and "speech_tokens < 6561" not in generate,
        "append_silence": "[S3GEN_SIL, S3GEN_SIL, S3GEN_SIL]" in generate,
        "cut_last_code": False,
    }
    assert variant.post == tuple(rule for rule, is_there in found.items() if is_there)


def test_every_release_of_the_table_is_tested_and_git_alone_has_no_oracle():
    assert {version for _, version in CASES} == set(wheels.CODE)
    assert {name for name, variant in VARIANTS.items() if not variant.wheels} == {"mtl-head", "nano"}
