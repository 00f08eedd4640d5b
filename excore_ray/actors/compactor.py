"""Compactor: keeps snapshots young, and proves on the way that every stream replays to itself.

Separate because it works beside the actors, in a process of its own: an actor would stand still
while it writes its whole state.  It reads journals, never writes them, and rebuilds a machine
from the newest snapshot up to the newest recorded state_hash.  Every hash on that way must come
out again; the state after the last of them is the next snapshot.  A stream that does not replay
to itself is reported and left alone from then on: its snapshots before that are still good.

Entries are forgotten up to the older kept snapshot, so that an owner can begin from either and
one may turn out damaged; and never beyond the watermark of the archive, for what it lacks is
nowhere but in the journal.  An archive that lags makes journals long, and nothing else wait.

The catalog has no watermark: the lake does not have its history, who got which key and what was
renamed when, and it grows by little.  It is never truncated.

Source: the log compaction of Kafka's state stores, with the verification TigerBeetle does.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping

import msgspec

from excore_ray.actors.replay import KINDS, SLICE_BYTES, kind_of, rebuild
from excore_ray.core.commands import Checkpoint
from excore_ray.core.registrar import CATALOG
from excore_ray.core.snapshot import dump
from excore_ray.errors import (
    Fenced,
    JournalBroken,
    JournalFailed,
    SnapshotBroken,
    SnapshotFailed,
    StreamMissing,
    WireError,
)
from excore_ray.storage.journal import JournalReader

logger = logging.getLogger(__name__)

# Passing troubles: the disk is full, the stream was not opened yet, its owner is being replaced.
_PASSING = (StreamMissing, JournalFailed, SnapshotFailed, Fenced, WireError, OSError)
_CHECKPOINT_MARK = b'["ck",'  # in every record with a Checkpoint, and in few others


class CompactorSettings(msgspec.Struct, frozen=True):
    """compact_s: seconds between two rounds.  records_min: new records that are worth a snapshot.

    truncate: whether entries are forgotten that both kept snapshots stand for and the archive
    has; without an archive none are.
    """

    compact_s: float = 60.0
    records_min: int = 10_000
    truncate: bool = True


class StreamState(msgspec.Struct):
    """How compaction of one stream stands.

    snapshot_seq: the entry of the newest snapshot, 0 for none.  older_seq: of the one before.
    waits: what a snapshot or the truncation waits for, "" for nothing that is known.
    stopped: why the stream is left alone, "" while it is not.
    """

    snapshot_seq: int = 0
    older_seq: int = 0
    snapshot_bytes: int = 0
    waits: str = ""
    stopped: str = ""


class Compactor:
    """All streams of a node, one after the other.

    streams: names the streams there are now.  open_reader: opens one beside its owner.
    truncate: has the owner of a stream forget its entries up to one; needed for that setting.
    watermarks: reads how far the archive has each stream, 0 where it names none; runs in a
    thread, and what it raises passes.  None when no lake is to be continued: as long as there is
    one, its archive may be away, but it must be asked for.
    """

    def __init__(
        self,
        streams: Callable[[], Iterable[str]],
        open_reader: Callable[[str], JournalReader],
        settings: CompactorSettings,
        truncate: Callable[[str, int], Awaitable[None]] | None = None,
        watermarks: Callable[[], Mapping[str, int]] | None = None,
    ) -> None:
        assert truncate is not None or not settings.truncate, "nobody to truncate is known"
        self.states: dict[str, StreamState] = {}
        self._streams = streams
        self._open_reader = open_reader
        self._settings = settings
        self._truncate = truncate if settings.truncate else None
        self._watermarks = watermarks

    async def run(self) -> None:
        """Go round and round, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.compact_s)
            await self.round()

    async def round(self) -> None:
        """Look at every stream once."""
        marks = await self._read_watermarks()
        for stream in sorted(self._streams()):
            state = self.states.setdefault(stream, StreamState())
            if state.stopped:
                continue
            mark = None
            if marks is not None and stream != CATALOG:
                mark = marks.get(stream, 0)
            try:
                reader = self._open_reader(stream)
                try:
                    await self._compact(reader, state, mark)
                finally:
                    reader.close()
                if marks is None and self._watermarks is not None and stream != CATALOG:
                    state.waits = "the watermarks of the archive cannot be read"
            except _PASSING as fault:
                state.waits = f"{type(fault).__name__}: {fault}"
                logger.warning("%s was not compacted: %s", stream, fault)
            except Exception as error:
                notes = "; ".join(getattr(error, "__notes__", []))
                state.stopped = f"{type(error).__name__}: {error} {notes}".strip()
                what = "is NOT COMPACTED ANY MORE, its journal must be looked at"
                logger.critical("%s %s: %s", stream, what, state.stopped, exc_info=error)

    async def _read_watermarks(self) -> Mapping[str, int] | None:
        """What the archive has, read before any journal is; None when that cannot be told."""
        if self._watermarks is None:
            return None
        try:
            return await asyncio.to_thread(self._watermarks)
        except Exception as error:
            # Snapshots are made all the same; only the truncation waits.
            logger.warning("the watermarks of the archive cannot be read: %r", error)
            return None

    async def _compact(self, reader: JournalReader, state: StreamState, mark: int | None) -> None:
        """Do for one stream what is due.

        mark: its watermark, None when nobody follows it or that cannot be told.
        """
        state.waits = ""
        newest = reader.status().next_seq - 1
        if mark is not None and mark > newest:
            # The watermarks were read first, and the archive has only what was committed.
            raise JournalBroken(
                f"stream {reader.stream}: the archive has its entries up to {mark}, but the journal"
                f" ends with entry {newest}: it has lost entries, or the lake belongs to another"
                " journal."
            )
        if self._is_worth(newest, state):
            # Others may have put snapshots there or taken them away since the last time.
            _look(reader, state)
        if self._is_worth(newest, state):
            await _write_snapshot(reader, state, newest)
            # The machine goes with its cycles now: by itself the collector comes rarely here.
            gc.collect()
        if self._truncate is not None and mark is not None:
            await self._forget(self._truncate, reader, state, mark)

    def _is_worth(self, end: int, state: StreamState) -> bool:
        return end - state.snapshot_seq >= self._settings.records_min

    async def _forget(
        self,
        truncate: Callable[[str, int], Awaitable[None]],
        reader: JournalReader,
        state: StreamState,
        mark: int,
    ) -> None:
        """Forget what both snapshots stand for and the archive has, if there is any of it."""
        oldest = reader.status().oldest_seq
        if state.older_seq < oldest:
            return
        if mark < state.older_seq:
            state.waits = f"it waits for the archive at {mark}"
            if mark - oldest < self._settings.records_min:
                return
        # What is forgotten cannot be had again: both snapshots are read once more before, and
        # whatever others have done to them counts.
        _look(reader, state)
        up_to = min(state.older_seq, mark)
        if up_to >= oldest:
            await truncate(reader.stream, up_to)
            logger.info("%s: truncated up to entry %d", reader.stream, up_to)


