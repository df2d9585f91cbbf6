"""The releases of chatterbox-tts that tests run beside this core: fetched with pip, checked, unpacked, never installed.

`python -m tests.wheels` fetches what is missing into `.wheels/` of the checkout; `tox -e tests` does that first. Tests
of a release that is not there are skipped with the reason.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

CODE = {
    "0.1.0": "b75b4125a16767a701e16d9647867442fe59ebcbbc535a959f9ef4e4bab43f40",
    "0.1.1": "b75b4125a16767a701e16d9647867442fe59ebcbbc535a959f9ef4e4bab43f40",
    "0.1.2": "024b6420a3df65d6ccbe0e1be179cc7ad79707b1cfa2708a3c0142b79d84ca79",
    "0.1.3": "bc719d7422e0053d6a2c1c1675e4bb5e9870aba8439aff01249ba66bcc1782f7",
    "0.1.5": "a1ddc9640fe271acdf52268be7b70133251dd05b1236519f82ff3ceb13a0f2f8",
    "0.1.6": "a316102e8319184c43642f1341901bce5f4760c3ef2fc21134906884d4a9649f",
    "0.1.7": "9d367904000b23167405cb148fc79ba26db3904426aa6318d5cf0cf5bb2b8bc8",
}
"""Digest of the code of each release (`digest`): an archive may be packed anew, as that of 0.1.0 was."""

ARCHIVES = {
    "0.1.0": "252b1b8e1845102e0a5585da060b40172fc8f70ea3a4a1a03ed1c084582e7bf2",
    "0.1.1": "b9fae4e09e17f279ebb3158fd20db8394825ba3f279f2e16f89e9812353a6fdf",
    "0.1.2": "5f0a5da217b66a26770f4a0df1d08e09b444de958b35df5f90c8ddb50ae99a0c",
    "0.1.3": "68ed2957f65251fa2af2035e2bdaf8723b51c76fd988b12bd7ce045a32884d91",
    "0.1.5": "43391e2cd37d20fa0e3788546bda9041069e5c9aab028e4821e2328f1174e473",
    "0.1.6": "c7a4da2a56b41f5d85b7a5dc299a21610ee7f381f0c72ac886be8f2703ad2803",
    "0.1.7": "83782500e3ad4e7c919132e9d7eb8755f29f57c5bde5ec48c655ca23a4eb113c",
}
"""SHA-256 of the archives that the shipped reference runs were made with; they stand in their metadata."""

CACHE = Path(__file__).parents[1] / ".wheels"


def folder(version: str) -> Path:
    return CACHE / version


def digest(package: Path) -> str:
    """SHA-256 over the names, sizes and bytes of the files of an unpacked package, in the order of their names."""
    result = hashlib.sha256()
    for path in sorted(package.rglob("*"), key=lambda path: path.relative_to(package.parent).as_posix()):
        if path.is_file() and "__pycache__" not in path.parts:
            content = path.read_bytes()
            result.update(f"{path.relative_to(package.parent).as_posix()}\0{len(content)}\0".encode() + content)
    return result.hexdigest()


def fetch(version: str) -> str:
    """Download, check and unpack a release unless it is there; returns why there is none, or nothing."""
    if folder(version).exists():
        return ""
    CACHE.mkdir(exist_ok=True)
    _reason(version).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
        reason = _fetch(version, Path(temporary))
    if reason:
        _reason(version).write_text(reason, encoding="utf-8")
    return reason


def _fetch(version: str, temporary: Path) -> str:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(temporary)]
    result = subprocess.run([*command, f"chatterbox-tts=={version}"], capture_output=True, text=True, check=False)
    archive = next(temporary.glob("*.whl"), None)
    if archive is None:
        return f"pip could not download it: {complaint(result.stderr.splitlines())}"
    zipfile.ZipFile(archive).extractall(temporary / "unpacked")
    found = digest(temporary / "unpacked" / "chatterbox")
    if found != CODE[version]:
        return f"its code has the digest {found[:12]}, expected {CODE[version][:12]}: the release was changed"
    (temporary / "unpacked").rename(folder(version))  # a folder that is there is whole
    return ""


def complaint(lines: Sequence[str]) -> str:
    """The error in pip's output, which has warnings too; else its last line."""
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return next(iter(errors), next(iter(lines[-1:]), "it wrote no message"))


def _reason(version: str) -> Path:
    return CACHE / f"{version}.missing"


def need(version: str) -> Path:
    """The folder of a release; a test that needs one which is not there is skipped."""
    if not folder(version).exists():
        path = _reason(version)
        reason = path.read_text(encoding="utf-8") if path.exists() else "run python -m tests.wheels"
        pytest.skip(f"chatterbox-tts {version} is not there: {reason}")
    return folder(version)


if __name__ == "__main__":
    sys.stdout.writelines(f"chatterbox-tts {each}: {fetch(each) or 'is there'}\n" for each in CODE)
