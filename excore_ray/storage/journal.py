"""The journal port: what an actor may ask of the durable side, and the values it gets back.

Separate from its implementations so that actors, tests and the simulation name only this.  It
must not know files, databases or processes.

A stream is a sequence of entries numbered 1, 2, 3 and so on without gaps, each written by one
incarnation (epoch) of its actor.  There is one safety primitive, compare-and-append: an append
says which `seq` it expects to be next, and happens entirely or not at all.  Bodies are opaque.

Nothing here is retried.  After Fenced, or a JournalFailed that is not JournalFull, the journal
refuses everything and its process must exit, open the stream again and read what is there.

Source: Liskov and Cowling, Viewstamped Replication Revisited (the log as the only arbiter).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from excore_ray.errors import SnapshotBroken

SNAPSHOTS_KEPT = 2  # so that one may turn out damaged


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One record of a stream: its position from 1, the incarnation that wrote it, its bytes."""

    seq: int
    epoch: int
    body: bytes


class JournalStatus(msgspec.Struct, frozen=True):
    """Where a journal stands.

    next_seq: the only `seq` an append may carry.  last_epoch: of the newest entry, 0 before any.
    oldest_seq: the first entry that can still be read; next_seq when there is none.
    bytes: what the entries take where they are kept, snapshots not included.
    free_bytes: room left there.  keys: how many are remembered.  None where it is not cheap.
    """

    next_seq: int
    last_epoch: int
    oldest_seq: int
    bytes: int
    free_bytes: int | None = None
    keys: int | None = None


class Opened(msgspec.Struct, frozen=True):
    """What a restart begins with: load `snapshot`, then read() from snapshot_seq + 1.

    snapshot: None when there is none; then snapshot_seq is 0 and the journal begins at 1.
    """

    snapshot: bytes | None
    snapshot_seq: int
    next_seq: int
    last_epoch: int


class JournalReader(Protocol):
    """A stream as others see it: archive, compactor, audit, backup.  Works while its owner runs.

    To those, unlike to the owner, a JournalFailed is not final: they may ask again.
    """

    stream: str

    def read(self, from_seq: int, bytes_max: int) -> list[Entry]:
        """Committed entries from `from_seq` on, in order, without gaps, each one verified.

        bytes_max: bounds the sum of the bodies, but one entry is returned if there is any.
        Empty when the stream has no entry `from_seq` yet.
        Raises JournalForgotten when it was truncated, JournalBroken, JournalFailed.
        """
        ...

    def save_snapshot(self, seq: int, body: bytes) -> None:
        """Keep `body` as the state after entry `seq`.  Durable when it returns; the two newest
        that verify are kept.  Saving the same again changes nothing.

        seq: an entry of the stream that is committed.
        Raises SnapshotFailed, which harms neither the journal nor older snapshots.
        """
        ...

    def load_snapshot(self, seq_max: int | None = None) -> tuple[int, bytes] | None:
        """(seq, body) of the newest snapshot that verifies; None when replay begins at entry 1.

        seq_max: the entry whose state is to be rebuilt; a snapshot beyond it is as if it were not
        there.  None for the newest entry.
        Raises SnapshotBroken when replay from 1 is impossible too, and JournalBroken when a
        snapshot that was looked at proves that the journal has lost entries.
        """
        ...

    def status(self) -> JournalStatus:
        """Where the journal stands now.  Cheap."""
        ...

    def close(self) -> None:
        """Let go of everything held.  May be called twice."""
        ...


class Journal(JournalReader, Protocol):
    """A stream as its one owner sees it."""

    async def append(
        self, seq: int, epoch: int, bodies: Sequence[bytes], keys: Sequence[bytes]
    ) -> None:
        """Write `bodies` as entries seq, seq + 1, ... and remember `keys`, all or nothing.

        Durable when it returns.  bodies: at least one.  keys: none remembered already, and none
        twice; anything else is a bug of the caller and an AssertionError.
        Raises Fenced unless `seq` is next_seq and `epoch` at least last_epoch; JournalFull,
        after which the journal is as it was before and usable; JournalFailed.
        """
        ...

    async def find_keys(self, keys: Sequence[bytes]) -> frozenset[bytes]:
        """Those of `keys` that committed appends brought.  They are remembered for ever.

        Cost: one index look-up a key.
        """
        ...

    async def check_owner(self) -> None:
        """Raise Fenced when this incarnation no longer owns the stream.  Cheap when embedded."""
        ...

    def truncate(self, up_to: int) -> None:
        """Forget the entries up to and with `up_to`; their keys stay.

        Raises TruncateRefused, having forgotten nothing, when `up_to` is beyond the older of the
        two kept snapshots: a restart must stay possible from either.
        Cost: proportional to what is forgotten; another thread may append meanwhile.
        """
        ...


def no_snapshot(stream: str, where: str, base_seq: int, seq_max: int | None) -> SnapshotBroken:
    """What load_snapshot(seq_max) raises when nothing fits and entry `base_seq` was truncated.

    where: the place in which snapshots are kept.
    """
    if seq_max is not None and seq_max < base_seq:
        return SnapshotBroken(
            f"stream {stream}: entries 1 to {base_seq} were truncated, so the state after entry"
            f" {seq_max} cannot be rebuilt from {where}. Rebuild it from a backup of the stream"
            " that was made before that; the journal itself is intact."
        )
    upper = "or later" if seq_max is None else f"to {seq_max}"
    return SnapshotBroken(
        f"stream {stream}: no snapshot in {where} that could be used verifies, and entries 1 to"
        f" {base_seq} were truncated. Put back a snapshot of entry {base_seq} {upper} from a"
        " backup; the journal itself is intact."
    )


def opened(journal: Journal) -> Opened:
    """What a restart of `journal`'s owner begins with.  Raises what load_snapshot() raises."""
    snapshot = journal.load_snapshot()
    status = journal.status()
    seq, body = snapshot or (0, None)
    return Opened(body, seq, status.next_seq, status.last_epoch)
