"""Every table that has a row for each stage has one for all of them, and every check has a sentence for users."""

from dataclasses import fields

import pytest

from sampler.chain.optional import OPTIONAL
from sampler.chain.pipeline import MAIN
from sampler.checks.conformance import settings
from sampler.checks.conformance.diagnosis.alternatives import ALTERNATIVES
from sampler.checks.conformance.sentences import SENTENCES, sentence
from sampler.checks.longform.questions import ALONE, QUESTIONS
from sampler.checks.steps.table import CHECKS
from sampler.config import SamplingConfig
from sampler.conformance import examine
from sampler.engines.base import EngineInfo
from sampler.engines.reference.optional import OPTIONAL as REFERENCE
from sampler.errors import Unsupported
from sampler.stages import OPTIONAL_STAGES, ROWS, STAGES, VALUES

DOING_SOMETHING = tuple(stage for stage in STAGES if stage != "alignment")
CELLS = ("nothing", "penalty_window", *DOING_SOMETHING, *OPTIONAL_STAGES)


@pytest.mark.parametrize(
    ("table", "stages"),
    [
        pytest.param(MAIN, STAGES, id="chain"),
        pytest.param(OPTIONAL, OPTIONAL_STAGES, id="optional stages of the chain"),
        pytest.param(REFERENCE, OPTIONAL_STAGES, id="optional stages of the reference"),
        pytest.param(settings.SINGLE, DOING_SOMETHING, id="parameters tested alone"),
        pytest.param(settings.PAIRED, DOING_SOMETHING, id="parameters tested in pairs"),
        pytest.param(settings.OPTIONAL, OPTIONAL_STAGES, id="parameters of optional stages"),
        pytest.param(ALTERNATIVES, CELLS, id="alternatives of the diagnosis"),
    ],
)
def test_a_table_has_every_stage(table, stages):
    assert set(table) == set(stages)


def test_every_parameter_of_a_stage_is_a_field_with_a_range():
    named = {name for row in ROWS for name in (*row.neutral, *row.values, *row.shared)}
    assert named <= {field.name for field in fields(SamplingConfig)}
    assert named <= set(VALUES)


class RefusesAll:
    """Every check still has a verdict."""

    info = EngineInfo("refuses", "1")

    def process(self, logits, history, config, uncond_logits=None):
        raise Unsupported("not today")

    draw = pick = predict = process


def test_every_check_has_a_sentence():
    verdicts = examine(RefusesAll(), levels=("process", "draw", "predict")).verdicts
    lacking = {verdict.check for verdict in verdicts if not sentence(verdict.check)}
    assert lacking == set(), "sampler/checks/conformance/sentences.py"
    found = {check.name: check.sentence for check in CHECKS} | {each.name: each.sentence for each in QUESTIONS}
    for text in [*found.values(), *ALONE.values(), *SENTENCES.values()]:
        assert text[0].isupper() or text[0] == "`"
        assert text.endswith(".")
        assert len(text.split()) >= 4
