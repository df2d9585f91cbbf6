"""Reading a page as a browser would: well-formed, complete in itself; and run folders made by hand to render."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sampler.checks.scoring.summary import Answer, Bet, Estimate, Pit, Removed, ScoreSummary, Wealth
from sampler.checks.verdict import Outcome, Verdict, exit_code, overall
from sampler.results.store.attachments import TOKENS, AttentionRun, TokenWriter, write_attention
from sampler.results.store.run_file import RunWriter
from sampler.results.store.scoring import write_scoring
from sampler.results.store.tokens import TokenLine
from sampler.runtime.files import whole_file

VOID = {"meta", "link", "br", "hr", "img", "input", "wbr"}
HEADER = {
    "sampler": "0.1.0",
    "matrix": {"name": "made", "sha256": "5d2b", "cells": 1},
    "why": "Made by hand.",
    "checks": {"allowed": "Is every token allowed?", "stops": "Does every run end?"},
    "seed": 3,
    "engine": {"name": "core:finch", "version": "0.1.0", "device": "cpu", "dtype": "float32"},
    "blas": "OpenBLAS",
    "platform": "Linux",
}


class Page(HTMLParser):
    """The elements and the text of a page. Raises AssertionError where an element is closed that is not open."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._pieces: dict[str, list[list[str]]] = {}
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        if tag not in VOID:
            self._open.append(tag)
            self._pieces.setdefault(tag, []).append([])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.texts.append(data)
        for tag in set(self._open):
            self._pieces[tag][-1].append(data)

    @cached_property
    def inside(self) -> dict[str, list[str]]:
        """By name of an element, the letters inside each."""
        return {tag: ["".join(pieces) for pieces in found] for tag, found in self._pieces.items()}

    @cached_property
    def text(self) -> str:
        """All letters that a reader sees, with single spaces."""
        return " ".join(" ".join(self.texts).split())

    def attributes(self, *names: str) -> list[str]:
        return [value or "" for _, found in self.elements for name, value in found.items() if name in names]

    def tags(self) -> Counter[str]:
        return Counter(tag for tag, _ in self.elements)


class Found(NamedTuple):
    """A loop, as whoever looks for them gives it."""

    onset: int
    period: int | None
    extent: int


def verdict(cell: str, outcome: Outcome = "passed", check: str = "allowed", **changes: object) -> Verdict:
    reproduce = f"sampler replay made/{cell}/{check} --seed 3" if outcome in ("failed", "errored") else ""
    known = {"stage": "top_p", "n": 155, "statistic": 3, "bound": 0, "message": f"{outcome} {cell}"}
    fields = known | {"reproduce": reproduce} | changes
    return Verdict(f"made/{cell}/{check}", "draw", check, outcome=outcome, **fields)


def cells(**axes: Sequence[object]) -> Iterator[str]:
    for values in itertools.product(*axes.values()):
        yield "+".join(f"{axis}:{value}" for axis, value in zip(axes, values, strict=True))


def write_made(folder: Path, verdicts: Sequence[Verdict], runs=(), attention=(), scored=None, **header: object) -> Path:
    folder.mkdir(exist_ok=True)
    with whole_file(folder / TOKENS) as write:
        writer = TokenWriter(write)
        for run in runs:
            writer.write(run)
    files = {TOKENS: writer.checksum(), **write_attention(folder, attention), **write_scoring(folder, scored or {})}
    with whole_file(folder / "run.jsonl") as write:
        lines = RunWriter(write)
        lines.header(HEADER | header)
        for each in verdicts:
            lines.verdict(each)
        counts = dict(Counter(each.outcome for each in verdicts))
        footer = {"verdicts": counts, "tokens": 1300, "seconds": 7.5, "finished": "2026-01-02T03:04:05+00:00"}
        lines.write("footer", footer | {"files": files, "exit_code": exit_code(overall(verdicts))})
    return folder


def token_run(cell: str, request: int = 0, count: int = 40, stop_reason: str = "eos") -> TokenLine:
    tokens = np.random.default_rng(request).integers(0, 2_050, count).tolist()
    prompt = f"en-sentence-{request:03}"
    return TokenLine(cell=f"made/{cell}", request=request, prompt=prompt, tokens=tokens, stop_reason=stop_reason)


def attention_run(cell: str, request: int = 0, steps: int = 40, pieces: Sequence[str] = "abc") -> AttentionRun:
    rows = np.random.default_rng(request).dirichlet(np.ones(len(pieces)), steps)
    return AttentionRun(f"made/{cell}", request, rows, tuple(pieces))


def scored(impossible: int = 0) -> ScoreSummary:
    """Eight tokens of a run under a model, the first ones of which it cannot draw."""
    text = "other odds of the tokens that came too often or too rarely before"
    bets = tuple(Bet(f"{text} {number}", (0.1, -0.2 * number, 20.0 * impossible)) for number in range(5))
    return ScoreSummary(
        tokens=8,
        runs=1,
        bets=6,
        wealth=Wealth((2, 4, 6), (0.0, -0.5, 18.0 * impossible), bets, 13.8, 6 if impossible else None),
        calibration=tuple(Pit(order, (1.5, 1.0, 0.5), (0.4, 0.3, 0.6)) for order in ("rank", "id")),
        estimates=(
            Estimate("CFG weight", 0.5, 0.52, 0.4, 0.6),
            Estimate("penalty", 1.2, 1.0, 0.98, 1.02),
            Estimate("temperature", 0.8, 0.81, 0.0, 1.1),
            Estimate("edge of the support", None, 4.5, 4.2, None),
        ),
        fitted=8,
        alternatives=(
            Answer("a temperature of 0.9", "temperature", excluded=False, needed=2000),
            Answer("full emotion", "position", excluded=True, needed=5),
            Answer("the noise of the steps before", "draw", excluded=False, needed=None),
        ),
        impossible=tuple(Removed(0, step, f"token 7 at step {step} of run 0") for step in range(impossible)),
        count=impossible,
    )
