"""Draws at temperature 0, alone and with one other stage: every draw is the most likely token that is left."""

from dataclasses import replace

import numpy as np

from sampler.checks.conformance.draw.drawer import Drawer
from sampler.checks.conformance.draw.plan import DrawPlan
from sampler.checks.conformance.probes import Probe, ProbeSet
from sampler.checks.conformance.settings import NEUTRAL
from sampler.checks.conformance.ties import AT_TIES
from sampler.checks.verdict import Finding, some_ids

EACH = 25
"""Draws from each row."""


def at_zero(drawer: Drawer, cell: ProbeSet) -> Finding:
    """Draw from every row of a cell of `greedy_cells`. Raises NoDraws and Unsupported."""
    (probe,) = cell.probes
    stage = cell.stages[0]
    n = 0
    for row in range(len(probe)):
        only = probe.only([row])
        tokens = drawer.draw(only, EACH, row)
        n += len(tokens)
        expected = drawer.expected(only)
        wrong = tokens[~expected.may[0][tokens]]
        if len(wrong):
            (config,) = only.configs
            without = drawer.expected(only.with_config(config.without([stage])))
            left_out = bool(without.may[0][tokens].all())
            best = some_ids(np.flatnonzero(expected.may[0]))
            message = f"temperature 0 beside {stage} drew {some_ids(np.unique(wrong))}, expected {best}"
            message += f": {stage} is ignored at temperature 0" if left_out else ""
            return Finding("draw", stage, "failed", n, message, len(wrong), 0.0)
    return Finding("draw", stage, "passed", n, f"{n} draws, all of them the most likely token", 0.0, 0.0)


def greedy(drawer: Drawer, plan: DrawPlan) -> Finding:
    """At temperature 0 every draw is the lowest id among the maxima, or what the rule `greedy_ties` says."""
    config = replace(NEUTRAL, temperature=0.0)
    logits = np.array([[0.5, 2.0, -1.0, 2.0, -np.inf, 1.9]], dtype=np.float32)
    tokens = drawer.draw(Probe.of("temperature", "greedy", config, logits, [[0, 3]], ("tied",)), 200, plan.seed)
    right, which = {
        "highest": ([3], "token 3, the highest id"),
        "every": ([1, 3], "token 1 or 3, any"),
    }.get(str(drawer.judge.rules.get("greedy_ties")), ([1], "token 1, the lowest id"))
    wrong = int((~np.isin(tokens, right)).sum())
    if wrong and not drawer.judge.strict and np.isin(tokens, np.flatnonzero(logits[0] == logits.max())).all():
        message = f"{AT_TIES}: temperature 0 drew a most likely token, not the lowest id; fails under --strict alone"
        return Finding("draw", "temperature", "passed", len(tokens), message, 0.0, 0.0)
    if wrong:
        seen = some_ids(np.unique(tokens))
        message = f"temperature 0 drew {seen} in {len(tokens)} draws, expected {which} of the maxima"
        return Finding("draw", "temperature", "failed", len(tokens), message, wrong, 0.0)
    return Finding(
        "draw", "temperature", "passed", len(tokens), f"{len(tokens)} draws, all {which} of the maxima", 0.0, 0.0
    )
