"""The releases of chatterbox-tts that tests run beside this core: fetched with pip, checked, unpacked, never installed.

`python -m tests.wheels` fetches what is missing into `.wheels/` of the checkout; `tox -e tests` does that first. Tests
of a release that could not be fetched are skipped and say so.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

CHECKSUMS = {
    "0.1.0": "252b1b8e1845102e0a5585da060b40172fc8f70ea3a4a1a03ed1c084582e7bf2",
    "0.1.1": "b9fae4e09e17f279ebb3158fd20db8394825ba3f279f2e16f89e9812353a6fdf",
    "0.1.2": "5f0a5da217b66a26770f4a0df1d08e09b444de958b35df5f90c8ddb50ae99a0c",
    "0.1.3": "68ed2957f65251fa2af2035e2bdaf8723b51c76fd988b12bd7ce045a32884d91",
    "0.1.5": "43391e2cd37d20fa0e3788546bda9041069e5c9aab028e4821e2328f1174e473",
    "0.1.6": "c7a4da2a56b41f5d85b7a5dc299a21610ee7f381f0c72ac886be8f2703ad2803",
    "0.1.7": "83782500e3ad4e7c919132e9d7eb8755f29f57c5bde5ec48c655ca23a4eb113c",
}
"""SHA-256 of the wheel of each release, as PyPI has it."""

CACHE = Path(__file__).parents[1] / ".wheels"


def folder(version: str) -> Path:
    """Where a release is unpacked."""
    return CACHE / version


def fetch(version: str) -> str:
    """Download and unpack a release unless it is there; what went wrong, or nothing."""
    if folder(version).exists():
        return ""
    name = f"chatterbox-tts=={version}"
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", temporary, name]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        found = [path for path in Path(temporary).glob("*.whl") if checksum(path) == CHECKSUMS[version]]
        if not found:
            last = (result.stderr.strip().splitlines() or ["another checksum"])[-1]
            return f"{name} could not be fetched: {last}"
        zipfile.ZipFile(found[0]).extractall(Path(temporary) / "unpacked")
        (Path(temporary) / "unpacked").rename(folder(version))  # a folder that is there is whole
    return ""


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def need(version: str) -> Path:
    """The folder of a release; a test that needs one which is not there is skipped."""
    if not folder(version).exists():
        pytest.skip(f"chatterbox-tts {version} could not be fetched (python -m tests.wheels)")
    return folder(version)


if __name__ == "__main__":
    sys.stdout.writelines(f"{each}: {fetch(each) or 'is there'}\n" for each in CHECKSUMS)
