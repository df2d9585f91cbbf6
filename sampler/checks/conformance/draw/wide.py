"""Draws over the vocabulary of a large model: loaded places, near +100 and -100, scans longer than any block.

Such draws are expensive, so there are few of them, and the rows are made so that few are enough: what a wrong scan
loses, doubles or takes for something else has a large probability.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sampler.checks.conformance.draw.cells import DrawCell
from sampler.checks.conformance.probes import Probe
from sampler.checks.conformance.settings import NEUTRAL
from sampler.config import SamplingConfig

Array = NDArray[np.float64]

VOCABULARY = 151_936
"""That of Qwen 2 and 3: above 2^17, no multiple of 256."""

FEW, MANY = 500, 2_000
"""Draws from a loaded or a flat row, and from the one whose tail has little mass."""

CHUNK = 125
"""Draws per call, few since an engine may need V numbers for each. Together these are more than 2^24, which is the most
that a torch.multinomial takes."""

ENDS = (0, 31, 32, 1_023, 1_024, 32_767, 32_768, 65_535, 65_536, 99_999, 100_000, 131_071, 131_072)
"""First and last ids of blocks of 32 to 131,072, of 100,000, and of token ids of 16 bits."""

ON_PLACES = 0.8
"""The mass of the loaded places together."""

HIGH, LOW = 100.0, -105.0
"""The best logits: exp of the first is infinite, and exp of the second is 0, in float32."""

STEP = 1.45 * 2.0**-24
"""The probability of a rare token: so many steps of float32 between 0.5 and 1 that a running sum in float32 loses a
third of each, and ends at 0.996."""

DETECT = 0.25


def wide_cells(seed: int, size: int) -> Iterator[DrawCell]:
    """The cells of one vocabulary, an engine's own where it takes no other."""
    places = tuple(sorted({*(token for token in ENDS if token < size), size - 1}))
    yield _cell(seed, "places", size, _loaded(seed, size, places), NEUTRAL, FEW, places=places)
    yield _cell(seed, "scan", size, _scattered(seed, size), NEUTRAL, FEW)
    nucleus = replace(NEUTRAL, top_p=0.9)
    yield _cell(seed, "top_p", size, _even(seed, size), nucleus, FEW)
    yield _cell(seed, "rare", size, _rare(size), NEUTRAL, MANY)


def _cell(
    seed: int, name: str, size: int, row: Array, config: SamplingConfig, draws: int, places: tuple[int, ...] = ()
) -> DrawCell:
    rng = np.random.default_rng([seed, size, *name.encode()])
    history = [rng.integers(0, size, 20).tolist()]
    cell = f"wide:{name}"
    probe = Probe.of(cell, f"V={size}", config, row.astype(np.float32)[None], history, ("wide",))
    stages = ("top_p",) if config.top_p < 1 else ()
    return DrawCell(cell, stages, probe, DETECT, draws, CHUNK, by_sets=True, places=places)


def _loaded(seed: int, size: int, places: tuple[int, ...]) -> Array:
    """A few ids have most of the mass, at +100; all others have the rest."""
    rng = np.random.default_rng([seed, size, 1])
    others = max(1, size - len(places))
    row = np.log((1 - ON_PLACES) / others) + rng.normal(0, 0.5, size) - 0.125
    row[list(places)] = np.log(ON_PLACES / len(places))
    return np.asarray(row - row.max() + HIGH)


def _scattered(seed: int, size: int) -> Array:
    """Two thirds of the ids, nearly equal, at -105; the last id is removed."""
    rng = np.random.default_rng([seed, size, 2])
    row = rng.permutation(np.linspace(-0.15, 0.15, size)) + LOW
    row[rng.permutation(size)[: size // 3]] = -np.inf
    row[0], row[-1] = LOW, -np.inf
    return row


def _even(seed: int, size: int) -> Array:
    """All ids in even steps, so that top_p keeps most of them."""
    return np.random.default_rng([seed, size, 3]).permutation(np.linspace(-1.0, 1.0, size))


def _rare(size: int) -> Array:
    """The first id has nearly all of the mass and the others share 0.013; the last id is removed."""
    row = np.full(size, np.log(STEP * VOCABULARY / size) + HIGH)
    row[0], row[-1] = HIGH, -np.inf
    return row
