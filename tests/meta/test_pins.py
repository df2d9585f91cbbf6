"""What a newcomer gets is what was tested: the two commands install pinned versions, which go together everywhere."""

import configparser
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from uv import find_uv_bin

from tests import skipped, wheels
from tests.pins import CONSTRAINTS, ROOT, all_pins, differing, pinned

SYSTEMS = {
    "x86_64-manylinux_2_35": {"sys_platform": "linux", "platform_machine": "x86_64"},
    "aarch64-apple-darwin": {"sys_platform": "darwin", "platform_machine": "arm64"},
}
PINS = CONSTRAINTS.read_text(encoding="utf-8").splitlines()


def test_every_installed_package_has_its_pinned_version():
    assert differing(all_pins()) == [], "run the tests with tox -e tests"


def test_an_unpinned_package_is_detected():
    pins = all_pins() | {"numpy": "1.0"}
    del pins["scipy"]
    found = "\n".join(differing(pins))
    assert re.search(r"numpy \S+: 1\.0 is pinned\nscipy \S+: no version is pinned$", found)


def resolved(python: str, platform: str, constraints: str) -> dict[str, str]:
    """What the two commands of the README install, as uv resolves it for another system: nothing is installed."""
    options = ("--quiet", "--no-annotate", "--no-header", "--no-python-downloads", "--group", "environments")
    extras = (
        "--extra",
        "finch",
        "--extra",
        "tests",
        "--extra",
        "mkl",
        "--extra",
        "mutation",
        "--constraint",
        constraints,
    )
    system = ("--python", sys.executable, "--python-version", python, "--python-platform", platform)
    command = [find_uv_bin(), "pip", "compile", *options, *extras, *system, "pyproject.toml"]
    environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}  # MLX has no wheel for older systems
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return pinned(result.stdout.splitlines())


LATER = pytest.mark.nightly("one version of Python stands for the others")


@pytest.mark.parametrize("platform", SYSTEMS)
@pytest.mark.parametrize("python", ["3.11", *(pytest.param(each, marks=LATER) for each in ("3.12", "3.13"))])
def test_the_pinned_set_resolves_and_is_complete(python, platform):
    environment = SYSTEMS[platform] | {"python_version": python, "python_full_version": f"{python}.0"}
    pins = pinned(PINS, environment)
    found = resolved(python, platform, "constraints.txt")
    assert {name: version for name, version in found.items() if pins.get(name) != version} == {}
    assert {"numpy", "mlx", "torch", "transformers", "pytest", "tox", "hatchling"} <= set(found)


def test_versions_that_conflict_are_detected(tmp_path):
    wrong = tmp_path / "constraints.txt"
    wrong.write_text("transformers==5.2.0\nhuggingface-hub==0.30.0\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="transformers"):
        resolved("3.12", "x86_64-manylinux_2_35", str(wrong))


def test_torch_is_pinned_without_a_local_version():
    assert [line.partition(" ")[0] for line in PINS if line.startswith("torch==")] == ["torch==2.13.0"]


def test_every_environment_and_both_commands_take_the_pins():
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    assert "PIP_CONSTRAINT = constraints.txt" in tox["pkgenv"]["set_env"]
    assert "{[pkgenv]set_env}" in tox["testenv"]["set_env"]
    others = {name for name in tox.sections() if name.startswith("testenv:") and "set_env" in tox[name]}
    assert others == {"testenv:newest", "testenv:lock"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^python -m pip install .*tox && ", readme, re.MULTILINE)) == {
        "python -m pip install -c constraints.txt tox && "
    }


def test_upstream_is_known_by_its_code(tmp_path):
    code, compiled = tmp_path / "chatterbox" / "t3.py", tmp_path / "chatterbox" / "__pycache__" / "t3.pyc"
    compiled.parent.mkdir(parents=True)
    digests = []
    for path, content in ((code, b"x = 1"), (compiled, b"compiled"), (code, b"x = 2")):
        path.write_bytes(content)
        digests.append(wheels.digest(code.parent))
    assert digests[0] == digests[1] != digests[2]


def test_a_missing_release_is_skipped_with_the_reason(tmp_path, monkeypatch):
    lines = ["WARNING: Location 'x' is ignored", "ERROR: No matching distribution found for x", "WARNING: late"]
    assert wheels.complaint(lines) == "No matching distribution found for x"
    monkeypatch.setattr(wheels, "CACHE", tmp_path)
    (tmp_path / "0.1.0.missing").write_text("pip could not download it: no network", encoding="utf-8")
    with pytest.raises(pytest.skip.Exception, match=r"0\.1\.0 is not there: pip could not download it: no network"):
        wheels.need("0.1.0")


def test_skipped_tests_are_counted_by_their_reason():
    network, accelerator = (
        SimpleNamespace(longrepr=("test.py", 1, f"Skipped: {reason}")) for reason in ("no network", "no accelerator")
    )
    assert list(skipped.lines([network, accelerator, network])) == [
        *("3 tests were skipped, which is not a pass:", "  2 x no network", "  1 x no accelerator"),
    ]
    assert next(skipped.lines([network])) == "1 test was skipped, which is not a pass:"
    assert list(skipped.lines([])) == []
