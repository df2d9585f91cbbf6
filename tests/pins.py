"""The versions in constraints.txt beside those that are installed: `python -m tests.pins` lists what differs."""

import importlib.metadata
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
SEED = frozenset({"pip", "sampler-suite"})
"""Not from a requirement: pip comes with the virtual environment, the package is this checkout."""


def pinned(lines: Iterable[str], environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Version of each package that a requirement `name==version` pins for a system, this one without `environment`."""
    requirements = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {
        canonicalize_name(each.name): str(each.specifier).removeprefix("==")
        for each in requirements
        if each.marker is None or each.marker.evaluate(dict(environment or {}))
    }


def all_pins() -> dict[str, str]:
    """Those of constraints.txt, and of the packages that tox.ini installs by their version."""
    named = re.findall(r"\b([\w-]+==[\w.]+)", (ROOT / "tox.ini").read_text(encoding="utf-8"))
    return pinned(named) | pinned(CONSTRAINTS.read_text(encoding="utf-8").splitlines())


def differing(pins: Mapping[str, str]) -> list[str]:
    """One line for each installed package that is not installed in its pinned version."""
    found = {canonicalize_name(each.name): each.version for each in importlib.metadata.distributions()}
    return [
        f"{name} {version}: {f'{pins[name]} is pinned' if name in pins else 'no version is pinned'}"
        for name, version in sorted(found.items())
        if name not in SEED and version.partition("+")[0] != pins.get(name)
    ]


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in differing(all_pins()) or ["every version is the pinned one"])
