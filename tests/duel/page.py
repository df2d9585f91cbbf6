"""docs/evidence/duel.md and its picture."""

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sampler.results.report.figures import picture_file
from tests.duel.measure import COLUMNS, NOTHING, Cell, Duel, Measured
from tests.duel.picture import picture
from tests.duel.rows import RIGHT, ROWS

DOCUMENT = Path(__file__).parents[2] / "docs" / "evidence" / "duel.md"

ABOUT = """
Made by `tox -e duel` with Finch on the MLX core: how many tokens each rival needs to reject an engine at a false-alarm
rate of 1e-6, {sets} of about {tokens:,} tokens a row, the same ones for every rival. `-`: not seen in them. What judges
token by token is the median of the sets; MET and whole runs have all of them, KL the first one. Measured: {rows} of
{all} rows."""

RIVALS = """
**scoring**: `sampler check --against core`, which does not know the noise: the token, bet or end that decides. **With
the noise**: the same, or the check `winners`, here for logits 2e-5 nats off, as far as float32 implementations on this
machine are (2e-3 in the command): a token that cannot win with its noise.
**DiFR**: Token-DiFR (arXiv 2511.20621), the margin from its package `token-difr`, cut at 0.5, its mean beside that of
the right core in float32 or in bfloat16; it knows the seed.
**MET**: model equality testing (arXiv 2410.20247), `mmd_hamming` of its package `model-equality-testing` beside as many
reference runs, its p-value from the Pearson III tail of 500 permutations; `~`: extrapolated from all tokens.
**KL**: the divergence of the engine's logits, as llama-perplexity prints it, beside that of the core in bfloat16.
**greedy**: tokens of other runs, at temperature 0 and at most 60 each, until the first that differs; then how many
texts are equal. It has no error rate: engines that round otherwise differ too.
**whole runs**: the questions of [tokens.md](../tokens.md) about runs beside as many reference runs.
**Favours**: rivals are tried after ever more tokens without paying for it. A mean margin or divergence above all values
of the right core is rejected at once: none of its {null:,} tokens in float32 has a margin above 0, so that for DiFR the
first one decides, although so few tokens say nothing of a rate of 1e-6."""


def best(row: Measured, *names: str) -> float:
    return min(row.cells[name].tokens for name in names)


def goals(rows: Sequence[Measured]) -> Iterator[str]:
    """The goals of the duel, and what was measured."""
    wrong = [row for row in rows if row.group != RIGHT]
    count = len(wrong)
    for names, what in ((("met", "runs"), "MET and whole runs"), (("met", "runs", "greedy"), "these and greedy runs")):
        third = [row for row in wrong if row.cells["scoring"].tokens <= best(row, *names) / 3 < math.inf]
        alone = [row for row in wrong if row.cells["scoring"].tokens < math.inf == best(row, *names)]
        visible = sum(best(row, "scoring", *names) < math.inf for row in wrong)
        kept = len(third) + len(alone)
        yield (
            f"At most a third of the tokens of the best rival without seed and logits, on 80 % of rows ({what}): "
            f"{share(kept, count)}, {len(alone)} of them seen by scoring alone; {kept / max(visible, 1):.0%} of the "
            f"{visible} rows that any of these sees"
        )
    for name in ("difr_float32", "difr_bfloat16"):
        above = [row.name for row in wrong if row.cells["noise"].tokens > row.cells[name].tokens]
        yield f"With the noise not above {COLUMNS[name].title} on any row: above on {len(above)}{names_of(above)}"
    beaten = sum(row.cells["scoring"].tokens < row.cells["difr_bfloat16"].tokens for row in wrong)
    yield f"DiFR's bfloat16 column beaten without the seed on 70 % of rows: {share(beaten, count)}"
    alarms = [f"{name} on {row.name}" for row in rows if row.group == RIGHT for name in seen(row)]
    yield f"Right engines rejected: {len(alarms)}{names_of(alarms)}"


def seen(row: Measured) -> Iterator[str]:
    yield from (COLUMNS[name].title for name, cell in row.cells.items() if cell.tokens < math.inf)


def share(part: int, whole: int) -> str:
    return f"{part} of {whole} rows ({part / max(whole, 1):.0%})"


def names_of(found: Sequence[str]) -> str:
    return f": {', '.join(found)}" if found else ""


def shown(cell: Cell) -> str:
    number = "-" if math.isinf(cell.tokens) else f"{cell.tokens:,.0f}"
    return f"{cell.note}{number}" if cell.note == "~" else f"{number} {cell.note}".rstrip()


def line(row: Measured) -> str:
    return f"| {row.name} | {' | '.join(shown(row.cells[name]) for name in COLUMNS)} |"


def table(rows: Sequence[Measured]) -> Iterator[str]:
    for group in dict.fromkeys(row.group for row in rows):
        titles = [f"{column.title} ({column.needs})" for column in COLUMNS.values()]
        yield from ("", f"## {group[0].upper()}{group[1:]}", "", f"| engine | {' | '.join(titles)} |")
        yield f"|---|{'---:|' * len(titles)}"
        yield from (line(row) for row in rows if row.group == group)


def wrapped(items: Iterable[str]) -> list[str]:
    return [line for item in items for line in textwrap.wrap(f"- {item}", 119, subsequent_indent="  ")]


def document(rows: Sequence[Measured], duel: Duel) -> str:
    sets = f"{duel.sets} sets" if duel.sets > 1 else "one set"
    about = ABOUT.format(sets=sets, tokens=duel.tokens, rows=len(rows), all=len(ROWS)).strip()
    rivals = RIVALS.format(null=len(duel.margins["float32"].values)).strip()
    needs = f"What a rival needs stands behind its name; *{NOTHING}*: nothing but tokens, and the model or its runs."
    lines = ["# The duel: scoring and its rivals on the same tokens", "", *textwrap.wrap(about, 119), ""]
    lines += ["![Tokens to reject](duel.svg)", "", *wrapped(goals(rows)), ""]
    lines += wrapped("**" + part.removeprefix("**").replace("\n", " ") for part in rivals.split("\n**"))
    return "\n".join([*lines, "", needs, *table(rows)]) + "\n"


def write(rows: Sequence[Measured], duel: Duel) -> None:
    DOCUMENT.write_text(document(rows, duel), encoding="utf-8")
    with picture_file(DOCUMENT.with_suffix(".svg")) as save:
        save(picture(rows))
