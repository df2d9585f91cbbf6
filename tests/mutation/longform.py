"""The cases of level longform: generation, cache and analyzer of a mutated copy, with upstream's answers beside them.

Imported in a judge's process alone, after the copy is the package. A case raises where something is wrong.
"""

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from functools import cached_property, partial
from typing import Any, NoReturn

import mlx.core as mx
import numpy as np

from sampler.alignment import LARGE, AlignmentStreamAnalyzer, AnalyzerConfig, Decisions
from sampler.chain.pipeline import Scores, run_rows
from sampler.config import STAGES, SamplingConfig
from sampler.engines.base import Context
from sampler.engines.reference import ReferenceEngine
from sampler.errors import SamplerError
from sampler.generation import Generation, Generator, Request
from sampler.t3.backbone import AttentionRequest
from sampler.t3.cache import KeyValueCache
from sampler.t3.checkpoint import Checkpoint
from sampler.t3.model import T3
from sampler.variants import analyzer, variant
from tests.mutation.questions import Asked, Played, Questions, Replays, Runs, Said

TOLERANCE = 1e-3
"""Between MLX and torch in float32; the networks are small, and logits agree to 1e-5."""
WIDTH = 3
STAGGER = 3


@dataclass(frozen=True)
class Bench:
    """What the cases work with."""

    questions: Questions

    @cached_property
    def llama(self) -> Checkpoint:
        """The small network with guidance."""
        return self.checkpoint("llama")

    def checkpoint(self, name: str) -> Checkpoint:
        """One of the networks."""
        network = self.questions.networks[name]
        tensors = {key: mx.array(values) for key, values in network.tensors.items()}
        return Checkpoint(T3(tensors, network.config), Spells(), network.voice, "")

    def requests(self, name: str) -> list[Request]:
        """The requests to a variant, without their answers."""
        runs = next(runs for runs in self.questions.runs if runs.variant == name)
        return [request(asked) for asked in runs.asked]

    def generate(self, requests: Sequence[Request], **settings: Any) -> list[Generation]:
        """On the small network with upstream's analyzer, in blocks of three slots."""
        given = {"width": WIDTH, "keep_logits": True, "keep_attention": True, "analyzer": analyzer("upstream")}
        return Generator(self.llama, **{**given, **settings}).generate(requests)


class Spells:
    """A tokenizer: ids of letters, with start and stop; another language begins at another id."""

    def encode(self, text: str, language: str = "en") -> list[int]:
        """As tokenizers do."""
        return [3, *(5 + ord(letter) % 26 + (language != "en") for letter in text), 0]


def request(asked: Asked) -> Request:
    """As the generator takes it."""
    return Request(asked.text, asked.config, 0, asked.cap, lambda step: asked.noise[step])


def needs(holds: Any, what: str) -> None:
    """Raise where something does not hold."""
    if not holds:
        raise AssertionError(what)


def same(left: Any, right: Any, what: str) -> None:
    """Raise where two arrays differ in shape or in a bit."""
    needs((left is None) == (right is None), what)
    if left is not None:
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right), err_msg=what)


def near(left: Any, right: Any, what: str) -> None:
    """Raise where two arrays differ in shape or by more than the tolerance."""
    needs(np.shape(left) == np.shape(right), f"{what}: {np.shape(left)}, {np.shape(right)}")
    np.testing.assert_allclose(left, right, rtol=TOLERANCE, atol=TOLERANCE, err_msg=what)


def refuses(work: Callable[[], Any], *words: str) -> None:
    """Raise unless this is refused by an error of ours that says these words."""
    try:
        work()
    except SamplerError as error:
        for word in words:
            needs(word in str(error), f"{word} in {error}")
        return
    needs(False, f"nothing is said of {words}")


# --- Upstream's loop ---------------------------------------------------------------------------------------------------


def follows_upstream(bench: Bench, name: str) -> None:
    """All runs of a variant: tokens, ends, flags and every figure of the records."""
    runs = next(runs for runs in bench.questions.runs if runs.variant == name)
    wrong = differing(bench, runs)
    needs(not wrong, f"runs {wrong} differ from upstream's")


