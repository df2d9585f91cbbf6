"""What `generate` promises: slots, kinds, progress, seeds, uniforms, caps, broken rows, refusals, defaults."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import FrozenInstanceError, fields, replace
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from sampler.alignment import AlignmentStreamAnalyzer, AnalyzerConfig
from sampler.chain.noise import NoiseKey
from sampler.chain.pipeline import Scores, run_rows
from sampler.config import SamplingConfig
from sampler.engines.reference.chain import ReferenceEngine
from sampler.generation.generator import Generator
from sampler.requests import Batch, Context, Generation, Request
from sampler.stages import STAGES
from sampler.t3.backbone import AttentionRequest
from tests.tools.mutation.cases.bench import WIDTH, Bench, Spells, near, needs, refuses, same


def _mixed(bench: Bench) -> list[Request]:
    """Guided and not, judged by the analyzer and not, of different lengths and caps, more than there are slots."""
    without = tuple(stage for stage in STAGES if stage != "alignment")
    changes: list[dict[str, Any]] = [{}, {"cfg_weight": 0.0}, {"order": without}, {"cfg_weight": 0.0, "order": without}]
    requests = bench.requests("mtl-0.1.6", letters=5)[:9]
    return [
        replace(each, config=replace(each.config, **changes[index % 4]), max_new_tokens=min(each.max_new_tokens, cap))
        for index, (each, cap) in enumerate(zip(requests, (3, 5, 7, 4, 13, 15, 2, 6, 8), strict=True))
    ]


def alone(bench: Bench) -> None:
    """A request alone in its slot gets what it got among others, to the bit, whatever their kinds."""
    requests = _mixed(bench)
    for asked, answer in zip(requests, bench.generate(requests), strict=True):
        equal(bench.generate([replace(asked, slot=answer.record.slot)])[0], answer)
        guided = asked.config.cfg_weight != 0
        needs(answer.record.logits.shape[1] == 1 + guided == 1 + answer.record.guided, "rows by guidance")
        judged = "alignment" in asked.config.order
        needs(len(answer.record.flags) == (len(answer.tokens) if judged else 0), "flags where it is judged")


def equal(left: Generation, right: Generation) -> None:
    needs((left.tokens, left.stop_reason) == (right.tokens, right.stop_reason), "tokens and end")
    for each in fields(left.record):
        same(getattr(left.record, each.name), getattr(right.record, each.name), each.name)


PLAIN: Mapping[str, Any] = {"analyzer": None, "keep_logits": False, "keep_attention": False}


def slots(bench: Bench) -> None:
    """The queue fills the slots from the first on; a free one goes to the next request that may have it."""
    endless = only(7)
    asked = replace(bench.requests("en-0.1.2")[0], noise=None)
    requests = [replace(asked, max_new_tokens=cap) for cap in (3, 1, 2, 2, 1, 4)]
    answers = bench.generate(requests, **PLAIN, chain=endless)
    needs([len(each.tokens) for each in answers] == [3, 1, 2, 2, 1, 4], "as many tokens as were asked for")
    needs([each.record.slot for each in answers] == [0, 1, 2, 1, 2, 0], "slots by queue")
    needs({each.record.width for each in answers} == {WIDTH}, "width")
    needs(all(each.record.logits is None and each.record.attention is None for each in answers), "nothing was kept")
    places = [2, None, 2, 0, None]
    wanted = bench.generate([replace(requests[0], slot=place) for place in places], **PLAIN, chain=endless)
    needs([each.record.slot for each in wanted] == [2, 0, 2, 0, 1], "the slot that was asked for")


def progress(bench: Bench) -> None:
    steps: list[tuple[int, int]] = []
    asked = replace(bench.requests("en-0.1.2")[0], noise=None)
    requests = [replace(asked, max_new_tokens=cap) for cap in (3, 1, 2)]
    Generator(bench.llama, width=2, chain=only(7)).generate(requests, lambda *counts: steps.append(counts))
    needs(steps == [(2, 1), (2, 0), (2, 2)], f"{steps}")


def without_noise(bench: Bench) -> None:
    """The seed decides: equal seeds, equal runs; and a text goes through the tokenizer with its language."""
    asked = replace(bench.requests("en-0.1.2")[2], noise=None, max_new_tokens=6)

    def speak(language: str, seed: int, prompt: str | tuple[int, ...] = "hello there") -> Generation:
        return bench.generate([replace(asked, prompt=prompt, language=language, seed=seed)])[0]

    first = speak("en", 1)
    equal(first, speak("en", 1))
    needs(first.tokens != speak("en", 2).tokens, "another seed, another run")
    for language in ("en", "de"):
        equal(speak(language, 1), speak("fr", 1, tuple(Spells().encode("hello there", language))))
    noise = NoiseKey(1).gumbel
    given = replace(asked, prompt="hello there", noise=lambda step: noise(step, bench.llama.config.speech_vocab_size))
    equal(first, bench.generate([given])[0])


def orders(bench: Bench) -> None:
    late = ("cfg", "repetition_penalty", "temperature", "min_p", "alignment")
    kinds = [STAGES, late, ("alignment", "cfg", "temperature")]
    some = [replace(each, max_new_tokens=min(each.max_new_tokens, 9)) for each in bench.requests("mtl-0.1.6", 5)[-6:]]
    requests = [replace(each, config=replace(each.config, order=kinds[at % 3])) for at, each in enumerate(some)]
    for asked, answer in zip(requests, bench.generate(requests, width=6), strict=True):
        equal(bench.generate([replace(asked, slot=answer.record.slot)], width=6)[0], answer)


FURTHER: Sequence[Mapping[str, Any]] = ({"min_new_tokens": 4}, {"no_repeat_ngram_size": 1})
FURTHER += ({"penalty_window": 3, "repetition_penalty": 3.0}, {"frequency_penalty": 1.5}, {"repetition_penalty": 3.0})
"""Knobs that look back, the first ones for a request that is about to end; the last one has none of them."""

WITH_BOS: Mapping[str, Callable[[int], bool]] = {
    "bos_and_generated": lambda step: True,
    "bos_at_first": lambda step: step == 0,
    "generated": lambda step: False,
}
"""At which steps BOS is in the history."""


def looking_back(bench: Bench) -> None:
    some = bench.requests("mtl-0.1.6", letters=5)[-len(FURTHER) :]
    settings = [SamplingConfig(temperature=2.0, min_p=0.0, **knobs) for knobs in FURTHER]
    requests = [
        replace(each, max_new_tokens=8, config=config, noise=partial(_bos_is_likely, bench, each))
        for each, config in zip(some, settings, strict=True)
    ]
    for rule, with_bos in WITH_BOS.items():
        read = "".join([*rule])  # as from a file: equal, and another object
        for both in (requests, requests[-1:]):
            answers = bench.generate(both, analyzer=None, penalty_history=read)
            for asked, answer in zip(both, answers, strict=True):
                _drawn_from_reference(bench, asked, answer, with_bos)


def _bos_is_likely(bench: Bench, asked: Request, step: int) -> NDArray[np.float32]:
    """Noise that draws BOS at two steps unless it was seen, so that it matters whether it was."""
    is_bos = np.arange(bench.llama.config.speech_vocab_size) == bench.llama.config.bos_id
    return asked.noise(step) + np.float32(30) * (is_bos & (step in (2, 6)))


def _drawn_from_reference(bench: Bench, asked: Request, answer: Generation, with_bos: Callable[[int], bool]) -> None:
    config = bench.llama.config
    for step, token in enumerate(answer.tokens):
        given = [config.bos_id] if with_bos(step) else []
        context = Context(prompt_length=np.array([len(given)]), step=np.array([step]), eos_ids=(config.eos_id,))
        cond, uncond = (rows[None] for rows in answer.record.logits[step])
        history = [[*given, *answer.tokens[:step]]]
        scores = ReferenceEngine().process(cond, history, asked.config, uncond, context)[0]
        needs(int(np.argmax(scores + asked.noise(step))) == token, f"step {step}")
        near(answer.record.logprob[step], log_softmax(scores.astype(np.float64))[token], "log probability")


def uniforms(bench: Bench) -> None:
    plain = SamplingConfig(temperature=3.0, min_p=0.0)
    config = replace(plain, xtc_probability=0.5, xtc_threshold=0.01)
    asked = replace(bench.requests("en-0.1.2")[0], max_new_tokens=6, config=config)
    flips: Sequence[Callable[[int], float]] = [lambda _: 0.1, lambda _: 0.9, lambda step: 0.1 if step < 3 else 0.9]
    every, never, early = bench.generate([replace(asked, uniform=uniform) for uniform in flips], analyzer=None)
    (without,) = bench.generate([replace(asked, config=plain)], analyzer=None)
    needs(never.tokens == without.tokens != every.tokens, "a uniform beyond the probability, and one below it")
    needs(early.tokens[:3] == every.tokens[:3], "the uniform is that of the step")
    for seed in (1, 2, 3):
        (own,) = bench.generate([replace(asked, seed=seed)], analyzer=None)
        (given,) = bench.generate([replace(asked, seed=9, uniform=NoiseKey(seed).uniform)], analyzer=None)
        needs(own.tokens == given.tokens, "the uniforms of the seed")


def broken_rows(bench: Bench) -> None:
    """A row without a token, or with NaN in its logits, ends alone and says why; what it had stays."""
    some = bench.requests("en-0.1.2")
    requests = [replace(each, max_new_tokens=6) for each in (some[0], some[2], some[1])]
    healthy = bench.generate(requests, analyzer=None)
    steps = len(healthy[1].tokens)

    def sick(batch: Batch) -> Scores:
        scores = run_rows(batch)
        ill = mx.array([config is requests[1].config for config in batch.configs])[:, None]
        late = mx.sum(mx.array(batch.seen), -1, keepdims=True) > 2
        return Scores(mx.where(ill & late, -mx.inf, scores.final), scores.ranked)

    answers = bench.generate(requests, analyzer=None, chain=sick)
    for place in (0, 2):
        equal(answers[place], healthy[place])
    ill = answers[1]
    needs((ill.stop_reason, ill.record.error) == ("error", "no token was left after the chain"), "says why")
    needs(1 < len(ill.tokens) < steps and ill.tokens == healthy[1].tokens[: len(ill.tokens)], "keeps what it had")
    needs(len(ill.tokens) == len(ill.record.logprob) == len(ill.record.logits), "a record of each step")
    spoilt = copy.copy(bench.llama.model)
    spoilt.logits = lambda hidden: mx.full(bench.llama.model.logits(hidden).shape, mx.nan)
    (answer,) = Generator(replace(bench.llama, model=spoilt)).generate(requests[:1])
    needs((answer.tokens, answer.stop_reason) == ((), "error"), "NaN ends it")
    needs(answer.record.error == "NaN or +inf in the logits", "NaN is named")


def only(token: int) -> Callable[..., Scores]:
    def chain(batch: Batch) -> Scores:
        is_token = mx.arange(batch.logits.shape[-1])[None] == token
        scores = mx.where(is_token, mx.zeros(batch.logits.shape), -mx.inf)
        return Scores(scores, scores)

    return chain


def capped(bench: Bench) -> None:
    eos, asked = bench.llama.config.eos_id, replace(bench.requests("en-0.1.2")[0], noise=None)
    for cap, beyond in ((1, 0), (4, 0), (4, 2)):
        generator = Generator(bench.llama, width=1, chain=only(7), beyond_cap=beyond)
        (answer,) = generator.generate([replace(asked, max_new_tokens=cap)])
        needs((answer.tokens, answer.stop_reason) == ((7,) * (cap + beyond), "length"), f"cap {cap} + {beyond}")
    for ends, expected in ((True, (eos,)), (False, (eos, eos))):
        (answer,) = Generator(bench.llama, width=1, chain=only(eos), first_token_ends=ends).generate([asked])
        needs((answer.tokens, answer.stop_reason) == (expected, "eos"), "EOS as the first token")
    earlier = Generator(bench.checkpoint("llama", eos_id=40), width=1, chain=only(50))
    (answer,) = earlier.generate([replace(asked, max_new_tokens=2)])
    needs((answer.tokens, answer.stop_reason) == ((50, 50), "length"), "an id beyond that of EOS")
    large = bench.with_large_ids()
    (answer,) = Generator(large, width=1, chain=only(large.config.eos_id)).generate([asked])
    needs((answer.tokens, answer.stop_reason) == ((large.config.eos_id,), "eos"), "a large id of EOS")


def refusals(bench: Bench) -> None:
    asked, generator = bench.requests("en-0.1.2")[0], Generator(bench.llama, width=4)
    config = bench.llama.config
    most = config.speech_positions

    def ask(by: Generator = generator, **changes: Any) -> Callable[[], Any]:
        return partial(by.tokenize, [asked, replace(asked, **changes)])

    for cap in (1, most):
        needs(ask(max_new_tokens=cap)() == [asked.prompt] * 2, f"a cap of {cap}")
    for cap in (0, -1, most + 1, most + 2):
        refuses(ask(max_new_tokens=cap), f"max_new_tokens = {cap}", f"1 to {most},")
    turbo = Generator(bench.llama, beyond_cap=1)
    ask(turbo, max_new_tokens=most - 1)()
    refuses(ask(turbo, max_new_tokens=most), f"1 to {most - 1},")
    for slot in (0, 3, None):
        ask(slot=slot)()
    for slot in (-1, 4, 5):
        refuses(ask(slot=slot), f"slot = {slot}", "0 to 3")
    refuses(ask(prompt=()), "the prompt has no ids")
    refuses(ask(prompt=(3, 99, 0)), "text id 99 is no token")
    refuses(ask(config=SamplingConfig(suppressed_tokens=(66,))), "66")
    for width in (0, -1):
        refuses(partial(Generator, bench.llama, width=width), f"width = {width}")
    for count in (0, 3):
        refuses(partial(Generator, bench.llama, bos_count=count), f"bos_count = {count}")
    for count in (None, 1, 2):
        Generator(bench.llama, width=1, bos_count=count)
    bare = bench.checkpoint("llama", aligned_heads=())
    refuses(lambda: Generator(bare, analyzer=AnalyzerConfig()), "no aligned heads")
    Generator(bare)


def frozen(bench: Bench) -> None:
    decisions = AlignmentStreamAnalyzer(AnalyzerConfig(), 0, 1)
    needs(decisions.eos_id == 1, "the id of EOS")
    generator, config = Generator(bench.llama), AnalyzerConfig()
    for each, name in ((generator, "width"), (config, "jump_back"), (AttentionRequest(), "queries")):
        refuses(partial(setattr, each, name, 1), kind=FrozenInstanceError)
    needs(hash(AnalyzerConfig()) == hash(AnalyzerConfig()), "equal constants are equal")


def defaults(bench: Bench) -> None:
    plain = Generator(bench.llama)
    needs((plain.width, plain.keep_logits, plain.keep_attention, plain.analyzer) == (16, False, False, None), "kept")
    needs((plain.penalty_history, plain.first_token_ends, plain.beyond_cap) == ("bos_and_generated", True, 0), "rules")
    needs(AttentionRequest() == AttentionRequest((), 1), "no attention, of one query")
