"""The hand-written arguments about survivors, a file for each area, beside what a run found."""

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.tools.mutation.session import Result

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
        """The mutations that it is about, as `Mutation.name` has them."""
        return tuple(f"{self.file} {self.function}: {self.was} -> {becomes}" for becomes in self.becomes)


def read_arguments(path: Path) -> list[Argument]:
    """All arguments of a file. Raises ValueError for one that is incomplete."""
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("survivor", [])
    arguments = [Argument(**{**each, "becomes": tuple(each["becomes"])}) for each in entries]
    for each in arguments:
        fits = (
            each.test.startswith("tests/") if isinstance(each.test, str) and each.kind == "outside" else each.test == ""
        )
        if each.kind not in KINDS or not each.because or not fits:
            raise ValueError(
                f"{each.file} {each.function}: {each.was}: expected a kind, a reason, a test file where outside"
            )
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