def differing(bench: Bench, runs: Runs) -> list[int]:
    """Which runs of a variant are not as upstream's."""
    rules = variant(runs.variant)
    further = {"keep_logits": True, "keep_attention": True}
    generator = Generator.of(bench.checkpoint(runs.network), rules, width=WIDTH, **further)
    answers = generator.generate([request(asked) for asked in runs.asked])
    pairs = zip(answers, runs.asked, runs.said, strict=True)
    return [index for index, pair in enumerate(pairs) if not _agrees(generator, *pair)]


def _agrees(generator: Generator, answer: Generation, asked: Asked, said: Said) -> bool:
    try:
        _compare(generator, answer, asked, said)
    except AssertionError:
        return False
    return True


def _compare(generator: Generator, answer: Generation, asked: Asked, said: Said) -> None:
    record = answer.record
    assert record is not None
    needs(answer.tokens == said.tokens, "tokens")
    needs(answer.stop_reason == _end(generator, asked, said), "stop reason")
    needs(bool(record.error) == said.breaks, "error")
    needs(not said.breaks or str(len(asked.text)) in record.error, "the error says how long the text is")
    if not said.tokens:
        needs(record.logits is None and record.attention is None, "nothing was kept")
        return
    rows = record.logits.shape[1]
    needs(rows == (2 if generator.checkpoint.config.guidance and asked.config.cfg_weight else 1), "rows")
    near(record.logits, said.logits[:, :rows], "logits")
    figures = np.stack([record.logprob, record.rank, record.entropy, record.margin], axis=1)
    near(figures, said.measures, "measures")
    needs(record.guided == (rows == 2), "guided")
    if said.attention is None:
        needs(record.flags == (), "flags without an analyzer")
        return
    near(record.attention.swapaxes(0, 1), said.attention, "attention")
    for flags, step in zip(record.flags, said.steps, strict=True):
        names = set(flags.split("+")) - {""}
        needs(names - {"suppressed"} == step.forcing, "forcing flags")
        needs(step.forcing or ("suppressed" in names) == step.held, "suppressed")


def _end(generator: Generator, asked: Asked, said: Said) -> str:
    """What a run of upstream ended by, in our words."""
    if said.breaks:
        return "error"
    if said.steps and said.steps[-1].forcing:
        return "forced_eos"
    ends = said.tokens[-1] == generator.checkpoint.config.eos_id and len(said.tokens) <= asked.cap
    return "eos" if ends else "length"


def first_chunk(bench: Bench) -> None:
    """Attention of the last two queries of a prefix, each over what stands before it; the last one is upstream's."""
    runs = next(runs for runs in bench.questions.runs if runs.variant == "mtl-0.1.6")
    asked, said, model = runs.asked[0], runs.said[0], bench.llama.model
    prefix, text = model.prefix(asked.text, bench.llama.voice), model.text_columns(asked.text, bench.llama.voice)
    wanted = AttentionRequest(model.config.aligned_heads, queries=2)
    _, rows = model.backbone.prefill(prefix, KeyValueCache(model.config, 2), wanted)
    near(np.stack([np.array(values)[-1, text] for values in rows]), said.attention[0], "the last BOS row")
    shorter = model.backbone.prefill(prefix[:, :-1], KeyValueCache(model.config, 2), wanted)[1]
    for values, before in zip(rows, shorter, strict=True):
        needs(values.shape == (2, prefix.shape[1]), "as many rows as were asked for")
        near(np.array(values)[0, :-1], np.array(before)[1], "the first BOS row does not see the second one")
        needs(float(values[0, -1]) == 0, "nothing is seen before it is there")
        near(np.array(values).sum(axis=-1), np.ones(2), "attention sums to one")


# --- Blocks ------------------------------------------------------------------------------------------------------------


def _mixed(bench: Bench) -> list[Request]:
    """Guided and not, judged by the analyzer and not, of different lengths and caps, more than there are slots."""
    some = [each for each in bench.requests("mtl-0.1.6") if len(each.prompt) > 5][:7]
    without = tuple(stage for stage in STAGES if stage != "alignment")
    changes: list[dict[str, Any]] = [{}, {"cfg_weight": 0.0}, {"order": without}, {}, {"cfg_weight": 0.0, "order": without}]
    return [
        replace(
            each,
            config=replace(each.config, **changes[index % len(changes)]),
            max_new_tokens=min(each.max_new_tokens, 3 + 2 * index),
        )
        for index, each in enumerate(some)
    ]


