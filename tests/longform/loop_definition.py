"""What a loop is, written down as naively as possible over a whole sequence: the oracle of the online guard."""

import math
from collections import Counter
from collections.abc import Sequence

from sampler.loops import LoopRule, LoopRules, LowEntropyRule

Found = tuple[str, int, int | None, int, int]
"""Kind, onset, period, extent, step."""


def vllm_stops(tokens: Sequence[int], smallest: int, largest: int, count: int) -> bool:
    """Whether the sequence ends with `count` copies of a pattern: vLLM's definition of its three parameters."""
    for size in range(smallest, largest + 1):
        pattern = list(tokens[-size:])
        if len(tokens) >= size * count and list(tokens[-size * count :]) == pattern * count:
            return True
    return False


def exact_loops(tokens: Sequence[int], rule: LoopRule) -> set[Found]:
    """Maximal stretches of one period that no shorter period has, and that are long enough."""
    found = set()
    for size in range(rule.min_pattern_size, rule.max_pattern_size + 1):
        least = max(size * rule.min_count, rule.min_tokens)
        equal = [place >= size and tokens[place] == tokens[place - size] for place in range(len(tokens))]
        start = size
        while start < len(tokens):
            end = start
            while end < len(tokens) and equal[end]:
                end += 1
            onset, pattern = start - size, list(tokens[start - size : start])
            parts = (part for part in range(1, size) if size % part == 0)
            if end - onset >= least and not any(pattern == pattern[:part] * (size // part) for part in parts):
                kind = "run" if size == 1 else "cycle"
                found.add((kind, onset, size, end - onset, onset + least - 1))
            start = end + 1
    return found


def _substitutions(tokens: Sequence[int], places: range, lag: int) -> int:
    return sum(tokens[place] != tokens[place - lag] for place in places)


def near_period(tokens: Sequence[int], rule: LoopRule) -> int | None:
    """The smallest pattern that the end of a sequence repeats often enough, with few substitutions."""
    for size in range(rule.min_pattern_size, rule.max_pattern_size + 1):
        least = max(size * rule.min_count, rule.min_tokens)
        if len(tokens) < least or tokens[-1] != tokens[-1 - size]:
            continue
        places = range(len(tokens) - least + size, len(tokens))
        limit = rule.substitutions * len(places) + 1e-9
        parts = [part for part in range(1, size) if size % part == 0]
        if (
            tokens[places[0]] == tokens[places[0] - size]
            and _substitutions(tokens, places, size) <= limit
            and all(_substitutions(tokens, places, part) > limit for part in parts)
        ):
            return size
    return None


def near_loops(tokens: Sequence[int], rule: LoopRule) -> list[Found]:
    """Of every prefix the stretch at its end; those that share a period, or a multiple of one, are one stretch."""
    found: list[Found] = []
    for step in range(len(tokens)):
        size = near_period(tokens[: step + 1], rule)
        if size is None:
            continue
        onset = step + 1 - max(size * rule.min_count, rule.min_tokens)
        if found:
            _, first, period, extent, first_step = found[-1]
            longer, shorter = max(size, period), min(size, period)
            if longer % shorter == 0 and first + extent - max(onset, first) >= longer:
                first = min(onset, first)
                found[-1] = ("near_cycle", first, shorter, step + 1 - first, first_step)
                continue
        found.append(("near_cycle", onset, size, step + 1 - onset, step))
    return found


def entropy(tokens: Sequence[int]) -> float:
    counts = Counter(tokens).values()
    return -math.fsum(count / len(tokens) * math.log2(count / len(tokens)) for count in counts)


def low_entropy_loops(tokens: Sequence[int], rule: LowEntropyRule) -> list[Found]:
    """Windows of low entropy that overlap or touch are one stretch; it begins with a token that comes again."""
    found: list[Found] = []
    for step in range(rule.window - 1, len(tokens)):
        window = tokens[step + 1 - rule.window : step + 1]
        if entropy(window) > rule.bits + 1e-9:
            continue
        onset = step + 1 - rule.window
        if found and onset <= found[-1][1] + found[-1][3]:
            _, first, _, _, first_step = found[-1]
            found[-1] = ("low_entropy", first, None, step + 1 - first, first_step)
        else:
            onset += next(place for place, token in enumerate(window) if window.count(token) > 1)
            found.append(("low_entropy", onset, None, step + 1 - onset, step))
    return found


def all_loops(tokens: Sequence[int], rules: LoopRules) -> set[Found]:
    """By every rule; of the loops of a prefix only those that are detected by then."""
    found: set[Found] = set()
    for rule in rules.cycles:
        found |= set(near_loops(tokens, rule) if rule.substitutions else exact_loops(tokens, rule))
    return found | set(low_entropy_loops(tokens, rules.low_entropy) if rules.low_entropy else [])
