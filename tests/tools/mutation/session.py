"""A run over all mutations: copies of the tree at work, results as JSON lines that a later run can start from."""

import contextlib
import hashlib
import json
import queue
import shutil
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.tools.mutation.areas import ROOT, Area, Level, path_of
from tests.tools.mutation.judge import Answer, Baseline, Hints, Lines, Order, baseline, examine
from tests.tools.mutation.mutations import Mutation, mutations_of

CARRIED = ("sampler", "matrices", "tests", "conftest.py", "pyproject.toml")  # what a copy of the tree consists of
LINKED = ".wheels"  # upstream's releases, where they are: each copy sees the same ones
HINTS = 2


@dataclass(frozen=True)
class Result:
    """What became of a mutation. survived: levels that did not see it; killed: the one that did; by: which case."""

    name: str
    survived: tuple[Level, ...] = ()
    killed: Level | None = None
    by: str = ""

    def after(self, answer: Answer) -> "Result":
        if answer.killed:
            return replace(self, killed=answer.level, by=answer.by)
        return replace(self, survived=(*self.survived, answer.level))


def all_mutations(area: Area, files: Sequence[str] = (), share: float = 1.0) -> list[Mutation]:
    """Mutations of every module of an area, or of those that are named; one of each name.

    share: how many of them, chosen by their hash, which has nothing to do with what they are.
    """
    found = (each for path in area.files().values() if not files or path.name in files for each in mutations_of(path))
    return [each for each in {each.name: each for each in found}.values() if _hash(each) < share]


def _hash(mutation: Mutation) -> float:
    return int.from_bytes(hashlib.sha256(mutation.name.encode()).digest()[:6], "big") / 2**48


class Copy:
    """A copy of the tree in which one mutation at a time stands."""

    def __init__(self, folder: Path, root: Path = ROOT) -> None:
        self.tree = folder
        for name in CARRIED:
            source = root / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder / name)
        if (root / LINKED).exists():
            (folder / LINKED).symlink_to(root / LINKED)

    @contextlib.contextmanager
    def mutated(self, mutation: Mutation) -> Iterator[None]:
        path = path_of(mutation.file, self.tree)
        before = path.read_bytes()
        _forget_compiled(path)
        path.write_text(mutation.code, encoding="utf-8")
        try:
            yield
        finally:
            path.write_bytes(before)
            _forget_compiled(path)

    def judge(self, mutation: Mutation, level: Level, hints: Hints, base: Baseline) -> Answer:
        if not reaches(level, mutation, base):
            return Answer(level, killed=False)
        cases = [name for name, lines in base.by_case.items() if runs(mutation, lines)]
        with self.mutated(mutation):
            return examine(Order(str(self.tree), level, mutation.file, hints, base.questions, cases))


def _forget_compiled(path: Path) -> None:
    """Else a text of the same second and length would be taken for the one that it replaces, or is replaced by."""
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
        compiled.unlink()


def reaches(level: Level, mutation: Mutation, base: Baseline) -> bool:
    return runs(mutation, base.reached[level])


def runs(mutation: Mutation, lines: Lines) -> bool:
    first, last = mutation.statement
    return any((mutation.file, line) in lines for line in range(first, last + 1))


def on_copies(copies: Sequence[Copy], mutations: list[Mutation], work: Callable[[Copy, Mutation], Any]) -> list[Any]:
    """Work on every mutation, each on a copy that is free; the answers stand in the order of the mutations."""
    free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    for copy in copies:
        free.put(copy)

    def on_a_free_copy(mutation: Mutation) -> Any:
        copy = free.get()
        try:
            return work(copy, mutation)
        finally:
            free.put(copy)

    with ThreadPoolExecutor(len(copies)) as pool:
        return list(pool.map(on_a_free_copy, mutations))


@contextlib.contextmanager
def copies(count: int) -> Iterator[list[Copy]]:
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        yield [Copy(Path(folder) / str(number)) for number in range(count)]


def run(
    trees: list[Copy], area: Area, mutations: list[Mutation], known: list[Result], told: Callable[[Result], None]
) -> list[Result]:
    """Judge every mutation that is not known yet, a copy to each thread, all of them at the cheap level first.

    In the order of their hashes, so that what is done first is a fair sample; a mutation of a function is first judged
    by the cases that killed others of the same function.
    """
    base, lock = baseline(trees[0].tree, area), threading.Lock()
    results = {each.name: Result(each.name) for each in mutations} | {each.name: each for each in known}
    killers: dict[tuple[str, str, Level], list[str]] = defaultdict(list)

    def judge(level: Level, copy: Copy, mutation: Mutation) -> None:
        cases = killers[mutation.file, mutation.function, level]
        answer = copy.judge(mutation, level, cases[:HINTS], base)
        with lock:
            result = results[mutation.name] = results[mutation.name].after(answer)
            if result.by.startswith((f"{level}/", "tests/")):
                cases[:] = dict.fromkeys((result.by, *cases))
            told(result)

    for level in area.levels:
        alive = [each for each in sorted(mutations, key=_hash) if level not in results[each.name].survived]
        on_copies(trees, [each for each in alive if not results[each.name].killed], partial(judge, level))
    return [results[mutation.name] for mutation in mutations]


def read(path: Path) -> list[Result]:
    if not path.exists():
        return []
    found = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [Result(each["name"], tuple(each["survived"]), each["killed"], each["by"]) for each in found]


def append(path: Path, result: Result) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(result)) + "\n")
