"""The cases of level longform: generation, cache and analyzer of a mutated copy, with upstream's answers beside them.

Imported in a judge's process alone, after the copy is the package. A case raises where something is wrong.
"""

import pickle
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from tests.tools.mutation.cases import analyzer, blocks, loop, room
from tests.tools.mutation.cases.bench import Bench

_QUICK = [analyzer.ranges, blocks.frozen, blocks.defaults, analyzer.kinds_of_input, analyzer.unmasked]
_QUICK += [analyzer.thresholds, analyzer.every_pair_of_flags, room.cache, blocks.refusals, room.room, room.shared_rows]
_QUICK += [room.memory, room.decode_caches, room.prefixes, room.forgotten, loop.first_chunk]
_SLOW = [blocks.capped, blocks.slots, blocks.progress, blocks.without_noise, blocks.broken_rows, blocks.uniforms]
_SLOW += [analyzer.switched_off, blocks.looking_back, blocks.alone, blocks.orders]

CASES: Mapping[str, Callable[[Bench], None]] = {
    **{case.__name__.replace("_", " "): case for case in _QUICK},
    **{f"loop/{name}": partial(loop.follows_upstream, name=name) for name in ("en-0.1.2-nocfg", "en-0.1.2", "turbo")},
    **{case.__name__.replace("_", " "): case for case in _SLOW},
    **{f"replays/{name}": partial(analyzer.decides_as_upstream, name=name) for name in ("upstream-0.1.0", "upstream")},
    "loop/mtl-0.1.6": partial(loop.follows_upstream, name="mtl-0.1.6"),
    "loop/mtl-0.1.6 by MLX": partial(loop.follows_upstream, name="mtl-0.1.6", attention="mlx"),
}
"""From the quick ones to the slow ones."""


def names() -> list[str]:
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
