"""Pictures of scored tokens in the page of a run: what they show, legibly, and what is missing without them."""

import itertools
import json
from dataclasses import replace
from unittest import mock

import pytest

from sampler.checks.scoring.summary import Pit
from sampler.results.report.figures import figure_of, svg
from sampler.results.report.html import write_report
from sampler.results.report.plots import RasterRow, token_raster
from sampler.results.report.score_plots import calibration_plot, estimates_plot, wealth_plot
from sampler.results.store.run_file import read_run
from sampler.results.store.scoring import read_scoring
from tests.commands import assert_one_clear_line, sampler
from tests.interface.test_pictures import texts
from tests.pages import Page, scored, token_run, verdict, write_made

FIGURES = {
    "evidence": lambda: wealth_plot(scored(1).wealth),
    "evidence of a right engine": lambda: wealth_plot(scored().wealth),
    "calibration": lambda: calibration_plot(scored().calibration),
    "estimates": lambda: estimates_plot(scored().estimates),
    "one estimate": lambda: estimates_plot(scored().estimates[-1:]),
}


def boxes(figure):
    """The places of all letters of a figure, each with its text."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    renderer, drawn = FigureCanvasAgg(figure).get_renderer(), []
    with mock.patch.object(Text, "draw", lambda text, _: drawn.append(text)):
        figure.draw(renderer)
    shown = [text for text in drawn if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in shown]


def overlaps(figure):
    pairs = itertools.combinations(boxes(figure), 2)
    return [(one, other) for (one, first), (other, second) in pairs if first.overlaps(second)]


@pytest.mark.parametrize("name", FIGURES)
def test_no_letters_lie_on_others_or_leave_the_picture(name):
    figure = FIGURES[name]()
    assert overlaps(figure) == []
    width, height = figure.canvas.get_width_height()
    assert [text for text, box in boxes(figure) if min(box.p0) < 0 or box.x1 > width or box.y1 > height] == []


def test_letters_that_lie_on_others_are_found():
    figure = figure_of(2, 1)
    figure.text(0.5, 0.5, "one")
    figure.text(0.52, 0.5, "other")
    assert overlaps(figure) == [("one", "other")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("evidence", {"tokens scored", "mean of all bets", "line of rejection", "rejected after 6 tokens", "10⁸"}),
        ("calibration", {"expected", "outside of it", "PIT, tokens by rank, the likeliest first"}),
        ("estimates", {"penalty", "edge of the support, nats", "asked for", "estimate, 95 % interval"}),
    ],
)
def test_a_picture_names_its_axes_and_colours(name, expected):
    assert expected <= set(texts(svg(FIGURES[name]())))
    assert "rejected after 6 tokens" not in texts(svg(FIGURES["evidence of a right engine"]()))


def test_points_outside_of_the_band_have_a_colour_of_their_own():
    pit = Pit("id", (1.5, 1.0, 0.5), (0.4, 0.3, 0.6))
    inside, outside = calibration_plot([pit]).axes[0].lines[1:]
    assert list(inside.get_ydata()) == [1.0, 0.5]
    assert list(outside.get_ydata()) == [1.5]
    assert inside.get_color() != outside.get_color()


def test_impossible_tokens_have_a_triangle_in_the_raster():
    figure = token_raster([RasterRow("first", range(9), "eos"), RasterRow("second", range(9), "eos", (), [2, 7])])
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "v"]
    assert [list(line.get_xdata()) for line in marks] == [[2, 7]]


def made(folder):
    verdicts = [verdict("bad", "failed", "impossible"), verdict("good", check="impossible")]
    runs = [token_run("bad", 0, 8), token_run("good", 0, 8)]
    return write_made(folder / "made", verdicts, runs, scored={"made/bad": scored(2), "made/good": scored()})


def test_a_failing_cell_has_its_pictures_open_and_a_passing_one_behind_a_fold(tmp_path):
    page = Page(write_report(made(tmp_path)).read_text(encoding="utf-8"))
    assert page.tags()["svg"] == 4 + 3
    folds = {found["id"]: "open" in found for tag, found in page.elements if tag == "details" and "id" in found}
    assert folds == {"c0": True, "c1": False}
    captions = page.inside["figcaption"]
    assert "Impossible, with a triangle each, are 2 of 8 tokens: token 7 at step 0 of run 0; token 7" in captions[0]
    assert [caption.split(".")[-2].strip() for caption in captions[1::3]] == ["It did here", "It did not"]
    assert "Not what was asked for: penalty." in captions[3]
    assert page.text.count("What its 8 tokens exclude: 1 of 3 alternatives") == 2
    rows = ["a temperature of 0.9", "the noise of the steps before", "full emotion"]
    assert [text for text in page.inside["th"] if text in rows] == rows * 2
    assert {"2,000", "no number is enough", "✓ yes", "? not yet"} <= set(page.inside["td"])


def test_a_run_without_scores_has_a_page_and_files_of_another_run_are_refused(tmp_path):
    folder = made(tmp_path)
    whole = (folder / "scoring.json").read_text(encoding="utf-8")
    (folder / "scoring.json").write_text(whole.replace("full emotion", "no emotion"), encoding="utf-8")
    assert_one_clear_line(sampler("report", folder), "scoring.json is not the file of this run")
    (folder / "scoring.json").unlink()
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert page.tags()["svg"] == 1
    assert "so their pictures are missing: scoring.json." in page.text
    assert "alternatives" not in page.text


SMALL = """
why = "to see"
[generation]
prompts = "sentences"
requests = 2
runs = 2
width = 4
max_new_tokens = 120
[axes]
temperature = [0.8]
[longform]
"""


def test_a_run_of_a_wrong_engine_marks_what_its_model_cannot_draw(tmp_path):
    (tmp_path / "small.toml").write_text(SMALL, encoding="utf-8")
    out = tmp_path / "out"
    result = sampler("run", tmp_path / "small.toml", "--out", out, "--engine", "tests/miniatures.py:ignores_min_p")
    assert result.returncode == 1, result.stderr
    (found,) = read_scoring(out / "scoring.json").values()
    (failed,) = [one for one in read_run(out / "run.jsonl").verdicts if one.check == "impossible"]
    assert (failed.outcome, found.count) == ("failed", failed.statistic)
    assert found.impossible[0].text in failed.message
    lines = [json.loads(line) for line in (out / "tokens.jsonl").read_text(encoding="utf-8").splitlines()]
    for one in found.impossible:
        assert f"token {lines[one.run]['tokens'][one.step]} at step {one.step} " in one.text
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert f"Impossible, with a triangle each, are {found.count}" in page.text
    assert "Evidence: the wealth of bets against a right engine" in page.inside["text"]


def test_summaries_of_infinite_edges():
    edge = scored().estimates[-1]
    assert edge.differs is False
    assert replace(edge, high=5.0).differs
    assert replace(edge, asked=4.0).differs