async def _write_snapshot(reader: JournalReader, state: StreamState, end: int) -> None:
    """Keep the state at the newest recorded hash that is not beyond entry `end`."""
    kind = kind_of(reader.stream)
    seq = await _newest_checkpoint(reader, kind, state.snapshot_seq, end)
    if seq == 0:
        return
    machine, reached = await rebuild(reader, kind, seq)
    assert reached == seq, f"the replay ended with entry {reached}, not {seq}"
    body = dump(machine)
    reader.save_snapshot(seq, body)
    state.older_seq, state.snapshot_seq = state.snapshot_seq, seq
    state.snapshot_bytes = len(body)
    logger.info("%s: snapshot of entry %d, %d bytes", reader.stream, seq, len(body))


def _look(reader: JournalReader, state: StreamState) -> None:
    """Learn which two snapshots are kept and verify."""
    state.snapshot_seq = state.older_seq = 0
    found = reader.load_snapshot()
    if found is None:
        return
    state.snapshot_seq, state.snapshot_bytes = found[0], len(found[1])
    try:
        older = reader.load_snapshot(found[0] - 1)
    except SnapshotBroken:
        return  # the one before is damaged, and the newest is all there is to restart from
    state.older_seq = older[0] if older is not None else 0


async def _newest_checkpoint(reader: JournalReader, kind: str, after: int, up_to: int) -> int:
    """The newest entry beyond `after`, but not beyond `up_to`, with a Checkpoint in it; else 0."""
    decode = KINDS[kind].decode
    newest, seq = 0, after
    while seq < up_to and (entries := reader.read(seq + 1, SLICE_BYTES)):
        seq = entries[-1].seq
        for entry in reversed(entries):
            if (
                entry.seq <= up_to
                and _CHECKPOINT_MARK in entry.body
                and any(type(command) is Checkpoint for command in decode(entry.body).commands)
            ):
                newest = entry.seq
                break
        await asyncio.sleep(0)
    return newest