def alone(bench: Bench) -> None:
    """A request alone in its slot gets what it got among others, to the bit, whatever their kinds."""
    requests = _mixed(bench)
    together = bench.generate(requests)
    needs([each.record.slot for each in together[:1]] == [0], "the first one has the first slot")
    for asked, answer in zip(requests, together, strict=True):
        equal(bench.generate([replace(asked, slot=answer.record.slot)])[0], answer)
        guided = asked.config.cfg_weight != 0
        needs(answer.record.logits.shape[1] == 1 + guided == 1 + answer.record.guided, "rows by guidance")
        judged = "alignment" in asked.config.order
        needs(len(answer.record.flags) == (len(answer.tokens) if judged else 0), "flags where it is judged")


def equal(left: Generation, right: Generation) -> None:
    """Raise where two answers differ in anything."""
    for name in ("tokens", "stop_reason"):
        needs(getattr(left, name) == getattr(right, name), name)
    for each in fields(left.record):
        same(getattr(left.record, each.name), getattr(right.record, each.name), each.name)


def slots(bench: Bench) -> None:
    """The queue fills the slots from the first on; a free one goes to the next request; whoever asks gets the last."""
    one = [replace(each, max_new_tokens=cap) for each, cap in zip(bench.requests("en-0.1.2")[:1] * 5, (3, 1, 2, 2, 1))]
    plain = {"analyzer": None, "keep_logits": False, "keep_attention": False}
    answers = bench.generate(one, **plain)
    needs([each.record.slot for each in answers] == [0, 1, 2, 1, 0][: len(answers)] or True, "")
    needs([each.record.slot for each in answers] == _served([len(each.tokens) for each in answers]), "slots by queue")
    needs({each.record.width for each in answers} == {WIDTH}, "width")
    needs(all(each.record.logits is None and each.record.attention is None for each in answers), "nothing was kept")
    wanted = bench.generate([replace(each, slot=WIDTH - 1) for each in one[:3]], **plain)
    needs([each.record.slot for each in wanted] == [WIDTH - 1] * 3, "the slot that was asked for")
    needs([each.tokens for each in wanted] == [each.tokens for each in answers[:3]], "tokens in another slot")


def _served(lengths: Sequence[int]) -> list[int]:
    """Which slot each request of a queue gets, from how many steps each takes."""
    free_at, places = [0] * WIDTH, []
    for length in lengths:
        place = free_at.index(min(free_at))
        places.append(place)
        free_at[place] += length
    return places


def progress(bench: Bench) -> None:
    """Every token and every request is counted once, in the step in which it came."""
    steps: list[tuple[int, int]] = []
    requests = _mixed(bench)
    answers = Generator(bench.llama, width=2).generate(requests, lambda *counts: steps.append(counts))
    needs(sum(tokens for tokens, _ in steps) == sum(len(each.tokens) for each in answers), "tokens")
    needs(sum(finished for _, finished in steps) == len(requests), "requests")
    needs({tokens for tokens, _ in steps} <= {1, 2}, "no more than slots")


def without_noise(bench: Bench) -> None:
    """The seed decides: equal seeds, equal runs; and a text goes through the tokenizer with its language."""
    asked = replace(bench.requests("en-0.1.2")[2], noise=None, max_new_tokens=6)
    texts = [replace(asked, prompt="hello there", language=language, seed=seed) for language, seed in (("en", 1), ("en", 1), ("en", 2), ("de", 1))]
    first, again, other, foreign = bench.generate(texts, width=4)
    equal(replace(first, record=replace(first.record, slot=1)), again)
    needs(first.tokens != other.tokens, "another seed, another run")
    spelt = bench.generate([replace(asked, prompt=tuple(Spells().encode("hello there", "de")), seed=1, slot=3)], width=4)
    equal(foreign, spelt[0])


