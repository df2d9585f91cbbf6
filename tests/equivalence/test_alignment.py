"""The alignment analyzer against upstream's own objects: the same decisions at every step of made-up and real runs."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampler import finch
from sampler.alignment import LARGE, AlignmentStreamAnalyzer, AnalyzerConfig, Decisions
from sampler.finch.training.measure import speak
from sampler.generation.generator import Generator
from sampler.requests import Request
from sampler.t3.backbone import AttentionRequest
from sampler.t3.cache import KeyValueCache
from sampler.variants import analyzer, variant
from tests import wheels
from tests.replays import BOS, EOS, KINDS, VOCABULARY, Replay, Upstream, hand_made, make_replay, replays

ANALYZERS = {"0.1.0": "upstream-0.1.0", "0.1.3": "upstream", "0.1.7": "upstream"}
NIGHTLY = pytest.mark.nightly("upstream's objects are slow, and one release stands for the others")
LOGITS = np.random.default_rng(0).normal(0, 4, VOCABULARY).astype(np.float32)
ROUNDING = 1e-4  # so near to its threshold, upstream's float32 sum may fall on the other side


@dataclass
class Both:
    """A replay in a row of our analyzer, with upstream's object beside it."""

    row: int
    replay: Replay
    theirs: Upstream
    done: int = 0

    @property
    def attention(self) -> np.ndarray:
        return self.replay.attention[:, self.done]

    @property
    def token(self) -> int:
        return self.replay.tokens[self.done]


def compare(config: AnalyzerConfig, version: str, runs: Sequence[Replay], width: int = 3) -> list[Decisions]:
    """Runs through one analyzer of `width` rows, each row taking the next run; assert the same at every step."""
    ours = AlignmentStreamAnalyzer(config, width, EOS)
    queue, active, said = list(runs), [], []
    while queue or active:
        for row in set(range(width)) - {each.row for each in active}:
            if queue and (row == 0 or ours._steps[0] > 2):  # rows begin at different times
                run = queue.pop(0)
                ours.start(row, run.length)
                active.append(Both(row, run, Upstream(version, run.length)))
        rows = [each.row for each in active]
        decisions = ours.step(rows, [each.attention for each in active], [each.token for each in active])
        said.append(decisions)
        scores = np.array(decisions.apply(mx.array(np.stack([LOGITS] * len(rows)))))
        active = [each for index, each in enumerate(active) if goes_on(each, decisions, index, scores[index])]
    return said


def goes_on(each: Both, decisions: Decisions, index: int, scores: np.ndarray) -> bool:
    """Compare one row at one step; whether it has another step."""
    said = each.theirs.step(LOGITS, each.attention, each.token)
    assert decisions.crashed[index] == (said is None), f"step {each.done} of {each.replay}"
    if said is None:
        return False
    np.testing.assert_array_equal(scores, said.logits)
    assert forcing(decisions.flags(index)) == said.forcing
    assert decisions.suppressed[index] == (scores[EOS] == -LARGE) or decisions.forced[index]
    assert (decisions.position[index], decisions.complete[index]) == (said.position, said.complete)
    each.done += 1
    return each.done < len(each.replay.tokens)


def forcing(flags: str) -> set[str]:
    return set(flags.split("+")) - {"", "suppressed"}


def hand_made_runs() -> list[Replay]:
    return [run for kind in KINDS for run in hand_made(kind)]


@pytest.mark.parametrize("version", ["0.1.7", *(pytest.param(each, marks=NIGHTLY) for each in ("0.1.0", "0.1.3"))])
@given(st.lists(replays(), min_size=1, max_size=5))
@settings(max_examples=30)
def test_every_decision_is_upstreams(version, runs):
    assert compare(analyzer(ANALYZERS[version]), version, runs)


@given(replays(exact=False))
def test_attention_of_any_value(run):
    ours = AlignmentStreamAnalyzer(analyzer("upstream"), 1, EOS)
    ours.start(0, run.length)
    each, going = Both(0, run, Upstream("0.1.7", run.length)), True
    while going:
        decisions = ours.step([0], [each.attention], [each.token])
        if min(abs(ours._tail[0].max() - 5), abs(ours._repetition[0] - 5)) < ROUNDING:
            return
        going = goes_on(each, decisions, 0, np.array(decisions.apply(mx.array(LOGITS[None])))[0])


@functools.cache
def compare_by_hand(kind: str, version: str) -> list[Decisions]:
    return compare(analyzer(ANALYZERS[version]), version, list(hand_made(kind)))


@pytest.mark.parametrize("version", ANALYZERS)
@pytest.mark.parametrize("kind", KINDS)
def test_runs_made_by_hand(kind, version):
    assert compare_by_hand(kind, version)


def test_runs_made_by_hand_raise_every_flag_and_break_upstream():
    said = [each for kind in KINDS for each in compare_by_hand(kind, "0.1.7")]
    names = ("long_tail", "alignment_repetition", "token_repetition", "suppressed", "crashed", "complete")
    assert {name for name in names if any(getattr(each, name).any() for each in said)} == set(names)


CHANGES = {
    "jump_back": 3, "jump_ahead": 8, "monotonic": False, "end_columns": 4, "tail_columns": 2, "tail_threshold": 10.0,
    "skipped_columns": 4, "repetition_threshold": 4.5, "equal_tokens": 3, "tracked_tokens": 2, "suppress": False,
    "suppress_above": 6, "force_wins": False, "short_texts": "guard",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [*list(CHANGES)[:4], *(pytest.param(name, marks=NIGHTLY) for name in list(CHANGES)[4:])]
)
def test_another_value_of_any_constant_is_detected(name):
    """`tracked_tokens` of 2 shows where the first token is BOS, `force_wins` where a pair comes early."""
    wrong = replace(analyzer("upstream"), **{name: CHANGES[name]})
    early = make_replay(np.random.default_rng(1), 30, [("walk", 30)], 0.5, 0.0, 2)
    with pytest.raises(AssertionError):
        compare(wrong, "0.1.7", [early, replace(early, tokens=(BOS, *early.tokens[:-1])), *hand_made_runs()])


