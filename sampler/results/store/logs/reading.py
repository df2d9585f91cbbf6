"""A log as TOKENS.jsonl: the file is opened, its objects are found, translated, and checked against the schema."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sampler.errors import TokensError
from sampler.results.store.logs.around import Run
from sampler.results.store.logs.opened import STDIN, content_of, text_of
from sampler.results.store.logs.records import records_of
from sampler.results.store.logs.servers import ANSWER, joined, runs_in
from sampler.results.store.logs.translated import translated
from sampler.results.store.logs.values import Notes, Unclear
from sampler.results.store.tokens import HINT, MOST_BYTES, TokenLine, checked_lines
from sampler.runtime.files import write_whole
from sampler.runtime.reading.source import Source, cut

LONGEST_PATH: Final = 60
"""Characters of a path in a message; of a longer one the name of the file."""

LONGEST_NOTE: Final = 300


@dataclass(frozen=True)
class Log:
    """The runs of a log. content: its bytes. notes: what was translated, in one line; empty for a TOKENS.jsonl."""

    lines: list[TokenLine]
    content: bytes
    notes: str = ""


def read_log(name: str, *, gaps: bool = False) -> Log:
    """Read a log. name: its path, or `-` for standard input. gaps: whether tokens may be left out.

    Raises TokensError in one line: what the file is, or which line and key is wrong, and what to do.
    """
    shown = "standard input" if name == STDIN else name if len(name) <= LONGEST_PATH else Path(name).name
    source = Source(Path(shown), TokensError, HINT, MOST_BYTES)
    content = content_of(name, source)
    text, encoding = text_of(source, content)
    source, objects, found = records_of(source, text)
    notes = Notes()
    runs: list[tuple[int, Run]] = []
    parts: dict[str, Run] = {}
    number = 0
    for number, data in objects:
        try:
            runs += [(number, run) for run in _translated(number, data, parts, notes)]
        except Unclear as unclear:
            join = " " if unclear.complaint.startswith(("is ", "has ")) else ": "
            raise source.refuse(unclear.complaint, unclear.hint, number, join) from unclear
    if parts:
        raise source.refuse("is a stream without its end", "was it cut off? leave the part out", number, join=" ")
    if not runs:
        raise source.refuse("has no runs", HINT, join=" ")
    for key in notes.dropped:
        for _, run in runs:
            run.pop(key, None)
    _find_reasons([run for _, run in runs], notes)
    number, lacking = next(((number, run) for number, run in runs if "stop_reason" not in run), (0, {}))
    if lacking and "prompt" in lacking:
        raise source.refuse("key 'stop_reason' is missing", "eos, or length for a run that hit its cap", number)
    said = [*([encoding] if encoding else []), *found, *_said(notes)]
    return Log(checked_lines(source, runs, gaps=gaps), content, cut("; ".join(said), LONGEST_NOTE))


def _translated(number: int, data: Run, parts: dict[str, Run], notes: Notes) -> Iterator[Run]:
    for run in joined(runs_in(data, notes), parts):
        answer = run.pop(ANSWER, None)
        found = translated(run, notes)
        if answer is not None and "prompt" not in found:
            notes.say("each answer as a text of its own, since none names its prompt: add `prompt`")
            found["prompt"] = answer or f"answer {number}"
        yield found


def _find_reasons(runs: list[Run], notes: Notes) -> None:
    """Where no run has a stop reason: `eos` if all end in one token that stands nowhere else."""
    if len(runs) < 2 or any("stop_reason" in run or not isinstance(run.get("tokens"), list) for run in runs):
        return
    ends = {tuple(run["tokens"][-1:]) for run in runs}
    if len(ends) == 1 and all(run["tokens"].count(run["tokens"][-1]) == 1 for run in runs if run["tokens"]):
        (end,) = ends
        for run in runs if end else ():
            run["stop_reason"] = "eos"
        notes.say(f"stop_reason as eos, since all runs end in {end[0] if end else ''}")


def _said(notes: Notes) -> Iterator[str]:
    """What was translated."""
    if notes.read:
        yield "read " + ", ".join(f"`{name}` as {key}" for name, key in notes.read.items())
    if notes.words:
        yield "read " + ", ".join(f"{word!r} as {reason}" for word, reason in notes.words.items())
    if notes.said:
        yield "took " + ", ".join(notes.said)
    for key, why in notes.dropped.items():
        yield f"left out {key}: {why}"
    if notes.left_out:
        yield "left out " + ", ".join(f"`{name}`" for name in notes.left_out)


def write_lines(path: Path, lines: Sequence[TokenLine]) -> None:
    """Write TOKENS.jsonl, whole or not at all. Raises OutputError."""
    write_whole(path, "".join(map(str, lines)))
