"""The table, as text for the terminal and as docs/evidence/mutation.md; the same results always give the same file."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from tests.tools.mutation.areas import Area
from tests.tools.mutation.judge import SECONDS
from tests.tools.mutation.mutations import Mutation
from tests.tools.mutation.session import Result
from tests.tools.mutation.survivors import Argument

MUTATIONS = """cosmic-ray {version} changes one line of {files} at a time, by all of its operators: every binary,
comparison and unary operator becomes every other one, numbers go up and down by one, conditions are negated, loops have
no rounds, decorators are removed, exceptions exchanged. Left out are mutations that do not compile, those of type
annotations, and those that give the same program as another one. Of the rest, a hash of the names chooses {share:.0%}.
"""

CHAIN_HEADER = (
    """# Mutations of the chain

Made by `tox -e mutation` (`python -m tests.tools.mutation --area chain --write`); the same results give the same
file. Those of the long-form modules: [mutation-longform.md](mutation-longform.md).

**{sentence}**

"""
    + MUTATIONS
    + """
Each mutated copy of the package is judged by the questions of `sampler check core --level process` and, if it
survives, of `--level draw`, seed 0. It is killed by a verdict that failed or errored, by an error on the way, and by
more than {seconds} seconds of processor time. A level that never runs the mutated statement is not asked: the
mutation survives it.

A survivor is **equivalent** where no input tells it from the original by more than rounding, and **outside** where the
two levels do not look, by design: rows with knobs of their own (`process` of the protocol takes one config), refusals
and their messages, recorded measures, which noise it is. Each of these names unit tests, and the run makes sure that
they fail with the mutation. The arguments are written by hand in `tests/tools/mutation/survivors.toml`; a survivor
without one, and one that no longer survives, fail the command.
"""
)

LONGFORM_HEADER = (
    """# Mutations of the long-form modules

Made by `tox -e mutation` (`python -m tests.tools.mutation --area longform --write`); the same results give the same
file. Those of the chain: [mutation.md](mutation.md).

**{sentence}**

"""
    + MUTATIONS
    + """
Each mutated copy of the package runs the cases of `tests/tools/mutation/cases/`, on small networks with random
weights (one with guidance, one with the GPT-2 backbone) and deterministic noise, so that nothing depends on what a
model has learnt:

- whole runs beside upstream's own loop: chatterbox-tts 0.1.2 (with guidance, and without it), 0.1.7 with the analyzer
  and its Turbo. Tokens, ends, flags, errors, logits of both rows, attention over the text, log probability, rank,
  entropy and margin of every step are those that upstream's PyTorch code had, recorded once for each run of the
  mutations (`tests/tools/mutation/oracle.py`);
- replays of made-up attention that upstream's own analyzer objects of 0.1.0 and 0.1.7 judged as well, in several rows
  at once: logits to the bit, flags, position, completion, and where upstream breaks;
- with knobs that look back, every token beside the reference in NumPy float64;
- what `generate` promises by itself: a request alone in its slot gets what it got among others, to the bit; slots by
  queue, progress, seeds, uniforms, caps, what lies beyond them, broken rows, refusals at their very limits;
- the cache beside what was written to it, in two types and across every growth; both caches of a step beside attention
  by its definition in float64; prefixes in parts beside one pass; room, memory and shared rows at their very limits.

A mutation is killed by the first case that raises, by an error on the way, and by more than {seconds} seconds of
processor time. One whose statement no case runs survives without being asked.

A survivor is **equivalent** where no input tells it from the original by more than rounding, and **outside** where the
cases do not look, by design; each of these names unit tests, and the run makes sure that they fail with the mutation.
The arguments are written by hand in `tests/tools/mutation/survivors-longform.toml`; a survivor without one, and one
that no longer survives, fail the command.
"""
)

HEADERS = {"chain": CHAIN_HEADER, "longform": LONGFORM_HEADER}


@dataclass(frozen=True)
class Tally:
    """Counts of one file."""

    file: str
    mutations: int
    killed: tuple[int, ...]
    """By each level of the area."""
    equivalent: int
    outside: int

    @property
    def survivors(self) -> int:
        """Those that no level saw."""
        return self.mutations - sum(self.killed)

    def cells(self) -> tuple[str, ...]:
        """As a row of the table."""
        numbers = (self.mutations, *self.killed, self.survivors, self.equivalent, self.outside)
        return (self.file, *(f"{number:,}" for number in numbers))


def columns(area: Area) -> tuple[str, ...]:
    """Heads of the table."""
    return ("file", "mutations", *(f"killed at {level}" for level in area.levels), "survivors", "equivalent", "outside")


def tallies(
    area: Area, mutations: Sequence[Mutation], results: Sequence[Result], arguments: Sequence[Argument]
) -> list[Tally]:
    """A tally for each file in alphabetical order, and one of them all."""
    killed = {each.name: each.killed for each in results}
    kinds = {name: each.kind for each in arguments for name in each.names}
    found = [_tally(area, file, mutations, killed, kinds) for file in sorted({each.file for each in mutations})]
    return [*found, _tally(area, "all", mutations, killed, kinds)]


def _tally(
    area: Area,
    file: str,
    mutations: Sequence[Mutation],
    killed: Mapping[str, str | None],
    kinds: Mapping[str, str],
) -> Tally:
    names = [each.name for each in mutations if file in (each.file, "all")]
    fates = [killed[name] or kinds.get(name, "") for name in names]
    by_level = tuple(fates.count(level) for level in area.levels)
    return Tally(file, len(names), by_level, fates.count("equivalent"), fates.count("outside"))


def sentence(area: Area, total: Tally) -> str:
    """The headline figure."""
    killed = sum(total.killed)
    able = total.mutations - total.equivalent
    silent = total.survivors - total.equivalent - total.outside
    argued = f"{silent} of them not argued yet" if silent else "all argued"
    return (
        f"{total.mutations:,} mutations, {killed:,} killed ({100 * killed / total.mutations:.1f} %), {total.survivors} "
        f"survivors, {argued}: {total.equivalent} are equivalent (of the others {100 * killed / able:.1f} % are "
        f"killed), {total.outside} lie outside of what {LOOKERS[area.name]} look at and are seen by unit tests."
    )


LOOKERS = {"chain": "the two levels", "longform": "the cases"}
"""Who judges an area, in words."""


def table(area: Area, found: Sequence[Tally]) -> Table:
    """For the terminal."""
    made = Table(*columns(area))
    for each in found:
        made.add_row(*each.cells())
    return made


def markdown(
    area: Area,
    mutations: Sequence[Mutation],
    results: Sequence[Result],
    arguments: Sequence[Argument],
    version: str,
    share: float,
) -> str:
    """The whole file."""
    found, heads = tallies(area, mutations, results, arguments), columns(area)
    limit = max(SECONDS[level] for level in area.levels)
    files = ", ".join(f"`sampler/{pattern.removesuffix('*.py')}`" for pattern in area.patterns)
    known = {"sentence": sentence(area, found[-1]), "version": version, "share": share, "seconds": limit}
    lines = [HEADERS[area.name].format(**known, files=files)]
    lines += ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    lines += ["| " + " | ".join(each.cells()) + " |" for each in found]
    places = {each.name: each.line for each in mutations}
    titles = {"equivalent": "Equivalent survivors", "outside": f"Survivors outside of {LOOKERS[area.name]}"}
    for kind, title in titles.items():
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
