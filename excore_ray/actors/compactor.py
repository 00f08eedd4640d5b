"""Compactor: keeps snapshots young, and proves on the way that every stream replays to itself.

Separate because it works beside the actors, in a process of its own: an actor would stand still
while it writes its whole state.  It reads journals, never writes them, and rebuilds a machine
from the newest snapshot up to the newest recorded state_hash.  Every hash on that way must come
out again; the state after the last of them is the next snapshot.  A stream that does not replay
to itself is reported and left alone from then on: its snapshots before that are still good.

Source: the log compaction of Kafka's state stores, with the verification TigerBeetle does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from excore_ray.actors.replay import KINDS, SLICE_BYTES, kind_of, rebuild
from excore_ray.core.commands import Checkpoint
from excore_ray.core.snapshot import dump
from excore_ray.errors import JournalFailed, SnapshotFailed, StreamMissing
from excore_ray.storage.journal import JournalReader

logger = logging.getLogger(__name__)

# Passing troubles: the disk is full, the stream was not opened yet.
_PASSING = (StreamMissing, JournalFailed, SnapshotFailed, OSError)
_CHECKPOINT_MARK = b'["ck",'  # in every record with a Checkpoint, and in few others


class CompactorSettings(msgspec.Struct, frozen=True):
    """compact_s: seconds between two rounds.  records_min: new records that are worth a snapshot.

    truncate: whether entries are forgotten that both kept snapshots stand for.
    """

    compact_s: float = 60.0
    records_min: int = 10_000
    truncate: bool = False


class StreamState(msgspec.Struct):
    """How compaction of one stream stands.

    snapshot_seq: the entry of the newest snapshot, 0 for none.  older_seq: of the one before.
    stopped: why the stream is left alone, "" while it is not.
    """

    snapshot_seq: int = 0
    older_seq: int = 0
    snapshot_bytes: int = 0
    stopped: str = ""


class Compactor:
    """All streams of a node, one after the other.

    streams: names the streams there are now.  open_reader: opens one beside its owner.
    truncate: has the owner of a stream forget its entries up to one; needed for that setting.
    """

    def __init__(
        self,
        streams: Callable[[], Iterable[str]],
        open_reader: Callable[[str], JournalReader],
        settings: CompactorSettings,
        truncate: Callable[[str, int], Awaitable[None]] | None = None,
    ) -> None:
        assert truncate is not None or not settings.truncate, "nobody to truncate is known"
        self.states: dict[str, StreamState] = {}
        self._streams = streams
        self._open_reader = open_reader
        self._settings = settings
        self._truncate = truncate

    async def run(self) -> None:
        """Go round and round, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.compact_s)
            await self.round()

    async def round(self) -> None:
        """Look at every stream once."""
        for stream in sorted(self._streams()):
            state = self.states.setdefault(stream, StreamState())
            if state.stopped:
                continue
            try:
                reader = self._open_reader(stream)
                try:
                    await self._compact(reader, state)
                finally:
                    reader.close()
            except _PASSING as fault:
                logger.warning("%s was not compacted: %s", stream, fault)
            except Exception as error:
                notes = "; ".join(getattr(error, "__notes__", []))
                state.stopped = f"{type(error).__name__}: {error} {notes}".strip()
                what = "is NOT COMPACTED ANY MORE, its journal must be looked at"
                logger.critical("%s %s: %s", stream, what, state.stopped, exc_info=error)

    async def _compact(self, reader: JournalReader, state: StreamState) -> None:
        newest = reader.status().next_seq - 1
        if newest - state.snapshot_seq < self._settings.records_min:
            return
        found = reader.load_snapshot()
        state.snapshot_seq = found[0] if found is not None else 0
        if newest - state.snapshot_seq < self._settings.records_min:
            return
        kind = kind_of(reader.stream)
        seq = await _newest_checkpoint(reader, kind, state.snapshot_seq)
        if seq == 0:
            return
        machine, reached = await rebuild(reader, kind, seq)
        assert reached == seq, f"the replay ended with entry {reached}, not {seq}"
        body = dump(machine)
        reader.save_snapshot(seq, body)
        state.older_seq, state.snapshot_seq = state.snapshot_seq, seq
        state.snapshot_bytes = len(body)
        logger.info("%s: snapshot of entry %d, %d bytes", reader.stream, seq, len(body))
        if self._settings.truncate and self._truncate is not None and state.older_seq:
            await self._truncate(reader.stream, state.older_seq)


async def _newest_checkpoint(reader: JournalReader, kind: str, after: int) -> int:
    """The newest entry beyond `after` with a Checkpoint in it, 0 when there is none."""
    decode = KINDS[kind].decode
    newest, seq = 0, after
    while entries := reader.read(seq + 1, SLICE_BYTES):
        seq = entries[-1].seq
        for entry in reversed(entries):
            if _CHECKPOINT_MARK in entry.body and any(
                type(command) is Checkpoint for command in decode(entry.body).commands
            ):
                newest = entry.seq
                break
        await asyncio.sleep(0)
    return newest
