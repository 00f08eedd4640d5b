"""Where a stream can be kept: one class per implementation of the port, for tests that run on all.

Adding an implementation here, and to PLACES, holds it to the whole contract.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol, TypeVar

from excore_ray.storage.journal import Entry, Journal, JournalReader
from excore_ray.storage.memory import MemoryDisk, open_memory, read_memory
from excore_ray.storage.ownership import Ownership
from excore_ray.storage.sqlite import open_sqlite, read_sqlite

STREAM = "market-1"
OWNER = Ownership("market-1", kill_after_s=0.2)
ALL = 1 << 60
T = TypeVar("T")


class Place(Protocol):
    """A stream that outlives its incarnations."""

    def open(self) -> Journal:
        """A new incarnation, after the one before, if any, has closed."""
        ...

    def reader(self) -> JournalReader: ...

    def close(self) -> None: ...


class MemoryPlace:
    def __init__(self, _: Path) -> None:
        self.disk = MemoryDisk(STREAM)

    def open(self) -> Journal:
        return open_memory(self.disk)

    def reader(self) -> JournalReader:
        return read_memory(self.disk)

    def close(self) -> None:
        """Nothing is held."""


class SqlitePlace:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._held: list[JournalReader] = []

    def open(self) -> Journal:
        self.close()
        journal = open_sqlite(self.directory, STREAM, owner=OWNER)
        self._held.append(journal)
        return journal

    def reader(self) -> JournalReader:
        reader = read_sqlite(self.directory, STREAM)
        self._held.append(reader)
        return reader

    def close(self) -> None:
        while self._held:
            self._held.pop().close()


PLACES: dict[str, Callable[[Path], Place]] = {"memory": MemoryPlace, "sqlite": SqlitePlace}


def run(job: Coroutine[Any, Any, T]) -> T:
    """What the journal's coroutines are awaited with."""
    return asyncio.run(job)


def put(journal: Journal, *bodies: bytes, epoch: int = 1, keys: tuple[bytes, ...] = ()) -> None:
    """Append `bodies` where the journal expects them."""
    run(journal.append(journal.status().next_seq, epoch, bodies, keys))


def bodies(journal: JournalReader, from_seq: int = 1) -> list[bytes]:
    return [entry.body for entry in journal.read(from_seq, ALL)]


def entries(*rows: tuple[int, int, bytes]) -> list[Entry]:
    return [Entry(*row) for row in rows]


def filled(place: Path, count: int = 40) -> None:
    """A closed journal with `count` entries, each in an append of its own."""
    with closing(open_sqlite(place, STREAM, owner=OWNER)) as journal:
        for n in range(1, count + 1):
            put(journal, b"entry %03d" % n + b"." * 500, keys=(b"%d" % n,))


def edit(place: Path, *statements: str) -> None:
    """Change the closed file behind the journal's back."""
    with closing(sqlite3.connect(place / f"{STREAM}.db")) as db, db:
        for statement in statements:
            db.execute(statement)


def forget_note(place: Path) -> None:
    """What an operator does to give up entries that an old copy lacks."""
    (place / f"{STREAM}.head").unlink()


def use(place: Path) -> None:
    """Open as the owner, and read all there is."""
    with closing(open_sqlite(place, STREAM, owner=OWNER)) as journal:
        journal.load_snapshot()
        at = journal.status().oldest_seq
        while found := journal.read(at, 4000):
            at = found[-1].seq + 1
