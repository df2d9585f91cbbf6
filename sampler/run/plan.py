"""What a long-form matrix can detect, computed before anything is generated."""

from collections.abc import Iterator, Sequence

from sampler.checks.longform.power import Prospect
from sampler.matrix.matrix import Matrix
from sampler.results.store.reference_runs import read_reference, shipped_reference
from sampler.run.groups import alphas_of, groups_of, longform_of
from sampler.statistics.ranks import RankSum
from sampler.statistics.share import AtMost
from sampler.statistics.stratified import StratifiedCounts


def prospects(matrix: Matrix) -> Iterator[Prospect]:
    """One entry for all cells, each axis and each cell of a matrix whose reference runs ship."""
    assert matrix.longform is not None  # noqa: S101 - ensured by the command
    path, alphas = shipped_reference(matrix.longform.reference), alphas_of(matrix)
    reference = read_reference(path).cells if matrix.longform.reference and path.exists() else {}
    for group in groups_of(matrix):
        own, sizes = alphas[group.name], []
        for case in group.cases:
            texts = [run["prompt"] for run in reference[case.cell].runs] if case.cell in reference else []
            sizes += [(case.workload.runs, texts.count(text)) for text in dict.fromkeys(texts)]
        runs = sum(case.workload.count * case.workload.runs for case in group.cases)
        alone = _alone(matrix, own.get("complete")) if group.scope == "cells" else None
        yield Prospect(
            group.name,
            runs,
            sum(other for _, other in sizes),
            _share(own.get("missing"), sizes),
            RankSum(own["entropy"] / 2).planned(sizes) if "entropy" in own else 1.0,  # the other half is for windows
            alone.detectable(runs) if alone else None,
        )


def _share(alpha: float | None, sizes: Sequence[tuple[int, int]]) -> float:
    if alpha is None:
        return 1.0
    return StratifiedCounts(alpha).detectable_share([one for one, _ in sizes], [other for _, other in sizes])


def _alone(matrix: Matrix, alpha: float | None) -> AtMost | None:
    return AtMost(longform_of(matrix).most_incomplete, alpha) if alpha else None
