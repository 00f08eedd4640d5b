"""Walk: one stream replayed entry by entry, with others looking on.

Separate because the deep audit asks several things of one replay, and none of them may change how
it runs: the machine is the one everybody runs, and who looks on only listens.  It must not know
what is looked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from excore_ray.actors.replay import SLICE_BYTES, Replay, kind_of
from excore_ray.core.commands import Checkpoint
from excore_ray.core.snapshot import AnyMachine
from excore_ray.errors import JournalForgotten
from excore_ray.storage.journal import Entry, JournalReader, JournalStatus


class Walk:
    """A machine on its way from a snapshot, or from nothing, to one entry of its stream.

    start: the entry after whose state it begins: that of a snapshot, or 0.  last: where it ends.
    hashes: recorded state_hashes that came out again so far.
    Raises what `Replay` raises, JournalForgotten when the snapshot is not there any more.
    """

    def __init__(self, reader: JournalReader, start: int, last: int) -> None:
        self.stream = reader.stream
        self.kind = kind_of(reader.stream)
        self.start = start
        self.last = last
        self.hashes = 0
        self._replay = Replay(_Stepped(reader, last), self.kind, snapshot_seq_max=start)
        if self._replay.seq != start:
            raise JournalForgotten(
                f"stream {self.stream}: the snapshot of entry {start} is not there any more"
            )

    @property
    def machine(self) -> AnyMachine:
        """The state after entry `seq`."""
        return self._replay.machine

    @property
    def record(self) -> Any:
        """The record of the newest entry."""
        assert self._replay.record is not None, "no step was made yet"
        return self._replay.record

    @property
    def seq(self) -> int:
        """The newest entry that was applied."""
        return self._replay.seq

    def steps(self) -> Iterator[int]:
        """Apply one entry after the other; the number of each, when it has been applied.

        Raises what Replay.advance raises: then the machine is of no use any more.
        """
        while self._replay.advance():
            self.hashes += sum(type(command) is Checkpoint for command in self.record.commands)
            yield self.seq


class _Stepped:
    """A stream as a walk replays it: one entry a read, and none beyond `last`."""

    def __init__(self, reader: JournalReader, last: int) -> None:
        self.stream = reader.stream
        self._reader = reader
        self._last = last
        self._ahead: deque[Entry] = deque()

    def read(self, from_seq: int, bytes_max: int) -> list[Entry]:
        """The next entry; see JournalReader.read."""
        del bytes_max  # one entry is always allowed
        if not self._ahead and from_seq <= self._last:
            found = self._reader.read(from_seq, SLICE_BYTES)
            self._ahead.extend(entry for entry in found if entry.seq <= self._last)
        if not self._ahead:
            return []
        assert self._ahead[0].seq == from_seq, "entries are read in their order"
        return [self._ahead.popleft()]

    def load_snapshot(self, seq_max: int | None = None) -> tuple[int, bytes] | None:
        """See JournalReader.load_snapshot."""
        return self._reader.load_snapshot(seq_max)

    def save_snapshot(self, seq: int, body: bytes) -> None:
        """See JournalReader.save_snapshot."""
        self._reader.save_snapshot(seq, body)

    def status(self) -> JournalStatus:
        """See JournalReader.status."""
        return self._reader.status()

    def close(self) -> None:
        """See JournalReader.close."""
        self._reader.close()
