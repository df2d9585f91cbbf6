"""How far the tokens of two sides are apart: total variation of their frequencies, beside what chance alone gives."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sampler.checks.longform.runs import TwoSides

Array = NDArray[np.float64]

SHUFFLES = 20


def frequencies_apart(sides: TwoSides) -> tuple[float, float]:
    """Total variation between the frequencies of spoken tokens, and its mean if the runs of each text are shuffled.

    Texts count equally. 0 and 0 without a text that both sides have tokens of.
    """
    texts = [
        ([run.spoken for run in mine], [run.spoken for run in theirs])
        for mine, theirs in zip(sides.engine, sides.reference, strict=True)
    ]
    used = [(mine, theirs) for mine, theirs in texts if all(sum(map(len, runs)) for runs in (mine, theirs))]
    if not used:
        return 0.0, 0.0
    size = 1 + max(int(run.max(initial=0)) for pair in used for runs in pair for run in runs)
    rng = np.random.default_rng(0)
    shuffled = [_apart([_shuffled(rng, *pair) for pair in used], size) for _ in range(SHUFFLES)]
    return _apart(used, size), float(np.mean(shuffled))


Runs = Sequence[NDArray[np.int64]]


def _apart(texts: Sequence[tuple[Runs, Runs]], size: int) -> float:
    differences = [_frequencies(mine, size) - _frequencies(theirs, size) for mine, theirs in texts]
    return float(np.abs(np.mean(differences, axis=0)).sum() / 2)


def _frequencies(runs: Runs, size: int) -> Array:
    counts = np.bincount(np.concatenate(runs), minlength=size).astype(np.float64)
    return np.asarray(counts / max(1.0, counts.sum()))


def _shuffled(rng: np.random.Generator, mine: Runs, theirs: Runs) -> tuple[Runs, Runs]:
    runs = [*mine, *theirs]
    order = rng.permutation(len(runs)).tolist()
    return [runs[place] for place in order[: len(mine)]], [runs[place] for place in order[len(mine) :]]
