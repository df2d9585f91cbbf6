"""Draws of each optional stage, and of every stage near the ends of its range: what an engine that only draws is asked.

Each row undoes its stage: the scores after it are one target, in even steps, whatever the parameters are. So a bias of
100 that is cut off at 50, or a temperature of 0.005 that is taken as 0.05, changes nearly all of the distribution. Rows
of filters have many tokens just above the threshold and many just below it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampler.checks.conformance.draw.cells import DrawCell
from sampler.checks.conformance.probes import Probe
from sampler.checks.conformance.settings import NEUTRAL, OPTIONAL
from sampler.stages import OPTIONAL_STAGES, Stage

Array = NDArray[np.float64]

SIZE = 37
ENDS: Mapping[Stage, Sequence[Mapping[str, Any]]] = {
    "cfg": ({"cfg_weight": 10.0}, {"cfg_weight": -3.0}),
    "repetition_penalty": tuple({"repetition_penalty": value} for value in (5.0, 100.0, 0.2, 0.01)),
    "temperature": tuple({"temperature": value} for value in (0.02, 0.005, 5.0, 100.0)),
    "top_k": ({"top_k": 150},),
    "min_p": ({"min_p": 0.005}, {"min_p": 5e-4}, {"min_p": 0.9}),
    "top_p": ({"top_p": 0.997}, {"top_p": 0.9995}, {"top_p": 0.01}),
    "frequency_penalty": ({"frequency_penalty": 0.4}, {"frequency_penalty": 5.0}, {"frequency_penalty": -5.0}),
    "presence_penalty": ({"presence_penalty": 1.1}, {"presence_penalty": 5.0}, {"presence_penalty": -5.0}),
    "dry_multiplier": (
        {"dry_multiplier": 0.8}, {"dry_multiplier": 20.0, "dry_allowed_length": 1},
        {"dry_multiplier": 0.05, "dry_base": 4.0, "dry_allowed_length": 1},
    ),
    "no_repeat_ngram_size": tuple({"no_repeat_ngram_size": size} for size in (2, 1, 3, 4, 5)),
    "min_new_tokens": tuple({"min_new_tokens": count} for count in (7, 6)),
    "top_n_sigma": ({"top_n_sigma": 1.0}, {"top_n_sigma": 0.3}, {"top_n_sigma": 4.0}),
    "typical_p": tuple({"typical_p": value} for value in (0.9, 0.999, 0.01)),
    "xtc_probability": tuple({"xtc_probability": 1.0, "xtc_threshold": value} for value in (0.05, 0.25, 0.003)),
}  # fmt: skip
"""The parameters of each stage. The first ones of an optional stage are ordinary: every engine with the stage is asked
them. XTC acts in every draw: what decides whether it does is the engine's own."""

NAMING = ("logit_bias", "suppressed_tokens")
"""Stages whose parameters name ids, which follow from the row."""

BIASES = (0.0, 100.0, -100.0)
"""Added to every second token. The first bias has two ids alone, of ordinary size."""

HISTORY = (
    0, 3, 1, 5, 20, 10, 11, 12, 13, 0, 21, 11, 12, 13, 1, 22, 12, 13, 2, 23, 13, 3, 24, 10, 11, 12, 13,
)  # fmt: skip
"""Ranks. Its end of 4, 3, 2 and 1 ids stood before ranks 0, 1, 2 and 3: each size of an n-gram removes other tokens."""

DRAWN = 6
"""The last ids of this history were drawn."""

SEEN = (5, 0, 0, 3, 2, 3, 1, 1, 1, 6, 0, 12)
"""The history of penalties, by rank; the last half was drawn."""

EOS = (0, 5)


@dataclass(frozen=True)
class _Target:
    """The scores (V,) that a row is to have after its stage; ids: by rank, the likeliest first."""

    scores: Array
    ids: NDArray[np.int64]

    @classmethod
    def of(cls, rng: np.random.Generator, ranked: Array) -> "_Target":
        """Scores of each rank, on ids at random."""
        ids = rng.permutation(len(ranked))
        scores = np.empty(len(ranked))
        scores[ids] = ranked
        return cls(scores, ids)

    def at(self, ranks: Sequence[int]) -> list[int]:
        return [int(self.ids[rank]) for rank in ranks]


