"""One row of the duel: how many tokens each rival needs to reject an engine."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.duel import difr, kl, met, questions, scoring
from tests.duel.nulls import Null
from tests.duel.rows import BFLOAT16, Row, right
from tests.duel.tokens import SETS, TOKENS, Spoken, Tokens, judged, tokens_of
from tests.wrong_engines.wrong_generators.table import SENTENCES

NOTHING, SEED, LOGITS, COLD = "tokens", "seed", "logits", "runs at T = 0"


NULL_SETS = 3
"""Sets of the right core's tokens, at least, from which the distribution of margins is known."""


class Column(NamedTuple):
    """A rival. needs: beside the model or runs of it."""

    title: str
    needs: str


COLUMNS = {
    "scoring": Column("scoring", NOTHING),
    "noise": Column("scoring with the noise", SEED),
    "difr_float32": Column("DiFR, float32", SEED),
    "difr_bfloat16": Column("DiFR, bfloat16", SEED),
    "met": Column("MET", NOTHING),
    "kl": Column("KL", LOGITS),
    "greedy": Column("greedy", COLD),
    "runs": Column("whole runs", NOTHING),
}


class Cell(NamedTuple):
    """Tokens to reject, inf if it was not seen. note: shown beside."""

    tokens: float
    note: str = ""

    @classmethod
    def of(cls, tokens: int | None, note: str = "") -> "Cell":
        return cls(math.inf if tokens is None else tokens, note)


class Measured(NamedTuple):
    """A row of the table."""

    name: str
    group: str
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Duel:
    """folder: of tokens that were made. sets, tokens: of each row."""

    folder: Path
    sets: int = SETS
    tokens: int = TOKENS

    def made(self, row: Row) -> Tokens:
        return tokens_of(row, self.folder, self.sets, self.tokens)

    @cached_property
    def margins(self) -> dict[str, Null]:
        """The margins of the right core, by its precision."""
        rows = {"float32": right(SENTENCES), "bfloat16": BFLOAT16}
        found = {}
        for name, row in rows.items():
            made = tokens_of(row, self.folder, max(self.sets, NULL_SETS), self.tokens)
            runs = (one for spoken in made.sets for one in judged(row, spoken))
            found[name] = Null(np.concatenate([difr.margins(one) for one in runs]))
        return found

    @cached_property
    def divergences(self) -> Null:
        return Null(kl.all_divergences(self.made(BFLOAT16).sets[0]))

    def measured(self, row: Row) -> Measured:
        made = self.made(row)
        found: dict[str, list[int | None]] = {}
        for spoken in made.sets:
            for name, tokens in self.of_set(row, spoken).items():
                found.setdefault(name, []).append(tokens)
        cells = {name: Cell(float(np.median([Cell.of(one).tokens for one in each]))) for name, each in found.items()}
        values = kl.all_divergences(made.sets[0])
        cells["kl"] = Cell.of(None if values is None else self.divergences.rejects_after(values))
        reference = self.made(right(row.plan, row.cap, row.config))
        cells["greedy"] = greedy_cell(made.greedy, reference.greedy)
        mine, theirs = ([one.run for spoken in side.sets for one in spoken] for side in (made, reference))
        figure = met.tokens_to_reject(mine, theirs, row.plan.texts)
        cells["met"] = Cell.of(figure.tokens, "~" if figure.extrapolated else "")
        cells["runs"] = Cell.of(questions.tokens_to_reject(mine, theirs, row.plan.texts))
        return Measured(row.title, row.group, {name: cells[name] for name in COLUMNS})

    def of_set(self, row: Row, spoken: Sequence[Spoken]) -> dict[str, int | None]:
        """Of the rivals that judge token by token."""
        runs = list(judged(row, spoken))
        own, proof = scoring.rejects_after(runs), scoring.proof_after(runs)
        return {
            "scoring": own,
            "noise": min((one for one in (own, proof) if one is not None), default=None),
            **{f"difr_{name}": tokens for name, tokens in difr.rejects_after(runs, self.margins).items()},
        }


def greedy_cell(runs: Sequence[tuple[int, ...]], reference: Sequence[tuple[int, ...]]) -> Cell:
    """Tokens until the first difference, text after text, and how many texts are equal."""
    same, before = sum(one == other for one, other in zip(runs, reference, strict=True)), 0
    for one, other in zip(runs, reference, strict=True):
        if one != other:
            pairs = enumerate(zip(one, other, strict=False))
            first = next((step for step, pair in pairs if len(set(pair)) > 1), min(len(one), len(other)))
            return Cell(before + first + 1, f"{same}/{len(runs)}")
        before += len(one)
    return Cell(math.inf, f"{same}/{len(runs)}")
