"""The tables of wrong and right engines keep their promises: each fault shows, and no right engine has one.

What is asserted here is that the miniatures are what they say; that `sampler check` finds it out is tested elsewhere.
"""

import ast
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sampler.engines.base import Draws, Processes
from sampler.engines.capabilities import in_its_words, offered
from sampler.errors import Unsupported
from sampler.stages import ALL_STAGES, STAGES
from tests import miniatures
from tests.wrong_engines import FACTORIES, RIGHT, WRONG
from tests.wrong_engines.shows import (
    draws,
    fault_in_draws,
    fault_in_picks,
    fault_in_process,
    has_ties,
    law,
    truth_of,
    with_its_eos,
)
from tests.wrong_engines.tables import PLAIN, TWO_ROWS, WITHIN, example, spread

ROOT = Path(__file__).parent.parent.parent
LEVELS = {"process": Processes, "draw": Draws}
ENDLESS = ("hangs", "exits", "draw_hangs", "draw_exits")
PROCESSING = [name for name, each in WRONG.items() if "process" in each.offers and name not in ENDLESS]
DRAWING = [name for name, each in WRONG.items() if each.seen == ("draw",) and name not in ENDLESS]
"""The fault of others that draw shows in process() already, through which draw() goes."""

INDEPENDENT = [name for name, each in WRONG.items() if each.total_variation is not None]


@pytest.mark.parametrize("name", PROCESSING)
def test_a_fault_of_process_shows_on_the_input_that_is_stored_with_it(name):
    wrong = WRONG[name]
    found = fault_in_process(wrong.factory(), wrong.shows)
    assert bool(found) == ("process" in wrong.seen), found


@pytest.mark.parametrize("name", INDEPENDENT)
def test_the_total_variation_is_the_announced_one(name):
    wrong = WRONG[name]
    p = law(wrong.shows)
    frequencies = np.bincount(draws(wrong.factory(), wrong.shows, 400_000, 1), minlength=len(p)) / 400_000
    assert np.abs(frequencies - p).sum() / 2 == pytest.approx(wrong.total_variation, abs=2e-3)


@pytest.mark.parametrize("name", DRAWING)
def test_a_fault_of_draws_shows_on_the_input_that_is_stored_with_it(name):
    """In draw() or in pick()."""
    wrong = WRONG[name]
    engine = wrong.factory()
    assert fault_in_draws(engine, wrong.shows) or fault_in_picks(engine, wrong.shows)


ORDINARY = [
    PLAIN,
    example(),
    example(temperature=0.0, history=[7, 14], repetition_penalty=2.0),
    example(temperature=0.7, top_p=0.8),
    example(spread(2), temperature=0.7),
    example(top_k=4, order=("top_k", "temperature", "top_p"), top_p=0.5, temperature=2.0),
    example(TWO_ROWS, [[3, 5], [2, 9, 9]], TWO_ROWS[::-1], cfg_weight=0.5, repetition_penalty=1.5, top_p=0.8),
    example(TWO_ROWS, [[3, 5], []], min_p=0.2, min_tokens_to_keep=4, temperature=0.5, repetition_penalty=0.8),
    example(spread(1_000), list(range(100)), temperature=0.8, top_k=40, repetition_penalty=1.2, min_p=0.05),
    example(np.zeros((1, 8)), top_p=0.6),
    example([[1.0, 2.0, 2.0, 2.0, 0.0]], top_k=2, history=[1, 900], repetition_penalty=1.5),
]


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_engine_agrees_with_the_reference(name):
    engine = RIGHT[name]()
    truth = truth_of(engine)
    judged = 0
    for inputs in filter(WITHIN[name], ORDINARY):
        try:
            if engine.info.vocab_size not in (None, inputs.logits.shape[1]):
                continue
            asked = replace(inputs, config=in_its_words(engine.info, offered(engine.info, inputs.config)))
            if isinstance(engine, Processes):
                assert not fault_in_process(engine, asked)
            if isinstance(engine, Draws):
                tokens = draws(engine, asked, 300, 7)
                assert (tokens.shape, tokens.dtype.kind) == ((300,), "i") or tokens.dtype == np.uint32
                assert (law(with_its_eos(engine, asked), truth)[tokens] > 0).all() or has_ties(asked)
                assert np.array_equal(tokens, draws(engine, asked, 300, 7))
            judged += 1
        except Unsupported:
            continue
    assert judged or not any(map(WITHIN[name], ORDINARY))


