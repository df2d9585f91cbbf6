"""Pictures of runs: the attention of one over its text, and the tokens of several as a raster."""

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sampler.loops import Loop
from sampler.results.report.figures import ACCENT, INK, colours_of, figure_of, own_style, place, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDS: Final = {"eos": "EOS", "forced_eos": "forced EOS", "length": "cap", "error": "error"}
"""Stop reasons as pictures name them; `length`: the run hit its cap."""

LINE: Final = 0.12
"""Inches that a label of the text takes."""

TOKEN: Final = 0.09
"""Inches that a token id takes, written upwards."""

STRIP: Final = 0.18
"""Inches of a row of flags or tokens."""

MOST_COLUMNS: Final = 1_200
"""A map of more steps is shown by the largest attention of neighbouring ones."""


class RasterRow(NamedTuple):
    """One run of a raster. impossible: steps at which the engine's model cannot draw the token."""

    label: str
    tokens: Sequence[int]
    stop_reason: str
    loops: Sequence[Loop] = ()
    impossible: Sequence[int] = ()


def attention_map(
    attention: NDArray[np.floating],
    tokens: Sequence[int],
    stop_reason: str,
    pieces: Sequence[str] = (),
    flags: Sequence[str] = (),
    size: tuple[float, float] | None = None,
) -> "Figure":
    """The map of one run: text downwards, steps to the right, a line along the most attended pieces, flags and tokens.

    attention: (T, S), row t drew tokens[t]. pieces: the S pieces of the text, or nothing for their numbers. flags: of
    the analyzer, one entry a step, several in an entry joined by `+`. size: inches of the map
    at most; by default it is as wide as the token ids need (6 to 40), and up to 8 high. Raises ValueError where the
    lengths do not fit together.
    """
    steps, places = attention.shape
    if len(tokens) != steps or (pieces and len(pieces) != places) or (flags and len(flags) != steps):
        lengths = f"{len(tokens)} tokens, {len(pieces)} pieces, {len(flags)} flags"
        raise ValueError(f"attention of {steps} steps over {places} places does not fit {lengths}")
    width, highest = size or (min(max(TOKEN * steps, 6.0), 40.0), 8.0)
    height = min(max(LINE * places, 1.5), highest)
    rows = _flag_rows(flags)
    with own_style():
        labels = _labels(pieces, int(height / LINE))
        left = 0.55 + 0.065 * max([5, *(len(name) for name in [*rows, *(label for _, label in labels)])])
        strip = STRIP * (len(rows) + 1)
        figure = figure_of(left + width + 0.9, 0.55 + height + strip + 0.65)
        axes = place(figure, left, 0.5, width, height)
        _draw_map(axes, attention, labels)
        _mark_end(axes, steps, stop_reason)
        _draw_scale(place(figure, left + width + 0.12, 0.65, 0.1, min(height - 0.4, 1.5)), axes)
        below = place(figure, left, 0.56 + height, width, strip)
        _draw_strip(below, tokens, rows, int(width / TOKEN))
    return figure


def _draw_map(axes: "Axes", attention: NDArray[np.floating], labels: Sequence[tuple[float, str]]) -> None:
    from matplotlib.colors import ListedColormap, PowerNorm

    steps, places = attention.shape
    block = math.ceil(steps / MOST_COLUMNS)
    padded = np.pad(attention, ((0, -steps % block), (0, 0)))
    pooled = padded.reshape(-1, block, places).max(axis=1)
    ramp = np.tile(np.array([0.20, 0.49, 0.90, 0.0]), (256, 1))  # one blue, from nothing to full, on any background
    ramp[:, 3] = np.linspace(0, 1, 256)
    axes.imshow(
        pooled.T,
        cmap=ListedColormap(ramp),
        norm=PowerNorm(0.5, 0, 1),
        extent=(-0.5, len(padded) - 0.5, places - 0.5, -0.5),
        aspect="auto",
        interpolation="none",
    )
    axes.plot(attention.argmax(axis=1), color=ACCENT, linewidth=0.8)
    axes.set_xlim(-0.5, steps - 0.5)
    axes.set_xlabel("step")
    axes.xaxis.set_label_position("top")
    axes.xaxis.tick_top()
    axes.tick_params(length=2)
    axes.set_ylabel("text")
    if labels:
        axes.set_yticks([at for at, _ in labels], [label for _, label in labels])


