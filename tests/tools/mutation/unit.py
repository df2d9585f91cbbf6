"""Whether the unit test that an argument names really fails with the mutation."""

import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection

from tests.tools.mutation.judge import settled, started
from tests.tools.mutation.mutations import Mutation
from tests.tools.mutation.session import Copy
from tests.tools.mutation.survivors import Argument

SECONDS = 300.0
FAILED, PASSED = 1, 0


def fails(copy: Copy, test: str) -> bool:
    """Run a unit test on a copy as it stands. Raises RuntimeError where pytest can neither pass nor fail it."""
    process, pipe = started(_run, str(copy.tree), test)
    try:
        code = pipe.recv() if pipe.poll(SECONDS) else FAILED
    except EOFError:
        code = FAILED
    finally:
        process.kill()
        process.join()
        pipe.close()
    if code not in (PASSED, FAILED):
        raise RuntimeError(f"pytest ended with {code} on {test}")
    return code == FAILED


def _run(tree: str, test: str, pipe: Connection) -> None:
    with settled(tree):
        for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
            del sys.modules[name]  # the copy has tests of its own
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        import pytest

        options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", "-m", "", "--rootdir", tree]
        pipe.send(int(pytest.main([*options, test])))


def unseen(
    copies: Sequence[Copy],
    mutations: Sequence[Mutation],
    arguments: Sequence[Argument],
    told: Callable[[str], None],
) -> Iterator[str]:
    """Mutations outside of the levels that their unit test does not see, and tests that fail without a mutation."""
    tests = {name: each.test for each in arguments if each.kind == "outside" for name in each.names}
    for test in sorted(set(tests.values())):
        if fails(copies[0], test):
            yield f"fails without any mutation: {test}"
    waiting: queue.SimpleQueue[Mutation] = queue.SimpleQueue()
    for mutation in mutations:
        if mutation.name in tests:
            waiting.put(mutation)
    missed: list[str] = []

    def work(copy: Copy) -> None:
        while not waiting.empty():
            try:
                mutation = waiting.get_nowait()
            except queue.Empty:
                return
            test = tests[mutation.name]
            with copy.mutated(mutation):
                seen = fails(copy, test)
            told(f"{'seen by' if seen else 'NOT SEEN by'} {test}: {mutation.name}")
            if not seen:
                missed.append(f"not seen by {test}: {mutation.name}")

    threads = [threading.Thread(target=work, args=(copy,)) for copy in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    yield from sorted(missed)
