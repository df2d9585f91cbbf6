"""The table, as text for the terminal and as docs/mutation.md; the same results always give the same file."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from tests.mutation.judge import SECONDS
from tests.mutation.mutations import Mutation
from tests.mutation.session import Result
from tests.mutation.survivors import Argument

REPORT = Path(__file__).parents[2] / "docs" / "mutation.md"
COLUMNS = ("file", "mutations", "killed at process", "killed at draw", "survivors", "equivalent", "outside")

HEADER = """# Mutations of the chain

Made by `tox -e mutation` (`python -m tests.mutation --write`); the same results give the same file.

**{sentence}**

cosmic-ray {version} changes one line of `sampler/chain/` at a time, by all of its operators: every binary,
comparison and unary operator becomes every other one, numbers go up and down by one, conditions are negated, loops have
no rounds, decorators are removed, exceptions exchanged. Left out are mutations that do not compile, those of type
annotations, and those that give the same program as another one. Of the rest, a hash of the names chooses {share:.0%}.

Each mutated copy of the package is judged by the questions of `sampler check core --level process` and, if it
survives, of `--level draw`, seed 0. It is killed by a verdict that failed or errored, by an error on the way, and by
more than {seconds} seconds of processor time. A level that never runs the mutated statement is not asked: the
mutation survives it.

A survivor is **equivalent** where no input tells it from the original by more than rounding, and **outside** where the
two levels do not look, by design: rows with knobs of their own (`process` of the protocol takes one config), refusals
and their messages, recorded measures, which noise it is. Each of these names unit tests, and the run makes sure that
they fail with the mutation. The arguments are written by hand in `tests/mutation/survivors.toml`; a survivor without
one, and one that no longer survives, fail the command.
"""


@dataclass(frozen=True)
class Tally:
    """Counts of one file."""

    file: str
    mutations: int
    process: int
    draw: int
    equivalent: int
    outside: int

    @property
    def survivors(self) -> int:
        """Those that neither level saw."""
        return self.mutations - self.process - self.draw

    def cells(self) -> tuple[str, ...]:
        """As a row of the table."""
        numbers = (self.mutations, self.process, self.draw, self.survivors, self.equivalent, self.outside)
        return (self.file, *(f"{number:,}" for number in numbers))


def tallies(mutations: Sequence[Mutation], results: Sequence[Result], arguments: Sequence[Argument]) -> list[Tally]:
    """A tally for each file in alphabetical order, and one of them all."""
    killed = {each.name: each.killed for each in results}
    kinds = {name: each.kind for each in arguments for name in each.names}
    files = sorted({each.file for each in mutations})
    found = [_tally(file, [each.name for each in mutations if each.file == file], killed, kinds) for file in files]
    return [*found, _tally("all", [each.name for each in mutations], killed, kinds)]


def _tally(file: str, names: Sequence[str], killed: Mapping[str, str | None], kinds: Mapping[str, str]) -> Tally:
    fates = [killed[name] or kinds.get(name, "") for name in names]
    counts = (fates.count(fate) for fate in ("process", "draw", "equivalent", "outside"))
    return Tally(file, len(names), *counts)


def sentence(total: Tally) -> str:
    """The headline figure."""
    killed = total.process + total.draw
    able = total.mutations - total.equivalent
    silent = total.survivors - total.equivalent - total.outside
    argued = f"{silent} of them not argued yet" if silent else "all argued"
    return (
        f"{total.mutations:,} mutations, {killed:,} killed ({100 * killed / total.mutations:.1f} %), {total.survivors} "
        f"survivors, {argued}: {total.equivalent} are equivalent (of the others {100 * killed / able:.1f} % are "
        f"killed), {total.outside} lie outside of what the two levels look at and are seen by unit tests."
    )


def table(found: Sequence[Tally]) -> Table:
    """For the terminal."""
    made = Table(*COLUMNS)
    for each in found:
        made.add_row(*each.cells())
    return made


def markdown(
    mutations: Sequence[Mutation],
    results: Sequence[Result],
    arguments: Sequence[Argument],
    version: str,
    share: float,
) -> str:
    """The whole file."""
    found = tallies(mutations, results, arguments)
    lines = [HEADER.format(sentence=sentence(found[-1]), version=version, share=share, seconds=SECONDS)]
    lines += ["| " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * (len(COLUMNS) - 1)]
    lines += ["| " + " | ".join(each.cells()) + " |" for each in found]
    places = {each.name: each.line for each in mutations}
    for kind, title in (("equivalent", "Equivalent survivors"), ("outside", "Survivors outside of the two levels")):
        lines += ["", f"## {title}", ""]
        chosen = [each for each in arguments if each.kind == kind]
        for each in sorted(chosen, key=lambda each: (each.file, places.get(each.names[0], 0), each.was, each.becomes)):
            lines += _described(each, places.get(each.names[0], 0))
    return "\n".join(lines) + "\n"


def _described(argument: Argument, line: int) -> list[str]:
    seen = f" Seen by `{argument.test}`." if argument.test else ""
    shown = [f"  - {_code(becomes)}" for becomes in sorted(argument.becomes)]
    return [
        f"- `{argument.file}:{line}` {argument.function}: {_code(argument.was)}  ",
        f"  {argument.because}{seen}",
        *shown,
    ]


def _code(text: str) -> str:
    return f"<code>{html.escape(text, quote=False)}</code>" if text else "(removed)"
