"""The page of a run: complete, escaped, without network, and never more than run.jsonl says."""

import json
import re
import shutil
from pathlib import Path

import pytest

from sampler.checks.verdict import ABSOLUTE
from sampler.matrix.matrix import find_matrix, load_matrix
from sampler.results.report import html
from sampler.results.report.cells import cells_of
from sampler.results.report.grid import grid_of
from sampler.results.report.html import write_report
from sampler.results.report.words import summary
from sampler.results.store.run_file import read_run
from sampler.results.store.tokens import read_lines
from sampler.run.session import Session
from tests.commands import assert_one_clear_line, sampler, threads
from tests.pages import HEADER, Page, attention_run, cells, token_run, verdict, write_made
from tests.sessions import result_of


@pytest.fixture(scope="module")
def failing(tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("runs") / "wrong"
    result = sampler("run", "smoke", "--out", folder, "--engine", "tests/miniatures.py:ignores_min_p")
    assert result.returncode == 1, result.stderr
    return folder, result.stdout


def page_of(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def render(folder: Path, *content, **header: object) -> Page:
    return Page(write_report(write_made(folder, *content, **header)).read_text(encoding="utf-8"))


def assert_complete_in_itself(page: Page):
    """No script, no reference to anything outside, every reference inside has its place."""
    assert not page.tags().keys() & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    for target in page.attributes("href", "src", "xlink:href", "action", "data", "srcset"):
        assert target.startswith("data:image/png;base64,") or target.removeprefix("#") in ids, target
    for name in re.findall(r"url\(#?([^)]*)\)", " ".join(page.attributes("style", "clip-path", "fill"))):
        assert name in ids
    assert not [name for _, found in page.elements for name in found if name.startswith("on")]
    with_address = {name for _, found in page.elements for name, value in found.items() if "http" in (value or "")}
    assert with_address <= {"xmlns", "xmlns:xlink", "http-equiv"}


def test_a_failing_run_shows_message_replay_line_and_pictures(failing):
    folder, output = failing
    assert f"report: {folder / 'report.html'}" in output
    page, run = page_of(folder), read_run(folder / "run.jsonl")
    assert_complete_in_itself(page)
    for each in run.verdicts:
        assert each.message in page.text
        assert each.check in page.inside["th"]
        if each.outcome == "failed":
            assert each.reproduce in page.inside["code"]
            crash = run.footer["crashes"][each.case]
            assert (folder / crash).exists()
            assert f"sampler replay {crash}" in page.inside["code"]
    assert page.tags()["svg"] == 4  # raster and map of two cells
    assert "✗ failed: min_p" in page.text
    assert f"was tested with {len(run.verdicts)} checks in 4 configurations" in page.text
    assert len(run.verdicts) == 4 * 7 + 2 + 2 * 3 + len(ABSOLUTE), "impossible; evidence and winners of sampled cells"
    assert "Of 4 configurations 2 passed and 2 failed. The stage found wrong most often is min_p" in (page.text)
    for fact in ("tests/miniatures.py:ignores_min_p (core:finch)", run.header["blas"], run.header["platform"]):
        assert fact in page.inside["dd"]
    assert "Does everything work at all?" in page.text
    assert {"[START]", "evening,", "oranges", "[STOP]", "EOS", "attention", "token id"} <= set(page.inside["text"])


def test_report_writes_what_run_wrote(failing, tmp_path):
    folder, _ = failing
    copy = shutil.copytree(folder, tmp_path / "copy")
    written = (copy / "report.html").read_bytes()
    (copy / "report.html").unlink()
    result = sampler("report", copy)
    assert (result.returncode, result.stdout.replace("\n", "")) == (0, str(copy / "report.html"))
    assert (copy / "report.html").read_bytes() == written


def test_tokens_are_those_that_were_judged(failing):
    folder, _ = failing
    runs = read_lines(folder / "tokens.jsonl")
    matrix = load_matrix(find_matrix("smoke"))
    expected = [(case.id, index) for case in matrix.cases for index in range(4)]
    assert [(run.cell, run.request) for run in runs] == expected
    assert {run.prompt for run in runs} == {f"en-sentence-00{index}" for index in range(4)}
    again = result_of(Session(matrix), matrix.cases[0].cell)  # greedy, where the engine is right
    assert [tuple(each.tokens) for each in again.generations] == [run.tokens for run in runs[:4]]
    assert [each.stop_reason for each in again.generations] == [run.stop_reason for run in runs[:4]]
    line = json.loads((folder / "tokens.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert line.keys() == {"cell", "request", "prompt", "tokens", "stop_reason", "slot", "width", "config"}
    assert (line["slot"], line["width"]) == (0, 2)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda lines: lines[:-1], "has no footer (the run was interrupted; run it again)"),
        (lambda lines: [lines[0].replace('"engine": {', '"motor": {'), *lines[1:]], "line 1: key 'engine' is missing"),
        (lambda lines: [*lines[:-1], lines[-1][:30]], "line 3 is no JSON: "),
    ],
)
def test_a_run_that_cannot_be_trusted_is_refused(tmp_path, change, expected):
    folder = write_made(tmp_path / "made", [verdict("base")])
    lines = (folder / "run.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "run.jsonl").write_text("".join(change(lines)), encoding="utf-8")
    assert_one_clear_line(sampler("report", folder), expected)
    assert not (folder / "report.html").exists()


def test_a_folder_without_a_run(tmp_path):
    expected = "run.jsonl cannot be read: No such file or directory (give the folder of a run)"
    assert_one_clear_line(sampler("report", tmp_path / "none"), expected)
    assert not (tmp_path / "none").exists()


def test_files_of_another_run_are_refused(tmp_path):
    folder = write_made(tmp_path / "made", [verdict("base", "failed")], [token_run("base")], [attention_run("base")])
    write_report(folder)
    with (folder / "tokens.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")
    assert_one_clear_line(sampler("report", folder), "tokens.jsonl is not the file of this run")


def test_files_that_are_gone_are_named_and_the_rest_is_shown(tmp_path):
    folder = write_made(tmp_path / "made", [verdict("base", "failed")], [token_run("base")], [attention_run("base")])
    for gone, pictures, expected in (
        ("attention.safetensors", 1, "so their pictures are missing: attention.safetensors."),
        ("tokens.jsonl", 0, "missing: tokens.jsonl, attention.safetensors."),
    ):
        (folder / gone).unlink()
        page = Page(write_report(folder).read_text(encoding="utf-8"))
        assert page.tags()["svg"] == pictures
        assert expected in page.text
        assert "failed base" in page.text
        assert ("No attention map:" in page.text) == bool(pictures)


def test_a_page_that_cannot_be_rendered_loses_nothing_of_the_run(tmp_path, monkeypatch):
    out, matrix = tmp_path / "out", tmp_path / "short.toml"
    matrix.write_text("why = 'x'\n[generation]\nrequests = 1\nwidth = 1\nmax_new_tokens = 5\n", encoding="utf-8")
    out.mkdir()
    (out / "report.html").write_text("of an earlier run", encoding="utf-8")
    monkeypatch.setattr(html, "_template", lambda: 1 / 0)
    result = sampler("run", matrix, "--out", out)
    assert result.returncode == 1
    assert "no report.html: ZeroDivisionError: division by zero (`sampler report" in result.stderr
    line = " ".join(["sampler replay short/base/stops --seed 0 --matrix", str(matrix), *threads()])
    assert [one.reproduce for one in read_run(out / "run.jsonl").verdicts if one.check == "stops"] == [line]
    assert len(read_lines(out / "tokens.jsonl")) == 1
    assert not (out / "report.html").exists()
    monkeypatch.undo()
    assert sampler("report", out).returncode == 0
    assert "request 0 hit its cap of 5 tokens" in page_of(out).text


EVIL = "<script>alert('1')</script> & \"quoted\" ]]> \ud800"


def test_what_others_wrote_is_text_and_never_markup(tmp_path):
    steps = [token_run("base"), token_run("base", request=1)]
    runs = [*steps, steps[0].model_copy(update={"request": 2, "prompt": EVIL[:-2]})]
    folder = write_made(
        tmp_path / "made",
        [verdict("base", "failed", message=EVIL, reproduce=f"sampler replay {EVIL}"), verdict("base", check=EVIL)],
        runs,
        [attention_run("base", pieces=("<b>", "&", "$x$", "\x0b", "中", "[SPACE]"))],
        why=EVIL,
        engine={"name": EVIL, "version": EVIL},
        matrix={"name": EVIL},
        checks={"allowed": EVIL},
    )
    source = write_report(folder).read_text(encoding="utf-8")
    assert "<script" not in source
    page = Page(source)
    assert_complete_in_itself(page)
    assert page.text.count("<script>alert('1')</script> & \"quoted\" ]]> ?") >= 6
    assert {"<b>", "&", "$x$", "U+000B", "U+4E2D", "␣"} <= set(page.inside["text"])


LARGE = pytest.param(5, 300, marks=pytest.mark.nightly("1,000 cells and runs of 300 steps"))


@pytest.mark.parametrize(("values", "steps"), [(1, 20), LARGE])
def test_a_large_run_stays_readable(tmp_path, values, steps):
    ids = list(cells(temperature=range(values), top_p=range(5), min_p=range(5), cfg_weight=range(8)))
    bad = ids[7 :: 10 * values]
    message = "1552 distributions equal those of the oracle: total variation at most 2.0e-06 (3 with a grey zone)"
    verdicts = [
        verdict(cell, "failed" if check == "allowed" and cell in bad else "passed", check, message=f"{message} {cell}")
        for cell in ids
        for check in ("allowed", "draws", "chain", "repeats", "stops")
    ]
    runs = [token_run(cell, request, steps) for cell in bad for request in range(4)]
    maps = [attention_run(cell, 1, steps, ["a"] * (steps * 2 // 3)) for cell in bad[:8]]
    page = render(tmp_path / "made", verdicts, runs, maps)
    assert len(ids) == 200 * values
    assert (tmp_path / "made" / "report.html").stat().st_size < 4e6
    assert page.tags()["svg"] == 16
    assert "Pictures are made of the first 8 configurations that failed and generated anything; 12 more" in page.text
    opened = [found for tag, found in page.elements if tag == "details" and "open" in found]
    assert len(opened) == 8
    assert all(each.message in page.text for each in verdicts[::97])


def test_the_table_lays_axes_out():
    ids = [cell for cell in cells(a=(1, 2), b=("x", "y", "z"), c=(0, 1)) if cell != "a:2+b:y+c:1"]
    grid = grid_of(cells_of([verdict(cell) for cell in [*ids, "pooled", "a:1"]]))
    assert grid.row_axes == ("a",)
    assert grid.columns == (("b", (("x", 2), ("y", 2), ("z", 2))), ("c", (("0", 1), ("1", 1)) * 3))
    assert [row.values for row in grid.rows] == [("1",), ("2",)]
    names = ["x+c:0", "x+c:1", "y+c:0", None, "z+c:0", "z+c:1"]
    expected = [name and f"made/a:2+b:{name}" for name in names]
    assert [cell and cell.id for cell in grid.rows[1].cells] == expected
    assert [cell.id for cell in grid.others] == ["made/pooled", "made/a:1"]


def test_columns_are_at_most_eight_and_cells_that_vary_one_axis_are_a_list():
    grid = grid_of(cells_of([verdict(cell) for cell in cells(a=range(2), b=range(5), c=range(2), d=range(4))]))
    assert (grid.row_axes, [axis for axis, _ in grid.columns]) == (("a", "b"), ["c", "d"])
    assert grid_of(cells_of([verdict(cell) for cell in cells(a=range(3))])).columns == ()
    found = grid_of(cells_of([verdict(cell) for cell in ("all", "base", "a:1", "a:2", "b:1", "b:2", "a:1+b:2")]))
    assert (found.rows, len(found.others)) == ((), 7)
    (row,) = grid_of(cells_of([verdict("base")])).rows
    assert (row.values, [cell.id for cell in row.cells]) == ((), ["made/base"])


def test_an_excluded_field_and_pooled_cells_are_on_the_page(tmp_path):
    ids = [*(cell for cell in cells(a=(1, 2), b=(1, 2)) if cell != "a:2+b:2"), "pooled"]
    page = render(tmp_path / "made", [verdict(cell) for cell in ids])
    assert page.inside["td"].count("excluded") == 1
    assert "Over several configurations" in page.text
    assert "a 1, b 2" in page.text


@pytest.mark.parametrize(
    ("outcomes", "tag", "expected"),
    [
        (["passed", "passed"], "✓ agrees", "All passed: these checks found nothing wrong."),
        (["passed", "skipped"], "✓ agrees", "which is not a pass. The 1 check that could run found nothing wrong."),
        (["skipped"] * 2, "- skipped", "Of 2 configurations 2 could not be tested in full"),
        (["passed", "failed", "errored"], "✗ disagrees", "1 passed, 1 failed and 1 stopped early. The stage found w"),
    ],
)
def test_the_page_says_first_what_came_out(tmp_path, outcomes, tag, expected):
    verdicts = [verdict(f"a:{index}", outcome) for index, outcome in enumerate(outcomes)]
    page = render(tmp_path / "made", verdicts)
    assert page.inside["h1"] == [f"made {tag}"]
    assert expected in page.inside["header"][0]
    run = read_run(tmp_path / "made" / "run.jsonl")
    assert expected in " ".join(summary(run, cells_of(run.verdicts)))


def test_figures_say_what_they_rest_on(tmp_path):
    known = verdict("base", n=20_000, statistic=0.0123456, bound=0.5, alpha=1.25e-8, detectable=0.05)
    page = render(tmp_path / "a", [known], false_alarm_rate=1e-6)
    assert page.inside["td"][-6:-1] == ["20,000", "0.0123", "0.5", "1.25e-08", "0.05"]
    assert "at most 1e-06 in the whole run" in page.inside["dd"]
    page = render(tmp_path / "b", [verdict("base", alpha=None, detectable=None)])
    assert page.inside["td"][-3:-1] == ["exact", "any"]
    page = render(tmp_path / "c", [verdict("base", "skipped", n=0, statistic=None, bound=None)])
    assert page.inside["td"][-6:-1] == ["0", "", "", "", ""], "what was not tested has no power"


def test_loops_are_marked(tmp_path):
    tokens = (*range(30), *[7, 8] * 40)
    runs = [token_run("base"), *(token_run("base", n).model_copy(update={"tokens": tokens}) for n in range(1, 15))]
    page = render(tmp_path, [verdict("base", "failed")], runs)
    assert "Loops: request 1, 80 tokens from step 30; request 2, 80 tokens from step 30;" in page.text
    assert "from 30, period 2" in page.inside["text"]
    assert page.text.count("80 tokens from step 30") == 12
    assert "; and 2 more." in page.text


def test_the_page_can_be_read_aloud_and_printed(tmp_path):
    page = render(tmp_path / "made", [verdict("a:1", "failed"), verdict("a:2")])
    assert ("html", {"lang": "en"}) in page.elements
    assert page.inside["title"] == ["✗ disagrees: made, seed 3 (sampler)"]
    assert {found.get("scope") for tag, found in page.elements if tag == "th"} <= {"row", "col", "colgroup"}
    for _, found in page.elements:
        if found.get("class", "").startswith("scroll"):
            assert found["tabindex"] == "0"
            assert found["aria-label"]
    for outcome in ("✓ passed", "✗ failed"):  # in words and signs, not by colour alone
        assert any(outcome in text for text in page.inside["td"])


def test_headers_of_older_runs_are_enough(tmp_path):
    folder = write_made(tmp_path / "made", [verdict("base")])
    lines = [json.loads(line) for line in (folder / "run.jsonl").read_text(encoding="utf-8").splitlines()]
    header = {name: lines[0][name] for name in ("kind", "format", "matrix", "engine", "seed")}
    footer = {name: lines[-1][name] for name in ("kind", "verdicts")}
    text = "".join(json.dumps(line) + "\n" for line in (header, *lines[1:-1], footer))
    (folder / "run.jsonl").write_text(text, encoding="utf-8")
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert HEADER["why"] not in page.text
    assert "passed base" in page.text
