"""Answers that are right in another form: probabilities where scores are expected."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sampler.checks.conformance.cells import ProbeResult
from sampler.checks.conformance.comparison import Comparison
from sampler.checks.conformance.probes import Mask
from sampler.engines.calls import Answer, Call, EngineClient, Offer

Array = NDArray[np.float64]

SHARE = 0.95
"""Share of all rows that have to have the form."""

NEAR_ONE = 0.01
"""Half precision adds up to 1 only about so well."""


@dataclass(frozen=True)
class Form:
    """A form of answers. fits: which rows (B, V) have it; scores: turns it into scores."""

    words: str
    fits: Callable[[Array], Mask]
    scores: Callable[[Array], Array]


def _sums_to_one(weights: Array) -> Mask:
    return np.asarray(np.abs(weights.sum(axis=-1) - 1) < NEAR_ONE)


def _logarithms(rows: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(rows)


FORMS = (
    Form("probabilities", lambda rows: (rows >= 0).all(axis=-1) & _sums_to_one(rows), _logarithms),
    Form(
        "negative log-probabilities",
        lambda rows: (rows >= -NEAR_ONE).all(axis=-1) & _sums_to_one(np.exp(-rows)),
        lambda rows: -rows,
    ),
)


def form_of(results: Sequence[ProbeResult]) -> Form | None:
    """The form that nearly all answers have, if it is not that of scores."""
    compared = [one for result in results for one in result.comparisons if not one.failure]
    answers = [one.answer.value.astype(np.float64) for one in compared if one.answer.value is not None]
    for form in FORMS if answers else ():
        with np.errstate(invalid="ignore", over="ignore"):
            fits = np.concatenate([form.fits(rows) for rows in answers])
        if fits.mean() >= SHARE:
            return form
    return None


def read_as(form: Form, results: Sequence[ProbeResult]) -> list[ProbeResult]:
    """The same results with every answer turned into scores."""
    return [replace(result, comparisons=[_read(form, one) for one in result.comparisons]) for result in results]


def _read(form: Form, one: Comparison) -> Comparison:
    return Comparison(one.probe, one.expected, _turned(form, one.answer), one.failure)


def _turned(form: Form, answer: Answer) -> Answer:
    if answer.value is None:
        return answer
    return replace(answer, value=form.scores(answer.value.astype(np.float64)))


@dataclass(frozen=True)
class Reader:
    """A client whose answers are turned into scores."""

    client: EngineClient
    form: Form

    @property
    def offer(self) -> Offer:
        return self.client.offer

    def ask(self, call: Call, on_step: Callable[[int, int], None] = lambda tokens, finished: None) -> Answer:
        return _turned(self.form, self.client.ask(call, on_step))
