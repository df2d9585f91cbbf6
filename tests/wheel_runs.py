"""Runs of upstream's own `T3.inference` on Finch's weights, each release and class in a process of its own.

`python -m tests.wheel_runs < jobs.json > tokens.json`. A job is {"folder", "loop", "fresh", "attention", "runs"}; a run
is {"text", "rows", "cap", "knobs", "noise", "pushed"}, whose answer is {"tokens", "forced", "hooks"} or {"error"}. The
processes are forked after torch and transformers are imported and before either computes.

loop: `english`, `multilingual` or `turbo`. fresh: every run in a process of its own, else all runs of a job in one.
attention: `attn_implementation`. pushed: [step, token, number] whose noise is raised. Patched beside what
`tests/upstream.py` says:

- `torch.multinomial` answers with the argmax of log probability plus the suite's noise for the key `noise`, none for
  null;
- `T3Config.is_multilingual` is what the job says, where the release has it: upstream asks for 2352 or 2454 text ids;
- `LLAMA_ALIGNED_HEADS` names Finch's pairs of layer and head;
- `alignment_layer_idx` of 0.1.0 and 0.1.1, which never look at that layer, is Finch's last in place of 9.

`turbo` is `inference_turbo` on Finch's Llama backbone: the rules of generation are upstream's, the network is not.
Turbo has no table of speech positions, so Finch's is all zeros there.
"""

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import transformers.models.llama.modeling_llama  # noqa: F401 - before the fork
from numpy.typing import NDArray

from sampler import finch
from sampler.chain.noise import NoiseKey
from sampler.t3.checkpoint import OWN_FILES, load_voice
from sampler.t3.conditioning import Voice
from sampler.t3.config import T3Config
from tests import upstream

Job = Mapping[str, Any]
Push = tuple[int, int, float]
ANALYZER = "chatterbox.models.t3.inference.alignment_stream_analyzer"
POSITIONS = "speech_pos_emb.emb.weight"
KNOBS = ("temperature", "top_p", "min_p", "repetition_penalty", "cfg_weight")
TURBO_KNOBS = ("temperature", "top_k", "top_p", "repetition_penalty")


def run_job(job: Job) -> list[dict[str, Any]]:
    upstream.use(Path(job["folder"]) / "chatterbox")
    config = T3Config.read(finch.folder() / OWN_FILES[1])
    model, voice = build(job, config, finch_tensors(job)), load_voice(finch.folder(), config)

    def answer(run: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return infer(model, voice, run, job["loop"])
        except (IndexError, RuntimeError) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    return [answer(run) for run in job["runs"]]


def finch_tensors(job: Job) -> dict[str, Any]:
    import mlx.core as mx

    tensors = {name: values.astype(mx.float32) for name, values in mx.load(str(finch.folder() / OWN_FILES[0])).items()}
    if job["loop"] == "turbo":
        tensors[POSITIONS] = mx.zeros_like(tensors[POSITIONS])
    return tensors


def build(job: Job, config: T3Config, tensors: Mapping[str, Any]) -> Any:
    model = upstream.build(config, tensors, job.get("attention", "eager"))
    t3, analyzer = upstream.module("chatterbox.models.t3.t3"), upstream.module(ANALYZER)
    t3.tqdm = lambda steps, **_: steps
    if hasattr(analyzer, "LLAMA_ALIGNED_HEADS"):
        analyzer.LLAMA_ALIGNED_HEADS = list(config.aligned_heads)
        type(model.hp).is_multilingual = property(lambda _: job["loop"] == "multilingual")
    elif hasattr(t3, "AlignmentStreamAnalyzer"):
        t3.AlignmentStreamAnalyzer = lambda *arguments, alignment_layer_idx, **further: (
            analyzer.AlignmentStreamAnalyzer(
                *arguments, alignment_layer_idx=min(alignment_layer_idx, config.num_layers - 1), **further
            )
        )
    return model


def infer(
    model: Any,
    voice: Voice,
    run: Mapping[str, Any],
    kind: str,
    drawn: Callable[[torch.Tensor, torch.Tensor], None] = lambda probabilities, gumbel: None,
) -> dict[str, Any]:
    """Tokens of one run, and what its analyzer said where it forced EOS; drawn gets what each draw was made of."""
    key, step = run["noise"] and NoiseKey(*run["noise"]), 0

    def multinomial(probabilities: torch.Tensor, num_samples: int) -> torch.Tensor:
        nonlocal step
        assert num_samples == 1
        gumbel = torch.from_numpy(pushed(key, run["pushed"])(step, probabilities.shape[-1]))
        step += 1
        drawn(probabilities[0], gumbel)
        return torch.argmax(torch.log(probabilities) + gumbel, dim=-1, keepdim=True)

    def hear(record: logging.LogRecord) -> bool:
        if "forcing EOS" in record.getMessage():
            forced.append(record.getMessage())
        return True

    text = torch.tensor([run["text"]] * run["rows"])
    given = {"t3_cond": upstream.conditions(voice), "text_tokens": text, **run["knobs"]}
    speak, cap = (model.inference_turbo, "max_gen_len") if kind == "turbo" else (model.inference, "max_new_tokens")
    logger, forced = logging.getLogger(ANALYZER), []
    logger.addFilter(hear)
    try:
        with mock.patch.object(torch, "multinomial", multinomial):
            tokens = speak(**given, **{cap: run["cap"]})
    finally:
        logger.removeFilter(hear)
    hooks = sum(len(getattr(each, "_forward_hooks", ())) for each in model.tfmr.modules())
    return {"tokens": tokens[0].tolist(), "forced": forced, "hooks": hooks}


def pushed(key: NoiseKey | None, pushes: Sequence[Push]) -> Callable[[int, int], NDArray[np.float32]]:
    """Noise of a key, (step, size) -> (size,), to which something is added for some tokens at some steps."""

    def gumbel(step: int, size: int) -> NDArray[np.float32]:
        noise = key.gumbel(step, size) if key else np.zeros(size, dtype=np.float32)
        for at, token, much in pushes:
            noise[token] += np.float32(much * (at == step))
        return noise

    return gumbel


def in_a_child(work: Callable[[], Any]) -> Any:
    """Fork, work, and send the answer back as JSON."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with os.fdopen(writing, "w") as pipe:
                json.dump(work(), pipe)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the parent has to learn of any
            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    if os.waitpid(child, 0)[1]:
        raise SystemExit("a run of upstream failed")
    return json.loads(text)


def answers(job: Job) -> list[dict[str, Any]]:
    if not job.get("fresh"):
        return in_a_child(lambda: run_job(job))
    return [in_a_child(lambda run=run: run_job({**job, "runs": [run]}))[0] for run in job["runs"]]


if __name__ == "__main__":
    json.dump([answers(job) for job in json.load(sys.stdin)], sys.stdout)
