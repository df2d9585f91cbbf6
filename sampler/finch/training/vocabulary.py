"""Finch's text vocabulary: upstream's special tokens, language tokens, and single characters."""

import string
from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, models

STOP, UNKNOWN, SPACE, START = "[STOP]", "[UNK]", "[SPACE]", "[START]"
SPECIAL = (STOP, UNKNOWN, SPACE, START, "[PAD]", "[SEP]", "[CLS]", "[MASK]")
"""The names in `SPECIAL_TOKENS` of `models/tokenizers/tokenizer.py` (chatterbox-tts 0.1.7)."""

# Combining marks that NFKD leaves behind: grave, acute, circumflex, tilde, macron, breve, dot, diaeresis, ring,
# double acute, caron, cedilla, ogonek.
MARKS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327\u0328"
CHARACTERS = (
    string.ascii_lowercase + string.digits + ".,!?'\"-()" + "\u00df\u00e6\u0153\u00f8\u0142\u00bf\u00a1" + MARKS
)


def build_tokenizer(languages: Sequence[str]) -> Tokenizer:
    """Build the tokenizer: byte-pair encoding without merges, so every character is one token."""
    names = [*SPECIAL, *(f"[{language}]" for language in languages)]
    vocabulary = {token: index for index, token in enumerate([*names, *CHARACTERS])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN))
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names])
    return tokenizer
