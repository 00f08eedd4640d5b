"""A small journal as a kill leaves it, what can be done to its files, and what then comes of it.

Used by the fast tests with a sample, and by the slow ones with every byte and every bit.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from excore_ray.errors import StorageError
from excore_ray.storage.journal import Entry
from excore_ray.storage.sqlite import SqliteJournal, open_sqlite, read_sqlite
from tests.storage.places import OWNER, STREAM

T = TypeVar("T")
PAGE_BYTES = 512  # the smallest: every structure of the files is there, in an eighth of the bits
DB, LOG, HEAD = f"{STREAM}.db", f"{STREAM}.db-wal", f"{STREAM}.head"
# What every message must give an operator to do.
ADVICE = re.compile(r"from a backup|start the actor again")


def drive(job: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits: a loop for each case would cost more."""
    try:
        job.send(None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    raise AssertionError("it waits")


class Case(NamedTuple):
    """One thing done to one file: cut to `at` bytes, or bit `at` flipped."""

    name: str
    is_cut: bool
    at: int

    def of(self, data: bytes) -> bytes:
        if self.is_cut:
            return data[: self.at]
        found = bytearray(data)
        found[self.at // 8] ^= 1 << self.at % 8
        return bytes(found)


def cuts(name: str, data: bytes) -> list[Case]:
    return [Case(name, True, at) for at in range(len(data))]


def flips(name: str, data: bytes) -> list[Case]:
    return [Case(name, False, at) for at in range(8 * len(data))]


def keys_of(seq: int, count: int) -> list[bytes]:
    """The keys that come with an entry."""
    return [b"key %d.%d" % (seq, number) for number in range(count)]


class Scene:
    """A stream that was written and left, as bytes, in a directory where it is laid out again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files: dict[str, bytes] = {}
        self.entries: list[Entry] = []
        self.keys: list[bytes] = []

    def append(self, journal: SqliteJournal, size: int, count: int) -> None:
        seq = len(self.entries) + 1
        entry, keys = Entry(seq, 1 + seq // 3, b"%d " % seq * size), keys_of(seq, count)
        drive(journal.append(seq, entry.epoch, [entry.body], keys))
        self.entries.append(entry)
        self.keys += keys

    def leave(self) -> None:
        """Take the files as they are now: what a kill -9 at this moment leaves."""
        paths = {name: self.directory / name for name in (DB, LOG, HEAD)}
        self.files = {name: at.read_bytes() if at.exists() else b"" for name, at in paths.items()}

    def lay_out(self, changed: dict[str, bytes | None]) -> None:
        """The files as they were left, but those that are `changed`; None: gone."""
        (self.directory / f"{DB}-shm").unlink(missing_ok=True)
        for name, data in {**self.files, **changed}.items():
            path = self.directory / name
            if data is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(data)

    def outcome(self, *, by_reader: bool) -> str:
        """What a start finds: "all", "halt", or what was lost without a word.

        Raises AssertionError for a message that leaves an operator alone, and whatever comes out
        that is no error of ours.
        """
        try:
            with closing(self._opened(by_reader=by_reader)) as journal:
                journal.load_snapshot()
                found: list[Entry] = []
                while more := journal.read(len(found) + 1, 60):
                    found += more
                assert found == self.entries[: len(found)], "an entry that was never written"
                if len(found) < len(self.entries):
                    return "entries lost"
                if isinstance(journal, SqliteJournal):
                    never = keys_of(0, 3)
                    keys = drive(journal.find_keys([*self.keys, *never]))
                    assert keys <= set(self.keys), "a key that was never written"
                    return "all" if len(keys) == len(self.keys) else "keys lost"
                return "all"
        except StorageError as fault:
            if str(self.directory) in str(fault) and ADVICE.search(str(fault)):
                return "halt"
            raise AssertionError("it says not where, or not what to do") from fault

    def _opened(self, *, by_reader: bool) -> Any:
        if by_reader:
            return read_sqlite(self.directory, STREAM)
        return open_sqlite(self.directory, STREAM, owner=OWNER)

    def torture(self, cases: Iterable[Case], *, noted: bool = True) -> Counter[str]:
        """How often each outcome came to an owner, over all `cases`.

        Every third is met by a reader first, which may lose nothing in silence either.
        """
        counts: Counter[str] = Counter()
        gone: dict[str, bytes | None] = {} if noted else {HEAD: None}
        for number, case in enumerate(cases):
            self.lay_out({**gone, case.name: case.of(self.files[case.name])})
            by_reader = number % 3 == 2
            try:
                if by_reader:
                    first = self.outcome(by_reader=True)
                    assert first != "entries lost" or not noted
                counts[self.outcome(by_reader=False)] += 1
            except BaseException as fault:
                fault.add_note(f"{case}, by_reader={by_reader}, noted={noted}")
                raise
        return counts


def sample(cases: list[Case], count: int, chance: random.Random) -> Iterator[Case]:
    yield from chance.sample(cases, min(count, len(cases)))


def directory() -> Path:
    """A new directory in memory where there is such a place; the caller removes it."""
    shared = Path("/dev/shm")
    usable = shared.is_dir() and os.access(shared, os.W_OK)
    return Path(tempfile.mkdtemp(prefix="torture-", dir=shared if usable else None))


def remove(found: Path) -> None:
    shutil.rmtree(found)


def written(directory: Path, script: str) -> Scene:
    """A scene from its script: a number appends an entry about so long, C checkpoints.

    An entry brings one key, or as many as a second number says, as in 10:30.  A script may begin
    with the size of a page.
    It is left while its owner lives, or with X after the owner has closed it.
    """
    scene = Scene(directory)
    sized, _, script = script.rpartition("P")
    with closing(sqlite3.connect(directory / DB)) as db:
        db.execute(f"PRAGMA page_size = {sized or PAGE_BYTES}")
        db.execute("VACUUM")
    with closing(open_sqlite(directory, STREAM, owner=OWNER)) as journal:
        for step in script.split():
            if step == "C":
                journal._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
                journal._pages = 0  # as after a step of its own
            elif step == "X":
                journal.close()
            else:
                size, _, count = step.partition(":")
                scene.append(journal, int(size), int(count or 1))
        scene.leave()
    return scene


# Everything in the log; all in the database and the log still there; a log begun again over the
# frames of the one before, so that both files hold entries; no log, for its owner closed it.
SCRIPTS = {
    "log": "10 200 5",
    "moved": "10 200 5 C",
    "both": "10 200 5 C 10 5",
    "closed": "10 200 5 X",
}
# What tells of keys.  Blocks of them over several pages, which are written again and again and cut
# in halves; and the same in the smallest pages, where a block goes over more than one.
KEY_SCRIPTS = {
    "many keys": f"1024 P{(' 1:13' * 4 + ' C') * 3}{' 1:5' * 4} X",
    "long blocks": f"{' 1:13' * 4} C{' 1:5' * 4} X",
}
