"""A log that is put right: what is common to all its runs because of how it was written, as far as the user says so."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sampler.checks.longform.log.edits import FIXES, Edit, Fix
from sampler.checks.longform.log.faults import Fault, Known, faults_of, repeats
from sampler.checks.longform.log.prompts import Names
from sampler.checks.longform.runs import STEPS, TokenRun
from sampler.checks.verdict import Finding
from sampler.errors import ConfigError, nearest
from sampler.results.store.tokens import TokenLine, run_of

NAMES: Final = "names"
KNOWN_FIXES: Final = (*FIXES, NAMES)


def fixes_of(text: str | None) -> frozenset[str]:
    """The fixes of `--fix bos,padding`. Raises ConfigError for one that there is not."""
    names = [name.strip().lower() for name in (text or "").split(",") if name.strip()]
    wrong = next((name for name in names if name not in KNOWN_FIXES), None)
    if wrong is not None:
        raise ConfigError(f"--fix {wrong!r} is no fix", hint=nearest(wrong, KNOWN_FIXES))
    return frozenset(names)


@dataclass(frozen=True)
class PutRight:
    """The lines of a log after the fixes that were asked for. fixed: what was put right; left: what was not."""

    lines: Sequence[TokenLine]
    fixed: tuple[str, ...] = ()
    left: tuple[Fault, ...] = ()

    @property
    def findings(self) -> Mapping[str, Finding]:
        """What was not put right, by name: nothing else can be said of the log."""
        stages = {"padding": "stop", "eos": "stop"}
        n = len(self.lines)
        return {
            fault.name: Finding("generate", stages.get(fault.name, "draw"), "inconclusive", n, fault.sentence)
            for fault in self.left
        }


@dataclass(frozen=True)
class ByWord:
    """Known of right runs: what the user says of a log that is compared with nothing. asked: the fixes that it needs.

    Raises ConfigError for those that need to know what is right.
    """

    asked: Collection[Fix]
    eos_ids: Collection[int] = ()
    whose: str = "the engine"
    needs_eos: bool = False

    def __post_init__(self) -> None:
        wrong = next((fix for fix in self.asked if fix in ("eos", "offset")), None)
        if wrong is not None:
            raise ConfigError(f"--fix {wrong} without --against", hint="reference runs or a model say what is right")

    def offset(self, runs: Sequence[TokenRun]) -> int:  # noqa: ARG002
        return 0

    def is_beyond(self, token: int) -> bool:  # noqa: ARG002
        return False

    def vocabulary(self, runs: Sequence[TokenRun]) -> str:  # noqa: ARG002
        return ""

    def foreign(self, runs: Sequence[TokenRun], prefix: Sequence[int]) -> int:
        """One token that stands nowhere else is BOS; more of them are a prompt."""
        first = repeats(prefix)
        is_bos = "bos" in self.asked and not any(prefix[0] in run.tokens[first:] for run in runs)
        is_prompt = "prefix" in self.asked and len({run.tokens for run in runs}) > 1 and first < len(prefix)
        return len(prefix) if is_prompt else first if is_bos else 0


def put_right(lines: Sequence[TokenLine], known: Known | None, asked: Collection[str]) -> PutRight:
    """Look for what is common to all runs, and put right what was asked for."""
    runs = [run_of(line) for line in lines]
    found = tuple(faults_of(runs, known))
    left = tuple(fault for fault in found if fault.fix not in asked)
    if left:
        wanted: list[Fix] = [fix for fix in FIXES if fix in asked]
        found = tuple(faults_of(runs, known, wanted))
    for fault in found:
        lines = edited(lines, fault.edits)
    return PutRight(lines, tuple(f"{fault.says}: {fault.fix} was put right" for fault in found), left)


def edited(lines: Sequence[TokenLine], edits: Sequence[Edit]) -> list[TokenLine]:
    """The lines after an edit of each. Measures of the steps go if a run has a step more, of which none are known."""
    lengthens = any(edit.lengthens for edit in edits)
    return [_edited(line, edit, keep=not lengthens) for line, edit in zip(lines, edits, strict=True)]


def _edited(line: TokenLine, edit: Edit, *, keep: bool) -> TokenLine:
    values: dict[str, Any] = {name: getattr(line, name) for name in line.model_fields_set}
    for name in STEPS:
        if values.get(name) is not None:
            values[name] = values[name][edit.steps] if keep else None
    values = {name: value for name, value in values.items() if keep or name not in STEPS}
    values |= {"tokens": edit.tokens(line.tokens), "stop_reason": edit.stop_reason or line.stop_reason}
    return TokenLine.model_construct(**values)


def renamed(lines: Sequence[TokenLine], names: Names) -> tuple[list[TokenLine], str]:
    """The lines under the reference's names where only the spelling differs, and in words how many of them."""
    found = names.respelt
    moved = [
        line.model_copy(update={"prompt": found[line.group], "cell": ""}) if line.group in found else line
        for line in lines
    ]
    return moved, f"{len(found)} names of prompts differ in spelling alone: the reference's were taken" if found else ""
