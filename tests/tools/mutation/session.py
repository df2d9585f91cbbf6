"""A run over all mutations: copies of the tree at work, results as JSON lines that a later run can start from."""

import contextlib
import hashlib
import json
import queue
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from tests.tools.mutation.areas import CHAIN, ROOT, Area, Level, path_of
from tests.tools.mutation.judge import Answer, Baseline, Hints, Lines, Order, baseline, examine
from tests.tools.mutation.mutations import Mutation, mutations_of

CARRIED = ("sampler", "matrices", "tests", "conftest.py", "pyproject.toml")
"""What a copy of the tree consists of."""
LINKED = ".wheels"
"""Upstream's releases, where they are: each copy sees the same ones."""

HINTS = 2


@dataclass(frozen=True)
class Result:
    """What became of a mutation. survived: levels that did not see it; killed: the one that did; by: which case."""

    name: str
    survived: tuple[Level, ...] = ()
    killed: Level | None = None
    by: str = ""

    def after(self, answer: Answer) -> "Result":
        """With the answer of a further level."""
        if answer.killed:
            return replace(self, killed=answer.level, by=answer.by)
        return replace(self, survived=(*self.survived, answer.level))


def all_mutations(
    area: Area = CHAIN, files: Sequence[str] = (), share: float = 1.0, root: Path = ROOT
) -> list[Mutation]:
    """Mutations of every module of an area, or of those that are named; one of each name.

    share: how many of them, chosen by their hash, which has nothing to do with what they are.
    """
    paths = area.files(root).values()
    found = (each for path in paths if not files or path.name in files for each in mutations_of(path))
    return [each for each in {each.name: each for each in found}.values() if _hash(each) < share]


def _hash(mutation: Mutation) -> float:
    """A number from 0 to 1 that follows from the name."""
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
        """While the mutation is in place."""
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
        """Put a level to a mutation."""
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
    """Whether a level runs the mutated statement at all; if not, the mutation survives without being asked."""
    return runs(mutation, base.reached[level])


def runs(mutation: Mutation, lines: Lines) -> bool:
    """Whether the mutated statement is among the lines that were run."""
    first, last = mutation.statement
    return any((mutation.file, line) in lines for line in range(first, last + 1))


class Recent:
    """Cases that killed lately, the latest first: mutations of one function tend to be seen by the same ones."""

    def __init__(self) -> None:
        self._cases: dict[tuple[str, Level], list[str]] = {}

    def hints(self, mutation: Mutation, level: Level) -> Hints:
        """Cases to ask first."""
        return tuple(self._cases.get((_place(mutation.name), level), ())[:HINTS])

    def saw(self, result: Result) -> None:
        """Remember who killed."""
        if result.killed and result.by.startswith(f"{result.killed}/"):
            cases = self._cases.setdefault((_place(result.name), result.killed), [])
            cases[:] = dict.fromkeys((result.by, *cases))


def _place(name: str) -> str:
    """File and function of a mutation."""
    return name.partition(":")[0]


def shuffled(mutations: Sequence[Mutation]) -> list[Mutation]:
    """In an order that has nothing to do with the files, so that what is done first is a fair sample."""
    return sorted(mutations, key=_hash)


@dataclass
class Session:
    """A run under way. told: each result as it comes; made: all of them by name."""

    copies: Sequence[Copy]
    base: Baseline
    told: Callable[[Result], None]
    made: dict[str, Result]
    recent: Recent = field(default_factory=Recent)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, mutations: Sequence[Mutation], level: Level) -> None:
        """Put one level to all mutations that are alive and were not asked, a copy to each thread."""
        waiting: queue.SimpleQueue[Mutation] = queue.SimpleQueue()
        for mutation in mutations:
            before = self.made.setdefault(mutation.name, Result(mutation.name))
            if before.killed is None and level not in before.survived:
                waiting.put(mutation)
        threads = [threading.Thread(target=self._work, args=(copy, level, waiting)) for copy in self.copies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self, copy: Copy, level: Level, waiting: "queue.SimpleQueue[Mutation]") -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                mutation = waiting.get_nowait()
                answer = copy.judge(mutation, level, self.recent.hints(mutation, level), self.base)
                with self.lock:
                    result = self.made[mutation.name] = self.made[mutation.name].after(answer)
                    self.recent.saw(result)
                    self.told(result)


@contextlib.contextmanager
def copies(count: int) -> Iterator[list[Copy]]:
    """Copies of the tree in a temporary folder; the checkout itself is never changed."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        yield [Copy(Path(folder) / str(number)) for number in range(count)]


def run(
    trees: Sequence[Copy],
    area: Area,
    mutations: Sequence[Mutation],
    known: Sequence[Result],
    told: Callable[[Result], None],
) -> list[Result]:
    """Judge every mutation that is not known yet, a copy to each thread, all of them at the cheap level first."""
    session = Session(trees, baseline(trees[0].tree, area), told, {each.name: each for each in known})
    for level in area.levels:
        session.ask(shuffled(mutations), level)
    return [session.made[mutation.name] for mutation in mutations]


def read(path: Path) -> list[Result]:
    """Results of an earlier run; of each name the last one counts."""
    if not path.exists():
        return []
    found = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [Result(each["name"], tuple(each["survived"]), each["killed"], each["by"]) for each in found]


def append(path: Path, result: Result) -> None:
    """Add one result to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(result)) + "\n")
