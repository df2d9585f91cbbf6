"""GPT-2's byte-level BPE from the files that HuggingFace stores with a checkpoint."""

import math
import os
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, TypeAdapter
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from sampler.errors import WeightsError
from sampler.runtime.reading.json_text import read_json
from sampler.runtime.reading.source import short
from sampler.t3.files import file_of

END_OF_TEXT = "<|endoftext|>"
SETTINGS = "tokenizer_config.json"
Id = Annotated[int, Field(ge=0, lt=2**31)]
IDS = TypeAdapter(dict[str, Id])
T = TypeVar("T")


class _Token(BaseModel):
    """How an added token is matched, as written by transformers."""

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    special: bool = False


class _Settings(BaseModel):
    """The keys of `tokenizer_config.json` that affect ids."""

    model_max_length: float = Field(default=math.inf, ge=1)
    added_tokens_decoder: dict[Id, _Token] = {}


def read_byte_level(vocabulary: Path) -> Tokenizer:
    """Build the tokenizer of `vocab.json`, `merges.txt`, `added_tokens.json` as `GPT2Tokenizer` of transformers does.

    How an added token is matched (adjacent spaces, whole words only) is taken from `tokenizer_config.json` if it is
    given there. Raises WeightsError for a file that is missing, unreadable or inconsistent with the others.
    """
    merges, added = vocabulary.parent / "merges.txt", vocabulary.parent / "added_tokens.json"
    for path in (merges, added):
        if not path.exists():
            raise WeightsError(f"{path.name} does not exist", hint=f"it belongs beside {vocabulary.name}")
    _read_json(vocabulary, IDS)
    file_of(merges).text()
    try:
        tokenizer = Tokenizer(BPE.from_file(str(vocabulary), str(merges)))
    except Exception as error:  # tokenizers raises Exception itself
        message = f"and {merges.name} are no tokenizer: {error}"
        raise file_of(vocabulary).refuse(message, join=" ") from error
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    ids = _read_json(added, IDS)
    known = {token.content: token for token in _settings(vocabulary.parent).added_tokens_decoder.values()}
    names = [END_OF_TEXT, *sorted(ids, key=ids.__getitem__)]
    tokenizer.add_tokens(
        [
            AddedToken(**known.get(name, _Token(content=name, special=name == END_OF_TEXT)).model_dump())
            for name in names
        ]
    )
    for name, index in ids.items():
        place = tokenizer.token_to_id(name)
        if place != index:
            message = f"{added.name}: {short(name)} has id {index}, the next free one is {place}"
            raise WeightsError(message, hint=f"the ids follow those of {vocabulary.name}")
    return tokenizer


def longest_text(folder: Path, most: int) -> int:
    """Largest number of ids of a text: `most`, or `model_max_length` if that is less, where upstream truncates."""
    return int(min(_settings(folder).model_max_length, most))


def _settings(folder: Path) -> _Settings:
    path = folder / SETTINGS
    return _read_json(path, TypeAdapter(_Settings)) if os.path.lexists(path) else _Settings()


def _read_json(path: Path, kind: TypeAdapter[T]) -> T:
    return read_json(file_of(path)).check(kind, strict=True)
