"""The cases of level longform: generation, cache and analyzer of a mutated copy, with upstream's answers beside them.

Imported in a judge's process alone, after the copy is the package. A case raises where something is wrong.
"""

import pickle
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from tests.tools.mutation.cases import analyzer, blocks, loop, parts, room
from tests.tools.mutation.cases.bench import Bench

CASES: Mapping[str, Callable[[Bench], None]] = {
    "ranges": analyzer.ranges,
    "frozen": parts.frozen,
    "defaults": parts.defaults,
    "kinds of input": analyzer.kinds_of_input,
    "unmasked": analyzer.unmasked,
    "thresholds": analyzer.thresholds,
    "every pair of flags": analyzer.every_pair_of_flags,
    "cache": parts.cache,
    "refusals": parts.refusals,
    "room": room.room,
    "shared rows": room.shared_rows,
    "memory": room.memory,
    "decode caches": room.decode_caches,
    "prefixes": room.prefixes,
    "forgotten": room.forgotten,
    "first chunk": loop.first_chunk,
    "loop/en-0.1.2-nocfg": partial(loop.follows_upstream, name="en-0.1.2-nocfg"),
    "loop/en-0.1.2": partial(loop.follows_upstream, name="en-0.1.2"),
    "loop/turbo": partial(loop.follows_upstream, name="turbo"),
    "capped": blocks.capped,
    "slots": blocks.slots,
    "progress": blocks.progress,
    "without noise": blocks.without_noise,
    "broken rows": blocks.broken_rows,
    "uniforms": blocks.uniforms,
    "switched off": analyzer.switched_off,
    "replays/upstream-0.1.0": partial(analyzer.decides_as_upstream, name="upstream-0.1.0"),
    "replays/upstream": partial(analyzer.decides_as_upstream, name="upstream"),
    "loop/mtl-0.1.6": partial(loop.follows_upstream, name="mtl-0.1.6"),
    "loop/mtl-0.1.6 by MLX": partial(loop.follows_upstream, name="mtl-0.1.6", attention="mlx"),
    "looking back": blocks.looking_back,
    "alone": blocks.alone,
    "orders": blocks.orders,
}
"""From the quick ones to the slow ones."""


def names() -> list[str]:
    """Names of all cases, as a judge gives them."""
    return [f"longform/{name}" for name in CASES]


def first_objection(questions: bytes, hints: Sequence[str], asked: Sequence[str]) -> str:
    """The first of these cases that finds something wrong, those of the hints before the others; or nothing."""
    bench = Bench(pickle.loads(questions))  # recorded by `tests/tools/mutation/oracle.py`
    for name in dict.fromkeys([*(hint for hint in hints if hint in asked), *asked]):
        try:
            CASES[name.removeprefix("longform/")](bench)
        except Exception:  # noqa: BLE001 - whatever a mutation raises, it is seen
            return name
    return ""