def further_cells(seed: int) -> Iterator[DrawCell]:
    """Cells of every stage alone; those of the default order, which have ordinary cells, at the ends alone."""
    others = {stage: settings for stage, settings in OPTIONAL.items() if stage not in (*ENDS, *NAMING)}
    for stage, settings in {**ENDS, **others}.items():
        for place, knobs in enumerate(settings):
            ordinary = place == 0 and stage in OPTIONAL_STAGES
            value = knobs.get("xtc_threshold", next(iter(knobs.values())))
            yield _cell(seed, stage, stage if ordinary else f"{stage}:{value:g}", knobs)
    for bias in BIASES:
        yield _cell(seed, "logit_bias", f"logit_bias:{bias:g}" if bias else "logit_bias", {"logit_bias": bias})
    for every in (False, True):
        name = "suppressed_tokens:half" if every else "suppressed_tokens"
        yield _cell(seed, "suppressed_tokens", name, {"suppressed_tokens": every})


def _cell(seed: int, stage: Stage, name: str, knobs: Mapping[str, Any]) -> DrawCell:
    rng = np.random.default_rng([seed, 5, *name.encode()])
    target = _Target.of(rng, _ranked(rng, stage, knobs))
    probe = _ROWS.get(stage, _plain)(name, target, knobs, rng)
    optional = stage in OPTIONAL_STAGES
    return DrawCell(name, (stage,), probe, by_sets=True, further=True, alone=not optional or name != stage)


def _ranked(rng: np.random.Generator, stage: Stage, knobs: Mapping[str, Any]) -> Array:
    """The scores of a target by rank."""
    value = float(next(iter(knobs.values())))
    if stage == "min_p" and value < 0.5:  # half of the tokens below the threshold, by a third
        count = min(250, int(0.25 / value))
        above, below = _spread(rng, 1.4 * value, count), _spread(rng, 0.7 * value, count)
        return np.asarray(np.log(np.concatenate([[1, 0.8, 0.6], above, below])))
    if stage == "top_p" and value > 0.5:  # the tokens that are to go have 0.95 of the mass that may
        rest = 1 - value
        kept, gone = _spread(rng, 3 * rest / 40, 40), _spread(rng, 0.95 * rest / 20, 20)
        heads = np.array([0.5, 0.3, 0.2]) * (1 - kept.sum() - gone.sum())
        return np.asarray(np.log(np.concatenate([heads, kept, gone])))
    if stage == "top_n_sigma" and value > 3:
        return np.asarray(np.sort(np.append(rng.normal(0, 1.5, 300).clip(-4, 4), 6.0))[::-1])
    if stage == "top_k":
        return np.linspace(0.4, -0.4, 300)
    if stage == "typical_p" and value > 0.9:
        return np.linspace(3.0, -7.0, 60) + rng.uniform(-0.02, 0.02, 60)
    if knobs.get("xtc_threshold") == 0.25:  # three tokens reach it
        return np.asarray(np.log(np.concatenate([[0.31, 0.29, 0.27], _spread(rng, 0.13 / 30, 30)])))
    if stage == "min_p":
        return np.linspace(0.0, -0.4, SIZE)
    return np.linspace(2.2, -1.4, SIZE) + rng.uniform(-0.02, 0.02, SIZE)


def _spread(rng: np.random.Generator, middle: float, count: int) -> Array:
    """Numbers within a hundredth of another one, the largest first."""
    return np.sort(middle * rng.uniform(0.99, 1.01, count))[::-1]


def _plain(name: str, target: _Target, knobs: Mapping[str, Any], rng: np.random.Generator) -> Probe:  # noqa: ARG001
    """The target itself; temperature is undone."""
    row = target.scores * knobs.get("temperature", 1.0)
    return _probe(name, row, knobs, target.at(HISTORY))


