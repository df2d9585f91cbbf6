"""What a file is by its first bytes, whatever its name says."""

from typing import Final

HEAD: Final = 512
"""Bytes that tell every format here."""

SAFETENSORS: Final = "safetensors"
TORCH: Final = "a PyTorch file"
PICKLE: Final = "a pickle"
NPY: Final = "NumPy's .npy"
NPZ: Final = "NumPy's .npz"
HDF5: Final = "HDF5"
PARQUET: Final = "a Parquet table"
ARROW: Final = "an Arrow table"
SQLITE: Final = "an SQLite database"
SOUND: Final = "a sound file"
PNG: Final = "a PNG picture"
PDF: Final = "a PDF"
TAR: Final = "a tar archive"
ZIP: Final = "a zip archive"
EXCEL: Final = "an Excel workbook"
XZ: Final = "compressed by xz"
BZIP2: Final = "compressed by bzip2"
ZSTANDARD: Final = "compressed by Zstandard"
GGUF: Final = "GGUF"
ONNX: Final = "ONNX"
POINTER: Final = "a Git LFS pointer"
HTML: Final = "an HTML page"
JSON: Final = "JSON"
TEXT: Final = "plain text"
ZEROS: Final = "full of zeros"
EMPTY: Final = "empty"

MAGIC: Final = (
    (0, b"version https://git-lfs.github.com/spec/", POINTER),
    (0, b"GGUF", GGUF),
    *((0, magic, "GGML") for magic in (b"lmgg", b"fmgg", b"tjgg", b"algg")),
    (0, b"\x89HDF\r\n\x1a\n", HDF5),
    (0, b"\x93NUMPY", NPY),
    (0, b"PAR1", PARQUET),
    (0, b"ARROW1", ARROW),
    (0, b"SQLite format 3", SQLITE),
    (0, b"\x1f\x8b", "compressed by gzip"),
    (0, b"\x28\xb5\x2f\xfd", ZSTANDARD),
    (0, b"BZh", BZIP2),
    (0, b"\xfd7zXZ\0", XZ),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"%PDF-", PDF),
    (0, b"\x89PNG\r\n", PNG),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    *((0, magic, SOUND) for magic in (b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff\xfb")),
    *((0, bytes((0x80, version)), PICKLE) for version in (2, 3, 4, 5)),
    (4, b"TFL3", "TensorFlow Lite"),
    (257, b"ustar", TAR),
)
"""Where a format has bytes of its own, these bytes and its name."""

PAGES: Final = (b"<!doctype html", b"<html", b"<head", b"<body")
OF_ZIP: Final = b"PK\x03\x04"
OF_TORCH: Final = (b".pkl", b"/version", b"/byteorder", b".format_version")


def format_of(head: bytes) -> str | None:
    """The format of a file that begins with these bytes, None if it is none that is known here."""
    if not head:
        return EMPTY
    if not head.strip(b"\0"):
        return ZEROS
    if _is_safetensors(head):
        return SAFETENSORS
    if head.startswith(OF_ZIP):
        return _in_zip(head)
    known = next((name for start, magic, name in MAGIC if head.startswith(magic, start)), None)
    if known is not None:
        return known
    return ONNX if _is_onnx(head) else _kind_of_text(head)


def _is_safetensors(head: bytes) -> bool:
    """A length of at most 100 MB, the format's own limit, and the brace that a header begins with."""
    return len(head) > 8 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= 100_000_000


def _in_zip(head: bytes) -> str:
    """A zip by the name of its first entry."""
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    if name.endswith(OF_TORCH) or b"/data/" in name:
        return TORCH
    if name == b"[Content_Types].xml" or name.startswith(b"xl/"):
        return EXCEL
    return NPZ if name.endswith(b".npy") else ZIP


def _is_onnx(head: bytes) -> bool:
    """A protobuf with a small number as field 1 (`ir_version`), and the name of a producer or a graph after it."""
    if len(head) < 5 or head[0] != 0x08 or not 1 <= head[1] <= 64:
        return False
    name = head[4 : 4 + head[3]]
    return head[2] == 0x3A or (head[2] == 0x12 and bool(name) and name.isascii() and name.decode("ascii").isprintable())


def _kind_of_text(head: bytes) -> str | None:
    try:
        text = head.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # not the letter that is cut off at the end
            return None
        text = head[: error.start].decode("utf-8-sig").strip()
    if any(not letter.isprintable() and letter not in "\r\n\t" for letter in text):
        return None
    begin = text.lower().encode()
    if begin.startswith(PAGES):
        return HTML
    if begin.startswith(b"<"):
        return "XML"
    return JSON if begin.startswith((b"{", b"[")) else TEXT
