"""The table, as text for the terminal and as docs/evidence/mutation.md; the same results always give the same file."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from tests.tools.mutation.areas import JUDGES, ROOT, Area
from tests.tools.mutation.judge import SECONDS
from tests.tools.mutation.mutations import Mutation
from tests.tools.mutation.session import Result
from tests.tools.mutation.survivors import Argument

HEADER = """# Mutations of {title}

Made by `tox -e mutation` (`python -m tests.tools.mutation --area {area} --write`); the same results give the same
file. The others: [{other}]({other}).

**{sentence}**

cosmic-ray {version} changes one line of {files} at a time, by all of its operators: every binary,
comparison and unary operator becomes every other one, numbers go up and down by one, conditions are negated, loops have
no rounds, decorators are removed, exceptions exchanged. Left out are mutations that do not compile, those of type
annotations, of the words of errors and of `strict` of `zip`, and those that give the same program as another one. Of
the rest, a hash of the names chooses {share:.0%}.

{levels}
A mutation is killed by the first verdict or case that fails, by an error on the way, and by more than {seconds} seconds
of processor time. A level or case that never runs the mutated statement is not tried: the mutation survives it.

A survivor is **equivalent** where no input tells it from the original by more than rounding, and **outside** where the
level does not look, by design{outside}. Each of these names unit tests, and the run makes sure that they fail with the
mutation. The arguments are written by hand in `{arguments}`; a survivor without one, and one that no longer survives,
fail the command.
"""

CHAIN_LEVELS = """Each mutated copy of the package is judged by the cases of `sampler check core --level process` and,
if it survives, of `--level draw`, seed 0.
"""

LONGFORM_LEVELS = """Each mutated copy of the package runs the cases of `tests/tools/mutation/cases/`, on small networks
with random weights (one with guidance, one with the GPT-2 backbone) and deterministic noise, so that nothing depends on
what a model has learnt. Whole runs and replays of made-up attention are compared with what upstream's own code said to
them (chatterbox-tts 0.1.0, 0.1.2 and 0.1.7, recorded once for each run of the mutations by
`tests/tools/mutation/oracle.py`), parameters that look back with the reference in NumPy float64, both caches of a step
with attention by its definition; slots, seeds, caps, refusals, room and memory are tested at their very limits.
"""

JUDGES_LEVELS = """Each mutated copy of the package runs the unit tests that run the mutated statement, as
found by tracing every one of {tests}.
Powers and false alarms are compared there with oracles of their own: whole numbers, enumeration, the definition.
"""

WORDS = {
    "chain": {
        "title": "the chain",
        "other": "mutation-longform.md",
        "levels": CHAIN_LEVELS,
        "outside": ": rows with parameters of their own (`process` of the protocol takes one config), refusals, "
        "recorded measures, which noise it is",
    },
    "longform": {"title": "the long-form modules", "other": "mutation.md", "levels": LONGFORM_LEVELS, "outside": ""},
    "judges": {
        "title": "statistics and verdicts",
        "other": "mutation.md",
        "levels": JUDGES_LEVELS.format(tests=", ".join(f"`{test}`" for test in JUDGES.tests)),
        "outside": "",
    },
}


@dataclass(frozen=True)
class Tally:
    """Counts of one file."""

    file: str
    mutations: int
    killed: tuple[int, ...]  # by each level of the area
    equivalent: int
    outside: int

    @property
    def survivors(self) -> int:
        return self.mutations - sum(self.killed)

    def cells(self) -> tuple[str, ...]:
        numbers = (self.mutations, *self.killed, self.survivors, self.equivalent, self.outside)
        return (self.file, *(f"{number:,}" for number in numbers))


def tallies(
    area: Area, mutations: Sequence[Mutation], results: Sequence[Result], arguments: Sequence[Argument]
) -> list[Tally]:
    killed = {each.name: each.killed for each in results}
    kinds = {name: each.kind for each in arguments for name in each.names}
    found = []
    for file in [*sorted({each.file for each in mutations}), "all"]:
        names = [each.name for each in mutations if file in (each.file, "all")]
        fates = [killed[name] or kinds.get(name, "") for name in names]
        by_level = tuple(fates.count(level) for level in area.levels)
        found.append(Tally(file, len(names), by_level, fates.count("equivalent"), fates.count("outside")))
    return found


def sentence(area: Area, total: Tally) -> str:
    killed = sum(total.killed)
    able = total.mutations - total.equivalent
    silent = total.survivors - total.equivalent - total.outside
    argued = f"{silent} of them not argued yet" if silent else "all argued"
    return (
        f"{total.mutations:,} mutations, {killed:,} killed ({100 * killed / total.mutations:.1f} %), {total.survivors} "
        f"survivors, {argued}: {total.equivalent} are equivalent (of the others {100 * killed / able:.1f} % are "
        f"killed), {total.outside} lie outside of what {LOOKERS[area.name]} look at and are seen by unit tests."
    )


LOOKERS = {"chain": "the two levels", "longform": "the cases", "judges": "these tests"}  # who judges an area, in words


def table(area: Area, found: Sequence[Tally]) -> str:
    killed = [f"killed at {level}" for level in area.levels]
    heads = ("file", "mutations", *killed, "survivors", "equivalent", "outside")
    rows = [heads, ("---", *["---:"] * (len(heads) - 1)), *(each.cells() for each in found)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def markdown(
    area: Area, mutations: list[Mutation], results: list[Result], arguments: list[Argument], version: str, share: float
) -> str:
    found = tallies(area, mutations, results, arguments)
    limit = max(SECONDS[level] for level in area.levels)
    files = ", ".join(f"`sampler/{pattern.removesuffix('*.py')}`" for pattern in area.patterns)
    known = {"sentence": sentence(area, found[-1]), "version": version, "share": share, "seconds": limit}
    known |= {"area": area.name, "arguments": area.arguments.relative_to(ROOT), "files": files, **WORDS[area.name]}
    lines = [HEADER.format(**known), table(area, found)]
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
    where = f"- `{argument.file}:{line}` {argument.function}: {_code(argument.was)}  "
    return [where, f"  {argument.because}{seen}", *shown]


def _code(text: str) -> str:
    return f"<code>{html.escape(text, quote=False)}</code>" if text else "(removed)"
