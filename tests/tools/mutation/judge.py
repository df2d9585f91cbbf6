"""One mutated copy of the package under a level, in a process that has never seen another copy.

Levels process and draw are those of `sampler check core`; level longform are the cases of `tests/tools/mutation/cases`;
level tests are the unit tests of an area.

Nothing of `sampler` may be imported at the top: the process that is forked for a mutation must not know the package.
"""

import contextlib
import importlib
import multiprocessing
import os
import pickle
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.tools.mutation import memory, unit_tests
from tests.tools.mutation.areas import Area, Level

SECONDS: Mapping[Level, int] = {"process": 60, "draw": 60, "longform": 30, "tests": 300}
"""Processor time of a level, so that a busy machine kills nothing; a mutation that takes longer is killed."""

PATIENCE = 900.0  # seconds without an answer after which a copy hangs, which takes no processor time
MEMORY = 12 << 30  # bytes of address space: a mutated shape must not take the machine's memory
PRELOADED = ["numpy", "numba", "scipy.special", "scipy.stats", "pydantic", "safetensors", "tokenizers"]
"""Loaded once and forked with every mutation; not MLX, which is loaded after the copy has chosen its BLAS."""

Lines = frozenset[tuple[str, int]]  # lines by file and number


@dataclass(frozen=True)
class Answer:
    """What a level said. killed: that it sees the mutation; by: the first case that did, or the error."""

    level: Level
    killed: bool
    by: str = ""


Hints = Sequence[str]  # cases that are asked first, since they saw the mutation before


@dataclass(frozen=True)
class Baseline:
    """What an unharmed copy gives: lines that each level and, of longform and tests, each case runs, imports included.

    questions: pickled, what is asked and what the oracle says of it: of levels process and draw the cells with the
    reference's scores, of level longform `Questions`. None of it knows of the mutated modules.
    """

    reached: Mapping[Level, Lines]
    questions: bytes
    by_case: Mapping[str, Lines] = field(default_factory=dict)


@dataclass(frozen=True)
class Order:
    """What is to be done with a copy. mutated: the changed file; cases: of longform and tests, those that run it."""

    tree: str
    level: Level
    mutated: str
    hints: Hints
    questions: bytes
    cases: Sequence[str] = ()


def examine(order: Order) -> Answer:
    """Put a copy under a level; a copy that is silent too long is ended."""
    dead = f"its process died or took more than {SECONDS[order.level]} s"
    silent, dead = (Answer(order.level, killed=True, by=reason) for reason in ("it hangs", dead))
    return answer_of(_answer, order, seconds=PATIENCE, silent=silent, dead=dead)


def baseline(tree: Path, area: Area, levels: Sequence[Level] = ()) -> Baseline:
    """Look at an unharmed copy, at the levels of an area or some of them, the first one among them.

    Raises RuntimeError where it does not pass.
    """
    reached: dict[Level, Lines] = {}
    by_case: dict[str, Lines] = {}
    questions = recorded(tree) if area.levels == ("longform",) else b""
    for level in levels or area.levels:
        names = {str(path): name for name, path in area.files(tree).items()}
        end = ("its process died", {}, b"")
        given = (str(tree), level, area.tests, names, questions)
        fault, lines, asked = answer_of(_look, *given, seconds=None, silent=end, dead=end)
        if fault:
            raise RuntimeError(f"the unharmed {area.name} does not pass: {fault}")
        reached[level] = frozenset().union(*lines.values())
        by_case |= lines if level in ("longform", "tests") else {}
        questions = questions or asked
    return Baseline(reached, questions, by_case)


def recorded(tree: Path) -> bytes:
    command, variables = [sys.executable, "-m", "tests.tools.mutation.oracle"], os.environ | {"PYTHONPATH": str(tree)}
    result = subprocess.run(command, cwd=tree, env=variables, capture_output=True, check=False)
    if result.returncode:
        raise RuntimeError(result.stderr.decode()[-2000:])
    return result.stdout


