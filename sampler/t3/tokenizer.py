"""Text to ids as upstream does it: punctuation, case, language token, spaces, start and stop."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from sampler.errors import TextError, WeightsError
from sampler.t3.config import T3Config

# `punc_norm` in tts.py and mtl_tts.py of chatterbox-tts 0.1.7; the order matters.
REPLACEMENTS = (
    *(("...", ", "), ("\u2026", ", "), (":", ","), (" - ", ", "), (";", ", "), ("\u2014", "-"), ("\u2013", "-")),
    *((" ,", ","), ("\u201c", '"'), ("\u201d", '"'), ("\u2018", "'"), ("\u2019", "'")),
)
# ruff: noqa: RUF001
ENDERS = {"english": (".", "!", "?", "-", ","), "multilingual": (".", "!", "?", "-", ",", "、", "，", "。", "？", "！")}

NEEDS_PACKAGES = {"zh": "Cangjie codes", "ja": "pykakasi", "he": "dicta_onnx", "ru": "russian_text_stresser"}
"""Languages whose text upstream rewrites with optional packages (`MTLTokenizer.encode`)."""


def normalize_punctuation(text: str, front_end: str) -> str:
    """Clean up punctuation as `punc_norm` does; a text without an ending gets a full stop. TextError if empty."""
    if not text.strip():
        raise TextError(f"the text {text!r} is empty", hint="give at least one word")
    text = text[0].upper() + text[1:] if text[0].islower() else text
    text = " ".join(text.split())
    for old, new in REPLACEMENTS:
        text = text.replace(old, new)
    text = text.rstrip(" ")
    return text if text.endswith(ENDERS[front_end]) else f"{text}."


def lower_nfkd(text: str) -> str:
    """Lower case, then NFKD, as `MTLTokenizer.preprocess_text` has it."""
    return unicodedata.normalize("NFKD", text.lower())


def decompose_hangul(text: str) -> str:
    """Korean syllables as jamo (`korean_normalize`); NFKD did the same unless it was skipped."""
    return unicodedata.normalize("NFD", text).strip()


class TextTokenizer:
    """A checkpoint's `tokenizer.json` behind its text front end."""

    def __init__(self, path: Path, config: T3Config) -> None:
        """Raises WeightsError for an unreadable file or one whose number of ids is not that of `text_emb`."""
        self.config = config
        if not path.exists():
            raise WeightsError(f"{path} does not exist", hint="the tokenizer belongs beside the weights")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises Exception itself
            raise WeightsError(f"{path} is no tokenizer: {error}", hint="is the download complete?") from error
        size, largest = self._tokenizer.get_vocab_size(), max(self._tokenizer.get_vocab().values(), default=-1)
        if size != config.text_vocab_size or largest >= size:
            raise WeightsError(
                f"{path.name} has {size} ids up to {largest}, text_emb has {config.text_vocab_size} rows",
                hint="tokenizer and weights are of different versions",
            )

    def encode(self, text: str, language: str = "en") -> list[int]:
        """Ids of a text with start and stop. Raises TextError for an empty text, an unknown language or a long text."""
        config = self.config
        text = normalize_punctuation(text, config.tokenizer)
        if config.tokenizer == "multilingual":
            text = self._multilingual(text, language)
        ids = self._tokenizer.encode(text.replace(" ", "[SPACE]")).ids
        if len(ids) > config.max_text_tokens:
            raise TextError(
                f"the text has {len(ids)} tokens", hint=f"{config.name} takes {config.max_text_tokens}; split the text"
            )
        return [config.start_text_id, *ids, config.stop_text_id]

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """What each id of a text stands for, as the tokenizer writes it: a space is `[SPACE]`."""
        return tuple(self._tokenizer.id_to_token(index) or f"<{index}>" for index in ids)

    def _multilingual(self, text: str, language: str) -> str:
        """Lower case, NFKD and the language token, as `MTLTokenizer.encode` has it."""
        if language not in self.config.languages:
            raise TextError(
                f"{self.config.name} does not speak {language!r}", hint=f"languages: {', '.join(self.config.languages)}"
            )
        if language in NEEDS_PACKAGES:
            raise TextError(
                f"text in {language!r} needs {NEEDS_PACKAGES[language]}, which upstream applies before its tokenizer",
                hint="give the ids of the prompt instead of its text",
            )
        text = lower_nfkd(text)
        text = decompose_hangul(text) if language == "ko" else text
        return f"[{language}]{text}"