def _guided(name: str, target: _Target, knobs: Mapping[str, Any], rng: np.random.Generator) -> Probe:
    weight, uncond = knobs["cfg_weight"], rng.normal(0, 1.0, len(target.scores))
    row = (target.scores + weight * uncond) / (1 + weight)
    return _probe(name, row, knobs, target.at(HISTORY), uncond_logits=uncond.astype(np.float32)[None])


def _penalised(name: str, target: _Target, knobs: Mapping[str, Any], rng: np.random.Generator) -> Probe:  # noqa: ARG001
    row, seen = target.scores - 0.4, sorted(set(target.at((*SEEN, 25, 30, 33))))
    penalty = knobs["repetition_penalty"]
    row[seen] = np.where(row[seen] < 0, row[seen] / penalty, row[seen] * penalty)
    return _probe(name, row, knobs, target.at((*SEEN, 25, 30, 33)))


def _counted(name: str, target: _Target, knobs: Mapping[str, Any], rng: np.random.Generator) -> Probe:  # noqa: ARG001
    row, drawn = target.scores.copy(), target.at(SEEN[len(SEEN) // 2 :])
    for token in drawn if "frequency_penalty" in knobs else set(drawn):
        row[token] += next(iter(knobs.values()))
    return _probe(name, row, knobs, target.at(SEEN))


def _repeated(name: str, target: _Target, knobs: Mapping[str, Any], rng: np.random.Generator) -> Probe:  # noqa: ARG001
    row, allowed = target.scores.copy(), knobs.get("dry_allowed_length", 2)
    for rank, length in enumerate((4, 3, 2, 1)):
        if length >= allowed:
            row[target.ids[rank]] += knobs["dry_multiplier"] * knobs.get("dry_base", 1.75) ** (length - allowed)
    return _probe(name, row, knobs, target.at(HISTORY))


def _ended(name: str, target: _Target, knobs: Mapping[str, Any], rng: np.random.Generator) -> Probe:  # noqa: ARG001
    history = target.at(HISTORY[-2 * DRAWN :])
    eos_ids = tuple(target.at(EOS))
    return _probe(name, target.scores, knobs, history, eos_ids=eos_ids, prompts=(len(history) - DRAWN,))


def _biased(name: str, target: _Target, knobs: Mapping[str, Any], rng: np.random.Generator) -> Probe:  # noqa: ARG001
    row, bias = target.scores.copy(), knobs["logit_bias"]
    ids = target.at(range(0, SIZE, 2)) if bias else target.at((0, 6))
    values = dict.fromkeys(ids, bias) if bias else dict(zip(ids, (-2.5, 3.0), strict=True))
    for token, value in values.items():
        row[token] -= value
    return _probe(name, row, {"logit_bias": values}, target.at(HISTORY))


def _suppressed(name: str, target: _Target, knobs: Mapping[str, Any], rng: np.random.Generator) -> Probe:  # noqa: ARG001
    ids = target.at(range(0, SIZE, 2) if knobs["suppressed_tokens"] else (0, 7))
    return _probe(name, target.scores, {"suppressed_tokens": tuple(ids)}, target.at(HISTORY))


_ROWS: Mapping[Stage, Callable[[str, _Target, Mapping[str, Any], np.random.Generator], Probe]] = {
    "cfg": _guided,
    "repetition_penalty": _penalised,
    "frequency_penalty": _counted,
    "presence_penalty": _counted,
    "dry_multiplier": _repeated,
    "min_new_tokens": _ended,
    "logit_bias": _biased,
    "suppressed_tokens": _suppressed,
}


def _probe(name: str, row: Array, knobs: Mapping[str, Any], history: list[int], **known: Any) -> Probe:
    config = replace(NEUTRAL, **knobs)
    return Probe.of(name, f"V={len(row)}", config, row.astype(np.float32)[None], [history], ("steps",), **known)
