"""Whether an engine reads its text as the reference does."""

from sampler.checks.runs import positions

__all__ = ["positions"]
