"""Cut of many busy streams: the same instant as `cut.py` finds, found in microseconds.

Separate because it reads SQLite's own bookkeeping and needs a process to itself.  Two passes over
hundreds of streams take so long that some stream has always grown.  So what a stream shows is
remembered together with the state it was read in, and from then on only the state is compared:
48 bytes of shared memory, the header of the stream's WAL index, which SQLite writes anew with each
commit, before any reader can see it.  It holds a counter of commits, the salts of the log, and the
running checksum of its newest frame, so none comes again with other entries.

Round and round: a stream whose header has changed is read again.  When a whole round has met no
change, then at its beginning every stream ended where it was last read to end: it was read before,
and after that its header was still the same.  Streams are only added, and one that is not there
after the round was not there at its beginning.

In a process of its own: SQLite's locks belong to a process and a file, and closing any descriptor
of that file, as this must, would take them from everybody else in the process.
Source: the SQLite documentation, WAL-mode File Format, 2.1, The WAL-Index Header.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from pathlib import Path
from typing import Protocol

from excore_ray.errors import JournalFailed, StreamMissing
from excore_ray.storage import sqlite_faults as faults
from excore_ray.storage import sqlite_file as file

# One statement, so one moment: the newest entry, or the last one truncated when there is none.
NEWEST = (
    "SELECT coalesce((SELECT seq FROM journal ORDER BY seq DESC LIMIT 1), (SELECT seq FROM base))"
)
_HEADER_BYTES = 48  # followed by a second copy: while it is written the two differ
_STEADY_TRIES = 3


class Watched:
    """One stream: where it ended when it was read, and in what state its index was then.

    seq: its newest entry then.  state: the header of its index, empty when that was being written.
    index: shared memory that begins with the header now; None where there is none.
    Never closed but with its process.  Raises what reading journals raises.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = file.connect_reader(path, path.stem)
        self.seq = self._newest()  # which has SQLite make the index
        self.index: Index | None = _mapped(Path(f"{path}-shm"))
        self.state = b""
        self.read()

    def read(self) -> None:
        """Read where it ends now."""
        for _ in range(_STEADY_TRIES):
            before = self._header()
            self.seq = self._newest()
            self.state = before if before == self._header() else b""
            if self.state:
                break

    def _newest(self) -> int:
        try:
            [(newest,)] = self._db.execute(NEWEST)
        except sqlite3.Error as fault:
            raise faults.as_storage_error(fault, self._path.stem, self._path) from fault
        return int(newest)

    def _header(self) -> bytes:
        if self.index is None:
            return b""
        first, second = self.index[:_HEADER_BYTES], self.index[_HEADER_BYTES:]
        return first if first == second else b""


class Stream(Protocol):
    """What is watched of a stream, see Watched."""

    seq: int
    state: bytes

    @property
    def index(self) -> Index | None:
        """See Watched."""
        ...

    def read(self) -> None:
        """Read where it ends now."""
        ...


class Index(Protocol):
    """Shared memory that begins with the header of an index."""

    def __getitem__(self, part: slice, /) -> bytes: ...


class Watch:
    """Streams, watched all together.

    names: of those there are now.  watched: begins to watch one; raises StreamMissing for one
    that has no entry yet, and what reading journals raises.
    """

    def __init__(
        self, names: Callable[[], Iterable[str]], watched: Callable[[str], Stream]
    ) -> None:
        self._names = names
        self._watched = watched
        self._streams: dict[str, Stream] = {}
        self._add_new()

    @property
    def seqs(self) -> dict[str, int]:
        """The newest entry of each stream that has one, as last read."""
        return {name: each.seq for name, each in self._streams.items() if each.seq}

    def is_steady(self) -> bool:
        """Whether all streams ended, when this was called, where they had been read to end.

        If not, those that may have changed were read again.  Cost: 0.1 us a stream, 10 us for one
        that has changed or has no index.
        """
        streams = list(self._streams.values())
        indices = [each.index for each in streams if each.index is not None]
        states = [each.state for each in streams if each.index is not None]
        # Nothing else in this round, which must be over before the next commit.
        found = [index[:_HEADER_BYTES] for index in indices]
        if found == states:
            return self._others_are_steady(streams) and not self._add_new()
        for each in streams:
            if each.index is None or each.index[:_HEADER_BYTES] != each.state:
                each.read()
        return False

    def _others_are_steady(self, streams: list[Stream]) -> bool:
        steady = True
        for each in streams:
            if each.index is None:
                before = each.seq
                each.read()
                steady = steady and each.seq == before
        return steady

    def _add_new(self) -> bool:
        """Watch the streams that are not watched yet; whether there were any."""
        found = False
        for name in self._names():
            if name in self._streams:
                continue
            try:
                self._streams[name] = self._watched(name)
            except StreamMissing:
                continue  # it is being made right now: it has no entry yet
            found = True
        return found


def watch_directory(directory: Path) -> Watch:
    """A watch of all streams in a directory.  Raises what reading journals raises."""

    def names() -> list[str]:
        return [path.stem for path in directory.glob("*.db")]

    def watched(name: str) -> Watched:
        path = file.stream_path(directory, name)
        try:
            return Watched(path)
        except (sqlite3.Error, OSError) as fault:
            raise faults.as_storage_error(fault, name, path) from fault

    return Watch(names, watched)


def watch(directory: Path, patience_s: float) -> tuple[dict[str, int], float] | None:
    """One instant: the newest entry of each stream that has one, and when, since the epoch.

    None when no round was without a change for `patience_s`.
    Only for a process that ends soon, and has no other business with the directory.
    Raises what reading journals raises.
    """
    give_up_s = time.monotonic() + patience_s
    watched = watch_directory(directory)
    while True:
        at_s = time.time()
        if watched.is_steady():
            return watched.seqs, at_s
        if time.monotonic() > give_up_s:
            return None


def busy_cut(directory: Path, patience_s: float) -> tuple[dict[str, int], float] | None:
    """watch() in a process of its own, which takes about a second to start.

    Raises what watch() raises, and JournalFailed when that process is ended.
    """
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context) as process:
            return process.submit(watch, directory, patience_s).result()
    except BrokenExecutor as fault:
        raise JournalFailed(
            f"the process that looked for an instant of all streams in {directory} was ended"
            f" ({fault}). Nothing is wrong with the streams: try again."
        ) from fault


def _mapped(index: Path) -> mmap.mmap | None:
    """The header of a WAL index; None where there is none, as of a copy that nobody opened."""
    try:
        # The descriptor stays open, for the sake of the locks.
        fd = os.open(index, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if os.fstat(fd).st_size < 2 * _HEADER_BYTES:
        return None
    return mmap.mmap(fd, 2 * _HEADER_BYTES, prot=mmap.PROT_READ)
