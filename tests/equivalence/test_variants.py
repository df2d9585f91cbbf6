"""Every variant of `variants.toml` against the wheels of upstream that it names: the same tokens, flags and errors.

Upstream's own loop runs in a process of its own for each release and class (`tests/wheel_runs.py` says what is
patched), with Finch's weights and the suite's noise; the MLX core is configured by the variant and nothing else. Knobs,
caps and what happens behind T3 are read from the source of the wheels.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from sampler import SamplingConfig, finch
from sampler.alignment import FINDING
from sampler.chain.noise import NoiseKey
from sampler.finch import Prompt
from sampler.generation.generator import Generator
from sampler.requests import Generation, Request
from sampler.t3.checkpoint import Checkpoint
from sampler.t3.model import T3
from sampler.t3.weights import read_weights
from sampler.variants import Variant, load_variants
from tests import wheels
from tests.support import kept_bounds
from tests.wheel_runs import POSITIONS, Push, pushed
from tests.wrong_engines.rules import LIES

VARIANTS = load_variants()
CASES = [(name, version) for name, variant in VARIANTS.items() for version in variant.wheels]
MOST_EXPLAINED = 1
"""How many runs of a case may part from upstream's at a near tie."""
KNOBS = ("temperature", "top_p", "min_p", "repetition_penalty", "cfg_weight")
TURBO_KNOBS = ("temperature", "top_k", "top_p", "repetition_penalty")
BOS, EOS = 2048, 2049


@dataclass(frozen=True)
class Run:
    """One request to both sides. prompt: of Finch's sentences, or ids."""

    prompt: int | tuple[int, ...]
    cap: int = 60
    changes: tuple[tuple[str, float], ...] = ()
    pushed: tuple[Push, ...] = ()


WILD = (("temperature", 1.3), ("repetition_penalty", 1.0))
"""Doubled tokens are likely here."""
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
    """How many rows of text the class's `generate` makes."""
    always = loop_of(variant) == "multilingual" or variant.name == "en-0.1.1"
    return 2 if always or config.cfg_weight > 0 else 1