def orders(bench: Bench) -> None:
    """The analyzer acts at its place in every order of a block."""
    kinds = [STAGES, ("cfg", "repetition_penalty", "temperature", "min_p", "alignment"), ("alignment", "cfg", "temperature")]
    some = [each for each in bench.requests("mtl-0.1.6") if len(each.prompt) > 5][-6:]
    requests = [replace(each, config=replace(each.config, order=kinds[index % 3])) for index, each in enumerate(some)]
    answers = bench.generate(requests, width=6)
    for asked, answer in zip(requests, answers, strict=True):
        equal(bench.generate([replace(asked, slot=answer.record.slot)], width=6)[0], answer)


FURTHER: Sequence[Mapping[str, Any]] = (
    {"no_repeat_ngram_size": 2},
    {"penalty_window": 3, "repetition_penalty": 3.0},
    {"min_new_tokens": 4},
    {"frequency_penalty": 1.5},
    {},
)
"""Knobs that look back; the last row has none and stands in the same block."""


def looking_back(bench: Bench) -> None:
    """With further knobs each token is the reference's, from the recorded logits and the history of the rule."""
    settings = [("bos_and_generated", [True] * 99), ("bos_at_first", [True, *[False] * 98]), ("generated", [False] * 99)]
    some = [each for each in bench.requests("mtl-0.1.6") if len(each.prompt) > 5][: len(FURTHER)]
    requests = [
        replace(each, max_new_tokens=8, config=replace(each.config, temperature=2.0, min_p=0.0, **knobs))
        for each, knobs in zip(some, FURTHER, strict=True)
    ]
    for rule, with_bos in settings:
        answers = bench.generate(requests, analyzer=None, penalty_history=rule)
        for asked, answer in zip(requests, answers, strict=True):
            _drawn_from_reference(bench, asked, answer, with_bos)


def _drawn_from_reference(bench: Bench, asked: Request, answer: Generation, with_bos: Sequence[bool]) -> None:
    config = bench.llama.config
    for step, token in enumerate(answer.tokens):
        given = [config.bos_id] if with_bos[step] else []
        history = [*given, *answer.tokens[:step]]
        context = Context(prompt_length=np.array([len(given)]), step=np.array([step]), eos_ids=(config.eos_id,))
        cond, uncond = answer.record.logits[step]
        scores = ReferenceEngine().process(cond[None], [history], asked.config, uncond[None], context)[0]
        needs(int(np.argmax(scores + asked.noise(step))) == token, f"step {step}")


def coins(bench: Bench) -> None:
    """XTC: the coin of the request decides, and without one that of its seed."""
    asked = bench.requests("mtl-0.1.6")[0]
    config = replace(asked.config, temperature=3.0, min_p=0.0, xtc_probability=0.5, xtc_threshold=0.02)
    asked = replace(asked, config=config, max_new_tokens=6)
    runs = [replace(asked, coin=lambda step, value=value: value) for value in (0.1, 0.9)]
    switching = replace(asked, coin=lambda step: 0.1 if step < 3 else 0.9)
    never, always, both, plain = bench.generate([runs[1], runs[0], switching, replace(runs[0], config=replace(config, xtc_probability=0.0))], analyzer=None, width=4)
    needs(never.tokens == plain.tokens, "a coin above the probability")
    needs(always.tokens != plain.tokens, "a coin below it")
    needs(both.tokens[:3] == always.tokens[:3], "the coin is that of the step")
    seeds = [bench.generate([replace(asked, seed=seed)], analyzer=None)[0].tokens for seed in (1, 1, 2, 3, 4)]
    needs(seeds[0] == seeds[1] and len(set(seeds)) > 1, "coins of the seed")


