"""A process that owns a stream, for tests that end it.

python -m tests.storage.child WHAT DIRECTORY [MORE], where WHAT is one of

append  append for ever; a line with the seq after each append that was acknowledged
hold    open the stream, say so, and wait
orphan  open the stream, leave a child behind that inherited the lock, say so, and wait
starve  append until files may not grow beyond MORE bytes, then say how that looked
fail    append five times, then let the system calls MORE fail, with the error number before them,
        append four times more, and say how that looked
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from excore_ray.errors import StorageError
from excore_ray.storage.sqlite import SqliteJournal, open_sqlite
from tests.storage.failing_calls import fail
from tests.storage.places import OWNER, STREAM

ROOT = Path(__file__).parents[2]
ENTRY_BYTES = 3000


def spawn(what: str, directory: Path, *more: str) -> subprocess.Popen[str]:
    """Start this file as a process; its lines are read from its stdout."""
    command = [sys.executable, "-m", "tests.storage.child", what, str(directory), *more]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def line_of(child: subprocess.Popen[str]) -> str:
    """The next line the child says; empty when it has ended."""
    assert child.stdout is not None
    return child.stdout.readline().strip()


def end(child: subprocess.Popen[str]) -> int:
    """Kill the child, if it lives, and clean up; returns how it ended."""
    child.kill()
    child.communicate()
    return child.returncode


def body_of(seq: int) -> bytes:
    """What the children append as entry `seq`."""
    return b"%d " % seq * (ENTRY_BYTES // len(b"%d " % seq))


def key_of(seq: int) -> bytes:
    return b"key %d" % seq


async def append(journal: SqliteJournal) -> None:
    seq = journal.status().next_seq
    while True:
        await journal.append(seq, 1, [body_of(seq), body_of(seq + 1)], [key_of(seq)])
        seq += 2
        print(seq - 1, flush=True)
        await asyncio.sleep(0)


async def append_failing(journal: SqliteJournal, errno: int, calls: list[str]) -> None:
    seq = 1
    for count in range(9):
        if count == 5:
            fail(calls, errno)
        try:
            await journal.append(seq, 1, [body_of(seq), body_of(seq + 1)], [key_of(seq)])
        except StorageError as fault:
            print(type(fault).__name__, flush=True)
        else:
            print(seq + 1, flush=True)
            seq += 2


async def starve(journal: SqliteJournal, bytes_max: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, bytes_max))
    try:
        await append(journal)
    except StorageError as fault:
        print(type(fault).__name__, flush=True)
    try:
        await journal.find_keys([b"k"])
    except StorageError as fault:
        print(type(fault).__name__, flush=True)


def main(what: str, directory: Path, *more: str) -> None:
    journal = open_sqlite(directory, STREAM, owner=OWNER)
    if what == "append":
        asyncio.run(append(journal))
    elif what == "starve":
        asyncio.run(starve(journal, int(more[0])))
    elif what == "fail":
        asyncio.run(append_failing(journal, int(more[0]), list(more[1:])))
    elif what == "orphan" and os.fork() == 0:
        time.sleep(60)
    else:
        print("held", flush=True)
        time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
