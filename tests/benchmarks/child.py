"""A process of one side: `python -m tests.benchmarks.child MODULE SIDE [--quick]`, a JSON line for each measure.

What libraries print goes to the error stream, so that nothing else stands between the lines.
"""

import importlib
import json
import os
import resource
import sys
from pathlib import Path

from sampler.runtime import blas

STATUS = Path("/proc/self/status")
PEAK_MEMORY = "peak memory"  # a measure that every side has: the largest resident size of its process, in MiB


def main() -> None:
    module, side, *quick = sys.argv[1:]
    blas.prepare()  # a fast one, before a module of either side loads MLX
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)
        for name, value in importlib.import_module(module).SIDES[side](quick=bool(quick)):
            answer.write(json.dumps({"measure": name, "value": value}) + "\n")
            answer.flush()
        answer.write(json.dumps({"measure": PEAK_MEMORY, "value": peak_memory()}) + "\n")


def peak_memory() -> float:
    if STATUS.exists():  # ru_maxrss would count what the process that started this one had taken
        fields = dict(line.split(":", 1) for line in STATUS.read_text(encoding="utf-8").splitlines())
        return float(fields["VmHWM"].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


if __name__ == "__main__":
    main()
