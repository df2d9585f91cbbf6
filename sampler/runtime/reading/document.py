"""A text that was read strictly, and its schema: what does not fit is refused at its line and key."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, TypeVar

from pydantic import TypeAdapter, ValidationError

from sampler.errors import SamplerError
from sampler.runtime.reading.source import Source, short

T = TypeVar("T")
Place = tuple[str | int, ...]
"""Keys and indices that lead to a value."""

DEEPEST = 64
"""Lists and objects in each other: no file of any reader has more than six."""


class Problem(NamedTuple):
    """What no reader may take. line: from 1, None if it is not known."""

    complaint: str
    hint: str
    line: int | None = None


TOO_LARGE = "expected a number of at most 64 bits"
NOT_FINITE = "expected a finite number"
ONCE = "leave one of them out"
FLATTER = f"expected at most {DEEPEST} lists and objects in each other"


def named(place: Sequence[str | int]) -> str:
    """A place as a message shows it: `known[0].share`; keys that are long are cut."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{short(part)[1:-1]}" for part in place]
    return "".join(parts).removeprefix(".")


UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
"""What pydantic calls a key that a schema does not have."""


class Fault(NamedTuple):
    """The first error that a schema found. kind: pydantic's name of it; says: its message."""

    place: Place
    kind: str
    says: str
    value: Any

    @classmethod
    def of(cls, error: ValidationError) -> "Fault":
        errors = error.errors(include_url=False, include_context=False)
        unknown = (each for each in errors if each["type"] in UNKNOWN and each["loc"][:-1] == errors[0]["loc"][:-1])
        first = next(unknown, errors[0]) if errors[0]["type"] == "missing" else errors[0]  # a key that is misspelt
        return cls(tuple(first["loc"]), first["type"], first["msg"], first["input"])

    @property
    def key(self) -> str:
        return named(self.place)


Explain = Callable[[Fault], tuple[str, str] | None]
"""A complaint and a hint about a fault in a reader's own words, None for the usual ones."""


@dataclass(frozen=True)
class Document:
    """Data with the text that it stands in. find: the line of a place in the text, None if it is not known."""

    source: Source
    text: str
    data: Any
    find: Callable[[str, Place], int | None]

    def refuse(self, complaint: str, hint: str = "", at: Place = ()) -> SamplerError:
        """The error about a place."""
        return self.source.refuse(complaint, hint, self.find(self.text, at) if at else None)

    def check(self, adapter: TypeAdapter[T], explain: Explain | None = None, **options: Any) -> T:
        """The data as its schema has it. explain: a complaint and a hint of the reader's own. options: of pydantic."""
        try:
            return self._parsed(adapter, options)
        except ValidationError as error:
            self.fail(Fault.of(error), explain)

    def _parsed(self, adapter: TypeAdapter[T], options: dict[str, Any]) -> T:
        return adapter.validate_python(self.data, **options)

    def fail(self, fault: Fault, explain: Explain | None = None) -> NoReturn:
        """Raise the error about a fault."""
        own = explain(fault) if explain else None
        if own is None and fault.kind == "missing":
            own = f"key {fault.key!r} is missing", ""
        if own is None and fault.kind in UNKNOWN:
            own = f"unknown key {fault.key!r}", ""
        complaint, hint = own or (f"{fault.key or 'content'} = {short(fault.value)}", fault.says)
        raise self.refuse(complaint, hint, fault.place)
