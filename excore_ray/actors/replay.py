"""Replay: a stream's entries back into the machine that wrote them.

Separate because an actor that starts, the compactor, the audit and an operator all rebuild a
machine, and must run exactly the same: one `apply`, whoever asks.  It must not know who asks.
Every recorded state_hash is compared on the way, so a replay that returns is a replay that agrees.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from excore_ray.core import commands as c
from excore_ray.core.catalog import Catalog
from excore_ray.core.ledger import Ledger
from excore_ray.core.market import Market
from excore_ray.core.snapshot import AnyMachine, load_catalog, load_ledger, load_market, state_hash
from excore_ray.errors import JournalBroken, JournalForgotten, SnapshotBroken
from excore_ray.storage.journal import JournalReader

SLICE_BYTES = 256 * 1024  # some 10 ms of work


class Kind(NamedTuple):
    """What differs between streams: an empty machine, its snapshots, its records."""

    make: Callable[[], AnyMachine]
    load: Callable[[bytes], AnyMachine]
    decode: Callable[[bytes], Any]


KINDS = {
    "market": Kind(Market, load_market, msgspec.json.Decoder(c.MarketRecord).decode),
    "ledger": Kind(Ledger, load_ledger, msgspec.json.Decoder(c.LedgerRecord).decode),
    "catalog": Kind(Catalog, load_catalog, msgspec.json.Decoder(c.CatalogRecord).decode),
}


def kind_of(stream: str) -> str:
    """The kind of a stream, by its name: "market-3" is a market.  KeyError when it is none."""
    kind = stream.partition("-")[0]
    if kind not in KINDS:
        raise KeyError(f"{stream!r} is not the name of a market, a ledger or the catalog")
    return kind


class Replay:
    """A machine on its way through its stream.

    machine: the state after entry `seq`; 0 before the first.  record: of that entry, None until one
    was applied.  Begins with the newest snapshot that
    is not beyond `to_seq`, nor beyond `snapshot_seq_max` for one who goes on from there; at entry
    1 when there is none.
    Raises JournalForgotten when the state after `to_seq` cannot be rebuilt any more, and what
    JournalReader.load_snapshot raises.
    """

    def __init__(
        self,
        journal: JournalReader,
        kind: str,
        to_seq: int | None = None,
        snapshot_seq_max: int | None = None,
    ) -> None:
        assert to_seq is None or snapshot_seq_max is None, "either bound is enough"
        self._journal = journal
        self._kind = KINDS[kind]
        self._to_seq = to_seq
        self.record: Any = None
        found = (
            journal.load_snapshot(snapshot_seq_max) if to_seq is None else _load(journal, to_seq)
        )
        if found is None:
            self.machine, self.seq = self._kind.make(), 0
        else:
            self.seq = found[0]
            try:
                self.machine = self._kind.load(found[1])
            except (ValueError, msgspec.MsgspecError) as fault:
                raise JournalBroken(
                    f"stream {journal.stream}: the snapshot of entry {self.seq} cannot be loaded:"
                    f" {fault}. Start the version that wrote it."
                ) from fault

    def advance(self, bytes_max: int = SLICE_BYTES) -> bool:
        """Apply the next entries, about `bytes_max` of them; False when there are none left.

        Raises what JournalReader.read raises; JournalBroken when an entry is no record of this
        kind; AssertionError when a replay does not agree with what ran.
        """
        if self._to_seq is not None and self.seq >= self._to_seq:
            return False
        entries = self._journal.read(self.seq + 1, bytes_max)
        for entry in entries:
            if self._to_seq is not None and entry.seq > self._to_seq:
                break
            try:
                record = self._kind.decode(entry.body)
            except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
                raise JournalBroken(
                    f"stream {self._journal.stream}: entry {entry.seq} is no record: {fault}"
                ) from fault
            try:
                self.machine.apply(record, state_hash)
                assert self.machine.epoch == entry.epoch, "an entry of another epoch"
            except Exception as error:
                error.add_note(f"in entry {entry.seq} of stream {self._journal.stream}")
                raise
            self.seq, self.record = entry.seq, record
        return bool(entries)


def _load(journal: JournalReader, to_seq: int) -> tuple[int, bytes] | None:
    """The newest snapshot that leads to `to_seq`; JournalForgotten says what is to be had else."""
    try:
        return journal.load_snapshot(to_seq)
    except SnapshotBroken as fault:
        oldest = _oldest_snapshot(journal)
        raise JournalForgotten(
            f"stream {journal.stream}: the state after entry {to_seq} cannot be rebuilt any more,"
            f" for its entries were truncated; the oldest that can be is the one after {oldest}."
            " What happened before is told by the lake."
        ) from fault


def _oldest_snapshot(journal: JournalReader) -> int:
    """The entry of the oldest snapshot that verifies.  Raises SnapshotBroken when none does."""
    found = journal.load_snapshot()
    oldest = 0
    while found is not None:
        oldest = found[0]
        try:
            found = journal.load_snapshot(oldest - 1)
        except SnapshotBroken:
            break
    return oldest


class Rebuilt(NamedTuple):
    """What a replay has led to.  machine: the state after entry `seq`, 0 when there is none."""

    machine: AnyMachine
    seq: int


def replay(
    journal: JournalReader,
    kind: str,
    to_seq: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Rebuilt:
    """The machine of a stream, and the entry whose state it has.

    kind: "market", "ledger" or "catalog", see kind_of().  to_seq: where to end, None for the
    newest entry.  progress: told the entry reached, some hundred times a second.
    Raises what `Replay` raises.
    """
    running = Replay(journal, kind, to_seq)
    while running.advance():
        if progress is not None:
            progress(running.seq)
    return Rebuilt(running.machine, running.seq)


async def rebuild(
    journal: JournalReader,
    kind: str,
    to_seq: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Rebuilt:
    """replay() on an event loop, which goes round between slices of some 10 ms."""
    running = Replay(journal, kind, to_seq)
    while running.advance():
        if progress is not None:
            progress(running.seq)
        await asyncio.sleep(0)
    return Rebuilt(running.machine, running.seq)
