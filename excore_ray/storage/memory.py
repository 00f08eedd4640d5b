"""The journal in memory: the port's exact semantics without a disk, for tests and simulation.

Separate from the tests because the simulation of the whole exchange runs on it.  It knows no
faults: a simulation wraps it, and decides with `land` when, and whether, an append happens.

A MemoryDisk outlives its processes.  Several MemoryJournals, one an incarnation, share it; the
compare-and-append of the disk is what keeps them apart, as in a cluster: an incarnation that
another has replaced can still land an append that fits, and its successor is fenced by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from excore_ray.errors import (
    Fenced,
    JournalFailed,
    JournalForgotten,
    SnapshotFailed,
    StorageError,
    TruncateRefused,
)
from excore_ray.storage.journal import SNAPSHOTS_KEPT, Entry, JournalStatus, no_snapshot


class MemoryDisk:
    """What is durable of one stream: entries, keys, snapshots, and who owns it.

    entries: all that were not truncated, in order.  base_seq, base_epoch: of the last entry that
    was, 0 when none.  owner: counts the openings, of which the newest is the owner.
    """

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.entries: list[Entry] = []
        self.base_seq = 0
        self.base_epoch = 0
        self.keys: dict[bytes, int] = {}
        self.snapshots: dict[int, bytes] = {}
        self.owner = 0

    @property
    def next_seq(self) -> int:
        """The only `seq` that can land."""
        return self.base_seq + len(self.entries) + 1

    @property
    def last_epoch(self) -> int:
        """Epoch of the newest entry, truncated or not; 0 before any."""
        return self.entries[-1].epoch if self.entries else self.base_epoch

    def land(self, seq: int, epoch: int, bodies: Sequence[bytes], keys: Sequence[bytes]) -> None:
        """Compare and append, at once, whoever asks.  All or nothing.

        Raises Fenced unless `seq` and `epoch` continue the stream; AssertionError for an empty
        append or a key that is remembered already.
        """
        assert bodies, "an append of no entries"
        if seq != self.next_seq or epoch < self.last_epoch:
            raise Fenced(
                f"stream {self.stream}: an append of entry {seq} in epoch {epoch} came after entry"
                f" {self.next_seq - 1} of epoch {self.last_epoch}: another incarnation writes it"
            )
        assert len(set(keys)) == len(keys), f"stream {self.stream}: a key twice in one append"
        assert not self.keys.keys() & set(keys), f"stream {self.stream}: a key was appended before"
        # From here on the append must succeed.
        self.entries += (Entry(at, epoch, bytes(body)) for at, body in enumerate(bodies, seq))
        self.keys.update((bytes(key), seq) for key in keys)

    def forget(self, up_to: int) -> None:
        """Truncate the entries up to `up_to`, at most all of them."""
        count = min(up_to - self.base_seq, len(self.entries))
        if count > 0:
            newest = self.entries[count - 1]
            self.base_seq, self.base_epoch = newest.seq, newest.epoch
            del self.entries[:count]


class MemoryReader:
    """A MemoryDisk for everybody but its owner; a JournalReader.  Made by read_memory()."""

    def __init__(self, disk: MemoryDisk) -> None:
        self.stream = disk.stream
        self.disk = disk
        self._failure: StorageError | None = None

    def read(self, from_seq: int, bytes_max: int) -> list[Entry]:
        """See JournalReader.read."""
        self._refuse_after_failure()
        assert from_seq >= 1, f"entries are numbered from 1, not {from_seq}"
        if from_seq <= self.disk.base_seq:
            raise JournalForgotten(
                f"stream {self.stream}: entry {from_seq} was truncated;"
                f" the oldest is {self.disk.base_seq + 1}"
            )
        found: list[Entry] = []
        room = bytes_max
        for entry in islice(self.disk.entries, from_seq - self.disk.base_seq - 1, None):
            room -= len(entry.body)
            if found and room < 0:
                break
            found.append(entry)
        return found

    def save_snapshot(self, seq: int, body: bytes) -> None:
        """See JournalReader.save_snapshot."""
        self._refuse_after_failure()
        assert 1 <= seq < self.disk.next_seq, f"a snapshot of entry {seq}, which is not there"
        if seq < self.disk.base_seq:
            raise SnapshotFailed(f"stream {self.stream}: the entries after {seq} were truncated")
        kept = {**self.disk.snapshots, seq: bytes(body)}
        self.disk.snapshots = {at: kept[at] for at in sorted(kept)[-SNAPSHOTS_KEPT:]}

    def load_snapshot(self, seq_max: int | None = None) -> tuple[int, bytes] | None:
        """See JournalReader.load_snapshot."""
        self._refuse_after_failure()
        disk = self.disk
        fitting = [
            (seq, body)
            for seq, body in disk.snapshots.items()
            if seq >= disk.base_seq and (seq_max is None or seq <= seq_max)
        ]
        if not fitting and disk.base_seq:
            raise no_snapshot(self.stream, "memory", disk.base_seq, seq_max)
        return max(fitting, default=None)

    def status(self) -> JournalStatus:
        """See JournalReader.status."""
        self._refuse_after_failure()
        return JournalStatus(
            next_seq=self.disk.next_seq,
            last_epoch=self.disk.last_epoch,
            oldest_seq=self.disk.base_seq + 1,
            bytes=sum(len(entry.body) for entry in self.disk.entries),
            keys=len(self.disk.keys),
        )

    def close(self) -> None:
        """See JournalReader.close."""
        self._failure = JournalFailed(f"stream {self.stream}: this journal is closed")

    def _refuse_after_failure(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(str(self._failure)) from self._failure


class MemoryJournal(MemoryReader):
    """One incarnation's journal on a MemoryDisk; a Journal.  Made by open_memory()."""

    def __init__(self, disk: MemoryDisk) -> None:
        super().__init__(disk)
        disk.owner += 1
        self._owner = disk.owner

    async def append(
        self, seq: int, epoch: int, bodies: Sequence[bytes], keys: Sequence[bytes]
    ) -> None:
        """See Journal.append."""
        self.land(seq, epoch, bodies, keys)

    def land(self, seq: int, epoch: int, bodies: Sequence[bytes], keys: Sequence[bytes]) -> None:
        """What append() does, synchronously, so that a simulation chooses the moment."""
        self._refuse_after_failure()
        try:
            self.disk.land(seq, epoch, bodies, keys)
        except Fenced as fault:
            self._failure = fault
            raise
        except BaseException as fault:
            self._failure = JournalFailed(f"stream {self.stream}: an append failed: {fault!r}")
            raise

    async def find_keys(self, keys: Sequence[bytes]) -> frozenset[bytes]:
        """See Journal.find_keys."""
        self._refuse_after_failure()
        return frozenset(key for key in keys if key in self.disk.keys)

    async def check_owner(self) -> None:
        """See Journal.check_owner: fenced as soon as another incarnation has opened the disk."""
        self._refuse_after_failure()
        if self._owner != self.disk.owner:
            self._failure = Fenced(f"stream {self.stream} was opened by another incarnation")
            raise self._failure

    def truncate(self, up_to: int) -> None:
        """See Journal.truncate."""
        self._refuse_after_failure()
        kept = sorted(self.disk.snapshots)
        older = kept[0] if len(kept) == SNAPSHOTS_KEPT else 0
        if up_to > older:
            raise TruncateRefused(
                f"stream {self.stream}: truncating up to {up_to} goes beyond {older},"
                " the older of the two kept snapshots"
            )
        self.disk.forget(up_to)


def open_memory(disk: MemoryDisk) -> MemoryJournal:
    """Open `disk` as its owner: every journal opened on it before is fenced from now on."""
    return MemoryJournal(disk)


def read_memory(disk: MemoryDisk) -> MemoryReader:
    """Open `disk` for reading, and for saving snapshots; its owner stays the owner."""
    return MemoryReader(disk)
