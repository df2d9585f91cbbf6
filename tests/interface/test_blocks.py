"""Which cells go together and who gets which slot: functions of the matrix alone."""

import itertools

import pytest

from sampler.matrix.matrix import find_matrix, load_matrix, shipped_matrices
from sampler.run import steps
from sampler.run.blocks import TURNS, blocks_of, count, slots_of
from sampler.run.session import Session
from sampler.run.steps import StepSuite
from sampler.run.suite import ignore_event
from tests.sessions import result_of, run_all

SHIPPED = shipped_matrices()


@pytest.fixture(params=SHIPPED, ids=lambda path: path.stem)
def cases(request):
    return load_matrix(request.param).cases


def test_every_cell_is_in_one_block_of_its_variant(cases):
    blocks = blocks_of(cases)
    assert sorted(case.cell for block in blocks for case in block) == sorted(case.cell for case in cases)
    assert all(len({case.variant for case in block}) == 1 for block in blocks)
    for block in blocks:
        assert sum(map(count, block[:-1])) < TURNS * block[0].workload.width


def test_requests_spread_over_all_slots_and_first_ones_of_neighbours_differ(cases):
    width = cases[0].workload.width
    slots = [slots_of(cases, case, count(case), width) for case in cases]
    used = [list(itertools.chain(*slots)).count(slot) for slot in range(width)]
    assert max(used) - min(used) <= len(cases)
    firsts = [each[0] for each in slots]
    assert all(len(set(firsts[at : at + 2])) == min(2, len(firsts[at:])) for at in range(len(firsts))) or width == 1
    assert slots_of(cases, cases[-1], 3, width, first=5) == [(slots[-1][0] + 5 + more) % width for more in range(3)]


def test_a_cell_by_itself_has_the_tokens_the_slots_and_the_bits_of_the_whole_run(tmp_path):
    file = tmp_path / "made.toml"
    file.write_text(
        'why = "made"\n[generation]\nrequests = 3\nwidth = 4\nmax_new_tokens = 20\n'
        "[axes]\ntemperature = [0.7, 0.9]\ncfg_weight = [0.0, 0.5]\n"
    )
    cases = load_matrix(file).cases
    whole = {result.case.cell: result for result in run_all(Session(load_matrix(file))).results}
    for case in (cases[0], cases[3]):
        together, alone = whole[case.cell], result_of(Session(load_matrix(file)), case.cell)
        assert [each.tokens for each in together.generations] == [each.tokens for each in alone.generations]
        for left, right in zip(together.generations, alone.generations, strict=True):
            assert (left.record.slot, left.record.width) == (right.record.slot, 4)
            assert left.record.margin.tolist() == right.record.margin.tolist()
        one, other = ({each.check: each.outcome for each in found.verdicts} for found in (together, alone))
        assert one == other


@pytest.mark.nightly("the cells of smoke, twice")
def test_no_more_is_recorded_at_once_than_fits_and_the_verdicts_stay_the_same(monkeypatch):
    """Cells of a block are generated in parts, each judged and dropped before the next."""
    matrix = load_matrix(find_matrix("smoke"))
    session = Session(matrix)
    whole = StepSuite(session)
    rows = [2 if "cfg" in case.config.active_stages() else 1 for case in matrix.cases]
    each = 4 * session.engine.info.vocab_size * matrix.workload.max_new_tokens * matrix.workload.count
    parts, held, results = StepSuite(session), [], {True: [], False: []}
    for suite, most in ((whole, steps.RECORDED_TOGETHER), (parts, each * sum(rows[:2]))):
        monkeypatch.setattr(steps, "RECORDED_TOGETHER", most)
        for group in suite.groups:
            suite.generate(suite.together(group), ignore_event)
            held.append((suite is whole, len(suite._generated)))
            results[suite is whole].append(suite.result(group, ignore_event))
    assert [count for is_whole, count in held if is_whole] == [4, 3, 2, 1]
    assert max(count for is_whole, count in held if not is_whole) == 2
    for one, other in zip(results[True], results[False], strict=True):
        assert one.verdicts == other.verdicts
        assert [run.tokens for run in one.generations] == [run.tokens for run in other.generations]
