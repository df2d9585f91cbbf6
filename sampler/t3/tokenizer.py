"""Text to ids as in upstream: punctuation, case, language token, spaces, start and stop."""

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tokenizers import Tokenizer

from sampler.errors import TextError, WeightsError
from sampler.runtime.reading.json_text import read_json
from sampler.t3.byte_level import longest_text, read_byte_level
from sampler.t3.config import T3Config
from sampler.t3.files import file_of

# `punc_norm` in tts.py, mtl_tts.py and tts_turbo.py of chatterbox-tts 0.1.7; the order matters.
REPLACEMENTS = (
    *(("...", ", "), ("\u2026", ", "), (":", ","), (" - ", ", "), (";", ", "), ("\u2014", "-"), ("\u2013", "-")),
    *((" ,", ","), ("\u201c", '"'), ("\u201d", '"'), ("\u2018", "'"), ("\u2019", "'")),
)
KEPT_BY_TURBO = ("...", " - ", ";")
# ruff: noqa: RUF001
PLAIN_ENDERS = (".", "!", "?", "-", ",")
ENDERS = {"multilingual": (*PLAIN_ENDERS, "、", "，", "。", "？", "！")}

NEEDS_PACKAGES = {"zh": "Cangjie codes", "ja": "pykakasi", "he": "dicta_onnx", "ru": "russian_text_stresser"}
"""Languages whose text upstream rewrites with optional packages (`MTLTokenizer.encode`)."""


def normalize_punctuation(text: str, front_end: str) -> str:
    """Clean up punctuation like `punc_norm`; a text without an ending gets a full stop. Raises TextError if empty."""
    if not text.strip():
        raise TextError(f"the text {text!r} is empty", hint="give at least one word")
    text = text[0].upper() + text[1:] if text[0].islower() else text
    text = " ".join(text.split())
    for old, new in REPLACEMENTS:
        if front_end != "turbo" or old not in KEPT_BY_TURBO:
            text = text.replace(old, new)
    text = text.rstrip(" ")
    return text if text.endswith(ENDERS.get(front_end, PLAIN_ENDERS)) else f"{text}."


def lower_nfkd(text: str) -> str:
    """Lower case, then NFKD, as in `MTLTokenizer.preprocess_text`."""
    return unicodedata.normalize("NFKD", text.lower())


def decompose_hangul(text: str) -> str:
    """Korean syllables as jamo (`korean_normalize`); NFKD does the same if it was not skipped."""
    return unicodedata.normalize("NFD", text).strip()


PADDING = 64
"""Tables of embeddings are made longer, up to a multiple of 8 to 64."""

OTHER_VERSION = "tokenizer and weights are of different versions"


@dataclass(frozen=True)
class TokenizerFile:
    """A tokenizer as it was read."""

    path: Path
    tokenizer: Tokenizer

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises WeightsError for a file that is missing or unreadable."""
        if not os.path.lexists(path):
            raise WeightsError(f"{path.name} does not exist", hint="the tokenizer belongs beside the weights")
        return cls(path, read_byte_level(path) if path.name == "vocab.json" else _read(path))

    @property
    def vocabulary(self) -> dict[str, int]:
        return self.tokenizer.get_vocab()

    def lacks(self, rows: int) -> int:
        """Rows of a table that no id has; below 0: ids that have no row."""
        return rows - 1 - max(self.vocabulary.values(), default=-1)

    def fits(self, rows: int) -> bool:
        """Whether a table of so many rows can be this tokenizer's: of its length, or padded."""
        return self.lacks(rows) == 0 or (0 < self.lacks(rows) < PADDING and rows % 8 == 0)

    def __str__(self) -> str:
        ids = self.vocabulary.values()
        return f"{self.path.name} has {len(set(ids))} ids up to {max(ids, default=-1)}"


def find_tokenizer(folder: Path, rows: int, names: Sequence[str], usual: str) -> TokenizerFile:
    """The tokenizer of a folder that fits a table of so many rows, of these names. usual: upstream's for such a table.

    Raises WeightsError if none is there, or none fits.
    """
    found = [TokenizerFile.read(folder / name) for name in names if os.path.lexists(folder / name)]
    if not found:
        return TokenizerFile.read(folder / usual)
    fitting = [each for each in found if each.fits(rows)]
    if fitting:
        return min(fitting, key=lambda each: each.lacks(rows))
    hint = OTHER_VERSION if os.path.lexists(folder / usual) else f"copy {usual} beside the weights"
    if len(found) == 1:
        raise WeightsError(f"{found[0]}, text_emb has {rows} rows", hint=hint)
    counts = ", ".join(f"{each.path.name} {len(each.vocabulary)}" for each in found)
    raise WeightsError(f"no tokenizer fits the {rows} rows of text_emb; ids: {counts}", hint=hint)


class TextTokenizer:
    """A checkpoint's `tokenizer.json`, or its `vocab.json` with its other files, after its text front end."""

    def __init__(self, path: Path, config: T3Config, read: TokenizerFile | None = None) -> None:
        """Raises WeightsError for an unreadable file, or one that does not fit `text_emb`. read: its content."""
        self.config, self.path = config, path
        read = TokenizerFile.read(path) if read is None else read
        if not read.fits(config.text_vocab_size):
            raise WeightsError(f"{read}, text_emb has {config.text_vocab_size} rows", hint=OTHER_VERSION)
        self._tokenizer = read.tokenizer
        self.size = len(read.vocabulary)
        self._longest = longest_text(path.parent, config.max_text_tokens)

    def encode(self, text: str, language: str = "en") -> list[int]:
        """Ids of a text, with start and stop except for Turbo's front end.

        Raises TextError for an empty text, an unknown language or a long text.
        """
        config = self.config
        text = normalize_punctuation(text, config.tokenizer)
        if config.tokenizer == "multilingual":
            text = self._multilingual(text, language)
        turbo = config.tokenizer == "turbo"
        ids: list[int] = self._tokenizer.encode(text if turbo else text.replace(" ", "[SPACE]")).ids
        if max(ids, default=0) >= config.text_vocab_size:  # of a post-processor
            raise WeightsError(
                f"the tokenizer gave the id {max(ids)}, text_emb has {config.text_vocab_size} rows",
                hint="tokenizer and weights are of different versions",
            )
        if len(ids) > self._longest:
            hint = f"{config.name} takes {self._longest}; split the text"
            raise TextError(f"the text has {len(ids)} tokens", hint=hint)
        return ids if turbo else [config.start_text_id, *ids, config.stop_text_id]

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """The text of each id as the tokenizer writes it: a space is `[SPACE]`."""
        return tuple(self._tokenizer.id_to_token(index) or f"<{index}>" for index in ids)

    def _multilingual(self, text: str, language: str) -> str:
        """Lower case, NFKD and the language token, as in `MTLTokenizer.encode`."""
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


def _read(path: Path) -> Tokenizer:
    document = read_json(file_of(path))
    try:
        tokenizer = Tokenizer.from_str(document.text)
    except Exception as error:  # tokenizers raises Exception itself
        raise document.source.refuse(f"is no tokenizer: {error}", join=" ") from error
    for name in ("padding", "truncation"):
        if getattr(tokenizer, name) is not None:
            raise document.refuse(f"{name} is on", "expected null, as upstream has it: a text is spoken whole", (name,))
    return tokenizer
