"""The text of a log: compressed or not, in any of Unicode's encodings; of another kind of file, what to do with it."""

import codecs
import gzip
import io
import re
import sys
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from sampler.results.store.tokens import MOST_BYTES
from sampler.runtime.reading import formats
from sampler.runtime.reading.source import Source

STDIN: Final = "-"
PACKED: Final = 3
"""How often a log may be compressed: what is stored may have been compressed before."""

SUFFIXES: Final = (
    *(".jsonl", ".ndjson", ".json", ".gz", ".log", ".txt", ".csv", ".tsv", ".npy", ".npz", ".pt", ".pth", ".pkl"),
    *(".parquet", ".arrow", ".safetensors", ".xz", ".bz2", ".zst", ".zip"),
)
"""Of files that are read as logs, or told what they are. Others are if they exist."""

RUN: Final = "dict(prompt=NAME, tokens=ids, stop_reason=WHY)"
WRITE: Final = f"one run a line: print(json.dumps({RUN}))"
PICKLE: Final = "ids = row.tolist(), "


OTHERS: Final[Mapping[str, tuple[str, str]]] = {
    formats.NPY: ("a NumPy array", f"for ids in numpy.load(FILE).tolist(): print(json.dumps({RUN}))"),
    formats.NPZ: ("an archive of NumPy arrays (.npz)", PICKLE + WRITE),
    formats.PARQUET: ("a Parquet table", "pandas.read_parquet(FILE).to_json(NAME, orient='records', lines=True)"),
    formats.ARROW: ("an Arrow table", "pandas.read_feather(FILE).to_json(NAME, orient='records', lines=True)"),
    formats.HDF5: ("an HDF5 file", PICKLE + WRITE),
    formats.PICKLE: ("a pickle", PICKLE + WRITE),
    formats.TORCH: ("a file of torch.save", PICKLE + WRITE),
    formats.SAFETENSORS: ("a safetensors file, not a log", PICKLE + WRITE),
    formats.XZ: ("compressed with xz", "unpack it first: unxz FILE"),
    formats.BZIP2: ("compressed with bzip2", "unpack it first: bunzip2 FILE"),
    formats.ZSTANDARD: ("compressed with zstd", "unpack it first: unzstd FILE"),
    formats.TAR: ("a tar archive", "unpack it first: tar -xf FILE"),
    formats.EXCEL: ("an Excel workbook", "pandas.read_excel(FILE).to_json(NAME, orient='records', lines=True)"),
    formats.ZIP: ("a zip archive", "unpack it first: unzip FILE"),
    formats.GGUF: ("a model in GGUF format, not a log", f"a log has {WRITE}"),
    formats.SOUND: ("audio, not a log of tokens", f"log the tokens, {WRITE}"),
    formats.SQLITE: ("an SQLite database", f"export its runs, {WRITE}"),
    formats.PNG: ("a picture", f"a log has {WRITE}"),
    formats.PDF: ("a PDF", f"a log has {WRITE}"),
    formats.POINTER: ("a Git LFS pointer, not the file itself", "fetch it: git lfs pull"),
}
"""Files that are no text: what they are, and what makes a log of them."""

READABLE: Final = (formats.JSON, formats.TEXT, formats.HTML, "XML", formats.EMPTY, formats.ZEROS)
"""Formats that are told, or refused, as texts."""

PICKLED: Final = re.compile(rb"(?:[\(\]}]|c[\w.]+\n[\w.]+\n)[lpdt]*p0\n")
"""The beginning of a pickle of protocol 0, which is all of ASCII."""

MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


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
    for _ in range(PACKED):
        if not content.startswith(b"\x1f\x8b"):
            break
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
    found = formats.format_of(content[: formats.HEAD])
    if found is not None and found not in READABLE:
        is_packed = found.endswith("archive") or found.startswith("compressed")
        what, remedy = OTHERS.get(found, (found, "unpack it first" if is_packed else f"a log has {WRITE}"))
        raise source.refuse(f"is {what}", remedy, join=" ")
    if PICKLED.match(content):
        what, remedy = OTHERS[formats.PICKLE]
        raise source.refuse(f"is {what}", remedy, join=" ")
    name = next((name for mark, name in MARKS if content.startswith(mark)), None) or _unmarked(content[:1000])
    if name is None and (b"\0" in content or not _is_utf8(content)):
        _refuse_damaged(source, content)
    if name is None:
        return source.decoded(content), ""
    try:
        text = content.decode(name)
    except UnicodeDecodeError as error:
        complaint = f"is no {name.upper()} text: {error.reason} at byte {error.start}"
        raise source.refuse(complaint, "save it as UTF-8", join=" ") from error
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    return text, name.removesuffix("-le").removesuffix("-be").upper()


def _refuse_damaged(source: Source, content: bytes) -> None:
    """Raise for zeros in a text, and for what is none; a text in another encoding is left to its decoding."""
    has_controls = any(0 < byte < 32 and byte not in b"\t\n\v\f\r\x1b\x1e" for byte in content[:1000])
    if has_controls or (b"\0" in content and not _is_utf8(content)):
        raise source.refuse("is a binary file of an unknown kind", WRITE, join=" ")
    if b"\0" in content.strip(b"\0"):
        raise source.refuse("has zeros between its letters: it is damaged, or no text", WRITE, join=" ")
    if content.strip(b"\0") != content:
        remedy = "tr -d '\\0' removes them"
        raise source.refuse("is padded with zeros, as after a crash of the machine", remedy, join=" ")


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
