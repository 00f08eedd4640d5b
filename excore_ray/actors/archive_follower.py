"""Follower: one stream, replayed for what its machine tells, as rows that are not in the lake yet.

Separate from `archive.py`, which decides what goes into the lake and when: this is about one
stream, and everything in it happens at once, between two turns of the loop.  It must not know
the lake, other streams or the clock.

Live actors tell nothing.  A follower's machine does, from the watermark on: up to there its
replay is mute, so that no row comes twice, however often it is rebuilt.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from analytics.lake import SCHEMAS
from excore_ray.actors.archive_rows import Scales, ledger_rows, market_rows
from excore_ray.actors.replay import SLICE_BYTES, Replay, kind_of
from excore_ray.core.ledger import Ledger
from excore_ray.core.market import Market
from excore_ray.errors import JournalBroken
from excore_ray.storage.journal import Entry, JournalReader, JournalStatus

CHUNKS_MAX = 64  # small ones are joined from here on: a question goes through all of them


class Chunk(NamedTuple):
    """Rows of one slice of entries, by table.  since_s: when they were read."""

    tables: dict[str, pa.Table]
    rows: int
    since_s: float


class Range(NamedTuple):
    """What one flush of a stream writes: all rows of the entries first_seq to last_seq."""

    first_seq: int
    last_seq: int
    tables: dict[str, pa.Table]


class Follower:
    """One stream on its way into the lake.

    watermark: rows of entries up to this one are in the lake.  seq: the newest entry read; below
    the watermark while the state there is being rebuilt.  moved_s: when the watermark last moved.
    reader: is closed by close().
    Raises JournalBroken when the journal ends before the watermark, SnapshotBroken when the state
    there cannot be rebuilt, and what `Replay` raises.
    """

    def __init__(self, reader: JournalReader, watermark: int, now_s: float) -> None:
        self.stream = reader.stream
        self.kind = kind_of(reader.stream)
        self.part = int(reader.stream.partition("-")[2])
        self.watermark = watermark
        self.moved_s = now_s
        newest = reader.status().next_seq - 1
        if newest < watermark:
            raise JournalBroken(
                f"stream {self.stream}: the lake has its entries up to {watermark}, but the journal"
                f" ends with entry {newest}: it has lost entries, or the lake belongs to another"
                " journal. Restore the newest copy of the journal, or name another lake."
            )
        self._reader = reader
        self._single = _SingleFile(reader)
        self._replay = Replay(self._single, self.kind, snapshot_seq_max=watermark)
        self._events: list[Any] = []  # told, and not made into rows yet
        self._seqs: list[int] = []  # the entry of each
        self._chunks: list[Chunk] = []
        self._taken: list[Chunk] = []  # those that are being written
        self._listen_from_watermark()

    @property
    def seq(self) -> int:
        """The newest entry that was applied."""
        return self._replay.seq

    @property
    def made_seq(self) -> int:
        """The newest entry whose rows can be had: all of it, and all before it."""
        return self._seqs[0] - 1 if self._seqs else self.seq

    @property
    def time_us(self) -> int:
        """The time of the newest entry that was applied."""
        return self._replay.machine.time_us

    @property
    def rows(self) -> int:
        """Rows that are held here, those being written too; of what is pending, the events."""
        return len(self._events) + sum(chunk.rows for chunk in (*self._taken, *self._chunks))

    @property
    def pending(self) -> bool:
        """Whether there are events that convert() has not made into rows."""
        return bool(self._events)

    @property
    def since_s(self) -> float | None:
        """When the oldest row that nobody is writing was read; None when there is none."""
        return self._chunks[0].since_s if self._chunks else None

    def newest(self) -> int:
        """The newest entry of the journal now, 0 when there is none."""
        return self._reader.status().next_seq - 1

    def read(self, bytes_max: int = SLICE_BYTES) -> int:
        """Apply the next entries, about `bytes_max` of them; how many there were.

        Raises what Replay.advance raises.  After anything but a failure to read, the follower
        must not be used any more.
        """
        count = self._single.fetch(self.seq + 1, bytes_max)
        for _ in range(count):
            self._replay.advance()
            told = len(self._events) - len(self._seqs)
            if told:
                self._seqs += [self.seq] * told
            self._listen_from_watermark()
        return count

    def convert(self, scales: Scales, now_s: float) -> None:
        """Make rows of what was told since the last call.

        Raises UnknownScale, and keeps the events; ValueError when a quantity reaches 10**18.
        """
        if not self._events:
            return
        if self.kind == "market":
            tables = market_rows(self._events, self._seqs, scales.market(self.part))
        else:
            tables = ledger_rows(self._events, self._seqs, scales)
        # One event of a leg is two or three rows.
        self._chunks.append(Chunk(tables, sum(map(len, tables.values())), now_s))
        self._events.clear()
        self._seqs.clear()
        if len(self._chunks) >= CHUNKS_MAX:
            self._chunks = [_joined(self._chunks)]

    def tail(self, table: str, after_seq: int = 0) -> pa.Table:
        """The rows held here of entries beyond `after_seq`, in the order they came."""
        kept = [chunk.tables[table] for chunk in self._held() if table in chunk.tables]
        found = pa.concat_tables(kept) if kept else SCHEMAS[table].empty_table()
        if after_seq > self.watermark:
            found = found.filter(pc.greater(found["seq"], after_seq))
        return found

    def take(self) -> Range:
        """All rows there are, to be written; settle() or put_back() must follow."""
        assert not self._taken, "one flush at a time"
        assert not self._events, "rows that cannot be made yet must not be passed by"
        assert self.seq > self.watermark, "there is nothing new"
        self._taken, self._chunks = self._chunks, []
        return Range(self.watermark + 1, self.seq, _joined(self._taken).tables)

    def settle(self, last_seq: int, now_s: float) -> None:
        """What was taken is in the lake, or there was nothing up to `last_seq`."""
        assert self.watermark < last_seq <= self.seq
        self.watermark, self.moved_s = last_seq, now_s
        self._taken = []

    def put_back(self) -> None:
        """What was taken is not in the lake."""
        self._taken, self._chunks = [], self._taken + self._chunks

    def close(self) -> None:
        """Let go of the journal."""
        self._reader.close()

    def _held(self) -> list[Chunk]:
        return self._taken + self._chunks

    def _listen_from_watermark(self) -> None:
        machine = self._replay.machine
        assert isinstance(machine, Market | Ledger)
        if self.seq == self.watermark and machine.events is None:
            machine.events = self._events


class _SingleFile:
    """A stream as the replay of a follower sees it: one entry a read.

    So a replay stops after each entry, and what was told since the last one came with it.  Reads
    ahead what fetch() is asked for, and nothing else.
    """

    def __init__(self, reader: JournalReader) -> None:
        self.stream = reader.stream
        self._reader = reader
        self._ahead: deque[Entry] = deque()

    def fetch(self, from_seq: int, bytes_max: int) -> int:
        """Read ahead; how many entries the next read() calls will give."""
        assert not self._ahead, "entries were left over"
        self._ahead.extend(self._reader.read(from_seq, bytes_max))
        return len(self._ahead)

    def read(self, from_seq: int, bytes_max: int) -> list[Entry]:
        """The next entry; see JournalReader.read."""
        del bytes_max  # one entry is always allowed
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


def _joined(chunks: list[Chunk]) -> Chunk:
    """All chunks as one, in their order."""
    parts: dict[str, list[pa.Table]] = {}
    for chunk in chunks:
        for name, table in chunk.tables.items():
            parts.setdefault(name, []).append(table)
    tables = {name: pa.concat_tables(each).combine_chunks() for name, each in parts.items()}
    since_s = chunks[0].since_s if chunks else 0.0
    return Chunk(tables, sum(chunk.rows for chunk in chunks), since_s)
