"""`python -m tests.fuzz`: many cases, in process or over HTTP, and what came of them.

Exit code 0 when every promise was kept, 1 otherwise.  A failure prints the seed of its episode,
its place there and its body.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz import inside, outside

_SHOWN = 400


def tell(report: inside.Report) -> None:
    """Print the counts and the failures."""
    print(f"{report.cases} cases, {report.refused} refused, {report.resent} sent again")
    print(f"{1e6 * report.cpu_s / max(report.cases, 1):.0f} us of CPU a case")
    codes = sorted(report.codes.items())
    print("codes:", ", ".join(f"{code}: {count}" for code, count in codes))
    for kind, count in report.kinds.most_common():
        used_s, case = report.slowest[kind]
        print(f"  {kind:9} {count:8}  slowest {1000 * used_s:6.1f} ms, {len(case.body)} bytes")
    for failure in (report.failures + report.slow)[:20]:
        print(f"episode {failure.seed}, case {failure.number} ({failure.case.kind})")
        print(
            f"  {failure.what}\n  {failure.case.body[:_SHOWN]!r} ({len(failure.case.body)} bytes)"
        )
    print(f"{len(report.failures)} failures, {len(report.slow)} that took too long")


def tell_http(report: outside.Report) -> None:
    """The same, of cases over HTTP."""
    print(f"{report.cases} cases, {report.refused} refused, {report.strangers} of strangers")
    print(f"{report.watched} refused ones watched, {report.audits} audits")
    codes = sorted(report.codes.items())
    print("codes:", ", ".join(f"{code}: {count}" for code, count in codes))
    times = sorted(report.times_s)
    marks = [(share, times[int(share * (len(times) - 1))]) for share in (0.5, 0.99, 0.999, 1.0)]
    print("ms:", ", ".join(f"p{100 * share:g} {1000 * took:.1f}" for share, took in marks))
    slowest = report.slowest[1]
    print(f"slowest: {slowest.kind} {slowest.body[:_SHOWN]!r}")
    print(f"{report.log_bytes} bytes of logs without a trace or a secret, or as told below")
    for what, case in report.failures[:20]:
        print(f"{what} ({case.kind})\n  {case.body[:_SHOWN]!r} ({len(case.body)} bytes)")
    print(f"{len(report.failures)} failures")


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=None, help="a random one by default")
    parser.add_argument("--first", type=int, default=0, help="the first episode of the seed")
    parser.add_argument("--http", action="store_true", help="an exchange of its own, over HTTP")
    arguments = parser.parse_args()
    seed = secrets.randbelow(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    began_s = time.monotonic()
    if arguments.http:
        with tempfile.TemporaryDirectory(prefix="excore-fuzz-") as directory:
            found = outside.run(seed, arguments.cases, Path(directory))
        tell_http(found)
        print(f"{time.monotonic() - began_s:.0f} s")
        return 1 if found.failures else 0
    report = inside.run(seed, arguments.cases, arguments.first)
    tell(report)
    print(f"{time.monotonic() - began_s:.0f} s")
    return 1 if report.failures or report.slow else 0


if __name__ == "__main__":
    sys.exit(main())