class Sides:
    """Finch, and what upstream said to all runs of all cases."""

    def __init__(self) -> None:
        self.checkpoint = finch.load()
        self.prompts = sorted(finch.prompts("sentences"), key=lambda prompt: (prompt.tokens, prompt.id))
        self.cases = [case for case in CASES if wheels.folder(case[1]).exists()]
        jobs = [self.job(VARIANTS[name], version) for name, version in self.cases]
        command = [sys.executable, "-m", "tests.wheel_runs"]
        result = subprocess.run(command, input=json.dumps(jobs), capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        self._ours: dict[str, list[Generation]] = {}
        self.answers: Mapping[tuple[str, str], list[dict[str, Any]]] = dict(
            zip(self.cases, json.loads(result.stdout), strict=True)
        )

    def text(self, run: Run) -> list[int]:
        if isinstance(run.prompt, tuple):
            return list(run.prompt)
        prompt: Prompt = self.prompts[run.prompt]
        return self.checkpoint.tokenizer.encode(prompt.text, prompt.language)

    def job(self, variant: Variant, version: str) -> dict[str, Any]:
        loop = loop_of(variant)
        names = TURBO_KNOBS if loop == "turbo" else KNOBS
        if variant.name == "en-0.1.1":
            names = tuple(name for name in names if name != "min_p")  # which came later
        runs = []
        for index, run in enumerate(RUNS[loop]):
            config = config_of(variant, run)
            runs.append(
                {
                    "text": self.text(run),
                    "rows": rows_of(variant, config),
                    "cap": run.cap,
                    "knobs": {name: getattr(config, name) for name in names},
                    "noise": [11, variant.name, index],
                    "pushed": run.pushed,
                }
            )
        return {"folder": str(wheels.folder(version)), "loop": loop, "runs": runs}

    def ours(self, variant: Variant) -> list[Generation]:
        """The core's answers to all runs of a variant."""
        if variant.name not in self._ours:
            self._ours[variant.name] = self.generate(variant)
        return self._ours[variant.name]

    def generate(self, variant: Variant) -> list[Generation]:
        requests = []
        for index, run in enumerate(RUNS[loop_of(variant)]):
            gumbel = pushed(NoiseKey(11, variant.name, index), run.pushed)
            noise = partial(gumbel, size=self.checkpoint.config.speech_vocab_size)
            requests.append(Request(tuple(self.text(run)), config_of(variant, run), 0, run.cap, noise))
        checkpoint = without_positions(self.checkpoint) if loop_of(variant) == "turbo" else self.checkpoint
        return Generator.of(checkpoint, variant, width=8, keep_logits=True).generate(requests)

    def differences(self, variant: Variant, version: str, ours: list[Generation]) -> list[str]:
        """How the core's answers differ from those of a release, run by run."""
        runs, theirs = RUNS[loop_of(variant)], self.answers[variant.name, version]
        pairs = zip(ours, theirs, runs, strict=True)
        return [difference for pair in pairs for difference in compare(variant, *pair)]


def without_positions(checkpoint: Checkpoint) -> Checkpoint:
    """Finch with a table of speech positions that is all zeros, as the side of upstream has it for Turbo."""
    tensors = read_weights(finch.folder() / "weights.safetensors", checkpoint.config)
    tensors[POSITIONS] = mx.zeros_like(tensors[POSITIONS])
    return replace(checkpoint, model=T3(tensors, checkpoint.config))


@pytest.fixture(scope="module")
def sides():
    return Sides()


@pytest.mark.parametrize(("name", "version"), CASES)
def test_the_core_as_a_variant_gives_the_tokens_of_its_wheel(sides, name, version):
    wheels.need(version)
    variant = VARIANTS[name]
    differences = sides.differences(variant, version, sides.ours(variant))
    assert not [difference for difference in differences if "not explained" in difference], differences
    assert len(differences) <= MOST_EXPLAINED, differences


@pytest.mark.parametrize(("name", "lie"), [(name, lie) for name, lies in LIES.items() for lie in lies])
def test_a_wrong_rule_is_seen(sides, name, lie):
    """Some run parts from upstream's where no rounding explains it."""
    version = VARIANTS[name].wheels[-1]
    wheels.need(version)
    differences = sides.differences(VARIANTS[name], version, sides.generate(lie(VARIANTS[name])))
    assert any("not explained" in difference for difference in differences), differences


def compare(variant: Variant, ours: Generation, theirs: dict[str, Any], run: Run) -> Iterator[str]:
    """How one run differs from upstream's: in its end, its tokens or its flags."""
    if "error" in theirs and variant.weight_zero == "raises" and config_of(variant, run).cfg_weight == 0:
        assert theirs["error"].startswith("RuntimeError: Sizes of tensors must match"), theirs
        return
    if "error" in theirs:
        assert theirs["error"].startswith("IndexError: max(): Expected reduction dim 1"), theirs
        if (ours.stop_reason, FINDING in ours.record.error) != ("error", True):
            yield f"{run}: upstream raises, ours ends with {ours.stop_reason} {ours.record.error}, not explained"
        return
    tokens = list(ours.tokens)
    if loop_of(variant) == "turbo" and ours.stop_reason == "eos":
        tokens = tokens[:-1]  # `inference_turbo` drops it
    if tokens != theirs["tokens"]:
        yield f"{run}: {describe(ours, theirs['tokens'], config_of(variant, run))}"
    elif forcing(ours) != [read_flags(message) for message in theirs["forced"]]:
        yield f"{run}: forced by {forcing(ours)}, upstream says {theirs['forced']}, not explained"
    elif (ours.stop_reason == "forced_eos") != bool(theirs["forced"]):
        yield f"{run}: ends with {ours.stop_reason}, upstream says {theirs['forced']}, not explained"


def describe(ours: Generation, expected: list[int], config: SamplingConfig) -> str:
    """Where two runs part, and whether a near tie or a threshold may have decided."""
    pairs = zip(ours.tokens, expected, strict=False)
    step = next((index for index, (one, other) in enumerate(pairs) if one != other), None)
    if step is None:
        return f"{len(ours.tokens)} tokens, upstream {len(expected)}, not explained"
    cond, uncond = ours.record.logits[step : step + 1, 0], ours.record.logits[step : step + 1, 1:]
    history = [[BOS, *ours.tokens[:step]]]
    must, may = kept_bounds(cond, history, config, uncond[:, 0] if uncond.shape[1] else None)
    near = (may & ~must).any() or ours.record.margin[step] < 1e-4
    return f"part at step {step}, margin {ours.record.margin[step]:.1e}{'' if near else ', not explained'}"


def read_flags(message: str) -> set[str]:
    """The flags that are up in upstream's log line."""
    pairs = (part.split("=") for part in message.partition(", ")[2].split(", "))
    return {name for name, value in pairs if "True" in value}


def forcing(generation: Generation) -> list[set[str]]:
    """The flags of the steps at which EOS was forced."""
    found = [set(flags.split("+")) - {"", "suppressed"} for flags in generation.record.flags]
    return [flags for flags in found if flags]


def test_the_runs_reach_what_variants_differ_in(sides):
    """Forced ends, errors, long tails, first tokens that are EOS and the token beyond the cap all occur."""
    ours = {name: sides.ours(VARIANTS[name]) for name in ("en-0.1.3", "mtl-0.1.6", "turbo")}
    reasons = {name: {answer.stop_reason for answer in answers} for name, answers in ours.items()}
    assert reasons["en-0.1.3"] == {"eos", "length"}
    assert reasons["mtl-0.1.6"] == {"eos", "length", "forced_eos", "error"}
    assert len([answer for answer in ours["turbo"] if answer.stop_reason == "length"]) >= 3
    capped = list(zip(ours["turbo"], RUNS["turbo"], strict=True))
    assert {len(answer.tokens) - run.cap for answer, run in capped if answer.stop_reason == "length"} == {1}
    assert any(answer.tokens[0] == EOS and len(answer.tokens) > 1 for answer in ours["turbo"])


@pytest.mark.parametrize(("name", "version"), CASES)
def test_guidance_of_weight_zero_raises_where_the_variant_says_so(sides, name, version):
    """English, 0.1.3 and later: one row of text meets two rows of BOS."""
    wheels.need(version)
    runs = zip(RUNS[loop_of(VARIANTS[name])], sides.answers[name, version], strict=True)
    raised = ["error" in answer for run, answer in runs if run.changes == UNGUIDED]
    assert raised in ([VARIANTS[name].weight_zero == "raises"], [])
    assert bool(raised) == (loop_of(VARIANTS[name]) != "turbo")


SOURCES = {"english": "tts.py", "multilingual": "mtl_tts.py", "turbo": "tts_turbo.py"}


@pytest.mark.parametrize(("name", "version"), CASES)
def test_knobs_and_cap_are_the_defaults_of_upstreams_generate(name, version):
    variant, package = VARIANTS[name], wheels.need(version) / "chatterbox"
    loop = "inference_turbo" if loop_of(variant) == "turbo" else "inference"
    generate = function(package / SOURCES[loop_of(variant)], "generate")
    inference = function(package / "models" / "t3" / "t3.py", loop)
    call = next(
        node
        for node in ast.walk(generate)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == f"self.t3.{loop}"
    )
    defaults = default_values(generate)
    passed = {
        keyword.arg: defaults.get(ast.unparse(keyword.value), ast.unparse(keyword.value)) for keyword in call.keywords
    }
    found = {**default_values(inference), **passed}
    names = TURBO_KNOBS if loop == "inference_turbo" else KNOBS
    expected = {knob: getattr(variant.config, knob) for knob in names if knob in found}
    if name == "en-0.1.2-nocfg":
        assert expected.pop("cfg_weight") == 0
    assert {knob: float(found[knob]) for knob in expected} == expected
    missing = {knob: getattr(variant.config, knob) for knob in ("min_p", "top_k", "cfg_weight") if knob not in found}
    assert not any(missing.values())
    assert int(found["max_gen_len" if loop == "inference_turbo" else "max_new_tokens"]) == variant.cap


def function(path: Path, name: str) -> ast.FunctionDef:
    """A function of a file, by name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name)


def default_values(node: ast.FunctionDef) -> dict[str, str]:
    """Defaults of a function's arguments, as they are written."""
    given, only = node.args, zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    positional = zip(reversed([*given.posonlyargs, *given.args]), reversed(given.defaults), strict=False)
    return {argument.arg: ast.unparse(value) for argument, value in [*positional, *only] if value is not None}


@pytest.mark.parametrize(("name", "version"), CASES)
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
