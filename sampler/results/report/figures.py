"""How pictures are drawn and saved: matplotlib without global state, and the same bytes for the same input.

matplotlib is imported when the first picture is drawn, so that commands without one start as fast as before.
"""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from sampler.errors import ConfigError
from sampler.runtime.files import whole_file
from sampler.runtime.text import LONG, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK: Final = "#010203"
"""Colour of lines and letters: black on paper, and in a page replaced by the colour of the page's text."""

ACCENT: Final = "#d9480f"
"""Colour of the most important element; legible on white and on black."""

FONT: Final = "DejaVu Sans"
"""Comes with matplotlib, so that widths are the same everywhere."""

DOTS_PER_INCH: Final = 150
COLOURS: Final = 20


@contextmanager
def own_style() -> Iterator[None]:
    """Draw and save under settings of our own, whatever the user's matplotlibrc says."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "svg.hashsalt": "sampler",
                "svg.fonttype": "none",
                "text.parse_math": False,
                "font.family": [FONT],
                "font.size": 8,
                "axes.linewidth": 0.6,
                "xtick.labelsize": 7,
                "ytick.labelsize": 7,
                "hatch.linewidth": 0.6,
                **dict.fromkeys(["text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"], INK),
            }
        )
        yield


def figure_of(width: float, height: float) -> "Figure":
    """An empty figure without background. width, height: inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="none")


def place(figure: "Figure", left: float, top: float, width: float, height: float) -> "Axes":
    """Axes at a place of the figure, in inches from its upper left corner."""
    full_width, full_height = figure.get_size_inches()
    bottom = full_height - top - height
    axes = figure.add_axes((left / full_width, bottom / full_height, width / full_width, height / full_height))
    axes.set_facecolor("none")
    return axes


def png(figure: "Figure") -> bytes:
    """A PNG on white, 150 dots an inch."""
    return _saved(figure, "png", dpi=DOTS_PER_INCH, facecolor="white", metadata={"Software": None})


def svg(figure: "Figure") -> bytes:
    """An SVG on white whose letters stay letters."""
    return _saved(figure, "svg", facecolor="white", metadata=dict.fromkeys(["Date", "Creator", "Format", "Type"]))


@contextmanager
def picture_file(path: Path) -> Iterator[Callable[["Figure"], None]]:
    """Make sure first that a picture can be written, then write it whole: PNG or SVG, as the name ends.

    Raises ConfigError for another ending, OutputError.
    """
    kind = {".png": png, ".svg": svg}.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(f"--out {path} is no picture that can be drawn", hint="expected a .png or .svg file")
    with whole_file(path) as write:
        yield lambda figure: write(kind(figure))


def inline_svg(figure: "Figure", name: str, label: str) -> str:
    """An `<svg>` element for a page: without background, in the page's text colour, its ids made unique by `name`.

    label: what it shows, for those who cannot see it.
    """
    from markupsafe import escape

    label = visible(label, LONG)
    text = _saved(figure, "svg", metadata=dict.fromkeys(["Date", "Creator", "Format", "Type"])).decode()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)  # would hold for the whole page
    text = re.sub(r' id="image[0-9a-f]+"', "", text)  # a hash of the content: equal rows would have equal ids
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)


def _saved(figure: "Figure", kind: str, **settings: Any) -> bytes:
    stream = io.BytesIO()
    with own_style():
        figure.savefig(stream, format=kind, **settings)
    return stream.getvalue()


def colours_of(tokens: Sequence[int]) -> NDArray[np.uint8]:
    """A colour for each token, uint8 (N, 3): one of 20, by a hash of the id, so the same in every picture."""
    import matplotlib as mpl

    table = (np.array(mpl.colormaps["tab20"].colors) * 255).round().astype(np.uint8)  # type: ignore[attr-defined]
    mixed = np.array(tokens, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing: upper bits are mixed
    return np.asarray(table[(mixed >> np.uint64(32)) % np.uint64(COLOURS)])


def printable(text: str) -> str:
    """A text as the font can show it: spaces, control characters and foreign letters as signs or codes."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont(FONT))
    known = (letter.isprintable() and font.get_char_index(ord(letter)) for letter in text)
    return "".join(letter if shown else f"U+{ord(letter):04X}" for letter, shown in zip(text, known, strict=True))
