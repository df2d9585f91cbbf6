"""`python -m tests.tools.fuzzing --each 250`: reads spoiled files and prints what is wrong."""

# ruff: noqa: T201 - a report for whoever runs it

import argparse
from collections import Counter

from tests.tools.fuzzing.formats import FORMATS
from tests.tools.fuzzing.fuzzing import read_all


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=250, help="files of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="formats whose name has this in it")
    options = parser.parse_args()
    names = [form.name for form in FORMATS if options.only in form.name]
    files, findings = 0, 0
    print(
        f"{'format':22}{'files':>6}{'0':>6}{'1':>6}{'2':>6}{'3':>6}{'found':>7}{'MiB':>7}{'longest':>9}{'seconds':>9}"
    )
    for outcome in read_all(names, options.each, options.seed):
        codes = "".join(f"{outcome.codes[code]:6}" for code in range(4))
        sizes = f"{outcome.memory / 2**20:7.0f}{outcome.longest:8.1f} {outcome.seconds:8.0f}"
        print(f"{outcome.format:22}{outcome.files:6}{codes}{len(outcome.findings):7}{sizes}", flush=True)
        files, findings = files + outcome.files, findings + len(outcome.findings)
        kinds = Counter((found.complaint, found.label) for found in outcome.findings)
        for (complaint, label), count in kinds.most_common(60):
            first = next(each for each in outcome.findings if (each.complaint, each.label) == (complaint, label))
            print(f"  {count:3} x {complaint} [{label}] #{first.index}: {first.line}", flush=True)
    print(f"{files} files, {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    raise SystemExit(main())
