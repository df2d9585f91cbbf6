"""Runs of tokens with what they were asked for, as scoring takes them."""

from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple

from sampler import finch
from sampler.checks.longform.log.prompts import Names
from sampler.errors import TokensError
from sampler.requests import Request, StopReason
from sampler.results.store.tokens import TokenLine

START: Final = 128
"""Tokens at the beginning of runs that a cell does not score to their end."""


class Spoken(NamedTuple):
    """A run to score. name: for messages. variant: whose rules it follows, or empty."""

    name: str
    request: Request
    tokens: tuple[int, ...]
    stop_reason: StopReason
    variant: str = ""


def spoken(lines: Sequence[TokenLine]) -> list[Spoken]:
    """The runs of a file. Raises TokensError for a run whose text is unknown."""
    return [
        Spoken(f"run {at} ({one.group})", _request(one, at), one.tokens, one.stop_reason, one.variant or "")
        for at, one in enumerate(lines, 1)
    ]


def missing(lines: Sequence[TokenLine]) -> str:
    """A note on runs that the numbers of `request`, or of the seeds of a prompt, say were left out; or empty.

    Seeds that do not count the runs, of which more are missing than are there, say nothing.
    """
    numbers: dict[str, set[int]] = {}
    for line in lines:
        if line.request is not None:
            numbers.setdefault(f"requests of {line.cell}" if line.cell else "requests", {0}).add(line.request)
        elif line.seed is not None:
            numbers.setdefault(f"seeds of prompt {line.group}", set()).add(line.seed)
    for name, known in numbers.items():
        count = max(known) - min(known) + 1 - len(known)
        if 0 < count < len(known):
            first = next(one for one in sorted(known) if one + 1 not in known) + 1
            return f"; note: {count} of the {name} are missing, first {first}; runs chosen by outcome prove nothing"
    return ""


def _request(line: TokenLine, number: int) -> Request:
    config = line.sampling
    if line.text_ids is not None:
        return Request(line.text_ids, config, 0, max(1, len(line.tokens)))
    known = texts().get(str(line.prompt)) or by_text().get(str(line.prompt))
    text = line.text or (known.text if known else None)
    if text is None:
        alike = Names([str(line.prompt)], list(texts())).respelt.values()
        hint = "scoring needs its `text` or `text_ids`, or the id of one of Finch's texts"
        hint = f"--fix names takes it for {next(iter(alike))!r}" if alike else hint
        raise TokensError(f"line {number}: the text of prompt {line.prompt!r} is unknown", hint=hint)
    language = line.language or (known.language if known and line.text is None else "en")
    return Request(text, config, 0, max(1, len(line.tokens)), language=language)


@cache
def texts() -> dict[str, finch.Prompt]:
    """Finch's texts by id."""
    return {prompt.id: prompt for group in ("sentences", "paragraphs", "long") for prompt in finch.prompts(group)}


@cache
def by_text() -> dict[str, finch.Prompt]:
    """The same by what is spoken."""
    return {prompt.text: prompt for prompt in texts().values()}
