"""Every error that a user can see: one line with the value, what was expected, and what to do."""

import difflib
from collections.abc import Iterable
from typing import Literal


class SamplerError(Exception):
    """Base of all errors that are shown without a traceback. hint: what the user can do, one sentence."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint: the name that was probably meant, or all known names."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


class ConfigError(SamplerError, ValueError):
    """A sampling parameter or order out of range."""


class EngineError(SamplerError):
    """An engine that cannot be loaded, or whose info does not fit."""


class VariantError(SamplerError):
    """An unknown variant or analyzer, or an invalid variants file."""


class RuleError(SamplerError, ValueError):
    """A threshold of a check out of range."""


class MatrixError(SamplerError):
    """An invalid matrix file."""


class WeightsError(SamplerError):
    """Weights, tokenizer or conditioning that do not fit the model."""


class TextError(SamplerError, ValueError):
    """A prompt that cannot be spoken: empty or too long."""


class LogitsError(SamplerError, ValueError):
    """Logits from which no token can be drawn: NaN, +inf or everything removed."""


class OutputError(SamplerError):
    """An output folder or file that cannot be written."""


class SilenceError(SamplerError):
    """A generation without a single token of speech."""


class EngineFailure(SamplerError):
    """An engine raised, hung, ended its process or gave something that is no answer: the verdict is `errored`."""

    exit_code = 1


SkipReason = Literal[
    "unsupported", "no_method", "missing_package", "no_reference", "no_common_text", "not_recorded", "refused",
    "after_failure",
]  # fmt: skip
"""Why a check was skipped. refused: the engine raised Unsupported; after_failure: it hung or ended too often."""


class Unsupported(SamplerError):
    """Something an engine does not support; gives the outcome `skipped` with its reason, never `failed`."""

    def __init__(self, message: str, *, hint: str = "", reason: SkipReason = "unsupported") -> None:
        super().__init__(message, hint=hint)
        self.reason: SkipReason = reason


class MissingPackage(SamplerError):
    """An optional package that a command needs is missing."""


class TokensError(SamplerError):
    """An invalid file of token runs."""
