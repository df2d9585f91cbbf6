"""Consoles of the commands: text is printed as it is, and what does not show itself is escaped."""

import os
import sys
from typing import Final, TextIO

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.segment import Segment

from sampler.runtime.text import visible

WIDE: Final = 200
"""Columns if the output is no terminal and COLUMNS is not set, so that a log is complete."""


def plain_console(file: TextIO | None = None, width: int | None = None) -> Console:
    """A console on stdout, or on a file."""
    if width is None and not (os.environ.get("COLUMNS") or (sys.stdout is not None and sys.stdout.isatty())):
        width = WIDE
    return _escaping(Console(file=file, width=width, soft_wrap=True, markup=False, emoji=False, highlight=False))


def error_console() -> Console:
    """A console on stderr."""
    return _escaping(Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False))


def _escaping(console: Console) -> Console:
    console.push_render_hook(_Escaping())
    return console


class _Escaping(RenderHook):
    """The net under every print of a console; progress bars, which come later, escape their own text."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Escaped(each) for each in renderables]


class _Escaped:
    def __init__(self, content: RenderableType) -> None:
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from map(_escaped, console.render(self._content, options))


def _escaped(segment: Segment) -> Segment:
    if segment.control:
        return segment
    return Segment("\n".join(map(visible, segment.text.split("\n"))), segment.style)
