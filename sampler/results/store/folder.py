"""The folder of a run: one writer at a time, and an end that is one step.

A run writes each of its files as NAME.partial. Renaming run.jsonl.partial to run.jsonl is the step that replaces the
earlier run: its footer names the other files by their SHA-256, and the page names the SHA-256 of its run.jsonl. A file
that has no name yet when a process dies gets it from the next reader or run (`settle`).
"""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sampler.errors import OutputError
from sampler.results.store.attachments import ATTENTION, TOKENS
from sampler.results.store.crash import FINGERPRINT, remove_crashes
from sampler.results.store.run_file import MOST_BYTES, ReportError
from sampler.results.store.scoring import SCORING
from sampler.runtime.files import output_errors, partial_of
from sampler.runtime.reading.source import Source, open_file

RUN: Final = "run.jsonl"
PAGE: Final = "report.html"
BESIDE: Final = (ATTENTION, SCORING, TOKENS)
"""The files that a footer names."""

PAGE_OF: Final = re.compile(rb'<meta name="run" content="([0-9a-f]{64})">')
"""The SHA-256 of its run.jsonl, in the head of a page."""


@contextmanager
def claimed(folder: Path, *, create: bool = True) -> Iterator[None]:
    """Keep others from writing a run into a folder until the block ends, or the process does.

    create: make the folder if there is none; it goes again if nothing was written. Raises OutputError if another run
    writes into it.
    """
    made: list[Path] = []
    handle = None
    try:
        with output_errors(folder / RUN):
            if create:
                made = [each for each in (folder, *folder.parents) if not each.exists()]
            if create or folder.is_dir():
                handle = _locked(folder, create=create)
        yield
    finally:
        if handle is not None:
            for each in made:
                with suppress(OSError):  # it is not empty
                    each.rmdir()
            os.close(handle)


def _locked(folder: Path, *, create: bool) -> int:
    """A handle of the folder that holds its lock, which the system takes back from a process that dies."""
    while True:
        try:
            if create:
                folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            if _is_locked(folder, handle):
                return handle
        except FileNotFoundError:
            if not create:
                raise
        except FileExistsError:
            if folder.exists() and not folder.is_dir():
                raise
        # Whoever had the folder removed it, since nothing was written: make it again.


def _is_locked(folder: Path, handle: int) -> bool:
    """Whether the handle has the lock of what is at this place now; closes it if not."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        hint = "wait for its end, or choose another folder with --out"
        raise OutputError(f"{folder} is in use: another run writes into it", hint=hint) from error
    except OSError:
        return True  # a network drive without locks
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(handle), folder.stat()):
            return True
    os.close(handle)
    return False


@dataclass(frozen=True)
class Kept:
    """What the run.jsonl of a folder names. checksum: its own; files: SHA-256 by name; crashes: names of crash files.

    All are empty without a run that has a footer.
    """

    checksum: str = ""
    files: dict[str, str] = field(default_factory=dict)
    crashes: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: Path) -> "Kept":
        try:
            content = Source(folder / RUN, ReportError, "", MOST_BYTES).content()
            footer: Any = json.loads(content[content.rstrip().rfind(b"\n") + 1 :])
        except (ReportError, ValueError, RecursionError):
            return cls()
        if not isinstance(footer, dict) or footer.get("kind") != "footer":
            return cls()
        files, crashes = footer.get("files"), footer.get("crashes")
        known = {name: str(files[name]) for name in BESIDE if isinstance(files, dict) and name in files}
        paths = [str(name) for name in crashes.values()] if isinstance(crashes, dict) else []
        names = [
            name for name in paths if name == f"crashes/{Path(name).name}" and FINGERPRINT.fullmatch(Path(name).stem)
        ]
        return cls(hashlib.sha256(content).hexdigest(), known, tuple(dict.fromkeys(names)))


def commit(folder: Path) -> None:
    """The end of a run whose partial files are complete: from here on the folder holds this run. Raises OutputError."""
    with output_errors(folder / RUN):
        partial_of(folder / RUN).replace(folder / RUN)


def place_files(folder: Path) -> int:
    """Give the other files of the folder's run their names, and remove those of an earlier run.

    Returns the number of removed crash files. Raises OutputError for the first file that stays; the others are placed.
    """
    kept, errors = Kept.of(folder), list[OutputError]()
    removed = 0
    with _kept_for_later(errors):
        removed = remove_crashes(folder, keep=[folder / name for name in kept.crashes])
    # The tokens, which every run has, come late: while they wait, `settle` knows that something may be missing.
    for name in (*kept.crashes, *BESIDE, PAGE):
        with _kept_for_later(errors):
            _place(folder, name, kept)
    with suppress(OSError):
        _sync(folder)
    if errors:
        raise errors[0]
    return removed


@contextmanager
def _kept_for_later(errors: list[OutputError]) -> Iterator[None]:
    try:
        yield
    except OutputError as error:
        errors.append(error)


def _place(folder: Path, name: str, kept: Kept) -> None:
    """Give one file its name if it is of the kept run, or remove one of another run."""
    path = folder / name
    partial = partial_of(path)
    if name == PAGE:
        is_new, is_old = page_of(partial) == kept.checksum, page_of(path) != kept.checksum
    elif name in kept.crashes:
        is_new, is_old = partial.exists(), False
    else:
        is_new, is_old = _checksum(partial) == kept.files.get(name, ""), name not in kept.files
    with output_errors(path):
        if is_new:
            partial.replace(path)
        elif is_old:
            path.unlink(missing_ok=True)


def discard(folder: Path, names: Sequence[str] = (RUN, *BESIDE, PAGE)) -> None:
    """Remove partial files of a run that did not come to its end, as far as possible."""
    crashes: list[Path] = []
    with suppress(OSError):
        crashes += (folder / "crashes").glob("*.json.partial")
    for path in (*(partial_of(folder / name) for name in names), *crashes):
        with suppress(OSError):
            path.unlink()
    with suppress(OSError):  # it is not empty
        (folder / "crashes").rmdir()


def settle(folder: Path) -> bool:
    """Give files their names if the process that wrote the run died before it could. Returns whether it did.

    It is left undone where it cannot be done: the folder is in use, or may not be written.
    """
    if not unsettled(folder):
        return False
    try:
        with claimed(folder, create=False):
            place_files(folder)
    except OutputError:
        return False
    return True


def unsettled(folder: Path) -> bool:
    """Whether a file of the folder's run has not got its name yet, or one of an earlier run is still there."""
    kept = Kept.of(folder)
    if not kept.checksum:
        return False
    waiting = [partial_of(folder / name).exists() for name in kept.crashes]
    waiting += [_checksum(partial_of(folder / name)) == checksum for name, checksum in kept.files.items()]
    waiting += [page_of(partial_of(folder / PAGE)) == kept.checksum]
    of_earlier = [(folder / name).exists() and name not in kept.files for name in (ATTENTION, SCORING)]
    of_earlier += [page_of(folder / PAGE) not in (None, kept.checksum)]
    return any((*waiting, *of_earlier))


def unfinished(folder: Path) -> bool:
    """Whether a later run into the folder began and did not come to its end, or goes on."""
    return not unsettled(folder) and partial_of(folder / RUN).exists()


def page_of(path: Path) -> str | None:
    """The SHA-256 of the run.jsonl that a page shows; None without a page that says so."""
    try:
        with open_file(path) as file:
            found = PAGE_OF.search(file.read(4096))
    except OSError:
        return None
    return found[1].decode() if found else None


def _checksum(path: Path) -> str | None:
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
