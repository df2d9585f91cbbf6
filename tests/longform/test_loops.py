"""The online guard reports what the definition over the whole sequence says, for every prefix."""

import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sampler import LoopGuard
from sampler.errors import RuleError
from sampler.loops import KINDS, Loop, LoopRule, LoopRules, LowEntropyRule, find_loops
from tests.longform.loop_definition import all_loops, vllm_stops

ROWS = re.compile(r"^\| `(L\w+Rule\(.*?\))` \|", re.MULTILINE)
DOCS = (Path(__file__).parents[2] / "docs" / "loops.md").read_text(encoding="utf-8")
SMALL = LoopRules(
    (LoopRule(1, 1, 5), LoopRule(2, 6, 3, min_tokens=8), LoopRule(1, 6, 3, min_tokens=11, substitutions=0.25)),
    LowEntropyRule(12, 1.2),
)
"""Thresholds that short sequences of few tokens reach and miss."""


@st.composite
def rules(draw) -> LoopRules:
    cycles = []
    for _ in range(draw(st.integers(0, 3))):
        smallest = draw(st.integers(1, 6))
        share = draw(st.sampled_from([0.0, 0.0, 0.1, 0.25, 0.4, 0.9]))
        largest, least = smallest + draw(st.integers(0, 6)), draw(st.integers(0, 20))
        cycles.append(LoopRule(smallest, largest, draw(st.integers(2, 5)), least, share))
    window = draw(st.integers(2, 20))
    entropy = LowEntropyRule(window, draw(st.floats(0, 0.99)) * np.log2(window))
    return LoopRules(tuple(cycles), entropy if not cycles or draw(st.booleans()) else None)


