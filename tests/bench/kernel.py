"""Kernel speed: a file of messages through the machine of a market, as fast as it takes them.

Run as `python -m tests.bench.kernel FILE [--hash] [--profile] [--messages N]`.  Prints messages
a second of one core, and with --hash the SHA-256 of the report stream.  Recording results,
numbering entries for the shards and formatting reports are part of the figure; reading the file
is not.
"""

from __future__ import annotations

import argparse
import cProfile
import hashlib
import pstats
import time
from pathlib import Path

from tests.core.kernel import Kernel, Message
from tests.core.vectors import NORMAL, read_messages


def run(messages: list[Message]) -> tuple[list[str], float, float]:
    """The report stream, and the seconds it took by the clock and on the processor."""
    kernel = Kernel()
    reports: list[str] = []
    wall, cpu = time.perf_counter(), time.process_time()
    kernel.feed_all(messages, reports)
    return reports, time.perf_counter() - wall, time.process_time() - cpu


def profile(messages: list[Message]) -> None:
    """Print where the time goes, function by function."""
    kernel = Kernel()
    profiler = cProfile.Profile()
    profiler.runcall(kernel.feed_all, messages, [])
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(prog="tests.bench.kernel", description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=NORMAL)
    parser.add_argument("--hash", action="store_true", help="print SHA-256 of the reports")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument("--messages", type=int, default=None, help="only the first so many")
    arguments = parser.parse_args()
    messages = read_messages(arguments.file, arguments.messages)
    if arguments.profile:
        profile(messages)
        return
    reports, wall, cpu = run(messages)
    count = len(messages)
    print(f"{count} messages, {len(reports)} reports, {wall:.1f} s")
    print(f"{count / wall:.0f} messages/s by the clock, {count / cpu:.0f} a second of processor")
    if arguments.hash:
        print(f"sha256 {hashlib.sha256(chr(10).join(reports).encode()).hexdigest()}")


if __name__ == "__main__":
    main()
