"""The mutation run can tell a killed mutation from one that survives, and its arguments from stale ones."""

from dataclasses import replace
from functools import partial

import pytest

from tests import wheels
from tests.tools.mutation.areas import AREAS, CHAIN, LONGFORM, ROOT, path_of
from tests.tools.mutation.judge import Order, baseline, examine
from tests.tools.mutation.mutations import Mutation, mutations_of
from tests.tools.mutation.report import markdown, sentence, tallies
from tests.tools.mutation.session import Result, copies, reaches, runs
from tests.tools.mutation.survivors import Argument, faults, read_arguments


def mutation(file: str, was: str, becomes: str) -> Mutation:
    source = path_of(file).read_text(encoding="utf-8")
    assert source.count(was) == 1
    return Mutation(file, 1, "f", "by hand", was, becomes, source.replace(was, becomes))


def in_a_loop(file: str, start: str) -> Mutation:
    lines = path_of(file).read_text(encoding="utf-8").splitlines()
    at = next(number for number, line in enumerate(lines, 1) if line.strip().startswith(start))
    return Mutation(file, at, "f", "by hand", start, "pass", "", statement=(at, at))


def judged(copy, base, level, hints, cases, *change):
    changed = mutation(*change)
    with copy.mutated(changed):
        return examine(Order(str(copy.tree), level, changed.file, hints, base.questions, cases))


@pytest.mark.nightly("traces every line of two levels of sampler check")
def test_killed_and_surviving_mutations_are_told_apart():
    with copies(1) as (copy,):
        base = baseline(copy.tree, CHAIN, ("process",))
        asked = partial(judged, copy, base)
        wrong = asked("process", (), (), "temperature.py", "scores / knobs.temperature", "scores * knobs.temperature")
        broken = asked("process", (), (), "temperature.py", "import numpy as np", "import numpie as np")
        same = asked("process", (), (), "guidance.py", "logits - uncond_logits", "-uncond_logits + logits")
        drawn = asked("draw", ("draw/nothing",), (), "draw.py", "start + index)", "start)")
    assert (wrong.killed, wrong.by) == (True, "process/temperature/scores")
    assert (broken.killed, broken.by) == (True, "raises ModuleNotFoundError")
    assert (same.killed, same.by) == (False, "")
    assert (drawn.killed, drawn.by.startswith("draw/nothing/")) == (True, True)
    loops = [in_a_loop("truncation.py", "limit, below, count ="), in_a_loop("measure.py", "mass = weighted")]
    assert [reaches("process", each, base) for each in loops] == [True, False]


@pytest.mark.nightly("records upstream's loops and traces every line of all cases")
def test_mutations_of_the_long_form_modules_are_judged_beside_upstream():
    for version in ("0.1.0", "0.1.2", "0.1.7"):
        wheels.need(version)
    with copies(1) as (copy,):
        base = baseline(copy.tree, LONGFORM)
        asked = partial(judged, copy, base, "longform", ())
        turbo, cache = "longform/loop/turbo", "longform/cache"
        guided = "guided = is_guided(request.config, self.checkpoint.config)"
        wrong = asked((turbo,), "block.py", "len(slot.tokens) > 1 or", "len(slot.tokens) > 0 or")
        same = asked((turbo,), "generator.py", guided, "guided = False")
        broken = asked((cache,), "cache.py", "import mlx.core as mx", "import mlx.gore as mx")
        late = asked((cache,), "cache.py", "self.length : end] = keys", "self.length + 1 : end + 1] = keys")
    assert (wrong.killed, wrong.by) == (True, turbo)
    assert (same.killed, same.by) == (False, "")
    assert (broken.killed, broken.by) == (True, "raises ModuleNotFoundError")
    assert (late.killed, late.by) == (True, cache)
    drawn = in_a_loop("slot.py", "self.tokens.append")
    assert (runs(drawn, base.by_case[turbo]), runs(drawn, base.by_case[cache])) == (True, False)


def test_every_operator_is_used_and_no_annotation_is_touched(tmp_path):
    pytest.importorskip("cosmic_ray")
    path = tmp_path / "small.py"
    path.write_text("def f(x: int | None = 1) -> int:\n    return x + 2\n", encoding="utf-8")
    found = list(mutations_of(path))
    assert {each.function for each in found} == {"f"}
    assert [each.becomes for each in found if "Add" in each.operator][:2] == ["return x - 2", "return x * 2"]
    assert len([each for each in found if each.operator == "NumberReplacer"]) == 4
    assert not [each for each in found if "int | None" not in each.becomes and "def" in each.becomes]
    assert {(each.line, each.statement) for each in found} == {(1, (1, 1)), (2, (2, 2))}