@st.composite
def sequences(draw) -> list[int]:
    alphabet, tokens = draw(st.integers(1, 6)), []
    for _ in range(draw(st.integers(1, 4))):
        some = st.lists(st.integers(0, alphabet), min_size=1, max_size=9)
        pattern = draw(some)
        copies = pattern * draw(st.integers(1, 6))
        for place in draw(st.lists(st.integers(0, len(copies) - 1), max_size=len(copies) // 5)):
            copies[place] = draw(st.integers(0, alphabet + 1))
        tokens += copies[: len(copies) - draw(st.integers(0, len(pattern)))]
    return tokens


def assert_detected_in_time(tokens: list[int], rules: LoopRules):
    """After every token: the loops of that prefix, and one is reported iff it ends with this token."""
    guard = LoopGuard(rules)
    for count in range(1, len(tokens) + 1):
        prefix = tokens[:count]
        expected = all_loops(prefix, rules)
        assert {tuple(loop) for loop in find_loops(prefix, rules)} == expected
        found = guard.add(prefix[-1])
        now = {each for each in expected if each[1] + each[3] == count}
        assert tuple(found) in now if found else not now


@given(sequences())
def test_loops_of_every_prefix(tokens):
    assert_detected_in_time(tokens[:70], SMALL)


@example([0, 0, 1, 0, 0, 1, 0], LoopRules((LoopRule(1, 3, 2),), None))
@given(sequences(), rules())
def test_loops_by_any_rules(tokens, rules):
    assert_detected_in_time(tokens[:50], rules)


@given(sequences(), st.integers(1, 5), st.integers(0, 5), st.integers(2, 4))
def test_a_pattern_of_any_size_is_detected_when_vllm_stops(tokens, smallest, more, count):
    """Three parameters, three fields. From size 1 on the two definitions are one; else ours leaves shorter ones out."""
    guard = LoopGuard(LoopRules((LoopRule(smallest, smallest + more, count),), low_entropy=None))
    for end in range(1, len(tokens) + 1):
        stops = vllm_stops(tokens[:end], smallest, smallest + more, count)
        found = guard.add(tokens[end - 1])
        assert bool(found) == stops if smallest == 1 else not found or stops


def token_by_token(tokens: list[int], rules: LoopRules) -> tuple[Loop, ...]:
    """All loops of a run that the guard sees whole."""
    guard, found = LoopGuard(rules), {}
    for token in tokens:
        found |= {(rule, loop.step): loop for rule, loop in enumerate(guard.look(token)) if loop}
    return tuple(sorted(found.values(), key=lambda loop: (loop.step, loop.onset)))


@st.composite
def long_stretches(draw) -> list[int]:
    """Exact patterns, some with repeated tokens inside, that go on for many times what the small rules remember."""
    alphabet, tokens = draw(st.integers(1, 3)), []
    some = st.lists(st.integers(0, alphabet), min_size=1, max_size=8)
    for _ in range(draw(st.integers(1, 3))):
        tokens += draw(some)
        tokens += (draw(some) * 400)[: draw(st.integers(0, 400))]
    return tokens


@example([1, 1, 1, 1, 1, 2] * 100, SMALL)  # each period has a loop of its own
@given(long_stretches(), st.one_of(st.just(SMALL), rules()))
def test_what_only_repeats_itself_is_passed_over(tokens, rules):
    assert find_loops(tokens, rules) == token_by_token(tokens, rules)


def test_a_million_equal_tokens_are_read_in_a_moment(monkeypatch):
    after, looked, look = [*range(50)], [], LoopGuard.look
    fewer = token_by_token([3] * 2_000 + after, LoopRules())
    monkeypatch.setattr(LoopGuard, "look", lambda guard, token: looked.append(token) or look(guard, token))
    loops = find_loops([3] * 1_000_000 + after)
    assert loops == tuple(loop._replace(extent=loop.extent + 998_000) for loop in fewer)
    assert len(looked) < 3_000


def planted(rng: random.Random, period: int, share: float, onset: int, length: int) -> list[int]:
    before = [rng.randrange(2_000) for _ in range(onset)]
    pattern = [rng.randrange(2_000) for _ in range(period)]
    loop = [rng.randrange(2_000) if rng.random() < share else pattern[place % period] for place in range(length)]
    return before + loop


@given(st.integers(1, 64), st.integers(0, 40), st.booleans(), st.randoms(use_true_random=False))
def test_exact_loops_of_any_period_with_the_default_rules(period, onset, again, rng):
    tokens = planted(rng, period, 0.0, onset, max(4 * period, 25)) + planted(rng, 3, 0.0, 5, 9)
    tokens += tokens[onset:] if again else []
    rules = LoopRules(LoopRules().cycles[:2], low_entropy=None)
    loops = find_loops(tokens, rules)
    assert {tuple(loop) for loop in loops} == all_loops(tokens, rules)
    assert loops[0].onset <= onset
    assert loops[0].step <= onset + max(4 * period, 25) - 1


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1])
@pytest.mark.parametrize("period", [1, 2, 3, 5, 7, 16, 31, 64])
def test_loops_with_noise_and_the_default_rules(period, share):
    rng = random.Random(1_000 * period + int(100 * share))
    tokens = planted(rng, period, share, 30, 6 * period + 150)
    loops = find_loops(tokens)
    assert {tuple(loop) for loop in loops} == all_loops(tokens, LoopRules())
    longest = max(loops, key=lambda loop: loop.extent)
    assert longest.period in (period, None)
    assert abs(longest.onset - 30) <= 30
    assert longest.end >= len(tokens) - period - 10


def test_sequences_of_these_tests_loop_and_do_not():
    rng, found, without = random.Random(5), dict.fromkeys(KINDS, 0), 0
    for _ in range(200):
        tokens = [rng.randrange(rng.choice([3, 9, 30])) for _ in range(20)]
        period, share = rng.randint(1, 6), rng.choice([0.0, 0.1])
        pattern = [rng.randrange(9) for _ in range(period)]
        loop = [rng.randrange(9) if rng.random() < share else pattern[place % period] for place in range(20)]
        tokens += loop if rng.random() < 0.6 else []
        loops = find_loops(tokens, SMALL)
        assert {tuple(loop) for loop in loops} == all_loops(tokens, SMALL)
        for kind in {loop.kind for loop in loops}:
            found[kind] += 1
        without += not loops
    assert min(found.values()) >= 10
    assert without >= 30


def test_a_pause_is_no_cycle_of_two_tokens():
    tokens = [*range(40), *[7] * 24, *range(100, 140)]
    assert find_loops(tokens) == ()
    assert find_loops([*tokens, *[7] * 25])[0].kind == "run"


