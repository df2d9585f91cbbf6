"""Text from outside - of engines, matrices and files - as a terminal, a page or a log may show it."""

import re
import unicodedata
from typing import Final

LONG: Final = 2_000
"""Characters of a message that are shown."""

SHORT: Final = 200
"""Characters of a name that are shown."""

ESCAPED: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories of Unicode without a sign of their own: control characters, direction marks, separators of lines."""

BLANK: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")
"""Letters and marks that show nothing."""

NAMED: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}

COMMAND: Final = re.compile(r"^(\s*)(:(?=:)|#(?=#\[))")
"""The beginning of a line that a CI system takes for a command: `::error`, `##[error]`."""


def visible(text: str, most: int | None = None) -> str:
    r"""The text with escapes for whatever does not show itself, as `\x1b`, and cut after `most` characters.

    What is visible already stays as it is, so doing it twice changes nothing. A beginning that would be a command to a
    CI system is escaped too.
    """
    cut = len(text) if most is None else most
    more = f"... ({len(text):,} characters)" if len(text) > cut else ""
    shown = "".join(map(_sign, text[:cut]))
    return COMMAND.sub(lambda found: found[1] + _escape(found[2]), shown) + more


def _sign(letter: str) -> str:
    if letter.isascii() and letter.isprintable():
        return letter
    variation = "\ufe00" <= letter <= "\ufe0f" or "\U000e0100" <= letter <= "\U000e01ef"
    hidden = unicodedata.category(letter) in ESCAPED or letter in BLANK or variation
    return NAMED.get(letter) or _escape(letter) if hidden else letter


def _escape(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
