"""Record upstream's answers to the questions of the long-form modules: `python -m tests.tools.mutation.oracle`.

Standard output gets a pickle of `Questions`. The loops of chatterbox-tts 0.1.2 and 0.1.7 run on the small networks of
`tests/support.py` with random weights, so that nothing depends on what Finch has learnt, with the suite's noise and the
patches of `tests/wheel_runs.py`; its analyzer objects of 0.1.0 and 0.1.7 are fed with made-up attention.
"""

import contextlib
import functools
import multiprocessing
import pickle
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from sampler.chain.noise import NoiseKey
from sampler.config import SamplingConfig
from sampler.t3.config import T3Config
from sampler.variants import variant
from tests import upstream, wheels
from tests.equivalence.test_variants import NO_FILTER, NO_MIN_P, UNGUIDED, WILD, WINS, Run, loop_of, rows_of
from tests.replays import EOS, KINDS, VOCABULARY, Listener, Replay, Upstream, hand_made, make_replay
from tests.support import TINY, TURBO_TINY, random_text, random_voice, random_weights
from tests.tools.mutation.questions import Asked, Decided, Network, Played, Questions, Replays, Runs, Said, Step
from tests.wheel_runs import ANALYZER, KNOBS, TURBO_KNOBS, build, infer, pushed

NETWORKS: Mapping[str, T3Config] = {"llama": TINY, "gpt2": TURBO_TINY}
HEATED = (("temperature", 2.0), ("repetition_penalty", 1.0), ("min_p", 0.0))  # all kinds of tokens and ends


Plan = functools.partial(Run, cap=16)  # one request to upstream: a text of letters + 2 ids
BOS_ID, EOS_ID = TINY.bos_id, TINY.eos_id
PLANS: Mapping[tuple[str, str, str], tuple[Run, ...]] = {
    ("mtl-0.1.6", "0.1.7", "llama"): (
        Plan(10),
        Plan(4, changes=WILD),
        Plan(1, changes=HEATED),
        Plan(22, cap=30, changes=HEATED),
        Plan(3),
        Plan(4, changes=HEATED),
        Plan(7, changes=NO_MIN_P, pushed=((0, BOS_ID, WINS), (1, BOS_ID, WINS))),
        Plan(8, changes=NO_MIN_P, pushed=((3, 7, WINS), (4, 7, WINS))),
        Plan(8, changes=NO_MIN_P, pushed=((0, EOS_ID, WINS), (1, BOS_ID, WINS))),
        Plan(9, cap=1),
        Plan(9, cap=6, changes=UNGUIDED),
        Plan(2, cap=24, changes=HEATED),
        Plan(9, cap=24, changes=HEATED, pushed=tuple((step, EOS_ID, WINS) for step in range(24))),
        *(Plan(12 + index, cap=24, changes=HEATED) for index in range(4)),
    ),
    ("en-0.1.2", "0.1.2", "llama"): (
        Plan(9),
        Plan(14, cap=5, changes=WILD),
        Plan(3, cap=8, changes=NO_MIN_P, pushed=((0, BOS_ID, WINS), (1, 7, WINS), (2, 7, WINS))),
        Plan(5, changes=NO_MIN_P, pushed=((0, EOS_ID, WINS),)),
        Plan(5, changes=NO_MIN_P, pushed=((4, EOS_ID, WINS),)),
    ),
    ("en-0.1.2-nocfg", "0.1.2", "llama"): (Plan(9, cap=7), Plan(3, cap=7, changes=NO_MIN_P), Plan(17, cap=3)),
    ("turbo", "0.1.7", "gpt2"): (
        Plan(9, cap=12, changes=(("top_k", 2), ("repetition_penalty", 3.0))),
        Plan(4, cap=3),
        Plan(6, cap=8, changes=NO_FILTER, pushed=((0, EOS_ID, WINS), (3, BOS_ID, WINS))),
        Plan(7, cap=8, changes=(*NO_FILTER, ("repetition_penalty", 50.0)), pushed=((0, BOS_ID, 40), (3, BOS_ID, 40))),
        Plan(8, cap=8, changes=NO_FILTER, pushed=((4, EOS_ID, WINS),)),
    ),
}
"""Requests by variant, release and network."""

ANALYZERS = {"upstream": "0.1.7", "upstream-0.1.0": "0.1.0"}
SPARSE = 2  # every so many of the runs made by hand; their lengths and seeds still all come
NOISE = 13, "mutation"
ANYWHERE = 6  # made-up runs that wander, of each analyzer


@dataclass
class Watch:
    """What upstream's loop did in one run, step by step."""

    tokens: list[int] = field(default_factory=list)
    logits: list[np.ndarray] = field(default_factory=list)
    measures: list[tuple[float, ...]] = field(default_factory=list)
    attention: list[np.ndarray] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def drawn(self, probabilities: torch.Tensor, gumbel: torch.Tensor) -> None:
        found = probabilities.numpy().astype(np.float64)
        with np.errstate(divide="ignore"):
            logs = np.log(found)
        raced = logs + gumbel.numpy()
        token = int(raced.argmax())
        kept = found[found > 0]
        entropy, margin = -(kept * np.log(kept)).sum(), raced[token] - np.delete(raced, token).max()
        self.tokens.append(token)
        self.measures.append((logs[token], (found > found[token]).sum(), entropy, margin))

    def heard(self, _head: Any, _inputs: Any, output: torch.Tensor) -> None:
        self.logits.append(output[:, -1].numpy().copy())

    def said(self, breaks: bool) -> Said:
        count = len(self.tokens)
        attention = np.array(self.attention[:count]) if self.attention else None
        logits, measures = np.array(self.logits[:count]), np.array(self.measures, dtype=np.float32)
        return Said(tuple(self.tokens), breaks, logits, measures, attention, tuple(self.steps))