def _mark_end(axes: "Axes", steps: int, stop_reason: str) -> None:
    axes.axvline(steps - 1, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
    end = ENDS.get(stop_reason, stop_reason)
    axes.annotate(end, (1, 0), (4, 2), xycoords="axes fraction", textcoords="offset points", fontsize=7)


def _draw_scale(axes: "Axes", described: "Axes") -> None:
    bar = axes.figure.colorbar(described.images[0], cax=axes, ticks=[0, 0.1, 0.5, 1])
    bar.ax.tick_params(length=2)
    bar.ax.set_title("attention", fontsize=7, loc="left", pad=6)


def _draw_strip(axes: "Axes", tokens: Sequence[int], rows: dict[str, list[int]], most: int) -> None:
    """Under the map: flags by step, a coloured square for each token, and as many token ids as there is room for."""
    every = math.ceil(len(tokens) / most)
    axes.imshow(
        colours_of(tokens)[None],
        extent=(-0.5, len(tokens) - 0.5, len(rows) + 1, len(rows)),
        aspect="auto",
        interpolation="none",
    )
    for row, steps in enumerate(rows.values()):
        axes.plot(steps, [row + 0.5] * len(steps), "|", color=ACCENT, markersize=7, markeredgewidth=1.2)
    axes.set_ylim(len(rows) + 1, 0)
    axes.set_yticks([row + 0.5 for row in range(len(rows) + 1)], [*rows, "token"])
    axes.tick_params(axis="both", length=0)
    axes.set_xticks(range(0, len(tokens), every), [str(token) for token in tokens[::every]], rotation=90, fontsize=6)
    axes.set_xlabel("token id")


def _flag_rows(flags: Sequence[str]) -> dict[str, list[int]]:
    """The steps at which each flag was up, in the order in which they first came."""
    rows: dict[str, list[int]] = {}
    for step, entry in enumerate(flags):
        for flag in filter(None, re.split(r"[\s,;+]+", entry)):
            rows.setdefault(flag, []).append(step)
    return rows


def _labels(pieces: Sequence[str], most: int) -> list[tuple[float, str]]:
    """Places and labels for the text: every piece where `most` labels are enough, else words as far as they fit."""
    letters = [(float(at), printable(piece.replace("[SPACE]", "␣"))) for at, piece in enumerate(pieces)]
    if len(letters) <= most:
        return letters
    spread: list[tuple[float, str]] = []
    for at, word in _words(letters):
        if not spread or at - spread[-1][0] >= len(pieces) / most * 0.9:
            spread.append((at, word))
    return spread


def _words(letters: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Words, and marks such as `[START]`, with the place of their middle."""
    words: list[list[tuple[float, str]]] = [[]]
    for at, letter in letters:
        alone = letter == "␣" or (letter.startswith("[") and letter.endswith("]"))
        words += [[], []] if alone else []
        words[-2 if alone else -1].append((at, letter))
    named = [(float(np.mean([at for at, _ in word])), "".join(letter for _, letter in word)) for word in words if word]
    return [(at, word[:20]) for at, word in named if word != "␣"]


def token_raster(rows: Sequence[RasterRow], width: float = 8.0) -> "Figure":
    """One row a run, one column a step, equal colours for equal tokens; loops underlined, the end named.

    Impossible tokens have a triangle above them.

    width: inches of the raster without its labels.
    """
    longest = max((len(row.tokens) for row in rows), default=0) or 1
    height = 0.42 * len(rows)
    with own_style():
        left = 0.25 + 0.065 * max((len(row.label) for row in rows), default=0)
        figure = figure_of(left + width + 1.0, height + 0.55)
        axes = place(figure, left, 0.05, width, height)
        for index, row in enumerate(rows):
            _draw_run(axes, index, row, longest)
        axes.set_xlim(-0.5, longest - 0.5)
        axes.set_ylim((len(rows) or 1) + 0.1, 0)
        axes.set_yticks([index + 0.3 for index in range(len(rows))], [printable(row.label) for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("step")
        axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def _draw_run(axes: "Axes", index: int, row: RasterRow, longest: int) -> None:
    count = len(row.tokens)
    if count:
        axes.imshow(
            colours_of(row.tokens)[None],
            extent=(-0.5, count - 0.5, index + 0.55, index + 0.05),
            aspect="auto",
            interpolation="none",
        )
    end = ENDS.get(row.stop_reason, row.stop_reason)
    axes.annotate(
        f"{end} {count}", (count - 0.5, index + 0.3), (4, 0), textcoords="offset points", va="center", fontsize=7
    )
    if row.impossible:
        above = [index] * len(row.impossible)
        axes.plot(row.impossible, above, "v", color=ACCENT, markersize=4, markeredgewidth=0, clip_on=False)
    for loop in row.loops:
        _mark_loop(axes, index, loop, longest)


def _mark_loop(axes: "Axes", index: int, loop: Loop, longest: int) -> None:
    first, last = loop.onset - 0.5, loop.onset + loop.extent - 0.5
    axes.plot([first, last], [index + 0.65] * 2, "|-", color=ACCENT, linewidth=2, markersize=7, markeredgewidth=1.5)
    late = loop.onset > 0.8 * longest  # its label would leave the picture on the right
    axes.annotate(
        f"from {loop.onset}" + (f", period {loop.period}" if loop.period else ""),
        (last if late else first, index + 0.65),
        (-3 if late else 3, -3),
        textcoords="offset points",
        ha="right" if late else "left",
        va="top",
        fontsize=6,
    )