DRAWS = [name for name, factory in RIGHT.items() if isinstance(factory(), Draws)]


@pytest.mark.parametrize("name", DRAWS)
def test_a_right_engine_draws_as_it_should(name):
    """With these seeds; the bounds are those that wrong engines do not keep."""
    engine = RIGHT[name]()
    size = engine.info.vocab_size
    row = np.pad(spread(1_000), ((0, 0), (0, size - 1_000)), constant_values=-np.inf) if size else None
    inputs = example(row, top_p=0.8, temperature=1.2)
    try:
        asked = in_its_words(engine.info, offered(engine.info, inputs.config))
        assert fault_in_draws(engine, replace(inputs, config=asked)) == ""
    except Unsupported:
        assert fault_in_draws(engine, example()) == ""


def test_the_base_chain_has_no_fault_on_any_input_of_the_tables():
    """It has the stages of the default order alone, and no window."""
    engine = RIGHT["right_miniature"]()
    own = {name: each.shows for name, each in WRONG.items() if not set(each.shows.config.order) - set(STAGES)}
    found = {name: fault_in_process(engine, shows) for name, shows in own.items() if not shows.config.penalty_window}
    assert not any(found.values()), found


UNREPORTED = "".join(
    (ROOT / "tests" / "wrong_engines" / f"{name}.py").read_text(encoding="utf-8")
    for name in ("ranges", "wide_draws", "range_draws")
)
"""The families of faults that no public report has: they err only at values that nobody had asked for."""


@pytest.mark.parametrize("name", FACTORIES)
def test_every_factory_says_what_it_is(name):
    engine = getattr(miniatures, name)()
    text = FACTORIES[name].__doc__
    if name in RIGHT:
        assert re.fullmatch(r"No fault: .*\.", text)
    else:
        own = any(f'"{each}: ' in UNREPORTED for each in (name, name.removeprefix("draw_")))
        assert re.fullmatch(r"Fault: .*\." if own else r"Fault: .* \[[A-Z]\d\d\]\.", text)
        wrong = WRONG[name]
        assert wrong.offers == tuple(level for level, protocol in LEVELS.items() if isinstance(engine, protocol))
        assert set(wrong.seen) <= set(wrong.offers)
        assert {wrong.stage, *wrong.also} <= STAGE_NAMES


def test_an_engine_is_loaded_by_the_path_of_its_file_from_any_folder(tmp_path):
    code = "import sys; from sampler.engines.load import load_engine; print(load_engine(sys.argv[1], {}).info.name)"
    name = f"{ROOT / 'tests' / 'miniatures.py'}:top_k_keeps_one_more"
    arguments = [sys.executable, "-c", code, name]
    environment = {**os.environ, "PYTHONPATH": ""}
    result = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.stdout == "miniature\n", result.stderr


STAGE_NAMES = {*ALL_STAGES, "draw", "order", "seed", "batch", "purity", "precision"}


def test_the_tables_are_long_enough_and_no_name_is_taken():
    assert len(WRONG) >= 64
    assert len(RIGHT) >= 16
    written = ast.parse((ROOT / "tests" / "miniatures.py").read_text(encoding="utf-8"))
    names = {node.name for node in ast.walk(written) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert not (names | set(miniatures.FINCH)) & set(FACTORIES)
    assert not names & set(miniatures.FINCH)


@pytest.mark.parametrize(("name", "level"), [("exits", "process"), ("draw_exits", "draw"), ("hangs", "process")])
def test_an_engine_that_never_comes_back_does_not(name, level):
    inputs = {"process": "np.zeros((1, 4), np.float32), [[]], C()", "draw": "np.zeros(4), [], C(), 1, 0"}[level]
    code = "from tests.wrong_engines import WRONG; import numpy as np; from sampler.config import SamplingConfig as C\n"
    code += f"engine = WRONG[{name!r}].factory()\nprint('called', flush=True)\nengine.{level}({inputs})\nprint('back')"
    program = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert program.stdout.readline() == b"called\n"
    try:
        assert program.wait(timeout=0.5) == 3
        assert name != "hangs"
    except subprocess.TimeoutExpired:
        assert name == "hangs"
        program.kill()
    assert program.communicate()[0] == b""
