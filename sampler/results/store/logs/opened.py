"""The text of a log: compressed or not, in any of Unicode's encodings; of another kind of file, what to do with it."""

import codecs
import gzip
import io
import re
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from sampler.results.store.tokens import MOST_BYTES
from sampler.runtime.reading.source import Source

STDIN: Final = "-"

SUFFIXES: Final = (
    *(".jsonl", ".ndjson", ".json", ".gz", ".log", ".txt", ".csv", ".tsv", ".npy", ".npz", ".pt", ".pth", ".pkl"),
    *(".parquet", ".arrow", ".safetensors", ".xz", ".bz2", ".zst", ".zip"),
)
"""Of files that are read as logs, or told what they are. Others are if they exist."""

RUN: Final = "dict(prompt=NAME, tokens=ids, stop_reason=WHY)"
WRITE: Final = f"one run a line: print(json.dumps({RUN}))"
PICKLE: Final = "ids = row.tolist(), "


class Kind(NamedTuple):
    """A kind of file that is no text. first: its first bytes. remedy: what makes a log of it."""

    first: bytes
    what: str
    remedy: str


KINDS: Final = (
    Kind(b"\x93NUMPY", "a NumPy array", f"for ids in numpy.load(FILE).tolist(): print(json.dumps({RUN}))"),
    Kind(b"PAR1", "a Parquet table", "pandas.read_parquet(FILE).to_json(NAME, orient='records', lines=True)"),
    Kind(b"ARROW1", "an Arrow table", "pandas.read_feather(FILE).to_json(NAME, orient='records', lines=True)"),
    Kind(b"\x89HDF", "an HDF5 file", PICKLE + WRITE),
    Kind(b"\x80\x02", "a pickle", PICKLE + WRITE),
    Kind(b"\x80\x03", "a pickle", PICKLE + WRITE),
    Kind(b"\x80\x04", "a pickle", PICKLE + WRITE),
    Kind(b"\x80\x05", "a pickle", PICKLE + WRITE),
    Kind(b"\xfd7zXZ", "compressed with xz", "unpack it first: unxz FILE"),
    Kind(b"BZh", "compressed with bzip2", "unpack it first: bunzip2 FILE"),
    Kind(b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it first: unzstd FILE"),
    Kind(b"GGUF", "a model in GGUF format, not a log", f"a log has {WRITE}"),
    Kind(b"RIFF", "audio, not a log of tokens", f"log the tokens, {WRITE}"),
    Kind(b"\xff\xfb", "audio, not a log of tokens", f"log the tokens, {WRITE}"),
    Kind(b"ID3", "audio, not a log of tokens", f"log the tokens, {WRITE}"),
    Kind(b"fLaC", "audio, not a log of tokens", f"log the tokens, {WRITE}"),
    Kind(b"OggS", "audio, not a log of tokens", f"log the tokens, {WRITE}"),
    Kind(b"SQLite format 3", "an SQLite database", f"export its runs, {WRITE}"),
    Kind(b"\x89PNG", "a picture", f"a log has {WRITE}"),
    Kind(b"%PDF", "a PDF", f"a log has {WRITE}"),
    Kind(b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch it: git lfs pull"),
)

MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

SAFETENSORS: Final = re.compile(rb"^.{8}\{\s*\"", re.DOTALL)


def is_log(name: str) -> bool:
    """Whether an argument names a log: `-` for standard input, a file of that kind, or a file that is no Python."""
    path = Path(name)
    if name == STDIN or path.suffix in SUFFIXES:
        return ":" not in name or path.exists()
    return path.suffix != ".py" and (path.suffix != "" or path.name != name) and path.is_file()


def content_of(name: str, source: Source) -> bytes:
    """The bytes of a log, unpacked if they are gzip's. Raises TokensError, also for more than MOST_BYTES.

    source: as messages name the log.
    """
    given = replace(source, path=Path(name))
    content = sys.stdin.buffer.read(MOST_BYTES + 1) if name == STDIN else given.content()
    if content.startswith(b"\x1f\x8b"):
        try:
            with gzip.open(io.BytesIO(content)) as file:
                content = file.read(MOST_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            hint = f"was it cut off? {str(error)[:60]}"
            raise source.refuse("is no whole gzip file", hint, join=" ") from error
    if len(content) > MOST_BYTES:
        raise source.refuse(f"has more than {MOST_BYTES >> 20} MiB", "is it the file that you mean?", join=" ")
    return content


def text_of(source: Source, content: bytes) -> tuple[str, str]:
    """The text of a log, lines ending in LF, and the name of its encoding if that is not UTF-8. Raises TokensError."""
    kind = next((kind for kind in KINDS if content.startswith(kind.first)), None) or _archive(content)
    if kind is not None:
        raise source.refuse(f"is {kind.what}", kind.remedy, join=" ")
    if SAFETENSORS.match(content[:64]) and content[:1] != b"{" and b"\0" in content[:8]:
        raise source.refuse("is a safetensors file, not a log", PICKLE + WRITE, join=" ")
    name = next((name for mark, name in MARKS if content.startswith(mark)), None) or _unmarked(content[:1000])
    if name is None and content.count(b"\0") and not _is_utf8(content):
        raise source.refuse("is a binary file of an unknown kind", WRITE, join=" ")
    if name is None:
        return source.decoded(content), ""
    try:
        text = content.decode(name)
    except UnicodeDecodeError as error:
        complaint = f"is no {name.upper()} text: {error.reason} at byte {error.start}"
        raise source.refuse(complaint, "save it as UTF-8", join=" ") from error
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    return text, name.removesuffix("-le").removesuffix("-be").upper()


def _archive(content: bytes) -> Kind | None:
    """What an archive is; None for other files."""
    if content[257:262] == b"ustar":
        return Kind(b"", "a tar archive", "unpack it first: tar -xf FILE")
    if not content.startswith(b"PK\x03\x04"):
        return None
    name = content[30 : 30 + int.from_bytes(content[26:28], "little")]  # of the first file in it
    if name.endswith(b".npy"):
        return Kind(b"", "an archive of NumPy arrays (.npz)", PICKLE + WRITE)
    if name.endswith((b"/data.pkl", b"/byteorder", b"/version")):
        return Kind(b"", "a file of torch.save", PICKLE + WRITE)
    return Kind(b"", "a zip archive", "unpack it first: unzip FILE")


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


UNMARKED: Final = (
    ("utf-32-le", b".\0\0\0"),
    ("utf-32-be", b"\0\0\0."),
    ("utf-16-le", b".\0"),
    ("utf-16-be", b"\0."),
)
"""How a letter of ASCII, with which JSON begins, is written without a mark."""


def _unmarked(head: bytes) -> str | None:
    """The encoding of a text whose zeros say that it is UTF-16 or UTF-32."""
    for name, first in UNMARKED:
        width = len(first)
        units = [head[at : at + width] for at in range(0, min(len(head) // width, 4) * width, width)]
        if len(units) > 1 and all(_fits(unit, first) for unit in units):
            return name
    return None


def _fits(unit: bytes, form: bytes) -> bool:
    return all((letter == 0) == (known == 0) for letter, known in zip(unit, form, strict=True))
