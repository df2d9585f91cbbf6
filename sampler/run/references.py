"""The reference runs of a long-form matrix: those that ship with the package, or its own file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sampler.checks.longform.runs import TokenRun
from sampler.matrix.matrix import Case, Matrix
from sampler.results.store.reference_runs import ReferenceRuns, read_reference, shipped_reference
from sampler.results.store.tokens import read_token_runs
from sampler.run.groups import longform_of


@dataclass(frozen=True)
class References:
    """Reference runs of the cells of a matrix. weights: SHA-256 of the weights of the core, None for other engines."""

    matrix: Matrix
    weights: str | None

    @cached_property
    def shipped(self) -> ReferenceRuns | None:
        """The shipped reference runs, None if the matrix has none, or its own file."""
        name = longform_of(self.matrix).reference
        return read_reference(shipped_reference(name)) if name and not name.endswith(".jsonl") else None

    @cached_property
    def _own(self) -> Sequence[TokenRun]:
        name = longform_of(self.matrix).reference
        return read_token_runs(self.matrix.path.parent / name) if name.endswith(".jsonl") else ()

    def of(self, case: Case) -> list[TokenRun]:
        """Reference runs of a cell; their texts are named after cell and prompt."""
        if self.shipped is not None:
            return [replace(run, text=f"{case.cell} {run.text}") for run in self.shipped_of(case)]
        return [
            replace(run, text=f"{case.cell} {run.text.removeprefix(f'{case.id} ')}")
            for run in self._own
            if run.text.startswith(f"{case.id} ") or (" " not in run.text and len(self.matrix.cases) == 1)
        ]

    def shipped_of(self, case: Case) -> Sequence[TokenRun]:
        """The shipped runs of a cell with the same config and the core's weights, if there are any."""
        shipped = self.shipped
        cell = None if shipped is None else shipped.cells.get(case.cell)
        if shipped is None or cell is None or cell.config != str(case.config):
            return ()
        same_weights = self.weights is None or self.weights == shipped.provenance.get("weights_sha256")
        return cell.token_runs() if same_weights else ()
