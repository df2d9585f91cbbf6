"""The hand-written arguments about survivors, a file for each area, beside what a run and the named unit tests find."""

import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from tests.tools.mutation.judge import answer_of, settled
from tests.tools.mutation.mutations import Mutation
from tests.tools.mutation.session import Copy, Result, on_copies
from tests.tools.mutation.unit_tests import first_failure

Kind = Literal["equivalent", "outside"]
KINDS: tuple[Kind, ...] = ("equivalent", "outside")


@dataclass(frozen=True)
class Argument:
    """Why some mutations of one line survive.

    kind: `equivalent` where no input tells the mutation from the original, `outside` where the area's levels do not
    look, by design. test: for those, the unit test that sees them.
    """

    file: str
    function: str
    was: str
    becomes: tuple[str, ...]
    kind: Kind
    because: str
    test: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{self.file} {self.function}: {self.was} -> {becomes}" for becomes in self.becomes)


def read_arguments(path: Path) -> list[Argument]:
    arguments = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("argument", []):
        survivors = entry.pop("survivors")
        arguments += [Argument(*place.split(), was, tuple(to), **entry) for place, was, *to in survivors]
    for each in arguments:
        where, fits = f"{each.file} {each.function}: {each.was}", each.test == ""
        if each.kind == "outside":
            fits = isinstance(each.test, str) and each.test.startswith("tests/")
        if each.kind not in KINDS or not each.because or not fits:
            raise ValueError(f"{where}: expected a kind, a reason, a test file where outside")
    return arguments


def faults(results: Sequence[Result], arguments: Sequence[Argument], everything: bool = True) -> Iterator[str]:
    """What is wrong with the arguments: survivors without one, and names of what is killed or is no mutation.

    everything: whether the results are those of all files, so that a name without a result is stale.
    """
    fates = {each.name: each.killed for each in results}
    named = [name for each in arguments for name in each.names]
    for name in sorted({name for name in named if named.count(name) > 1}):
        yield f"argued twice: {name}"
    for name, killed in fates.items():
        if killed is None and name not in named:
            yield f"survives without an argument: {name}"
    for name in named:
        if fates.get(name) is not None:
            yield f"argued, but killed at {fates[name]}: {name}"
        elif name not in fates and everything:
            yield f"argued, but there is no such mutation: {name}"


SECONDS = 300.0


def fails(copy: Copy, test: str) -> bool:
    """Run a unit test on a copy as it stands. Raises RuntimeError where pytest can neither pass nor fail it."""
    failed = answer_of(_failure, str(copy.tree), test, seconds=SECONDS, silent="it hangs", dead="its process died")
    if isinstance(failed, RuntimeError):
        raise failed
    return bool(failed)


def _failure(tree: str, test: str, pipe: Connection) -> None:
    with settled(tree):
        try:
            pipe.send(first_failure(tree, [test]))
        except RuntimeError as error:
            pipe.send(error)


def unseen(
    copies: Sequence[Copy], mutations: list[Mutation], arguments: Sequence[Argument], told: Callable[[str], None]
) -> Iterator[str]:
    """Mutations outside of the levels that their unit test does not see, and tests that fail without a mutation."""
    tests = {name: each.test for each in arguments if each.kind == "outside" for name in each.names}
    for test in sorted(set(tests.values())):
        if fails(copies[0], test):
            yield f"fails without any mutation: {test}"

    def is_missed(copy: Copy, mutation: Mutation) -> bool:
        test = tests[mutation.name]
        with copy.mutated(mutation):
            missed = not fails(copy, test)
        told(f"{'NOT SEEN by' if missed else 'seen by'} {test}: {mutation.name}")
        return missed

    outside = [mutation for mutation in mutations if mutation.name in tests]
    for mutation, missed in zip(outside, on_copies(copies, outside, is_missed), strict=True):
        if missed:
            yield f"not seen by {tests[mutation.name]}: {mutation.name}"
