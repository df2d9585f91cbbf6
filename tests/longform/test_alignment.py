"""Generation with an analyzer and with the rules of variants: what must hold for every run, whatever the model says."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampler import SamplingConfig, process
from sampler.alignment import FINDING, AlignmentStreamAnalyzer, AnalyzerConfig
from sampler.chain.pipeline import run_rows
from sampler.errors import ConfigError
from sampler.generation.generator import Generator
from sampler.requests import Generation, Request
from sampler.stages import STAGES
from sampler.variants import analyzer, load_variants, variant
from tests.longform.test_generation import CHECKPOINT, DEFAULT, assert_bit_equal, only, tiny_checkpoint
from tests.longform.test_generation import request as plain_request
from tests.support import TINY, random_text

UPSTREAM = analyzer("upstream")
OFF = AnalyzerConfig(equal_tokens=0, tail_threshold=0, repetition_threshold=0, suppress=False)
BOS = TINY.bos_id
PARAMETERS = st.builds(
    SamplingConfig,
    temperature=st.sampled_from([0.0, 0.3, 0.8, 1.0, 3.0]),
    repetition_penalty=st.sampled_from([0.5, 1.0, 1.2, 2.0]),
    min_p=st.sampled_from([0.0, 0.05]),
    top_p=st.sampled_from([0.5, 1.0]),
    top_k=st.sampled_from([0, 5]),
    cfg_weight=st.sampled_from([0.0, 0.5]),
)
ORDERS = [
    STAGES,
    tuple(stage for stage in STAGES if stage != "alignment"),
    ("cfg", "repetition_penalty", "temperature", "min_p", "top_p", "alignment"),
    ("alignment", "cfg", "temperature"),
]


def request(index: int, config: SamplingConfig = DEFAULT, letters: int = 9, cap: int = 60) -> Request:
    return replace(plain_request(index, config, cap), prompt=tuple(random_text(TINY, letters, index)))


def generate(requests: list[Request], **fields: object) -> list[Generation]:
    return Generator(CHECKPOINT, **{"width": 3, "analyzer": UPSTREAM, **fields}).generate(requests)


@settings(max_examples=8)
@given(st.lists(st.tuples(PARAMETERS, st.integers(4, 25)), min_size=1, max_size=4), st.integers(0, 999))
def test_a_run_has_as_many_tokens_as_its_text_unless_it_was_cut_and_a_pair_cuts_it(settings_, seed):
    """The position is never beyond the step, so EOS is held back for S - 3 steps; two equal tokens force it at once."""
    requests = [request(seed + index, config, letters) for index, (config, letters) in enumerate(settings_)]
    for asked, answer in zip(requests, generate(requests), strict=True):
        tokens, flags = answer.tokens, answer.record.flags
        assert len(flags) == len(tokens)
        if answer.stop_reason == "eos":
            assert len(tokens) - 1 >= len(asked.prompt) - 3
        pairs = [step for step in range(len(tokens) - 1) if tokens[step] == tokens[step + 1]]
        assert all("token_repetition" in flags[step + 2] for step in pairs if step + 2 < len(tokens))
        forced = [step for step, each in enumerate(flags) if set(each.split("+")) - {"", "suppressed"}]
        assert forced == ([len(tokens) - 1] if answer.stop_reason == "forced_eos" else [])
        assert all(tokens[step] == TINY.eos_id for step in forced)
        assert all(answer.record.logprob[step] == answer.record.entropy[step] == 0 for step in forced)


def test_the_runs_of_that_test_end_in_every_way():
    requests = [request(index, SamplingConfig(repetition_penalty=1.0, min_p=0, temperature=2)) for index in range(40)]
    reasons = [answer.stop_reason for answer in generate(requests, width=20)]
    assert min(reasons.count("eos"), reasons.count("forced_eos")) >= 3


@pytest.mark.parametrize("config", [DEFAULT, SamplingConfig(cfg_weight=0), SamplingConfig(penalty_window=5)])
def test_an_analyzer_that_decides_nothing_changes_no_bit(config):
    requests = [request(index, config, letters=4 + index, cap=20) for index in range(5)]
    fields = {"keep_logits": True, "keep_attention": True}
    with_one, without = (generate(requests, analyzer=each, **fields) for each in (OFF, None))
    for left, right in zip(with_one, without, strict=True):
        assert_bit_equal(left, right)
    assert {answer.record.flags for answer in without} == {()}
    assert all(answer.record.flags == ("",) * len(answer.tokens) for answer in with_one)


@settings(max_examples=5)
@given(st.lists(st.integers(2, 25), min_size=2, max_size=8), st.integers(1, 4), st.randoms(use_true_random=False))
def test_a_request_alone_in_its_slot_is_judged_as_among_others(lengths, width, random):
    config = SamplingConfig(repetition_penalty=1.0, temperature=1.5)
    requests = [request(index, config, letters) for index, letters in enumerate(lengths)]
    fields = {"width": width, "keep_logits": True, "keep_attention": True}
    together = generate(requests, **fields)
    index = random.randrange(len(requests))
    alone = generate([replace(requests[index], slot=together[index].record.slot)], **fields)[0]
    assert_bit_equal(alone, together[index])
    assert alone.record.flags == together[index].record.flags


def test_where_the_order_leaves_alignment_out_the_analyzer_does_nothing():
    config = SamplingConfig(repetition_penalty=1.0, temperature=2.0, order=ORDERS[1])
    requests = [request(index, config) for index in range(6)]
    left, right = generate(requests), generate(requests, analyzer=None)
    assert [answer.tokens for answer in left] == [answer.tokens for answer in right]
    assert {answer.record.flags for answer in left} == {()}


def test_the_stage_acts_at_its_place_in_every_order_of_a_block():
    config = SamplingConfig(repetition_penalty=1.0, temperature=2.0, min_p=0.3)
    requests = [request(index, replace(config, order=ORDERS[index % 4]), letters=5) for index in range(16)]
    answers = generate(requests, width=6)
    assert {index % 4 for index, answer in enumerate(answers) if answer.stop_reason == "forced_eos"} == {0, 2, 3}
    for each, answer in zip(requests, answers, strict=True):
        assert generate([replace(each, slot=answer.record.slot)], width=6)[0].tokens == answer.tokens


def test_process_passes_over_the_stage():
    logits = np.random.default_rng(0).normal(0, 3, (2, 20)).astype(np.float32)
    scores = [np.array(process(logits, [[1], [1, 1]], SamplingConfig(order=order))) for order in ORDERS[:2]]
    np.testing.assert_array_equal(*scores)


def test_what_upstream_cannot_take_is_an_error_of_that_request_alone():
    requests = [request(0), request(1, letters=2), request(2, letters=3), request(3)]
    exact, guarded = generate(requests), generate(requests, analyzer=AnalyzerConfig())
    assert [answer.stop_reason == "error" for answer in exact] == [False, True, True, False]
    message = f"the analyzer of chatterbox-tts raises an IndexError here: the text has 4 ids ({FINDING})"
    assert exact[1].record.error == message
    assert len(exact[1].record.flags) == len(exact[1].tokens) == len(exact[1].record.logprob)
    assert {answer.stop_reason for answer in guarded} <= {"eos", "forced_eos", "length"}
    assert [exact[index].tokens for index in (0, 3)] == [guarded[index].tokens for index in (0, 3)]


def test_a_step_keeps_no_more_than_the_step_before():
    def size() -> int:
        return sum(value.nbytes for value in vars(judge).values() if isinstance(value, np.ndarray))

    judge = AlignmentStreamAnalyzer(UPSTREAM, 4, TINY.eos_id)
    before, rng = size(), np.random.default_rng(0)
    for row in range(4):
        judge.start(row, 10)
    for step in range(500):
        judge.step(range(4), rng.random((4, 3, 10), dtype=np.float32) / 100, [step % 50] * 4)
    assert size() == before


def test_attention_of_another_length_is_refused():
    judge = AlignmentStreamAnalyzer(UPSTREAM, 1, TINY.eos_id)
    judge.start(0, 10)
    with pytest.raises(ConfigError, match=r"the attention of row 0 covers 9 text ids \(it was started with 10\)"):
        judge.step([0], [[np.zeros(9)]], [1])
    with pytest.raises(ConfigError, match="a text of 0 ids"):
        judge.start(0, 0)


def test_a_generator_takes_the_rules_of_a_variant():
    for each in load_variants().values():
        generator = Generator.of(CHECKPOINT, each, width=5)
        assert generator.width == 5
        assert {name: getattr(generator, name) for name in each.rules()} == each.rules()


def test_an_analyzer_needs_heads_to_read():
    tiny = tiny_checkpoint(replace(TINY, aligned_heads=()))
    with pytest.raises(ConfigError, match="tiny has no aligned heads"):
        Generator(tiny, analyzer=UPSTREAM)
    Generator(tiny)


def seen_by(rule: str, config: SamplingConfig, tokens: list[int]) -> list[set[int]]:
    seen: list[set[int]] = []

    def chain(batch):
        if batch.context is None:
            seen.append(set(np.flatnonzero(batch.seen[0]).tolist()))
        else:
            seen.append(set(batch.history[0].tolist()))
            drawn = batch.history[0][int(batch.context.prompt_length[0]) :]
            assert drawn.tolist() == tokens[: len(seen) - 1]
        return run_rows(replace(batch, logits=only(tokens[len(seen) - 1])(batch).final, uncond_logits=None))

    asked = request(0, config, cap=len(tokens))
    answer = Generator(CHECKPOINT, width=1, chain=chain, penalty_history=rule).generate([asked])[0]
    assert list(answer.tokens) == tokens
    return seen


@pytest.mark.parametrize("config", [DEFAULT, SamplingConfig(no_repeat_ngram_size=50)])
def test_what_the_penalty_sees(config):
    tokens = [7, 8, BOS, 8]
    assert seen_by("bos_and_generated", config, tokens) == [{BOS}, {BOS, 7}, {BOS, 7, 8}, {BOS, 7, 8}]
    assert seen_by("bos_at_first", config, tokens) == [{BOS}, {7}, {7, 8}, {7, 8, BOS}]
    assert seen_by("bos_at_first", config, [BOS, 7, 7, 7]) == [{BOS}, {BOS}, {BOS, 7}, {BOS, 7}]
    assert seen_by("generated", config, tokens) == [set(), {7}, {7, 8}, {7, 8, BOS}]


def test_eos_as_the_first_token_and_the_token_beyond_the_cap():
    eos = TINY.eos_id
    turbo = Generator.of(CHECKPOINT, variant("turbo"), width=1, chain=only(eos)).generate([request(0)])[0]
    assert (turbo.tokens, turbo.stop_reason) == ((eos, eos), "eos")
    capped = Generator.of(CHECKPOINT, variant("turbo"), width=1, chain=only(7)).generate([request(0, cap=6)])[0]
    assert (capped.tokens, capped.stop_reason) == ((7,) * 7, "length")
    most = TINY.speech_positions
    with pytest.raises(ConfigError, match=f"expected 1 to {most - 1}"):
        Generator.of(CHECKPOINT, variant("turbo")).generate([request(0, cap=most)])
