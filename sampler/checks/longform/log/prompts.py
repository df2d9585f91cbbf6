"""Names of prompts in a log and in its reference: which both have, and which differ in spelling alone."""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from sampler.checks.verdict import Finding

ENDING: Final = re.compile(r"\.(txt|md|lab|wav|flac|mp3|ogg|json|jsonl|csv|npy|pt)$")
SHOWN: Final = 3
LONGEST: Final = 24
"""Letters of a name in a message."""

COMPARED: Final = 60
"""Names of each side, of which the closest pair is looked for."""


def spelling(name: str) -> str:
    """A name without what is often changed by the way: Unicode's form, case, spaces, folders and file endings."""
    text = unicodedata.normalize("NFKC", name).casefold().replace("\\", "/").rsplit("/", 1)[-1]
    return re.sub(r"[\s_-]+", " ", ENDING.sub("", text.strip())).strip()


@dataclass(frozen=True)
class Names:
    """The names of the prompts of a log and of its reference. whose: the reference, in words."""

    mine: Collection[str]
    theirs: Collection[str]
    whose: str = "the reference"

    @cached_property
    def common(self) -> int:
        return len(set(self.mine) & set(self.theirs))

    @cached_property
    def only(self) -> tuple[list[str], list[str]]:
        """The names that only one side has."""
        return [name for name in self.mine if name not in self.theirs], [
            name for name in self.theirs if name not in self.mine
        ]

    @cached_property
    def respelt(self) -> Mapping[str, str]:
        """The reference's name by the log's, where only the spelling differs, and no two names have one spelling."""
        mine, theirs = self.only
        known = {spelling(name): name for name in theirs}
        often = [Counter(map(spelling, names)) for names in (self.mine, self.theirs)]
        alone = (name for name in mine if all(count[spelling(name)] == 1 for count in often))
        return {name: known[spelling(name)] for name in alone if spelling(name) in known}

    @property
    def enough(self) -> bool:
        """Whether the reference has all prompts of the log, and these are at least half of its own."""
        return not self.only[0] and 2 * self.common >= len(self.theirs)

    def finding(self) -> Finding | None:
        """That the names differ; None if they are enough."""
        if self.enough:
            return None
        mine, theirs = self.only
        parts = [f"{self.common} of {len(self.mine)} prompts have a name that {self.whose} has"]
        parts += [f"only here: {_some(mine)}"] if mine else []
        parts += [f"only there: {_some(theirs)}"] if theirs else []
        if self.respelt:
            pair = next(iter(self.respelt.items()))
            parts.append(f"{len(self.respelt)} differ in spelling alone, as {_pair(*pair)}: --fix names")
        elif (closest := self._closest()) is not None:
            parts.append(f"the closest are {_pair(*closest)}")
        return Finding("generate", "draw", "inconclusive", self.common, "; ".join(parts))

    def _closest(self) -> tuple[str, str] | None:
        mine, theirs = (names[:COMPARED] for names in self.only)
        pairs = ((one, other) for one in mine for other in theirs)
        return max(pairs, key=lambda pair: difflib.SequenceMatcher(None, *pair).ratio(), default=None)


def _some(names: Collection[str]) -> str:
    shown = ", ".join(_short(name) for name in list(names)[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown


def _pair(one: str, other: str) -> str:
    """Two names; where they look alike, with escapes for what is not ASCII."""
    same = unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
    return f"{one[:LONGEST]!a} and {other[:LONGEST]!a}" if same else f"{_short(one)} and {_short(other)}"


def _short(name: str) -> str:
    return repr(name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}...")
