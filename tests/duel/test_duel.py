"""The duel in small: no rival rejects a right engine, and each one sees the faults that it can see."""

import importlib.util
import math

import numpy as np
import pytest
from scipy.stats import gamma

from sampler.checks.longform.runs import TokenRun
from sampler.generation.generator import Generator
from tests.duel.faults import noisy_weights
from tests.duel.nulls import Null
from tests.duel.rows import RIGHT, WRONG, Row
from tests.duel.tokens import ALPHA
from tests.wrong_engines.wrong_generators import WRONG_GENERATORS
from tests.wrong_engines.wrong_generators.table import Plan

for name in ("model_equality_testing", "token_difr"):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"needs {name}, which tox -e tests installs", allow_module_level=True)

from tests.duel import met, page, questions  # noqa: E402
from tests.duel.measure import COLUMNS, Cell, Duel, Measured  # noqa: E402

PLAN = Plan("2 sentences", "sentences", 2, 3, 38, 52)
SEEN = {
    "right": set(),
    "draws_without_noise": {"scoring", "noise", "difr_float32", "difr_bfloat16"},
    "other weights": {"scoring", "noise", "difr_float32", "difr_bfloat16", "kl", "greedy"},
}
FACTORIES = {
    "right": Generator,
    "draws_without_noise": WRONG_GENERATORS["draws_without_noise"].factory,
    "other weights": noisy_weights(0.5),
}


@pytest.fixture(scope="module")
def duel(tmp_path_factory):
    """Few tokens; the null distributions of bfloat16, which is slow, are made up."""
    duel = Duel(tmp_path_factory.mktemp("tokens"), sets=1, tokens=300)
    rare = np.array([*np.zeros(990), *np.full(10, 0.1)])
    vars(duel)["margins"] = {"float32": Null(np.zeros(1000)), "bfloat16": Null(rare)}
    vars(duel)["divergences"] = Null(np.linspace(0, 3e-3, 1000))
    return duel


@pytest.mark.parametrize("name", FACTORIES)
def test_each_rival_sees_what_it_can_see(duel, name):
    row = Row(name, WRONG, FACTORIES[name], PLAN, cap=40)
    cells = duel.measured(row).cells
    assert {rival for rival, cell in cells.items() if cell.tokens < math.inf} == SEEN[name]
    if name != "right":
        assert cells["noise"].tokens <= min(cells["scoring"].tokens, cells["difr_bfloat16"].tokens)


def test_a_sum_is_rejected_at_its_exact_quantile():
    null = Null(-np.log1p(-(np.arange(4_000) + 0.5) / 4_000))
    for mean in (1.5, 2.0, 4.0):
        exact = next(number for number in range(1, 1000) if gamma.sf(mean * number, number) <= ALPHA)
        assert null.rejects_after(np.full(1000, mean)) == pytest.approx(exact, rel=0.1, abs=1)


def test_values_like_those_of_the_null_are_not_rejected():
    rng = np.random.default_rng(1)
    null = Null(rng.exponential(size=2_000) * (rng.random(2_000) < 0.02))
    assert null.rejects_after(rng.permutation(null.values)) is None
    assert Null(np.zeros(100)).rejects_after(np.array([0, 0, 0.2])) == 3


def random_runs(seed: int, most: int = 9) -> list[TokenRun]:
    rng = np.random.default_rng(seed)
    return [TokenRun(f"text {row % 4}", (*rng.integers(0, most, 20).tolist(), 9), "eos") for row in range(64)]


def test_whole_runs_fail_where_they_are_equal():
    runs, reference = random_runs(3), random_runs(4)
    assert questions.tokens_to_reject(runs, reference, 4) is None
    equal = [TokenRun(run.text, runs[row % 4].tokens, "eos") for row, run in enumerate(runs)]
    assert questions.tokens_to_reject(equal, reference, 4) <= 16 * 4 * 21


def test_met_sees_other_tokens():
    reference = random_runs(5)
    assert met.tokens_to_reject(random_runs(6), reference, 4) == (None, False)
    tokens, extrapolated = met.tokens_to_reject(random_runs(6, 3), reference, 4)
    assert not extrapolated
    assert tokens < 16 * 4 * 21
    tokens, extrapolated = met.tokens_to_reject(random_runs(8, 7), reference, 4)
    assert extrapolated
    assert tokens > 16 * 4 * 21


def test_permutations_use_the_statistic_of_the_package():
    rng = np.random.default_rng(2)
    sides = [[TokenRun(f"text {row % 3}", tuple(rng.integers(0, 4, 9)), "eos") for row in range(12)] for _ in range(2)]
    comparison = met.Comparison(*sides)
    rows, prompts = np.concatenate(comparison.rows), np.concatenate(comparison.prompts)
    kernel = (rows[:, None] == rows).mean(axis=-1) * (prompts[:, None] == prompts)
    np.fill_diagonal(kernel, 0)
    first = (np.arange(24) < 12).astype(float)[:, None]
    assert met.mmd(kernel, prompts, first) == pytest.approx(comparison.statistic)


def test_goals_count_rows():
    def row(name, group=WRONG, **tokens):
        return Measured(name, group, {each: Cell(tokens.get(each, math.inf)) for each in COLUMNS})

    rows = [
        row("third", scoring=30, noise=30, difr_float32=30, difr_bfloat16=40, met=90),
        row("more", scoring=31, noise=31, difr_float32=30, difr_bfloat16=31, runs=90),
        row("alone", scoring=500),
        row("blind"),
        row("accused", RIGHT, kl=5),
    ]
    text = "\n".join(page.goals(rows))
    for found in (
        "(MET and whole runs): 2 of 4 rows (50%), 1 of them seen by scoring alone; 67% of the 3 rows that any",
        "DiFR, float32 on any row: above on 1: more",
        "DiFR, bfloat16 on any row: above on 0",
        "on 70 % of rows: 2 of 4 rows",
        "rejected: 1: KL on accused",
    ):
        assert found in text
    assert page.line(rows[0]).startswith("| third | 30 | 30 | 30 | 40 | 90 | - | - | - |")