class CountsTheCompletingRow(AlignmentStreamAnalyzer):
    """Fault: the sums begin with the row that completes the text [A01]."""

    def step(self, rows, attention, tokens):
        before = self._complete.copy()
        decisions = super().step(rows, attention, tokens)
        fresh = [row for row in rows if self._complete[row] and not before[row]]
        if fresh:
            at = [list(rows).index(row) for row in fresh]
            self._steps[fresh] -= 1
            self._add(np.array(fresh), self._mean(fresh, [attention[index] for index in at]))
            self._steps[fresh] += 1
        return decisions


class ForgetsToStartAnew(AlignmentStreamAnalyzer):
    """Fault: the sums of the run before are kept in the slot [A02]."""

    def start(self, row, text_length):
        kept = self._repetition[row], self._tail[row].copy()
        super().start(row, text_length)
        self._repetition[row], self._tail[row] = kept


class LooksAtTheFirstBosRow(AlignmentStreamAnalyzer):
    """Fault: rows are mixed up in the batch [A03]."""

    def step(self, rows, attention, tokens):
        return super().step(rows, attention, [*tokens[1:], *tokens[:1]])


@pytest.mark.parametrize("wrong", [CountsTheCompletingRow, ForgetsToStartAnew, LooksAtTheFirstBosRow])
def test_a_wrong_analyzer_is_detected(wrong, monkeypatch):
    monkeypatch.setattr("tests.equivalence.test_alignment.AlignmentStreamAnalyzer", wrong)
    with pytest.raises(AssertionError):
        compare(analyzer("upstream"), "0.1.7", hand_made_runs())


@functools.cache
def recorded(ordinary: int, wild: int) -> list[Replay]:
    checkpoint, config = finch.load(), variant("mtl-head").config
    heated = replace(config, temperature=1.3, repetition_penalty=1.0)
    prompts = sorted(finch.prompts("sentences"), key=lambda prompt: prompt.tokens)
    answers = speak(checkpoint, prompts[:ordinary], config, 1)
    answers += speak(checkpoint, prompts[30 : 30 + wild], heated, 2, cap=150)
    records = [(answer.record.attention, answer.tokens) for answer in answers]
    return [Replay(attention, (BOS, *tokens[:-1])) for attention, tokens in records if attention is not None]


@pytest.mark.parametrize(
    ("version", "ordinary", "wild"),
    [("0.1.7", 1, 1), *(pytest.param(each, 12, 8, marks=NIGHTLY) for each in ("0.1.3", "0.1.7"))],
)
def test_runs_of_finch(version, ordinary, wild):
    said = compare(analyzer("upstream"), version, recorded(ordinary, wild))
    assert any(each.complete.any() for each in said)
    assert any(each.token_repetition.any() for each in said)


def test_the_first_chunk_has_two_rows_and_the_second_one_counts():
    checkpoint = finch.load()
    model, voice = checkpoint.model, checkpoint.voice
    text = checkpoint.tokenizer.encode(finch.prompts("sentences")[0].text)
    heads = AttentionRequest(checkpoint.config.aligned_heads, queries=2)
    cache = KeyValueCache(checkpoint.config, 2)
    _, attention = model.backbone.prefill(model.prefix(text, voice), cache, heads)
    rows = [values[:, model.text_columns(text, voice)] for values in attention]
    assert {values.shape for values in rows} == {(2, len(text))}
    config = replace(analyzer("upstream"), monotonic=False)
    positions = []
    for chunk in (rows, [values[-1] for values in rows], [values.astype(mx.bfloat16) for values in rows]):
        ours = AlignmentStreamAnalyzer(config, 1, EOS)
        ours.start(0, len(text))
        positions.append(ours.step([0], [chunk], [BOS]).position.tolist())
    assert positions[0] == positions[1] == positions[2]
    assert positions[0] == [int(np.mean([np.array(values)[-1] for values in rows], axis=0).argmax())]


def test_a_run_through_the_generator_has_the_flags_of_upstreams_object():
    wheels.need("0.1.7")
    checkpoint = finch.load()
    config = replace(variant("mtl-0.1.6").config, temperature=1.2, repetition_penalty=1.2)
    prompts = finch.prompts("sentences")[:8]
    generator = Generator.of(checkpoint, variant("mtl-0.1.6"), width=8, keep_attention=True)
    answers = generator.generate([Request(prompt.text, config, seed, 200) for seed, prompt in enumerate(prompts)])
    assert "forced_eos" in {answer.stop_reason for answer in answers}
    for answer in answers:
        theirs = Upstream("0.1.7", answer.record.attention.shape[-1])
        tokens = (checkpoint.config.bos_id, *answer.tokens[:-1])
        for step, (token, flags) in enumerate(zip(tokens, answer.record.flags, strict=True)):
            said = theirs.step(LOGITS, answer.record.attention[:, step], token)
            assert forcing(flags) == said.forcing
            assert ("suppressed" in flags) == (said.logits[EOS] == -LARGE) or said.forcing
        forced = [step for step, flags in enumerate(answer.record.flags) if forcing(flags)]
        assert forced == ([len(answer.tokens) - 1] if answer.stop_reason == "forced_eos" else [])
