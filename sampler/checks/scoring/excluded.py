"""What tokens exclude, and what they do not: the alternatives whose own draws would have been rejected, in words."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from sampler.checks.scoring.named import EOS, TEMPERATURE, Named

TOLD = 3
"""Alternatives that are not excluded yet and that a message names, those first that take the fewest tokens."""


class Alternative(NamedTuple):
    """One of the alternatives. excluded: its own draws would have been rejected. needed: by how many tokens, or inf."""

    named: Named
    excluded: bool
    needed: float


def in_words(alternatives: Sequence[Alternative], temperature: float) -> str:
    """What is excluded and what is not yet, with the tokens that this takes. temperature: that was asked for."""
    found = list(_excluded(alternatives, temperature))
    text = f"excluded: {', '.join(found)}" if found else "nothing is excluded yet"
    left = sorted((one for one in alternatives if not one.excluded), key=lambda one: one.needed)
    if not left:
        return text
    told = ", ".join(one.named.text + _tokens(one.needed) for one in left[:TOLD])
    more = f" and {len(left) - TOLD} more" if len(left) > TOLD else ""
    return f"{text}; not excluded: {told}{more}"


def sizes_excluded(alternatives: Sequence[Alternative], family: str, *, upwards: bool) -> list[float]:
    """The sizes of a family in one direction, the largest effect first, up to the last that is excluded."""
    neutral = 1.0 if family == TEMPERATURE else 0.0
    own = [one for one in alternatives if one.named.family == family and (one.named.size > neutral) == upwards]
    own.sort(key=lambda one: one.named.size, reverse=upwards)
    first = next((at for at, one in enumerate(own) if not one.excluded), len(own))
    return [one.named.size for one in own[:first]]


def _tokens(needed: float) -> str:
    return f" (takes about {float(f'{needed:.2g}'):,.0f} tokens)" if np.isfinite(needed) else ""


def _excluded(alternatives: Sequence[Alternative], temperature: float) -> Iterator[str]:
    yield from _ranges(alternatives, TEMPERATURE, "a temperature", lambda size: f"{temperature * size:.3g}")
    yield from _ranges(alternatives, EOS, "EOS", lambda size: f"{abs(size):g} nats", ("lowered by", "lifted by"))
    rest = [one for one in alternatives if one.named.family not in (TEMPERATURE, EOS)]
    for family, some in groupby(sorted(rest, key=lambda one: one.named.family), key=lambda one: one.named.family):
        members = list(some)
        if family and all(one.excluded for one in members):
            yield family
        else:
            yield from (one.named.text for one in members if one.excluded)


def _ranges(
    alternatives: Sequence[Alternative],
    family: str,
    what: str,
    shown: Callable[[float], str],
    words: tuple[str, str] = ("below", "above"),
) -> Iterator[str]:
    """The excluded sizes of a family on both sides, in one piece of a sentence."""
    parts = []
    for word, upwards in zip(words, (False, True), strict=True):
        sizes = sizes_excluded(alternatives, family, upwards=upwards)
        if sizes:
            parts.append(f"{word} {shown(sizes[-1])}" + (" or more" if family == EOS else ""))
    if parts:
        yield f"{what} {' or '.join(parts)}"
