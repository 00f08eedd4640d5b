"""Archive: all journals of a data directory, followed into the lake.

Separate from the actors because they must not wait for it, and tell it nothing: what is in the
lake is a function of the journals.  A flush writes the rows of whole entries of a stream, and one
commit of the manifest makes files and watermarks live together; a new archive begins from the
watermarks.  So whenever one ends, each row is in the lake exactly once.  It must not know who asks
for rows.

There is one archive to a lake.  Two find out, by StaleManifest, before either does harm; whoever
gets it must end, and begin anew.

Source: the sinks of Kafka Connect that keep their offsets beside what they wrote.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

import pyarrow as pa

from analytics.lake import SCHEMAS, FileEntry, Lake, LakeError, Manifest, StaleManifest, bars_of
from excore_ray.actors.archive_follower import Follower, Range
from excore_ray.actors.archive_streams import CATALOG, Streams
from excore_ray.actors.plan import ArchiveSettings
from excore_ray.core.custodian import market_name
from excore_ray.core.shardlink import shard_name
from excore_ray.storage.journal import JournalReader

logger = logging.getLogger(__name__)

T = TypeVar("T")
Moves = dict[Follower, int]  # how far the watermarks of some streams move


class Archive:
    """All streams of a data directory on their way into one lake.

    streams: names the streams there are now.  open_reader: opens one beside its owner.
    clock: seconds that never go back.
    manifest: of the lake; tail() is what is missing in it.  The two change together, between two
    turns of the loop.  trouble: why nothing can be written now, "" while it can.
    rows_written: that came into live files so far, by this archive.
    Raises LakeError when the lake's manifest cannot be read.
    """

    def __init__(
        self,
        streams: Callable[[], Iterable[str]],
        open_reader: Callable[[str], JournalReader],
        lake: Lake,
        settings: ArchiveSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.manifest = lake.manifest()
        self.trouble = ""
        self.rows_written = 0
        self._streams = Streams(streams, open_reader, clock)
        self._lake = lake
        self._settings = settings
        self._clock = clock
        self._committing = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failure: Exception | None = None
        self._finishing = False

    async def run(self) -> None:
        """Go round and round, until cancelled.  Raises what round() raises."""
        while True:
            await self.round()
            await asyncio.sleep(self._settings.poll_s)

    async def round(self) -> None:
        """Read every stream to where its journal ends now, and write what is due.

        Troubles are told by status(); those that may pass are tried again in the next round.
        Raises StaleManifest when another archive writes this lake, and our own bugs: then this
        archive is of no use any more.
        """
        self._begin()
        followers = self._streams.followers
        ends = {stream: self._streams.newest(stream) for stream in tuple(followers)}
        # One slice of each in turn, so that none waits for another that has much to read.
        while True:
            before = self._positions()
            for follower in tuple(followers.values()):
                if follower.stream in followers and not self._is_full(follower):
                    self._streams.advance(follower)
                await asyncio.sleep(0)
            await self._flush()
            behind = any(f.seq < ends.get(stream, 0) for stream, f in followers.items())
            if not behind or self._positions() == before:
                return

    async def finish(self) -> None:
        """One last round, which writes whatever there is, however little and young."""
        self._finishing = True
        await self.round()

    async def catch_up(self, streams: Iterable[str]) -> None:
        """Read these streams to where their journals end now: then tail() has all the lake lacks.

        A stream that nobody has opened yet has nothing to read.
        Raises JournalBroken when one is left alone, JournalFailed when one cannot be read now,
        LakeError when more is to be read than can be written; and what round() raises.
        """
        self._begin()
        for stream in streams:
            end = self._streams.newest(stream)
            # Asked again after every turn of the loop, in which it may have been left alone.
            while (follower := self._streams.follower(stream)) is not None:
                if follower.seq >= end and not follower.pending:
                    break
                if self._is_full(follower):
                    await self._flush()
                if self._is_full(follower):
                    raise LakeError(f"{stream} cannot be written: {self.trouble}")
                self._streams.advance(follower)
                await asyncio.sleep(0)

    def behind_us(self) -> list[int]:
        """Of the streams that were not read to their end: the time of the newest entry read."""
        return [
            follower.time_us
            for stream, follower in tuple(self._streams.followers.items())
            if follower.seq < self._streams.newest(stream)
        ]

    def look(self) -> None:
        """Learn of what was defined since the last round, and follow it."""
        self._begin()

    def markets(self) -> list[int]:
        """The numbers of all markets that have a journal."""
        # Not those of the catalog: when that cannot be read, the deals of others are there still.
        parts = (stream.partition("-") for stream in self._streams.standings)
        return sorted(int(number) for kind, _, number in parts if kind == "market")

    def shards(self) -> int:
        """How many shards the ledger has; 0 while that is not known."""
        known = self._streams.definitions
        return 0 if known is None else known.shards

    def follower(self, stream: str) -> Follower | None:
        """Who follows a stream that is in order; None when there is no such stream.

        Raises JournalBroken when it is left alone, JournalFailed when it has a trouble.
        """
        return self._streams.follower(stream)

    def tail(self, table: str, part: int, after_seq: int = 0) -> pa.Table:
        """The rows of one market, or of one shard for "balances", that no live file has yet.

        after_seq: only those of later entries.  Who reads a manifest that may be newer than
        `self.manifest` takes the tail first, and then leaves out what its watermark says is live.
        Columns and types are those of SCHEMAS[table]; the order is that of the journal.
        """
        if table == "bars":
            return bars_of(self.tail("deals", part, after_seq))
        stream = shard_name(part) if table == "balances" else market_name(part)
        follower = self._streams.followers.get(stream)
        return SCHEMAS[table].empty_table() if follower is None else follower.tail(table, after_seq)

    async def replace(self, remove: Iterable[FileEntry], add: Iterable[FileEntry]) -> Manifest:
        """Replace live files by others that have the same rows; the new manifest.

        Every change of the manifest goes through the archive, for it is the one writer.
        Raises what Lake.commit raises; after StaleManifest the archive is of no use any more.
        """
        return await self._uncancelled(self._replace(list(remove), list(add)))

    def status(self) -> dict[str, dict[str, int | str]]:
        """How each stream stands: entries read and live, rows held, and what hinders it."""
        found: dict[str, dict[str, int | str]] = {}
        for stream, standing in self._streams.standings.items():
            state: dict[str, int | str] = {"trouble": standing.trouble, "stopped": standing.stopped}
            if stream != CATALOG:
                follower = self._streams.followers.get(stream)
                state["seq"] = follower.seq if follower is not None else 0
                state["rows"] = follower.rows if follower is not None else 0
                state["watermark"] = self.manifest.watermarks.get(stream, 0)
            found[stream] = state
        return found

    async def close(self) -> None:
        """Let go of all journals, after the flush that is under way.  Nothing more is written."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._streams.close()

    # Parts of them.

    def _begin(self) -> None:
        self._refuse_after_failure()
        self._streams.open_new(self.manifest.watermarks)

    def _refuse_after_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _positions(self) -> list[tuple[str, int, int]]:
        return [(f.stream, f.seq, f.watermark) for f in self._streams.followers.values()]

    def _is_full(self, follower: Follower) -> bool:
        return follower.rows >= self._settings.rows_max and not follower.pending

    def _due(self) -> list[Follower]:
        """The followers whose rows are to be written now."""
        old_s = self._clock() - self._settings.age_s
        return [
            follower
            for follower in self._streams.followers.values()
            if not follower.pending
            and follower.since_s is not None
            and (self._finishing or self._is_full(follower) or follower.since_s <= old_s)
        ]

    def _idle(self) -> Moves:
        """The followers that have read entries which made no rows, and to where."""
        return {
            follower: follower.seq
            for follower in self._streams.followers.values()
            if follower.seq > follower.watermark and not follower.rows
        }

    def _is_commit_due(self, idle: Moves) -> bool:
        """Whether something is to be told though no rows are written."""
        old_s = self._clock() - self._settings.idle_s
        due = any(self._finishing or follower.moved_s <= old_s for follower in idle)
        return due or self._names_differ()

    def _names_differ(self) -> bool:
        known = self._streams.definitions
        told = (self.manifest.assets, self.manifest.markets)
        return known is not None and (known.assets, known.markets) != told

    async def _flush(self) -> None:
        """Write and commit what is due, if anything is."""
        if self._due() or self._is_commit_due(self._idle()):
            await self._uncancelled(self._write_and_commit())

    async def _uncancelled(self, job: Coroutine[Any, Any, T]) -> T:
        """Await a job that ends even when whoever waits for it is cancelled."""
        task = asyncio.create_task(job, name="a commit of the archive")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _write_and_commit(self) -> None:
        async with self._committing:
            self._refuse_after_failure()
            files: list[FileEntry] = []
            written: Moves = {}
            complaints = 0
            for follower in self._due():
                taken = follower.take()
                try:
                    files += await asyncio.to_thread(self._write, follower.part, taken)
                except (LakeError, OSError) as error:
                    follower.put_back()
                    self._complain(error)
                    complaints += 1
                except Exception as error:
                    follower.put_back()
                    self._streams.blame(follower.stream, error)
                else:
                    written[follower] = taken.last_seq
            # A commit costs the same with them, and they need none of their own later.
            idle = self._idle()
            if not written and not self._is_commit_due(idle):
                return
            try:
                await self._commit({**idle, **written}, add=files)
            except (LakeError, OSError) as error:
                for follower in written:
                    follower.put_back()
                if self._failure is not None:
                    raise
                self._complain(error)
            else:
                self.rows_written += sum(entry.rows for entry in files)
                if not complaints:
                    self.trouble = ""

    def _write(self, part: int, taken: Range) -> list[FileEntry]:
        """Write the files of one range; runs in a thread."""
        tables = taken.tables
        if "deals" in tables:
            tables = {**tables, "bars": bars_of(tables["deals"])}
        files: list[FileEntry] = []
        for name, rows in tables.items():
            files += self._lake.write(name, part, taken.first_seq, taken.last_seq, rows)
        return files

    async def _replace(self, remove: list[FileEntry], add: list[FileEntry]) -> Manifest:
        async with self._committing:
            self._refuse_after_failure()
            await self._commit({}, add, remove)
            return self.manifest

    async def _commit(
        self, moves: Moves, add: list[FileEntry], remove: Iterable[FileEntry] = ()
    ) -> None:
        """Make the next manifest, and let go of the rows it has.  Only while committing."""
        known = self._streams.definitions if self._names_differ() else None
        commit = functools.partial(
            self._lake.commit,
            self.manifest,
            add=add,
            remove=remove,
            watermarks={follower.stream: seq for follower, seq in moves.items()},
            assets=None if known is None else known.assets,
            markets=None if known is None else known.markets,
        )
        try:
            manifest = await asyncio.to_thread(commit)
        except Exception as error:
            # A fault of the store may pass.  If it came too late to stop this commit, the next
            # one is stale.  What is refused for its content will be refused again.
            if isinstance(error, StaleManifest) or not isinstance(error, LakeError | OSError):
                self._failure = error
            raise
        self.manifest = manifest
        for follower, seq in moves.items():
            follower.settle(seq, self._clock())

    def _complain(self, error: Exception) -> None:
        """Report, once, that nothing can be written now; it is tried again."""
        text = f"{type(error).__name__}: {error}"
        if text != self.trouble:
            logger.warning("the lake cannot be written: %s", text)
        self.trouble = text
