"""Lakekeeper: everything around one lake in one process: the archive, its questions, its upkeep.

Separate from the parts, each of which runs alone in tests, because what matters here is the order
in which they begin and end, and what goes on beside what.  It must not know Ray.

Upkeep is merging small files, letting go of those that are older than they are kept, and removing
what no manifest has named for a while.  All of it goes through the archive, the one writer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from analytics import lake_compact
from analytics.lake import FileEntry, Lake, LakeError, Manifest, StaleManifest
from excore_ray.actors.archive import Archive
from excore_ray.actors.archive_service import ArchiveService
from excore_ray.actors.backseat import Backseat
from excore_ray.actors.plan import LakeSettings
from excore_ray.actors.wire import Endpoint
from excore_ray.actors.wire_server import Server
from excore_ray.actors.wiring import Wiring
from excore_ray.storage.journal import JournalReader

logger = logging.getLogger(__name__)

_CALM, _BUSY = lake_compact.Settings(), lake_compact.Settings(factor=32)


class Lakekeeper:
    """One incarnation of the archive actor.

    streams: names the streams there are now.  open_reader: opens one beside its owner.
    seat: of the thread of the loop, which gives way while nobody waits; only with a loop of its
    own, whose threads it takes along.
    tasks: run until stop(); one that ends before is a failure.
    """

    def __init__(
        self,
        streams: Callable[[], Iterable[str]],
        open_reader: Callable[[str], JournalReader],
        settings: LakeSettings,
        seat: Backseat | None = None,
    ) -> None:
        self.lake = Lake(settings.url)
        self.archive = Archive(streams, open_reader, self.lake, settings.flush)
        self.service = ArchiveService(self.archive, settings.url, settings.questions, seat=seat)
        self._seat = seat
        self.tasks: list[asyncio.Task[None]] = []
        self._settings = settings
        self._server: Server | None = None
        self._spoilt: set[str] = set()  # files that could not be merged; reported once
        self._swept_s = self._looked_s = time.monotonic()
        self._rows_seen = 0

    async def open(self, wiring: Wiring) -> Endpoint:
        """Begin to follow, to answer and to look after the files; where it serves.

        Raises LakeError when the manifest cannot be read, OSError when it cannot listen.
        """
        if self._seat is not None:
            # What is written and merged in threads gives way too.
            threads = ThreadPoolExecutor(thread_name_prefix="lake", initializer=self._seat.join)
            asyncio.get_running_loop().set_default_executor(threads)
        # Read up to now first, so that the first question need not wait for all of it.
        await self.archive.round()
        self.service.start()
        self._server = await wiring.serve(self.service)
        self.tasks = [
            asyncio.create_task(self.archive.run(), name="the archive"),
            asyncio.create_task(self._keep(), name="the upkeep of the lake"),
        ]
        if self._seat is not None:
            self._seat.give_way()
        return self._server.endpoint

    async def stop(self) -> None:
        """Answer nothing more, and write what the journals have: they will not grow any more."""
        if self._seat is not None:
            self._seat.hurry()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        await self.service.close()
        try:
            await self.archive.finish()
        finally:
            await self.archive.close()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._settings.upkeep_s)
            await self.keep()

    async def keep(self) -> None:
        """Merge, let go and sweep what is due now.  Faults of files are logged, and pass.

        Raises StaleManifest when another archive writes this lake.
        """
        today = self._today()
        for merge in lake_compact.plan(self._mergeable(), today, self._pace()):
            await self._merge(merge)
        expired = lake_compact.expired(self.archive.manifest, today, self._settings.keep_days)
        if expired:
            await self._replace(expired, [])
        if time.monotonic() - self._swept_s >= self._settings.grace_s / 2:
            self._swept_s = time.monotonic()
            try:
                await asyncio.to_thread(self.lake.sweep, self._settings.grace_s, time.time())
            except (LakeError, OSError) as fault:
                logger.warning("the lake was not swept: %s", fault)

    def _pace(self) -> lake_compact.Settings:
        """How eagerly to merge, by how many rows have come since the last look."""
        now_s, rows = time.monotonic(), self.archive.rows_written
        rows_s = (rows - self._rows_seen) / max(now_s - self._looked_s, 1e-3)
        self._looked_s, self._rows_seen = now_s, rows
        return _CALM if rows_s < self._settings.busy_rows_s else _BUSY

    def _mergeable(self) -> Manifest:
        """The manifest, in which files that cannot be merged are too large for it.

        Left out, they would seem to leave their neighbours side by side.
        """
        size = lake_compact.BYTES_TARGET_MAX
        files = tuple(
            dataclasses.replace(entry, bytes=size) if entry.path in self._spoilt else entry
            for entry in self.archive.manifest.files
        )
        return dataclasses.replace(self.archive.manifest, files=files)

    async def _merge(self, merge: lake_compact.Merge) -> None:
        version = self.archive.manifest.version
        try:
            made = await asyncio.to_thread(lake_compact.merge, self.lake, merge, version)
        except LakeError as fault:
            logger.error("files are left as they are: %s", fault)
            self._spoilt.update(entry.path for entry in merge.files)
            return
        except OSError as fault:
            # Of the new file, not of those that are read: it is tried again.
            logger.warning("files were not merged: %s", fault)
            return
        await self._replace(list(merge.files), made)

    async def _replace(self, remove: list[FileEntry], add: list[FileEntry]) -> None:
        try:
            await self.archive.replace(remove, add)
        except StaleManifest:
            raise
        except (LakeError, OSError) as fault:
            logger.warning("files were not replaced: %s", fault)

    def _today(self) -> str:
        """The UTC date before which no rows will come any more."""
        earliest_s = min((at_us / 1e6 for at_us in self.archive.behind_us()), default=time.time())
        return datetime.fromtimestamp(min(earliest_s, time.time()), UTC).date().isoformat()
