"""Follower: one stream, read for what its records tell, as rows that are not in the lake yet.

Separate from `archive.py`, which decides what goes into the lake and when: this is about one
stream, and everything in it happens at once, between two turns of the loop.  It must not know
the lake, other streams or the clock.

Nothing is executed again here: a record has what came of it.  So a follower needs no state of
before, and begins with the entry after the watermark however often it is made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from analytics.lake import SCHEMAS
from excore_ray.actors.archive_rows import Scales, ledger_rows, market_rows
from excore_ray.actors.replay import SLICE_BYTES, kind_of
from excore_ray.core.commands import LedgerRecord, MarketRecord
from excore_ray.core.events import events_of
from excore_ray.core.postings import postings_of
from excore_ray.errors import JournalBroken, JournalForgotten
from excore_ray.storage.journal import Entry, JournalReader

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

    watermark: rows of entries up to this one are in the lake.  seq: the newest entry read.
    time_us: its time, 0 while it is not known.  moved_s: when the watermark last moved.
    reader: is closed by close().
    Raises JournalBroken when the journal ends before the watermark, JournalForgotten when the
    entry after it was truncated, JournalFailed.
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
        self.seq = watermark
        self._reader = reader
        self._telling = _TELLING[self.kind]
        self.time_us = self._time_of(watermark)
        self._events: list[Any] = []  # told, and not made into rows yet
        self._seqs: list[int] = []  # the entry of each
        self._chunks: list[Chunk] = []
        self._taken: list[Chunk] = []  # those that are being written
        reader.read(watermark + 1, 0)  # or what the lake lacks is nowhere any more

    @property
    def made_seq(self) -> int:
        """The newest entry whose rows can be had: all of it, and all before it."""
        return self._seqs[0] - 1 if self._seqs else self.seq

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
        """Take in the next entries, about `bytes_max` of them; how many there were.

        Raises what JournalReader.read raises; JournalBroken when an entry is no record of this
        kind.  After anything but a failure to read, the follower must not be used any more.
        """
        entries = self._reader.read(self.seq + 1, bytes_max)
        for entry in entries:
            self.time_us, events = self._told_by(entry)
            self.seq = entry.seq
            if events:
                self._events += events
                self._seqs += [entry.seq] * len(events)
        return len(entries)

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

    def _told_by(self, entry: Entry) -> tuple[int, Sequence[object]]:
        """An entry's time and events."""
        try:
            return self._telling(entry.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as fault:
            raise JournalBroken(
                f"stream {self.stream}: entry {entry.seq} does not tell what came of it: {fault}"
            ) from fault

    def _time_of(self, seq: int) -> int:
        """The time of an entry, 0 when it cannot be had any more."""
        try:
            entries = self._reader.read(seq, 0) if seq else []
        except JournalForgotten:
            entries = []
        return self._told_by(entries[0])[0] if entries else 0

    def _held(self) -> list[Chunk]:
        return self._taken + self._chunks


class _MarketTelling(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A `MarketRecord` whose commands need not be decoded."""

    time_us: int
    commands: msgspec.Raw
    told: list[int | str]


_decode_market = msgspec.json.Decoder(_MarketTelling).decode
_decode_ledger = msgspec.json.Decoder(LedgerRecord).decode


def _told_by_market(body: bytes) -> tuple[int, Sequence[object]]:
    record = _decode_market(body)
    return record.time_us, events_of(MarketRecord(record.time_us, [], record.told))


def _told_by_ledger(body: bytes) -> tuple[int, Sequence[object]]:
    record = _decode_ledger(body)
    return record.time_us, postings_of(record)


# By kind of stream: an entry's time and events.
_TELLING: dict[str, Callable[[bytes], tuple[int, Sequence[object]]]] = {
    "market": _told_by_market,
    "ledger": _told_by_ledger,
}


def _joined(chunks: list[Chunk]) -> Chunk:
    """All chunks as one, in their order."""
    parts: dict[str, list[pa.Table]] = {}
    for chunk in chunks:
        for name, table in chunk.tables.items():
            parts.setdefault(name, []).append(table)
    tables = {name: pa.concat_tables(each).combine_chunks() for name, each in parts.items()}
    since_s = chunks[0].since_s if chunks else 0.0
    return Chunk(tables, sum(chunk.rows for chunk in chunks), since_s)