def answer_of(target: Callable[..., None], *arguments: Any, seconds: float | None, silent: Any, dead: Any) -> Any:
    """What a function sends from a process that has not seen the package, or what stands for its silence or death.

    Its last argument is the pipe that it sends to.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(*arguments, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(seconds) else silent
    except EOFError:
        return dead
    finally:
        process.kill()
        process.join()
        ours.close()


def _answer(order: Order, pipe: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS[order.level], SECONDS[order.level] + 5))
    with settled(order.tree):
        pipe.send(_ask(order))


@contextlib.contextmanager
def settled(tree: str) -> Iterator[None]:
    """Where the copy is the package, and what a mutation prints goes nowhere."""
    sys.path.insert(0, tree)
    os.chdir(tree)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        yield


def _ask(order: Order) -> Answer:
    try:
        if order.level == "longform":
            seen = _cases(order.tree).first_objection(order.questions, order.hints, order.cases)
            return Answer(order.level, bool(seen), seen)
        if order.level == "tests":
            asked = [*(hint for hint in order.hints if hint in order.cases), *order.cases]
            seen = unit_tests.first_failure(order.tree, sorted({_file_of(each) for each in asked}), asked)
            return Answer(order.level, bool(seen), seen)
        examination = _examination(order.tree, order.level)
        cells, known = pickle.loads(order.questions)  # made by `baseline`
        importlib.import_module("sampler.run.conformance").all_cells = lambda seed: cells
        examination.judge.known.update(known)
        if order.level == "process":
            looks = _failing(examination, cells, order.hints)
        else:
            looks = filter(None, (_objection(replace(examination, only=hint)) for hint in order.hints))
            if order.mutated not in memory.NOT_FOR:
                memory.remember()
        seen = next(looks, "") or _objection(examination)
    except Exception as error:  # noqa: BLE001 - whatever a mutation raises, it is seen
        return Answer(order.level, killed=True, by=f"raises {type(error).__name__}")
    return Answer(order.level, bool(seen), seen)


def _examination(tree: str, level: Level) -> Any:
    core = importlib.import_module("sampler.engines.core")
    check = importlib.import_module("sampler.run.conformance")
    host = importlib.import_module("sampler.engines.isolation")
    assert str(check.__file__).startswith(tree), f"{check.__file__} is not the copy"
    return check.ConformanceRun(host.Local(core.CoreEngine.load()), "core", levels=(level,))


def _cases(tree: str) -> Any:
    cases = importlib.import_module("tests.tools.mutation.cases")
    generation = importlib.import_module("sampler.generation.generator")
    assert str(generation.__file__).startswith(tree), f"{generation.__file__} is not the copy"
    return cases


def _failing(examination: Any, cells: Sequence[Any], hints: Hints) -> Iterator[str]:
    process = importlib.import_module("sampler.checks.conformance.judge")
    named = {f"process/{cell.name}/scores": cell for cell in cells}
    for name in dict.fromkeys([*(hint for hint in hints if hint in named), *named]):
        if process.ask_cell(examination.judge, named[name]).outcome in ("failed", "errored"):
            yield name


def _objection(examination: Any) -> str:
    report = examination.run()
    if report.outcome == "agrees" or (examination.only is not None and report.outcome in ("skipped", "inconclusive")):
        return ""
    objections = [each for each in report.verdicts if each.outcome in ("failed", "errored")]
    return objections[0].case if objections else f"{examination.levels[0]} {report.outcome}"


def _file_of(test: str) -> str:
    return test.partition("::")[0]


def _look(
    tree: str, level: Level, tests: Sequence[str], names: Mapping[str, str], questions: bytes, pipe: Connection
) -> None:
    """Send the first objection to an unharmed copy, the lines that run, by case, and what is asked."""
    with settled(tree):
        if level == "tests":
            pipe.send((*unit_tests.lines_by_test(tree, tests, names), questions))
        else:
            pipe.send(_trace(tree, level, names, questions))


def _trace(
    tree: str, level: Level, names: Mapping[str, str], questions: bytes
) -> tuple[str, Mapping[str, Lines], bytes]:
    seen: set[tuple[str, int]] = set()

    def look(frame: Any, _event: str, _argument: Any) -> Any:
        name = names.get(frame.f_code.co_filename)
        if name is None:
            return _see_compiled(frame, names, seen)
        seen.add((name, frame.f_lineno))
        return look

    threading.settrace(look)
    sys.settrace(look)
    if level == "longform":
        objection, lines = _case_by_case(_cases(tree), questions, seen)
    else:
        examination = _examination(tree, level)
        objection, lines = _objection(examination), {level: frozenset(seen)}
        cells = importlib.import_module("sampler.checks.conformance.probe_sets").all_cells(examination.seed)
        questions = pickle.dumps((cells, examination.judge.known))
    sys.settrace(None)
    return objection, lines, questions


def _see_compiled(frame: Any, names: Mapping[str, str], seen: set[tuple[str, int]]) -> None:
    """Machine code is not traced, so that all lines of a compiled function count as run where it is called."""
    if frame.f_code.co_filename.endswith("compiled.py") and frame.f_code.co_name == "__call__":
        code = frame.f_locals["self"].function.__code__
        if code.co_filename in names:
            seen.update((names[code.co_filename], line) for _, _, line in code.co_lines() if line)


def _case_by_case(cases: Any, questions: bytes, seen: set[tuple[str, int]]) -> tuple[str, dict[str, Lines]]:
    imported, lines = frozenset(seen), {}
    for name in cases.names():
        seen.clear()
        objection = cases.first_objection(questions, (), (name,))
        if objection:
            return objection, {}
        lines[name] = imported | seen
    return "", lines
