"""What the declared rules (engines/rules.py) change in the reference, beside the filters themselves."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sampler.engines.base import Evaluation
from sampler.engines.reference.filters import Mask, spared, top_k
from sampler.engines.reference.optional import place_of
from sampler.engines.rules import RULES, Rules
from sampler.requests import Batch


def rewritten(batch: Batch, rules: Rules) -> Batch:
    """The batch with the config and the context that an engine of these rules acts on."""
    config, changes = batch.config, {}
    if "penalty_window" in rules and config.penalty_window == 0:
        changes["penalty_window"] = rules["penalty_window"]
    if "temperature_last" in rules and "temperature" in config.order:
        rest = tuple(stage for stage in config.order if stage != "temperature")
        changes["order"] = (*rest, "temperature")
    if changes:
        batch = batch.with_config(replace(config, **changes))
    if rules.get("penalty_prompt") == "included" and batch.context is not None:
        nothing = np.zeros_like(batch.context.prompt_length)
        batch = replace(batch, context=batch.context._replace(prompt_length=nothing))
    return batch


def penalized_ids(batch: Batch, rules: Rules) -> list[Sequence[int]]:
    """The ids of each row that the repetition penalty sees."""
    starts = [0] * len(batch)
    if rules.get("penalty_prompt") == "excluded":
        starts = place_of(batch).prompt_length.tolist()
    return [ids[start:][-batch.config.penalty_window :] for ids, start in zip(batch.history, starts, strict=True)]


def with_eos_spared(before: Evaluation, after: Evaluation, batch: Batch, rules: Rules) -> Evaluation:
    """The state after a stage, which leaves EOS as it was if a rule says so."""
    names = [name for name in ("penalty_spares_eos", "filters_spare_eos") if name in rules]
    if not any(after.stage in RULES[name].stages for name in names):
        return after
    eos = np.isin(np.arange(after.scores.shape[-1]), place_of(batch).eos_ids)[None]
    scores, error = (np.where(eos, *pair) for pair in ((before.scores, after.scores), (before.error, after.error)))
    return Evaluation(after.stage, scores, error)


def greedy_choice(state: Evaluation, sign: float, rules: Rules) -> Mask:
    """What temperature 0 keeps: the lowest id among the maxima, the highest, or all of them."""
    choice = rules.get("greedy_ties")
    if choice == "every":
        return top_k(state, 1, sign) & state.kept
    if choice == "highest":
        turned = Evaluation(state.stage, state.scores[:, ::-1], state.error[:, ::-1])
        return spared(turned, 1, sign)[:, ::-1]
    return spared(state, 1, sign)