@pytest.mark.parametrize(("folder", "signs"), [("chain", []), ("t3", ["x.max(axis=+1)", "x.max(axis=1)"])])
def test_words_of_errors_strictness_and_last_axes_stay(tmp_path, folder, signs):
    pytest.importorskip("cosmic_ray")
    path = tmp_path / folder / "small.py"
    path.parent.mkdir()
    path.write_text("if x > 1:\n    raise E(x + 1)\nzip(x, strict=True)\nx.max(axis=-1)\n", encoding="utf-8")
    found = list(mutations_of(path))
    assert {each.line for each in found} == {1, 4}
    assert sorted(each.becomes for each in found if each.becomes in ("x.max(axis=+1)", "x.max(axis=1)")) == signs
    assert "x.max(axis=- 0)" in {each.becomes for each in found}


ARGUMENT = Argument("a.py", "f", "x", ("y", "z"), "equivalent", "because")
FIRST, SECOND = (Result(name) for name in ARGUMENT.names)


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([FIRST, SECOND], []),
        ([FIRST, SECOND, Result("b.py g: 1 -> 2")], ["survives without an argument: b.py g: 1 -> 2"]),
        (
            [replace(FIRST, killed="draw")],
            ["argued, but killed at draw: a.py f: x -> y", "argued, but there is no such mutation: a.py f: x -> z"],
        ),
    ],
)
def test_arguments_are_complete_and_not_stale(results, expected):
    assert list(faults(results, [ARGUMENT])) == expected


@pytest.mark.parametrize("area", AREAS.values(), ids=AREAS)
def test_arguments_name_lines_and_tests_that_exist(area):
    arguments, texts = read_arguments(area.arguments), {name: path.read_text() for name, path in area.files().items()}
    assert arguments
    lines = {name: {line.strip() for line in text.splitlines()} for name, text in texts.items()}

    def is_there(argument):
        found = lines.get(argument.file, set())
        return argument.was in found or {*argument.was.split(" / ")} <= found

    stale = [each for each in arguments if not is_there(each)]
    assert [f"{each.file} {each.function}: {each.was}" for each in stale] == []
    assert [each.test for each in arguments if each.kind == "outside" and not (ROOT / each.test).exists()] == []


@pytest.mark.parametrize("test", ["true", '""', '"somewhere"'])
def test_an_argument_without_a_test_file_is_refused(tmp_path, test):
    path = tmp_path / "survivors.toml"
    entry = f'kind = "outside"\nbecause = "so"\nsurvivors = [["a.py f", "x", "y"]]\ntest = {test}\n'
    path.write_text(f"[[argument]]\n{entry}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a.py f: x: expected a kind, a reason, a test file where outside"):
        read_arguments(path)


def test_the_sentence_counts():
    mutations = [Mutation("a.py", 1, "f", "o", "x", becomes, "") for becomes in "yzuvw"]
    fates = ("process", "draw", "process", None, None)
    results = [Result(each.name, killed=fate) for each, fate in zip(mutations, fates, strict=True)]
    arguments = [replace(ARGUMENT, becomes=("v",)), replace(ARGUMENT, becomes=("w",), kind="outside", test="t")]
    total = tallies(CHAIN, mutations, results, arguments)[-1]
    assert (total.killed, total.survivors, total.equivalent, total.outside) == ((2, 1), 2, 1, 1)
    expected = "5 mutations, 3 killed (60.0 %), 2 survivors, all argued: 1 are equivalent"
    assert sentence(CHAIN, total).startswith(expected)
    text = markdown(CHAIN, mutations, results, arguments, "8.7.0", 0.35)
    assert f"**{expected}" in text
    assert "| a.py | 5 | 2 | 1 | 2 | 1 | 1 |" in text
    assert "- `a.py:1` f: <code>x</code>  \n  because Seen by `t`.\n  - <code>w</code>" in text


def test_no_two_modules_of_all_areas_share_a_name():
    names = [name for area in AREAS.values() for name in area.files()]
    assert len(set(names)) == len(names)
    generation = {"block.py", "generator.py", "prefix.py", "settings.py", "slot.py"}
    assert set(LONGFORM.files()) == generation | {"alignment.py", "cache.py", "slot_cache.py"}
