"""Whether the record of a run explains that an alignment analyzer forced its end."""

from typing import Final

from sampler.checks.steps.evidence import Evidence

FORCING: Final = frozenset({"long_tail", "alignment_repetition", "token_repetition"})
"""Flags of steps at which an analyzer forces EOS."""


def forces(flags: str) -> bool:
    """Whether the flags of a step, joined by `+`, say that EOS was forced."""
    return bool(FORCING & set(flags.split("+")))


def has_analyzer(evidence: Evidence, index: int) -> bool | None:
    """Whether an analyzer took part in a run; None if nobody can tell."""
    support = evidence.engine.info.supports
    if "alignment" not in evidence.requests[index].config.order or (support is not None and "alignment" not in support):
        return False
    return evidence.analyzed


def unflagged_end(evidence: Evidence, index: int) -> bool:
    """Whether a run says that its end was forced, records no flags at all, and may have had an analyzer."""
    generation = evidence.generations[index]
    flags = generation.record.flags if generation.record else ()
    return generation.stop_reason == "forced_eos" and not flags and has_analyzer(evidence, index) is not False


def contradiction(evidence: Evidence, index: int) -> str:
    """How stop reason and flags of a run contradict each other; empty if they do not."""
    generation = evidence.generations[index]
    flags = generation.record.flags if generation.record else ()
    reason, analyzer = generation.stop_reason, has_analyzer(evidence, index)
    flagged = next((step for step, text in enumerate(flags) if forces(text)), None)
    if analyzer is False and (reason == "forced_eos" or flagged is not None):
        what = f"says {reason}" if flagged is None else f"has the flag {flags[flagged]!r} at step {flagged}"
        return f"{what}, and there is no alignment analyzer that could force an end"
    if not flags or len(flags) != len(generation.tokens):
        return ""
    if reason == "forced_eos" and not forces(flags[-1]):
        return f"says forced_eos, and the flags of its last step are {flags[-1]!r}, which force nothing"
    if reason == "eos" and forces(flags[-1]):
        return f"says eos, and its last step has the flag {flags[-1]!r}, which forces an end"
    return ""
