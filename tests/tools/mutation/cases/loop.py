"""Whole runs beside upstream's own loop: tokens, ends, flags, logits, attention and the figures of every record."""

import numpy as np

from sampler.generation.generator import Generator
from sampler.requests import Generation, Record
from sampler.t3.backbone import AttentionRequest
from sampler.t3.cache import KeyValueCache
from sampler.variants import variant
from tests.tools.mutation.cases.bench import WIDTH, Bench, near, needs, request
from tests.tools.mutation.questions import Asked, Said

UNDERFLOW = 80.0  # nats; probabilities of float32 are 0 somewhat further down


def follows_upstream(bench: Bench, name: str, attention: str = "auto") -> None:
    runs, rules = bench.runs(name), variant(name)
    further = {"keep_logits": True, "keep_attention": True, "attention": attention}
    generator = Generator.of(bench.checkpoint(runs.network), rules, width=WIDTH, **further)
    answers = generator.generate([request(asked) for asked in runs.asked])
    for answer, asked, said in zip(answers, runs.asked, runs.said, strict=True):
        _compare(generator, answer, asked, said)


def _compare(generator: Generator, answer: Generation, asked: Asked, said: Said) -> None:
    record = answer.record
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
    _measured(record, said)
    needs(record.guided == (rows == 2), "guided")
    if said.attention is None:
        needs(record.flags == (), "flags without an analyzer")
        return
    near(record.attention.swapaxes(0, 1), said.attention, "attention")
    for flags, step in zip(record.flags, said.steps, strict=True):
        names = set(flags.split("+")) - {""}
        needs(names - {"suppressed"} == step.forcing, "forcing flags")
        needs(step.forcing or ("suppressed" in names) == step.held, "suppressed")


def _measured(record: Record, said: Said) -> None:
    """Beside the probabilities that upstream drew from; where all others were 0, their scores may still be finite."""
    figures = np.stack([record.logprob, record.rank, record.entropy], axis=1)
    near(figures, said.measures[:, :3], "measures")
    only = np.isinf(said.measures[:, 3])
    near(record.margin[~only], said.measures[~only, 3], "margin")
    needs((record.margin[only] > UNDERFLOW).all(), "margin of the only token")


def _end(generator: Generator, asked: Asked, said: Said) -> str:
    if said.breaks:
        return "error"
    if said.steps and said.steps[-1].forcing:
        return "forced_eos"
    ends = said.tokens[-1] == generator.checkpoint.config.eos_id and len(said.tokens) <= asked.cap
    return "eos" if ends else "length"


def first_chunk(bench: Bench) -> None:
    """Attention of the last two queries of a prefix, each over what stands before it; the last one is upstream's."""
    runs = bench.runs("mtl-0.1.6")
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
