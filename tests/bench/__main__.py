"""`make bench`: the benchmarks that compare, one after the other, each in a process of its own.

Prints tables and writes nothing.  Trust ratios within one run.
"""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = (
    ("tests.bench.wire", "A hop between two actors"),
    ("tests.bench.kernel", "The market machine alone"),
    ("tests.bench.memory", "Memory of an open order"),
    ("tests.bench.http", "Orders over HTTP, end to end and durable"),
    ("tests.bench.lake", "The lake: making it, asking it, and what it costs"),
)
KERNEL_FILE = "tests/vectors/kernel/mebw_normal_s23_1M.csv.xz"


def main() -> int:
    """Run them all; the exit code is the first that was not 0."""
    for module, title in BENCHMARKS:
        print(f"\n{title} ({module})", flush=True)
        arguments = [KERNEL_FILE] if module.endswith("kernel") else []
        done = subprocess.run([sys.executable, "-m", module, *arguments], check=False)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
