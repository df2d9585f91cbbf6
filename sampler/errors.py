"""Every failure that a user can meet: one line that names the value, what was expected, and what to do."""


class SamplerError(Exception):
    """Base of all errors that are shown without a traceback.

    hint: what the user can do, one sentence.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(SamplerError, ValueError):
    """A sampling knob or order out of range."""


class VariantError(SamplerError):
    """An unknown variant or analyzer, or a variants file that cannot be read as one."""


class RuleError(SamplerError, ValueError):
    """A threshold of a check out of range."""


class MatrixError(SamplerError):
    """A matrix file that cannot be read as one."""


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


class Unsupported(SamplerError):
    """Something an engine does not do; becomes the verdict `unavailable`, never `failed`."""


class MissingPackage(SamplerError):
    """An optional package that a command needs."""


class TokensError(SamplerError):
    """A file of token runs that cannot be read as one."""