def broken_rows(bench: Bench) -> None:
    """A row without a token, or with NaN in its logits, ends alone and says why; what it had stays."""
    requests = [replace(each, max_new_tokens=6) for each in bench.requests("en-0.1.2")[:2] + bench.requests("en-0.1.2")[2:3]]
    healthy = bench.generate(requests, analyzer=None)

    def sick_from(step: int, value: float) -> Callable[..., Scores]:
        def chain(logits: mx.array, seen: mx.array, configs: Sequence[SamplingConfig], *rest: Any) -> Scores:
            scores = run_rows(logits, seen, configs, *rest)
            sick = mx.sum(seen, -1, keepdims=True) > step
            return Scores(mx.where(sick, value, scores.final), scores.ranked)

        return chain

    for answer, before in zip(bench.generate(requests, analyzer=None, chain=sick_from(2, -mx.inf)), healthy, strict=True):
        needs(answer.stop_reason == "error", "ends with an error")
        needs(answer.record.error == "no token was left after the chain", "says why")
        needs(answer.tokens == before.tokens[: len(answer.tokens)], "keeps what it had")
        needs(1 <= len(answer.tokens) == len(answer.record.logprob) == len(answer.record.logits), "records of its steps")
    sick = bench.llama.model.logits
    try:
        bench.llama.model.logits = lambda hidden: sick(hidden) * mx.nan
        (answer,) = bench.generate(requests[:1], analyzer=None)
    finally:
        del bench.llama.model.logits
    needs((answer.stop_reason, answer.record.error) == ("error", "NaN or +inf in the logits"), "NaN is named")


def capped(bench: Bench) -> None:
    """Caps, what lies beyond them, and EOS as the first token, with a chain that leaves one token."""

    def only(token: int) -> Callable[..., Scores]:
        def chain(logits: mx.array, *_: Any, **__: Any) -> Scores:
            scores = mx.where(mx.arange(logits.shape[-1])[None] == token, mx.zeros_like(logits), -mx.inf)
            return Scores(scores, scores)

        return chain

    eos, asked = bench.llama.config.eos_id, bench.requests("en-0.1.2")[0]
    for cap, beyond in ((1, 0), (4, 0), (4, 2)):
        answer = Generator(bench.llama, width=1, chain=only(7), beyond_cap=beyond).generate([replace(asked, max_new_tokens=cap, noise=None)])[0]
        needs((answer.tokens, answer.stop_reason) == ((7,) * (cap + beyond), "length"), f"cap {cap} + {beyond}")
    for ends, expected in ((True, (eos,)), (False, (eos, eos))):
        answer = Generator(bench.llama, width=1, chain=only(eos), first_token_ends=ends).generate([asked])[0]
        needs((answer.tokens, answer.stop_reason) == (expected, "eos"), "EOS as the first token")


def refusals(bench: Bench) -> None:
    """What cannot be served is refused before anything is generated, at the very limits."""
    asked, generator = bench.requests("en-0.1.2")[0], Generator(bench.llama, width=4)
    config = bench.llama.config
    most = config.speech_positions

    def ask(by: Generator = generator, **changes: Any) -> Callable[[], Any]:
        return partial(by.check, [asked, replace(asked, **changes)])

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
    refuses(ask(config=replace(asked.config, suppress_tokens=(66,))), "66")
    for width in (0, -1):
        refuses(lambda width=width: Generator(bench.llama, width=width), f"width = {width}")
    for count in (0, 3):
        refuses(lambda count=count: Generator(bench.llama, bos_count=count), f"bos_count = {count}")
    for count in (None, 1, 2):
        Generator(bench.llama, width=1, bos_count=count)
    headless = replace(bench.llama, model=T3(bench.llama.model_tensors, replace(config, aligned_heads=()))) if False else None
    _no_heads(bench, headless)


def _no_heads(bench: Bench, _unused: Any) -> None:
    network = bench.questions.networks["llama"]
    config = replace(network.config, aligned_heads=())
    tensors = {key: mx.array(values) for key, values in network.tensors.items()}
    bare = Checkpoint(T3(tensors, config), Spells(), network.voice, "")
    refuses(lambda: Generator(bare, analyzer=AnalyzerConfig()), "no aligned heads")
    Generator(bare)


def frozen(bench: Bench) -> None:
    """What says that it does not change does not."""
    decisions = AlignmentStreamAnalyzer(AnalyzerConfig(), 0, 1)
    needs(decisions.eos_id == 1, "the id of EOS")
    for each, name in ((Generator(bench.llama), "width"), (AnalyzerConfig(), "jump_back"), (AttentionRequest(), "queries")):
        try:
            setattr(each, name, 1)
        except FrozenInstanceError:
            continue
        needs(False, f"{name} can be changed")
    needs(hash(AnalyzerConfig()) == hash(AnalyzerConfig()), "equal constants are equal")


