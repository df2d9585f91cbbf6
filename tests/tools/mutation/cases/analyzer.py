"""The analyzer by itself: replays that upstream's object judged, rules that are off, inputs, constants out of range."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np

from sampler.alignment import LARGE, AlignmentStreamAnalyzer, AnalyzerConfig, Decisions
from sampler.variants import analyzer
from tests.tools.mutation.cases.bench import Bench, needs, refuses, same
from tests.tools.mutation.questions import Played, Replays

STAGGER = 3  # steps after which the next row begins


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
    if step == 0:
        types = {each.name: np.bool_ for each in fields(Decisions)} | {"position": np.int64, "eos_id": int}
        needs(all(np.asarray(getattr(decisions, name)).dtype == kind for name, kind in types.items()), "types")
    if said is None:
        return
    same(scores, said.scores, "scores")
    names = set(decisions.flags(index).split("+")) - {""}
    needs(names - {"suppressed"} == said.forcing, "forcing flags")
    held = bool(scores[asked.eos_id] == -LARGE)
    needs(bool(decisions.suppressed[index]) == held or decisions.forced[index], "suppressed")
    needs(bool(decisions.forced[index]) == bool(scores[asked.eos_id] == LARGE), "forced")
    needs((decisions.position[index], decisions.complete[index]) == (said.position, said.complete), "position")
    if step % 5 == 0:
        same(np.array(own.apply(mx.array(asked.logits[None])))[0], scores, "scores of one row")


OFF = {
    "long_tail": {"tail_threshold": 0},
    "alignment_repetition": {"repetition_threshold": 0},
    "token_repetition": {"equal_tokens": 0},
    "suppressed": {"suppress": False},
}
"""What switches a rule off, by its flag."""


def switched_off(bench: Bench) -> None:
    """A rule that is off never acts, and the others act as before."""
    asked = bench.questions.replays[0]
    some = [*asked.played[::6], *_repeating(asked.played)[::3]]

    def rows_with(**changes: Any) -> list[list[Row]]:
        return list(_played(replace(analyzer("upstream"), **changes), asked, some))

    def flags_with(**changes: Any) -> list[set[str]]:
        return [flags for rows in rows_with(**changes) for flags in _flags(rows)]

    on = flags_with()
    needs({flag for flags in on for flag in flags} == set(OFF), "every rule acts")
    for flag, change in OFF.items():
        needs(flags_with(**change) == [flags - {flag} for flags in on], f"without {flag}")
    for change in ({"short_texts": "guard"}, {"repetition_threshold": 0}):
        needs(not any(row[2].crashed.any() for rows in rows_with(**change) for row in rows), f"no break: {change}")
    both = [row[2] for rows in rows_with(force_wins=False) for row in rows]
    needs(not any((each.forced & each.suppressed).any() for each in both), "suppression wins")


def _repeating(played: Sequence[Played]) -> list[Played]:
    said = ((each, step) for each in played for step in each.decided if step is not None)
    return list({id(each): each for each, step in said if "alignment_repetition" in step.forcing}.values())


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
    rows = np.round(rng.random((3, 3, 9)) * 64).astype(np.float32) / 64
    config = AnalyzerConfig(monotonic=False, jump_back=99, jump_ahead=99)
    expected = int(rows[:, -1].mean(axis=0).argmax())
    kinds = (mx.float32, mx.bfloat16, mx.float16)
    of_mlx = [[mx.array(each).astype(kind) for each in rows] for kind in kinds]
    for given in (rows, rows[:, -1], rows.astype(np.float64), [mx.array(each[-1]) for each in rows], *of_mlx):
        judge = AlignmentStreamAnalyzer(config, 1, 1)
        judge.start(0, 9)
        needs(judge.step([0], [given], [5]).position.tolist() == [expected], "position")
    judge = AlignmentStreamAnalyzer(config, 2, 1)
    judge.start(1, 9)
    for length in (8, 10):
        refuses(partial(judge.step, [1], [[np.zeros(length)]], [5]), "row 1", f"{length} text ids", "with 9")
    judge.start(0, 9)
    refuses(partial(judge.step, [0, 1], [[np.zeros(9)]], [5, 5]), kind=ValueError)  # a row without attention
    for length in (0, -1):
        refuses(partial(judge.start, 0, length), f"a text of {length} ids")
    judge.start(0, 1)


def thresholds(_: Bench) -> None:
    """Sums and counts from their definitions, where upstream breaks or has one value of a constant alone."""
    for length in (1, 2, 3, 4, 8):
        for column in range(length):
            watched = column >= length - 3
            for threshold in (0.5, 5.0):
                config = AnalyzerConfig(tail_threshold=threshold, repetition_threshold=threshold, equal_tokens=0)
                flags = _looking_at(config, length, column, steps=16)
                counted = np.arange(16)  # the first row completes the text, and is in no sum
                needs(flags["long_tail"] == [watched and count >= threshold for count in counted], "long tail")
                left_out = column >= length - 5 or length <= 5
                repeats = [not left_out and count > threshold for count in counted]
                needs(flags["alignment_repetition"] == repeats, "alignment repetition")
    for count in (2, 3, 8):
        judge = AlignmentStreamAnalyzer(AnalyzerConfig(equal_tokens=count, tracked_tokens=0), 1, 1)
        judge.start(0, 9)
        found = [bool(judge.step([0], [[np.zeros(9)]], [token]).token_repetition[0]) for token in [7] * 9 + [3, 7, 7]]
        runs = [*range(1, 10), 1, 1, 2]
        needs(found == [run >= count for run in runs], f"{count} equal tokens")


def _looking_at(config: AnalyzerConfig, length: int, column: int, steps: int) -> dict[str, list[bool]]:
    """Flags of a run that reads its text to the end at its first step, then looks at one column."""
    config = replace(config, monotonic=False, jump_back=99, jump_ahead=99)
    judge = AlignmentStreamAnalyzer(config, 1, 1)
    judge.start(0, length)
    found: dict[str, list[bool]] = {"long_tail": [], "alignment_repetition": []}
    for step in range(steps):
        row = np.zeros(length, dtype=np.float32)
        row[column if step else length - 1] = 1
        decisions = judge.step([0], [[row]], [step])
        for name, flags in found.items():
            flags.append(bool(getattr(decisions, name)[0]))
    return found


def every_pair_of_flags(_: Bench) -> None:
    for up in range(8):
        long_tail, repeats, equal = bool(up & 1), bool(up & 2), bool(up & 4)
        thresholds = {"tail_threshold": 0.5 if long_tail else 99.0, "repetition_threshold": 0.5 if repeats else 99.0}
        config = AnalyzerConfig(**thresholds, monotonic=False, jump_ahead=99, tracked_tokens=0)
        judge = AlignmentStreamAnalyzer(replace(config, equal_tokens=2 if equal else 0), 1, 1)
        judge.start(0, 9)
        row = np.zeros(9, dtype=np.float32)
        row[0], row[8] = 0.9, 1.0
        decisions = [judge.step([0], [[row]], [7]) for _ in range(3)][-1]
        names = {"long_tail": long_tail, "alignment_repetition": repeats, "token_repetition": equal}
        needs(decisions.flags(0) == "+".join(name for name, is_up in names.items() if is_up), "flags")
        needs(bool(decisions.forced[0]) == (up > 0), "forced")
        scores = np.array(decisions.apply(mx.zeros((1, 4))))[0].tolist()
        needs(scores == ([-LARGE, LARGE, -LARGE, -LARGE] if up else [0.0] * 4), "scores")


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
    needs(set(RANGES) == {each.name for each in fields(AnalyzerConfig)}, "every constant")
    for name, (good, bad) in RANGES.items():
        for value in good:
            needs(getattr(AnalyzerConfig(**{name: value}), name) == value, f"{name} = {value}")
        for value in bad:
            refuses(partial(AnalyzerConfig, **{name: value}), f"{name} = {value!r} is out of range", "expected")
    for name, words in (("jump_back", ">= 1"), ("end_columns", ">= 0"), ("equal_tokens", "2 or more")):
        refuses(partial(AnalyzerConfig, **{name: -5}), words)
