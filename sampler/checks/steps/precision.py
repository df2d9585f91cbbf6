"""The precision of recorded logits: what the engine says, or what the values themselves show."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sampler.requests import Generation, Logits

DISTINCT: Final = 32
"""Fewer distinct values may all be round numbers by choice, as in a small table of logits."""


class Precision(NamedTuple):
    """A floating-point format of logits.

    rounding: relative error of a recorded logit. typical, largest: total variation between the distributions of two
    right computations of a row in this format: the median over steps, and any step (docs/decisions.md, "Half
    precision", has the figures they are set from). said: False if the engine's info says float32. instead_of: what
    info says, where that has no tolerance of its own.
    """

    name: str
    rounding: float
    typical: float
    largest: float
    said: bool = True
    instead_of: str = ""

    def covers(self, distances: NDArray[np.float64]) -> bool:
        """Whether total variations of the steps of one computation from another one are within it."""
        return bool(distances.max() <= self.largest and np.median(distances) <= self.typical)

    @property
    def note(self) -> str:
        """What a verdict has to say of it; empty for single precision."""
        if self.name in ("float32", "float64"):
            return ""
        if self.instead_of:
            return f"; {self.instead_of} has no tolerance of its own, judged with that of {self.name}"
        if self.said:
            return f"; judged with the tolerance of {self.name}"
        return f"; the records are {self.name} though info says float32, and are judged with the tolerance of that"


SINGLE: Final = Precision("float32", 0.0, 3e-4, 5e-3)
SAID: Final = {
    "float32": SINGLE,
    "float64": SINGLE._replace(name="float64"),
    "float16": Precision("float16", 2.0**-8, 0.01, 0.1),
    "bfloat16": Precision("bfloat16", 2.0**-6, 0.05, 0.5),
}
"""By dtype of an engine's info. A relative error of eight half units in the last place, as at the other levels."""

WIDEST: Final = SAID["bfloat16"]

HALF: Final = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Half a unit in the last place, relative: the error of logits that were rounded for the record alone."""


def precision_of(dtype: str, generations: Sequence[Generation]) -> Precision:
    """The precision that records are judged in; for a dtype without a known tolerance the widest one."""
    said = SAID.get(dtype, WIDEST._replace(instead_of=dtype))
    if said.rounding:
        return said
    logits = [one.record.logits for one in generations if one.record is not None and one.record.logits is not None]
    # bfloat16 first: of ordinary size its values are values of float16, too.
    for name, fits in (("bfloat16", _fits_bfloat16), ("float16", _fits_float16)):
        if logits and _all_fit(logits, fits):
            return SAID[name]._replace(rounding=HALF[name], said=False)
    return said


def _all_fit(logits: Iterable[Logits], fits: Callable[[Logits], bool]) -> bool:
    distinct: set[float] = set()
    for values in logits:
        for row in values:  # nearly always the first row decides
            finite = row[np.isfinite(row)]
            if not fits(finite):
                return False
            if len(distinct) < DISTINCT:
                distinct.update(finite.tolist())
    return len(distinct) >= DISTINCT


def _fits_float16(values: Logits) -> bool:
    with np.errstate(over="ignore"):
        return bool((values.astype(np.float16) == values).all())


def _fits_bfloat16(values: Logits) -> bool:
    return bool((np.ascontiguousarray(values, dtype=np.float32).view(np.uint32) & 0xFFFF == 0).all())
