"""Cut: one instant in the life of all streams, read while they grow.

Separate because the deep audit and the backup rest on it, and because why it is right is an
argument of its own.  It must not know what entries say.

Every stream is read for its newest entry, one after the other, then all of them again.  Numbers of
entries only grow; so a stream that shows the same number twice had it all the time in between, and
when two passes agree in every stream, then the moment at which the first pass ended lies in all of
these intervals: at that instant every stream ended where the pass says.  Streams are only added,
and both passes list them.  An entry shows only after it was synced, so what the instant shows is
exactly what a loss of power at that instant would have left.  That is a crash of everything at
once, which the protocol bears by design, and which the simulation and the drills strike with: no
shard is ahead of its market, no market has forgotten what its shard lacks or executed an order
whose funds its shard does not hold, no id can be given out twice.  And since it is one instant for
all, whatever was acknowledged before the cut began is in it, and nothing is without what its
client had seen before it: money that was paid out here and in there is not found at both ends.

Where hundreds of streams are busy no two passes agree: cut_busy.py finds such an instant there.

Copying stream after stream cannot give that, in whatever order: entries flow from markets to
shards, reservations and acknowledgements from shards to markets.

Source: Lamport, and Afek et al., Atomic Snapshots of Shared Memory (the double collect).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from excore_ray.errors import JournalFailed, StreamMissing
from excore_ray.offline.cut_busy import NEWEST, busy_cut
from excore_ray.storage import sqlite_faults as faults
from excore_ray.storage import sqlite_file as file

PATIENCE_S = 30.0
PASSES_S = 2.0  # then it is looked for with quicker eyes


class Cut(NamedTuple):
    """One instant.  heads: the newest entry of each stream.  time_s: when, since the epoch."""

    heads: Mapping[str, int]
    time_s: float


def take_cut(
    collect: Callable[[], Mapping[str, int]],
    clock: Callable[[], float] = time.time,
    patience_s: float = PATIENCE_S,
) -> Cut:
    """The instant at which two passes of `collect` agree.

    collect: reads the newest entry of every stream there is, each in one moment.
    Raises JournalFailed when streams grow so fast that no two passes agree within `patience_s`.
    """
    cut = _agreed(collect, clock, patience_s)
    if cut is None:
        raise _no_instant(patience_s)
    return cut


def _agreed(
    collect: Callable[[], Mapping[str, int]], clock: Callable[[], float], patience_s: float
) -> Cut | None:
    began_s = clock()
    found = collect()
    while True:
        at_s = clock()
        again = collect()
        if again == found:
            return Cut(found, at_s)
        if at_s - began_s > patience_s:
            return None
        found = again


def _no_instant(patience_s: float) -> JournalFailed:
    return JournalFailed(
        f"streams grew so fast for {patience_s:.0f} s that no instant was found at which all of"
        " them stood still. Nothing is wrong with them: try again when there is less to do."
    )


class Heads:
    """The newest entries of all streams in a directory, to be read over and over.

    collect() costs some 10 us a stream.  close() lets go of the files.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[str, sqlite3.Connection] = {}

    def collect(self) -> dict[str, int]:
        """The newest entry of each stream that has one, by name.

        Raises JournalForeign, JournalBroken, JournalFailed.
        """
        found: dict[str, int] = {}
        for path in self._directory.glob("*.db"):
            stream = path.stem
            try:
                db = self._open.get(stream)
                if db is None:
                    db = self._open[stream] = file.connect_reader(path, stream)
                [(newest,)] = db.execute(NEWEST)
            except StreamMissing:
                continue  # it is being made right now: it has no entry yet
            except (sqlite3.Error, OSError) as fault:
                raise faults.as_storage_error(fault, stream, path) from fault
            if newest:
                found[stream] = newest
        return found

    def close(self) -> None:
        """Let go of the files."""
        while self._open:
            self._open.popitem()[1].close()


def cut_of(directory: Path, passes_s: float = PASSES_S) -> Cut:
    """One instant of all streams in a directory, whoever writes them.

    passes_s: how long two passes are to agree, before quicker eyes are called.
    Raises what take_cut() and Heads.collect() raise.
    """
    heads = Heads(directory)
    try:
        cut = _agreed(heads.collect, time.time, passes_s)
    finally:
        heads.close()
    if cut is not None:
        return cut
    found = busy_cut(directory, PATIENCE_S)
    if found is None:
        raise _no_instant(PATIENCE_S)
    return Cut(*found)