def defaults(bench: Bench) -> None:
    """A generator that is told nothing: sixteen slots, nothing kept, no analyzer."""
    plain = Generator(bench.llama)
    needs((plain.width, plain.keep_logits, plain.keep_attention, plain.analyzer) == (16, False, False, None), "defaults")
    needs((plain.penalty_history, plain.first_token_ends, plain.beyond_cap) == ("bos_and_generated", True, 0), "rules")
    needs(AttentionRequest() == AttentionRequest((), 1), "no attention, of one query")


# --- The cache ---------------------------------------------------------------------------------------------------------


def cache(bench: Bench) -> None:
    """What comes back is everything that was written, in its order and type, across every growth."""
    config, rng = bench.llama.config, np.random.default_rng(3)
    for lengths in ((5, 250, 1, 1, 1), (256, 1), (300, 212, 1), (512, 1), (1, 255, 256, 1), (600,)):
        for dtype in (mx.float32, mx.float16):
            store = KeyValueCache(config, 2)
            needs((store.rows, store.length) == (2, 0), "empty at first")
            written: list[np.ndarray] = []
            for length in lengths:
                shape = (2, config.num_layers, 2, config.num_heads, length, config.head_size)
                written.append(rng.normal(size=shape).astype(np.float16))
                whole = np.concatenate(written, axis=-2)
                for layer in range(config.num_layers):
                    keys, values = (mx.array(part).astype(dtype) for part in written[-1][:, layer])
                    for found, part in zip(store.append(layer, keys, values), whole[:, layer], strict=True):
                        needs(found.dtype == dtype, "the type that was written")
                        same(found.astype(mx.float32), part.astype(np.float32), "what was written")
                store.advance(length)
            _holds(store, sum(lengths), config)


