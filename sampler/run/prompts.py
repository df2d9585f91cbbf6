"""The prompts that a matrix asks for."""

import itertools
from collections.abc import Iterable

from sampler import finch
from sampler.errors import MatrixError
from sampler.finch import Prompt
from sampler.matrix.matrix import Workload


def prompts_of(workload: Workload) -> list[Prompt]:
    """The texts of a workload, as many as it asks for; texts of one's own have their number as id and no known length.

    Raises MatrixError where there are fewer.
    """
    if isinstance(workload.prompts, str):
        found = finch.prompts(workload.prompts)
        least, most = workload.expected or (0, max(each.tokens for each in found))
        within = [each for each in found if least <= each.tokens <= most]
        chosen = (
            in_turn(within) if workload.language == "all" else [p for p in within if p.language == workload.language]
        )
    else:
        chosen = [Prompt(str(index), text, workload.language, 0, index) for index, text in enumerate(workload.prompts)]
    if len(chosen) < workload.count:
        raise MatrixError(f"generation.requests = {workload.requests}", hint=f"there are {len(chosen)} prompts")
    return chosen[: workload.count]


def in_turn(prompts: Iterable[Prompt]) -> list[Prompt]:
    """One of each language after the other, in the order in which the languages come."""
    groups: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        groups.setdefault(prompt.language, []).append(prompt)
    rounds = itertools.zip_longest(*groups.values())
    return [prompt for each in rounds for prompt in each if prompt is not None]
