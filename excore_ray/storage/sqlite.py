"""The embedded journal: one SQLite file per stream, one process that writes it.

Separate from the port so that a cluster can keep its journals elsewhere.  It must not know what
entries say, nor who its actor is beyond a name for the lock.

Everything runs where it is called; nothing is handed to a thread of ours.  Measured on 20 KB
entries, the bare transaction: in line it takes 0.16 ms on uvloop and 0.28 ms on asyncio, and
blocks the loop for that long.  In a worker thread, or with only the commit in one, it takes 0.18
to 0.41 ms alone, and when the loop is busy the thread waits for the interpreter's lock between its
steps: 5 ms at the 99th percentile on uvloop, 180 ms and more on asyncio.  While an append is in
flight its actor has nothing to say anyway, for nothing leaves before it is durable.

The log is checkpointed in small steps, of about 1 ms, and in a turn of the loop after the append
that made one due, so that a lone append does not wait for it.

Any thread may call, one at a time: the calls are serialised.  An actor opens a journal in a
thread, for that may wait, and truncates in one, slice by slice, while the loop goes on appending.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

from excore_ray.errors import (
    Fenced,
    JournalBroken,
    JournalFailed,
    JournalFull,
    SnapshotFailed,
    StorageError,
    TruncateRefused,
)
from excore_ray.storage import chain
from excore_ray.storage import sqlite_faults as faults
from excore_ray.storage import sqlite_file as file
from excore_ray.storage.journal import SNAPSHOTS_KEPT, Entry, JournalStatus, no_snapshot
from excore_ray.storage.ownership import OwnerLock, Ownership, take
from excore_ray.storage.snapshots import Snapshot, SnapshotFiles, sync_directory
from excore_ray.storage.sqlite_keys import Keys
from excore_ray.storage.witness import Witness

logger = logging.getLogger(__name__)

CHECKPOINT_PAGES = 128  # half a megabyte: a step of about 1 ms
CHECKPOINT_PAGES_MAX = 1024  # from here on an append does not leave it to the loop
TRUNCATE_SLICE = 64  # entries forgotten in one transaction
VERIFIED_TAIL = 16  # newest entries that are verified before the first append
_PAGE_BYTES = 4096
_COMMIT_PAGES = 3  # what a commit writes besides the bodies, roughly


class SqliteReader:
    """A stream for everybody but its owner; a JournalReader.  Made by read_sqlite()."""

    def __init__(self, path: Path, stream: str, db: sqlite3.Connection) -> None:
        self.stream = stream
        self._path = path
        self._db = db
        self._guard = threading.RLock()
        self._failure: StorageError | None = None
        self._snapshots = SnapshotFiles(path.parent, stream, self._has_history)

    def read(self, from_seq: int, bytes_max: int) -> list[Entry]:
        """See JournalReader.read."""
        with self._view() as db:
            return file.read_entries(db, self.stream, self._path, from_seq, bytes_max)

    def save_snapshot(self, seq: int, body: bytes) -> None:
        """See JournalReader.save_snapshot."""
        with self._view() as db:
            head, mark = file.read_head(db), file.read_mark(db, seq)
        assert 1 <= seq <= head.seq, f"a snapshot of entry {seq}, which is not there"
        if mark is None:
            raise SnapshotFailed(f"stream {self.stream}: the entries after {seq} were truncated")
        self._snapshots.save(Snapshot(seq, mark.chain, body))

    def load_snapshot(self, seq_max: int | None = None) -> tuple[int, bytes] | None:
        """See JournalReader.load_snapshot.  A newer snapshot that does not verify is logged."""
        for snapshot in self._snapshots.valid(seq_max):
            return snapshot.seq, snapshot.body
        with self._view() as db:
            base = file.read_base(db)
            if base.seq:
                file.check_base(db, self.stream, self._path)
        if base.seq:
            raise no_snapshot(self.stream, str(self._path.parent), base.seq, seq_max)
        return None

    def check_keys(self) -> int:
        """Read all dedupe keys; how many there are.  Raises JournalBroken, JournalFailed.

        Cost: some 0.5 s a million, in one transaction.
        """
        with self._view() as db:
            return Keys(db, self.stream).check(file.read_head(db).seq)

    def status(self) -> JournalStatus:
        """See JournalReader.status."""
        with self._view() as db:
            head, base = file.read_head(db), file.read_base(db)
        return JournalStatus(
            next_seq=head.seq + 1,
            last_epoch=head.epoch,
            oldest_seq=base.seq + 1,
            bytes=_size(self._path) + _size(file.log_path(self._path)),
            free_bytes=shutil.disk_usage(self._path.parent).free,
        )

    def close(self) -> None:
        """See JournalReader.close."""
        with self._guard:
            self._failure = JournalFailed(f"stream {self.stream}: this journal is closed")
            self._db.close()

    @contextmanager
    def _view(self) -> Iterator[sqlite3.Connection]:
        """One consistent state of the file, for as short as possible: it keeps the log growing."""
        with self._guard:
            self._refuse_after_failure()
            try:
                self._db.execute("BEGIN")
                try:
                    yield self._db
                finally:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
            except faults.READ_FAULTS as fault:
                raise self._read_failed(fault) from fault

    def _has_history(self, seq: int, expected: bytes) -> bool:
        with self._view() as db:
            head, mark = file.read_head(db), file.read_mark(db, seq)
        if seq > head.seq:
            raise JournalBroken(
                f"stream {self.stream}: there is a snapshot of entry {seq}, but {self._path} ends"
                f" with entry {head.seq}: it has lost entries, or an old copy was put back."
                " Restore the newest copy; if there is none, move the newer snapshots away."
            )
        return mark is not None and mark.chain == expected

    def _read_failed(self, fault: Exception) -> StorageError:
        return faults.as_storage_error(fault, self.stream, self._path)

    def _refuse_after_failure(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(str(self._failure)) from self._failure


class SqliteJournal(SqliteReader):
    """A stream for its owner; a Journal.  Made by open_sqlite()."""

    def __init__(
        self, path: Path, stream: str, db: sqlite3.Connection, lock: OwnerLock, witness: Witness
    ) -> None:
        super().__init__(path, stream, db)
        self._lock = lock
        self._witness = witness
        self._head = file.read_head(db)
        self._keys = Keys(db, stream)
        self._pages = 0  # written to the log since the last checkpoint, estimated

    async def append(
        self, seq: int, epoch: int, bodies: Sequence[bytes], keys: Sequence[bytes]
    ) -> None:
        """See Journal.append.  Cost: 0.2 ms for 20 KB, and 10 us a key, most of it the log."""
        with self._guard:
            with self._transaction() as db:
                head = self._insert(db, seq, epoch, bodies, keys)
            self._head = head
            self._witness.note(head.seq, head.chain)
            self._pages += sum(map(len, bodies)) // _PAGE_BYTES + len(keys) + _COMMIT_PAGES
            if self._pages >= CHECKPOINT_PAGES_MAX:
                self._checkpoint_if_due()
            elif self._pages >= CHECKPOINT_PAGES:
                asyncio.get_running_loop().call_soon(self._checkpoint_if_due)

    async def find_keys(self, keys: Sequence[bytes]) -> frozenset[bytes]:
        """See Journal.find_keys."""
        with self._view():
            return self._keys.find(keys)

    async def check_owner(self) -> None:
        """See Journal.check_owner: this process still holds the lock file of the stream."""
        with self._guard:
            self._refuse_after_failure()
            try:
                self._lock.check()
            except Fenced as fault:
                self._failure = fault
                raise

    def truncate(self, up_to: int) -> None:
        """See Journal.truncate.  In slices, each a transaction, between which others may append."""
        kept = [snapshot.seq for snapshot in islice(self._snapshots.valid(), SNAPSHOTS_KEPT)]
        older = kept[-1] if len(kept) == SNAPSHOTS_KEPT else 0
        if up_to > older:
            raise TruncateRefused(
                f"stream {self.stream}: truncating up to {up_to} goes beyond {older}, the older of"
                f" the two kept snapshots that verify ({kept})"
            )
        while self._forget_slice(up_to):
            self._checkpoint_if_due()
            # A lock is not fair: without a pause, a waiting append would get it only at the end.
            time.sleep(0.001)

    def verify_tail(self) -> None:
        """Read the newest entries as read() does, and note the last one durably.

        Raises JournalBroken, JournalFailed.
        """
        with self._view() as db:
            file.check_base(db, self.stream, self._path)
        status = self.status()
        tail = max(status.oldest_seq, status.next_seq - VERIFIED_TAIL)
        self.read(tail, bytes_max=sys.maxsize)
        self._witness.note(self._head.seq, self._head.chain)
        self._witness.sync()

    def close(self) -> None:
        """See JournalReader.close.  The lock goes last: a successor finds nothing half done."""
        try:
            super().close()
        finally:
            self._witness.close()
            self._lock.release()

    def _insert(
        self,
        db: sqlite3.Connection,
        seq: int,
        epoch: int,
        bodies: Sequence[bytes],
        keys: Sequence[bytes],
    ) -> file.Mark:
        """Compare and append, inside a transaction; returns what the head will be."""
        assert bodies, f"stream {self.stream}: an append of no entries"
        head = file.read_head(db)
        if head != self._head or seq != head.seq + 1 or epoch < head.epoch:
            raise Fenced(
                f"stream {self.stream}: an append of entry {seq} in epoch {epoch} found entry"
                f" {head.seq} of epoch {head.epoch}, and expected {self._head.seq} of"
                f" {self._head.epoch}: another incarnation writes it"
            )
        rows = []
        running = head.chain
        for at, body in enumerate(bodies, seq):
            running = chain.link(running, at, epoch, body)
            rows.append((at, epoch, chain.entry_crc(at, epoch, body), running, body))
        db.executemany("INSERT INTO journal VALUES (?, ?, ?, ?, ?)", rows)
        if keys:
            self._keys.insert(keys, seq)
        return file.Mark(seq + len(rows) - 1, epoch, running)

    def _forget_slice(self, up_to: int) -> bool:
        """Truncate the oldest entries, not beyond `up_to`; False when there were none."""
        with self._guard, self._transaction() as db:
            oldest = "SELECT seq, epoch, chain FROM journal WHERE seq <= ? ORDER BY seq LIMIT ?"
            marks = db.execute(oldest, (up_to, TRUNCATE_SLICE)).fetchall()
            if marks:
                db.execute("DELETE FROM journal WHERE seq <= ?", (marks[-1][0],))
                db.execute("UPDATE base SET seq = ?, epoch = ?, chain = ?", marks[-1])
                self._pages += len(marks) + _COMMIT_PAGES
        return bool(marks)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """What happens inside is durable after it, or did not happen and the journal has failed.

        JournalFull is the exception: then it did not happen, and the journal is as before.
        """
        with self._guard:
            self._refuse_after_failure()
            try:
                self._lock.check()
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException as fault:
                is_clean = self._roll_back()
                if faults.is_full(fault) and is_clean:
                    full = f"stream {self.stream}: no room for {self._path}; nothing was written"
                    raise JournalFull(full) from fault
                if isinstance(fault, StorageError):
                    self._failure = fault
                    raise
                if isinstance(fault, (*faults.READ_FAULTS, OSError)):
                    self._failure = faults.as_storage_error(fault, self.stream, self._path)
                    raise self._failure from fault
                self._failure = JournalFailed(f"stream {self.stream}: {self._path}: {fault!r}")
                raise

    def _roll_back(self) -> bool:
        """Undo what is open; True when the file is certainly as it was before."""
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            return file.read_head(self._db) == self._head
        except faults.READ_FAULTS as fault:
            logger.error("stream %s: the failed append was not undone: %s", self.stream, fault)
            return False

    def _checkpoint_if_due(self) -> None:
        with self._guard:
            if self._failure is not None or self._pages < CHECKPOINT_PAGES:
                return
            self._pages = 0
            try:
                file.checkpoint(self._db)
            except sqlite3.Error as fault:
                if faults.is_full(fault):
                    # What it would have moved is safe in the log, and is moved when there is room.
                    logger.warning("stream %s: no room to checkpoint %s", self.stream, self._path)
                    return
                # The entries are durable, but the disk is not to be trusted with more.
                self._failure = JournalFailed(
                    f"stream {self.stream}: {self._path}: the checkpoint failed: {fault}"
                )
                logger.critical("%s", self._failure)

    def _read_failed(self, fault: Exception) -> StorageError:
        self._failure = super()._read_failed(fault)
        return self._failure


def open_sqlite(directory: Path, stream: str, *, owner: Ownership) -> SqliteJournal:
    """Open `stream` in `directory` as its owner; both are made if need be.

    Blocks while another incarnation holds the stream, see ownership.take(): on an event loop,
    call it in a thread.  What the journal shows afterwards is durable, and its newest entries
    were verified; read() verifies the others.
    Raises StreamBusy, JournalForeign, JournalBroken, JournalFailed.
    """
    path = file.stream_path(directory, stream)
    try:
        _make_directory(directory)
        with ExitStack() as undo:
            lock = take(directory / f"{stream}.lock", owner)
            undo.callback(lock.release)
            db = file.connect_owner(path, stream)
            undo.callback(db.close)
            witness = Witness(file.note_path(path))
            undo.callback(witness.close)
            journal = SqliteJournal(path, stream, db, lock, witness)
            journal.verify_tail()
            undo.pop_all()
            return journal
    except (*faults.READ_FAULTS, OSError) as fault:
        raise faults.as_storage_error(fault, stream, path) from fault


def read_sqlite(directory: Path, stream: str) -> SqliteReader:
    """Open `stream` in `directory` for reading; its owner may run, start and end meanwhile.

    Never writes the database nor moves its log; it may write snapshots.
    Raises StreamMissing, JournalForeign, JournalBroken, JournalFailed.
    """
    path = file.stream_path(directory, stream)
    try:
        return SqliteReader(path, stream, file.connect_reader(path, stream))
    except (*faults.READ_FAULTS, OSError) as fault:
        raise faults.as_storage_error(fault, stream, path) from fault


def _make_directory(directory: Path) -> None:
    """Make `directory` and what is missing above it, for this user alone, durably."""
    missing = [place for place in (directory, *directory.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=0o700, exist_ok=True)
        sync_directory(place.parent)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