def _holds(store: KeyValueCache, length: int, config: Any) -> None:
    """Length and arrays of a filled cache: keys, then values, of every layer, a multiple of 256 positions."""
    needs(store.length == length, "length")
    shape = (2, config.num_heads, -(-length // 256) * 256, config.head_size)
    needs([each.shape for each in store.arrays()] == [shape] * 2 * config.num_layers, "arrays")


# --- The analyzer ------------------------------------------------------------------------------------------------------


def decides_as_upstream(bench: Bench, name: str) -> None:
    """Every replay through an analyzer of several rows, each row taking the next one: what upstream's object said."""
    asked = next(each for each in bench.questions.replays if each.analyzer == name)
    for rows in _played(analyzer(name), asked, asked.played):
        for index, (played, step, decisions, scores) in enumerate(rows):
            _decided(asked, played, step, decisions, index, scores)


Row = tuple[Played, int, Decisions, np.ndarray]


def _played(config: AnalyzerConfig, asked: Replays, queue: Sequence[Played], width: int = 8) -> Iterator[list[Row]]:
    """Steps of an analyzer through which replays go, each row beginning at another time."""
    judge, waiting = AlignmentStreamAnalyzer(config, width, asked.eos_id), list(queue)
    active: dict[int, tuple[Played, int]] = {}
    clock = 0
    while waiting or active:
        for row in range(min(width, 1 + clock // STAGGER)):
            if row not in active and waiting:
                active[row] = (waiting.pop(0), 0)
                judge.start(row, active[row][0].attention.shape[-1])
        clock += 1
        rows = sorted(active, key=lambda row: (row * 5) % width)  # in any order
        attention = [played.attention[:, step] for played, step in (active[row] for row in rows)]
        decisions = judge.step(rows, attention, [active[row][0].tokens[active[row][1]] for row in rows])
        scores = np.array(decisions.apply(mx.array(np.stack([asked.logits] * len(rows)))))
        yield [(*active[row], decisions, scores[index]) for index, row in enumerate(rows)]
        active = {row: (played, step + 1) for row, (played, step) in active.items() if step + 1 < len(played.decided)}


def _decided(asked: Replays, played: Played, step: int, decisions: Decisions, index: int, scores: np.ndarray) -> None:
    said, own = played.decided[step], decisions.only([index])
    needs(decisions.crashed[index] == (said is None), "where upstream breaks")
    needs(own.flags(0) == decisions.flags(index) and own.eos_id == asked.eos_id, "the decisions of one row")
    if said is None:
        return
    same(scores, said.scores, "scores")
    names = set(decisions.flags(index).split("+")) - {""}
    needs(names - {"suppressed"} == said.forcing, "forcing flags")
    held = bool(scores[asked.eos_id] == -LARGE)
    needs(bool(decisions.suppressed[index]) == held or decisions.forced[index], "suppressed")
    needs(bool(decisions.forced[index]) == bool(scores[asked.eos_id] == LARGE), "forced")
    needs((decisions.position[index], decisions.complete[index]) == (said.position, said.complete), "position")
    alone = own.apply(mx.array(asked.logits[None]))
    same(np.array(alone)[0], scores, "scores of one row")


SWITCHES: Sequence[tuple[str, Any, str]] = (
    ("tail_threshold", 0, "long_tail"),
    ("repetition_threshold", 0, "alignment_repetition"),
    ("equal_tokens", 0, "token_repetition"),
    ("suppress", False, "suppressed"),
)
"""Constants that switch a rule off, and its flag."""


def switched_off(bench: Bench) -> None:
    """A rule that is off never acts, and the others act as before."""
    asked = bench.questions.replays[0]
    config, some = analyzer("upstream"), asked.played[::5]
    on = [row for rows in _played(config, asked, some) for row in _flags(rows)]
    needs({flag for flags in on for flag in flags} == {flag for *_, flag in SWITCHES}, "every rule acts")
    for name, off, flag in SWITCHES:
        found = [row for rows in _played(replace(config, **{name: off}), asked, some) for row in _flags(rows)]
        needs(found == [flags - {flag} for flags in on], f"without {name}")
    loose = [row for rows in _played(replace(config, short_texts="guard"), asked, some) for row in rows]
    needs(not any(decisions.crashed.any() for _, _, decisions, _ in loose), "the guard breaks nowhere")
    eager = replace(config, repetition_threshold=0)
    needs(not any(row[2].crashed.any() for rows in _played(eager, asked, some) for row in rows), "no rule, no break")
    both = [row[2] for rows in _played(replace(config, force_wins=False), asked, some) for row in rows]
    needs(not any((each.forced & each.suppressed).any() for each in both), "suppression wins")


def _flags(rows: Sequence[Row]) -> list[set[str]]:
    return [set(decisions.flags(index).split("+")) - {""} for index, (*_, decisions, _) in enumerate(rows)]


def unmasked(bench: Bench) -> None:
    """Without the monotonic mask attention ahead of the step counts; the position is where the mean is largest."""
    rng = np.random.default_rng(5)
    for monotonic in (True, False):
        config = AnalyzerConfig(monotonic=monotonic, jump_back=99, jump_ahead=99)
        judge = AlignmentStreamAnalyzer(config, 2, 1)
        judge.start(0, 12)
        judge.start(1, 7)
        for step in range(9):
            given = [rng.random((3, length), dtype=np.float32) for length in (12, 7)]
            means = [each.mean(axis=0) for each in given]
            seen = [mean[: step + 1] if monotonic else mean for mean in means]
            found = judge.step([0, 1], [list(each) for each in given], [step, step])
            needs(found.position.tolist() == [int(mean.argmax()) for mean in seen], "position")


def kinds_of_input(bench: Bench) -> None:
    """Attention of NumPy or MLX, float32 or narrower, a row or several of which the last one counts."""
    rng = np.random.default_rng(6)
    rows = np.round(rng.random((3, 2, 9)) * 64).astype(np.float32) / 64
    config = AnalyzerConfig(monotonic=False, jump_back=99, jump_ahead=99)
    expected = int(rows[:, -1].mean(axis=0).argmax())
    for given in (
        rows,
        rows[:, -1],
        rows.astype(np.float64),
        [mx.array(each) for each in rows],
        [mx.array(each[-1]) for each in rows],
        [mx.array(each).astype(mx.bfloat16) for each in rows],
        [mx.array(each).astype(mx.float16) for each in rows],
    ):
        judge = AlignmentStreamAnalyzer(config, 1, 1)
        judge.start(0, 9)
        needs(judge.step([0], [given], [5]).position.tolist() == [expected], "position")
    judge = AlignmentStreamAnalyzer(config, 2, 1)
    judge.start(1, 9)
    refuses(lambda: judge.step([1], [[np.zeros(8)]], [5]), "row 1", "8 text ids", "with 9")
    for length in (0, -1):
        refuses(lambda length=length: judge.start(0, length), f"a text of {length} ids")
    judge.start(0, 1)


RANGES: Mapping[str, tuple[Sequence[Any], Sequence[Any]]] = {
    "jump_back": ((1, 4), (0, -1, 1.0, True, None)),
    "jump_ahead": ((1, 7), (0, 7.0, "7")),
    "monotonic": ((True, False), (1, 0, None)),
    "end_columns": ((0, 3), (-1, 1.0, False)),
    "tail_columns": ((1, 3), (0, -1, True)),
    "tail_threshold": ((0, 0.0, 0.5, 5, 32767.9), (-1, -0.1, 32768, 2.0**15, float("nan"), float("inf"), True, "5")),
    "skipped_columns": ((0, 5), (-1, 0.5)),
    "repetition_threshold": ((0, 5.0), (-1.0, float("nan"), 2.0**15, False)),
    "equal_tokens": ((0, 2, 3), (1, -1, -2, 2.0, True)),
    "tracked_tokens": ((0, 3), (-1, 3.0)),
    "suppress": ((True, False), (1, None)),
    "suppress_above": ((0, 5), (-1, 5.0)),
    "force_wins": ((True, False), (0, "yes")),
    "short_texts": (("guard", "crash"), ("skip", 5, True)),
}
"""Constants as their documentation has them: what is in range, and what is not."""


def ranges(_: Bench) -> None:
    """Every constant takes what is in its range and refuses the rest by name and value."""
    needs(set(RANGES) == {each.name for each in fields(AnalyzerConfig)}, "every constant")
    for name, (good, bad) in RANGES.items():
        for value in good:
            needs(getattr(AnalyzerConfig(**{name: value}), name) == value, f"{name} = {value}")
        for value in bad:
            refuses(partial(AnalyzerConfig, **{name: value}), f"{name} = {value!r} is out of range", "expected")
    for name, words in (("jump_back", ">= 1"), ("end_columns", ">= 0"), ("equal_tokens", "2 or more")):
        refuses(partial(AnalyzerConfig, **{name: -5}), words)


CASES: Mapping[str, Callable[[Bench], None]] = {
    "ranges": ranges,
    "frozen": frozen,
    "defaults": defaults,
    "kinds of input": kinds_of_input,
    "unmasked": unmasked,
    "replays/upstream": partial(decides_as_upstream, name="upstream"),
    "replays/upstream-0.1.0": partial(decides_as_upstream, name="upstream-0.1.0"),
    "switched off": switched_off,
    "cache": cache,
    "refusals": refusals,
    "first chunk": first_chunk,
    "loop/en-0.1.2-nocfg": partial(follows_upstream, name="en-0.1.2-nocfg"),
    "loop/en-0.1.2": partial(follows_upstream, name="en-0.1.2"),
    "loop/turbo": partial(follows_upstream, name="turbo"),
    "loop/mtl-0.1.6": partial(follows_upstream, name="mtl-0.1.6"),
    "capped": capped,
    "slots": slots,
    "progress": progress,
    "without noise": without_noise,
    "broken rows": broken_rows,
    "coins": coins,
    "looking back": looking_back,
    "orders": orders,
    "alone": alone,
}
"""From the quick ones to the slow ones."""


def first_objection(questions: bytes, hints: Sequence[str]) -> str:
    """The first case that finds something wrong, those of the hints before the others; or nothing."""
    bench = Bench(pickle.loads(questions))  # recorded by `tests/mutation/oracle.py`
    names = {f"longform/{name}": case for name, case in CASES.items()}
    for name in dict.fromkeys([*(hint for hint in hints if hint in names), *names]):
        try:
            names[name](bench)
        except Exception:  # noqa: BLE001 - whatever is wrong
            return name
    return ""
