"""Pictures: what they show, and that the same input gives the same bytes whatever the user's settings are."""

import hashlib
import os
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest

from sampler.errors import ConfigError, OutputError
from sampler.results.report.figures import colours_of, inline_svg, picture_file, png, svg
from sampler.results.report.plots import RasterRow, attention_map, token_raster
from tests.commands import ROOT
from tests.pages import Found

SVG = "{http://www.w3.org/2000/svg}"


def attention(steps: int = 40, places: int = 20) -> np.ndarray:
    rows = np.full((steps, places), 0.01, dtype=np.float32)
    rows[np.arange(steps), np.arange(steps) * places // steps] = 0.8
    return rows


def a_map(steps: int = 40, **settings: object):
    tokens = [(7 * step) % 50 for step in range(steps)]
    return attention_map(attention(steps), tokens, "eos", **settings)


def texts(source: bytes) -> list[str]:
    return ["".join(element.itertext()) for element in ET.fromstring(source).iter(f"{SVG}text")]


def size(content: bytes) -> tuple[int, int]:
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


def test_a_png_has_150_dots_an_inch_and_grows_with_the_run():
    before, figure = dict(mpl.rcParams), a_map()
    assert size(png(figure)) == tuple(int(150 * inches) for inches in figure.get_size_inches())
    short, long, longest = (size(png(a_map(steps)))[0] for steps in (40, 200, 2_000))
    assert 900 < short < long < longest < 6_500
    assert dict(mpl.rcParams) == before
    for steps in (1, 4_000):
        assert "5" in texts(svg(attention_map(attention(steps, 6), [5] * steps, "length")))


def test_a_map_names_text_tokens_flags_and_end():
    flags = [""] * 40
    flags[30], flags[31] = "long_tail", "long_tail+token_repetition"
    pieces = ["[START]", *"ab", "[SPACE]", *"lamp", *"x" * 11, "[STOP]"]
    shown = texts(svg(a_map(pieces=pieces, flags=flags)))
    assert {"[START]", "a", "␣", "l", "[STOP]", "long_tail", "token_repetition", "token", "EOS", "step"} <= set(shown)
    assert a_map(flags=flags).get_size_inches()[1] > a_map().get_size_inches()[1]
    assert a_map(flags=[""] * 40).get_size_inches()[1] == a_map().get_size_inches()[1], "no flag, no row for them"
    assert [text for text in shown if text.isdigit()][-40:] == [str((7 * step) % 50) for step in range(40)]


def test_a_long_text_is_named_by_words():
    pieces = ["[START]", *[piece for word in ["harbour"] * 20 for piece in (*word, "[SPACE]")], "[STOP]"]
    figure = attention_map(attention(30, len(pieces)), list(range(30)), "length", pieces, size=(6.0, 3.0))
    shown = texts(svg(figure))
    assert shown.count("harbour") == 19, "the first stands too near to [START]"
    assert "h" not in shown
    assert "cap" in shown


@pytest.mark.parametrize("wrong", [{"pieces": ["a"]}, {"flags": ["x"]}])
def test_lengths_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match="attention of 40 steps over 20 places does not fit 40 tokens"):
        a_map(**wrong)
    with pytest.raises(ValueError, match="does not fit 3 tokens"):
        attention_map(attention(), [1, 2, 3], "eos")


def test_a_raster_has_a_row_a_run_with_loops_and_ends():
    rows = [
        RasterRow("first", range(30), "eos"),
        RasterRow("second", [1, 2] * 40, "length", [Found(10, 2, 70), Found(0, None, 5)]),
        RasterRow("third", (), "error"),
        RasterRow("fourth", [3], "forced_eos"),
    ]
    figure = token_raster(rows)
    shown = texts(svg(figure))
    assert {"first", "second", "third", "fourth"} <= set(shown)
    assert {"EOS 30", "cap 80", "error 0", "forced EOS 1"} <= set(shown)
    assert {"from 10, period 2", "from 0"} <= set(shown)
    (line,) = [line for line in figure.axes[0].lines if line.get_xdata()[0] == 9.5]
    assert list(line.get_xdata()) == [9.5, 79.5]
    texts(svg(token_raster([])))


def test_equal_tokens_have_equal_colours_and_neighbours_seldom():
    ids = np.arange(8_194)
    colours = colours_of(ids.tolist())
    assert np.array_equal(colours_of([5, 6405, 5]), colours[[5, 6405, 5]])
    _, counts = np.unique(colours, axis=0, return_counts=True)
    assert len(counts) == 20
    assert counts.max() < 1.2 * counts.min()
    assert np.mean(np.all(colours[1:] == colours[:-1], axis=1)) < 0.1


def content() -> bytes:
    rows = [RasterRow("first", list(range(30)) * 2, "eos", [Found(0, 30, 60)])]
    return svg(a_map()) + png(a_map()) + inline_svg(token_raster(rows), "a", "b").encode()


def test_the_same_input_gives_the_same_bytes_in_any_process(tmp_path):
    """Under other hash seeds, and where the user's own settings would draw large red letters."""
    (tmp_path / "matplotlibrc").write_text("font.size: 30\ntext.color: red\nsvg.fonttype: path\n", encoding="utf-8")
    program = (
        "import hashlib, sys; from tests.interface.test_pictures import content; "
        "print(hashlib.sha256(content()).hexdigest(), 'matplotlib.pyplot' in sys.modules)"
    )
    environment = os.environ | {"MPLCONFIGDIR": str(tmp_path), "PYTHONHASHSEED": "77", "MPLBACKEND": "svg"}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split() == [hashlib.sha256(content()).hexdigest(), "False"]


def test_an_inlined_picture_takes_the_pages_colour_and_has_ids_of_its_own():
    one, two = (inline_svg(a_map(), name, 'a "label" <b>') for name in ("one", "two"))
    root = ET.fromstring(one)
    assert root.attrib["aria-label"] == 'a "label" <b>'
    assert "currentColor" in one
    assert "#010203" not in one
    assert "<style" not in one
    roots = (root, ET.fromstring(two))
    one, two = ({element.attrib["id"] for element in each.iter() if "id" in element.attrib} for each in roots)
    assert one
    assert not one & two


def test_a_picture_is_written_whole_or_not_at_all(tmp_path):
    with picture_file(tmp_path / "new" / "map.SVG") as write:
        assert not (tmp_path / "new" / "map.SVG").exists()
        write(a_map())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["map.SVG"]
    with pytest.raises(ZeroDivisionError), picture_file(tmp_path / "map.png"):
        1 / 0  # noqa: B018
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    with pytest.raises(ConfigError, match=r"map.jpg is no picture that can be drawn \(expected a .png or .svg file\)"):
        picture_file(tmp_path / "map.jpg").__enter__()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match=r"folder.png cannot be written: Is a directory"):
        picture_file(tmp_path / "folder.png").__enter__()
