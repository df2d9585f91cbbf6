"""The prompts of a matrix."""

import itertools
from collections.abc import Iterable

from sampler import finch
from sampler.errors import MatrixError
from sampler.finch import Prompt
from sampler.matrix.matrix import Workload


def prompts_of(workload: Workload) -> list[Prompt]:
    """The texts of a workload; a matrix's own texts have their number as id and no known length.

    Raises MatrixError if there are too few.
    """
    if isinstance(workload.prompts, str):
        found = finch.prompts(workload.prompts)
        least, most = workload.expected or (0, max(prompt.tokens for prompt in found))
        within = [prompt for prompt in found if least <= prompt.tokens <= most]
        chosen = (
            in_turn(within) if workload.language == "all" else [p for p in within if p.language == workload.language]
        )
    else:
        chosen = [Prompt(str(index), text, workload.language, 0, index) for index, text in enumerate(workload.prompts)]
    if len(chosen) < workload.count:
        raise MatrixError(f"generation.requests = {workload.requests}", hint=f"there are {len(chosen)} prompts")
    return chosen[: workload.count]


def in_turn(prompts: Iterable[Prompt]) -> list[Prompt]:
    """Prompts in turn from each language, in the order in which the languages appear."""
    groups: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        groups.setdefault(prompt.language, []).append(prompt)
    rounds = itertools.zip_longest(*groups.values())
    return [prompt for turn in rounds for prompt in turn if prompt is not None]