def test_the_story_of_token_6405():
    """fp32 Python repeats it five times; the port repeated it for ever, from token 50 on."""
    speech = [int(token) for token in np.random.default_rng(0).integers(0, 6_561, 131)]
    assert find_loops([*speech[:125], *[6_405] * 5, speech[130]]) == ()
    guard = LoopGuard()
    found = next(loop for token in [*speech[:50], *[6_405] * 950] if (loop := guard.add(token)))
    assert (found.kind, found.onset, found.period, found.step) == ("run", 50, 1, 74)
    assert str(found) == "one token repeated from token 50 on for 25 tokens, detected at token 74"


def test_the_guard_forgets_and_still_detects():
    rng = random.Random(2)
    guard = LoopGuard()
    sizes = []
    for step in range(20_000):
        assert guard.add(rng.randrange(5_000)) is None
        if step in (1_000, 19_999):
            matches = guard._matches
            sizes.append((len(matches._tokens), len(matches._places) <= 64, max(matches._bits).bit_length() <= 193))
            sizes[-1] += (len(guard._entropy._window), len(guard._entropy._counts) <= 100)
    assert sizes[0] == sizes[1] == (64, True, True, 100, True)
    found = [guard.add(token) for token in [1, 2, 3] * 9]
    assert found.index(next(filter(None, found))) == 24


def test_text_of_loops():
    texts = {loop.kind: str(loop) for loop in find_loops([*range(30), *[1, 2] * 40, *[3, 4, 3, 4, 9, 4] * 30])}
    assert texts["cycle"].startswith("a cycle of 6 tokens from token 110 on for 180 tokens")
    assert texts["near_cycle"].startswith("a cycle of 2 tokens with substitutions from token ")
    assert texts["low_entropy"].startswith("few tokens in turn from token ")


def test_integers_of_any_kind_are_tokens_and_nothing_else_is():
    for token in (3, np.int32(3), np.uint16(3)):
        guard = LoopGuard()
        assert [guard.add(token) for _ in range(25)][-1].extent == 25
    for token in (1.0, "a", None, np.array([1, 2])):
        with pytest.raises(TypeError):
            LoopGuard().add(token)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: LoopRule(0, 3, 2), "min_pattern_size = 0 (expected a whole number, at least 1)"),
        (lambda: LoopRule(4, 3, 2), "max_pattern_size = 3 (expected a whole number, at least 4)"),
        (lambda: LoopRule(1, 3, 1), "min_count = 1 (expected a whole number, at least 2)"),
        (lambda: LoopRule(1, 3, True), "min_count = True (expected"),
        (lambda: LoopRule(1, 3, 2, -1), "min_tokens = -1 (expected"),
        (lambda: LoopRule(1, 3, 2, 2.5), "min_tokens = 2.5 (expected"),
        (lambda: LoopRule(1, 3, 2, 0, 1.0), "substitutions = 1.0 (expected a number from 0 to less than 1)"),
        (lambda: LoopRule(1, 3, 2, 0, float("nan")), "substitutions = nan"),
        (lambda: LowEntropyRule(1, 0.0), "window = 1 (expected"),
        (lambda: LowEntropyRule(8, 3.0), "bits = 3.0 for a window of 8 tokens (expected a number from 0 to less than"),
        (lambda: LowEntropyRule(8, -0.1), "bits = -0.1"),
        (lambda: LoopRules((), None), "no rule at all"),
    ],
)
def test_thresholds_out_of_range(make, text):
    with pytest.raises(RuleError) as failure:
        make()
    assert text in str(failure.value)


def test_the_example_of_the_docs_runs(capsys):
    (example,) = re.findall(r"^```python\n(.*?)^```", DOCS, flags=re.MULTILINE | re.DOTALL)
    names = {"stream": iter([*range(1_000, 1_050), *[6_405] * 950])}
    exec(example, names)
    assert names["tokens"] == [*range(1_000, 1_050)]
    assert capsys.readouterr().out.strip() == re.search(r"print\(loop\)  # (.*)", DOCS)[1]


def test_the_rules_of_the_docs_are_the_defaults():
    named = [eval(text, {"LoopRule": LoopRule, "LowEntropyRule": LowEntropyRule}) for text in ROWS.findall(DOCS)]
    assert (*LoopRules().cycles, LoopRules().low_entropy) == tuple(named)