@contextlib.contextmanager
def watched(model: Any) -> Iterator[Watch]:
    watch, module = Watch(), upstream.module(ANALYZER)
    handle = model.speech_head.register_forward_hook(watch.heard)
    step = module.AlignmentStreamAnalyzer.step

    def listened(self: Any, logits: torch.Tensor, next_token: int | None = None) -> torch.Tensor:
        start, end = self.text_tokens_slice
        watch.attention.append(np.stack([rows[-1, start:end].numpy() for rows in self.last_aligned_attns]))
        with Listener(module.logger) as listener:
            changed = step(self, logits, next_token=next_token)
        watch.steps.append(Step(listener.flags, bool(changed[0, self.eos_idx] == -(2**15))))
        return changed

    module.AlignmentStreamAnalyzer.step = listened
    try:
        yield watch
    finally:
        module.AlignmentStreamAnalyzer.step = step
        handle.remove()


def network(name: str) -> Network:
    config = NETWORKS[name]
    tensors = {key: np.array(values) for key, values in random_weights(config, 5).items()}
    return Network(config, tensors, random_voice(config, 6))


def record(key: tuple[str, str, str]) -> Runs:
    name, version, place = key
    upstream.use(wheels.folder(version) / "chatterbox")
    rules, config, own = variant(name), NETWORKS[place], network(place)
    loop = loop_of(rules)
    model = build({"loop": loop}, config, random_weights(config, 5))
    said, asked = [], []
    for number, plan in enumerate(PLANS[key]):
        knobs: SamplingConfig = replace(rules.config, **dict(plan.changes))
        request = _asked(plan, knobs, config, number)
        given = {knob: getattr(knobs, knob) for knob in (TURBO_KNOBS if loop == "turbo" else KNOBS)}
        run = {"text": list(request.text), "rows": rows_of(rules, knobs), "cap": plan.cap, "knobs": given}
        run |= {"noise": (*NOISE, number), "pushed": plan.pushed}
        with watched(model) as watch:
            said.append(watch.said(_breaks(functools.partial(infer, model, own.voice, run, loop, watch.drawn))))
        asked.append(request)
    return Runs(name, place, tuple(asked), tuple(said))


def _breaks(work: Any) -> bool:
    """Whether upstream raises the IndexError that it has for short texts."""
    try:
        work()
    except IndexError as error:
        if "Expected reduction dim 1" in str(error):
            return True
        raise
    return False


def _asked(plan: Run, knobs: SamplingConfig, config: T3Config, number: int) -> Asked:
    gumbel = pushed(NoiseKey(*NOISE, number), plan.pushed)
    noise = np.stack([gumbel(step, config.speech_vocab_size) for step in range(plan.cap + 1)])
    return Asked(tuple(random_text(config, plan.prompt, number)), knobs, plan.cap, noise)


def replays(name: str) -> Replays:
    rng = np.random.default_rng(17)
    logits = rng.normal(0, 4, VOCABULARY).astype(np.float32)
    runs = [run for kind in KINDS for run in list(hand_made(kind))[::SPARSE]]
    for number in range(ANYWHERE):
        segments = [("walk", 9), ("anywhere", 12), ("third", 6), ("spread", 12)]
        runs.append(make_replay(rng, 6 + 3 * number, segments, 0.5, 0.1, 3))
    runs.append(replace(runs[-1], tokens=(runs[-1].tokens[0], *runs[-1].tokens[:-1])))
    played = tuple(_played(run, Upstream(ANALYZERS[name], run.length), logits) for run in runs)
    return Replays(name, logits, EOS, played)


def _played(run: Replay, theirs: Upstream, logits: np.ndarray) -> Played:
    decided: list[Decided | None] = []
    for step, token in enumerate(run.tokens):
        said = theirs.step(logits, run.attention[:, step], token)
        decided.append(None if said is None else Decided(said.logits, said.forcing, said.position, said.complete))
        if said is None:
            break
    return Played(run.attention, run.tokens, tuple(decided))


def main() -> None:
    """Each release in a process of its own, forked before anything is computed."""
    missing = [version for version in ("0.1.0", "0.1.2", "0.1.7") if not wheels.folder(version).exists()]
    if missing:
        raise SystemExit(f"{', '.join(sorted(missing))} of chatterbox-tts missing: python -m tests.wheels")
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        networks = dict(zip(NETWORKS, pool.map(network, NETWORKS, chunksize=1), strict=True))
        runs = pool.map(record, PLANS, chunksize=1)
        played = pool.map(replays, ANALYZERS, chunksize=1)
    pickle.dump(Questions(networks, runs, played), sys.stdout.buffer)


if __name__ == "__main__":
    main()
