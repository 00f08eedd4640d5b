"""Archive service: the archive on the wire: questions of gateways, each answered when it can be.

Separate from the archive, which follows journals and writes, because this waits for many askers at
once.  It must not know what a question means, nor Ray.

An answer reads the journals it concerns to where they end when the question is taken up: what was
answered to anybody before is durable there, and so is in the answer, flushed to a file or not.
Questions run in threads over one moment of files and tail, so a slow one delays neither the
others nor the writer; those that may read much have threads of their own.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import msgspec

from analytics.lake import LakeError, StaleManifest
from analytics.live import Live, Moment, Place
from analytics.market_data import TooManyRows
from excore_ray.actors.archive import Archive
from excore_ray.actors.archive_answers import Reading, is_history, reading_of
from excore_ray.actors.backseat import Backseat
from excore_ray.actors.plan import ServiceSettings
from excore_ray.actors.wire import Connection
from excore_ray.core import messages as m
from excore_ray.core.custodian import market_name
from excore_ray.core.questions import ARCHIVE
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.sharding import shard_of
from excore_ray.core.shardlink import shard_name
from excore_ray.errors import JournalFailed, StorageError, WireError

logger = logging.getLogger(__name__)

_EPOCH = 0  # what the archive tells is a function of the journals: any incarnation may be believed
_TRIM_S = 0.5


class ArchiveService:
    """Answers questions about what an archive follows.  A `Handler` of its wire.

    now_us: the wall clock.  seat: of the thread it runs in, to hurry while somebody waits.
    """

    def __init__(
        self,
        archive: Archive,
        url: str,
        settings: ServiceSettings,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        seat: Backseat | None = None,
    ) -> None:
        self._archive = archive
        self._settings = settings
        self._now_us = now_us
        self._seat = seat
        pools = {"narrow": settings.threads, "wide": settings.wide_threads}
        self._live = Live(url, pools, settings.memory_mb)
        self._asks: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._moments: dict[int, Moment] = {}  # of the questions under way
        self._trimming: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to let go of rows that have come into files."""
        self._trim()

    async def close(self) -> None:
        """Answer nothing more; what is asked elsewhere meanwhile is asked again."""
        if self._trimming is not None:
            self._trimming.cancel()
        for task in self._asks.values():
            task.cancel()
        if self._asks:
            await asyncio.wait(self._asks.values())
        await asyncio.to_thread(self._live.close)

    # The wire.

    def connected(self, connection: Connection) -> None:
        """Part of being a Handler."""

    def received(self, connection: Connection, request_id: int, body: bytes) -> None:
        """Part of being a Handler."""
        try:
            message = m.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
            logger.error("%s sent what is no message: %s", connection.name, fault)
            connection.close("this is no message")
            return
        if type(message) is not m.Batch:
            return
        self._send(connection, m.Replies(_EPOCH, [], [], 1))
        for token, deadline_us, ask in zip(
            message.tokens, message.deadlines_us, message.asks, strict=True
        ):
            key = (connection.id, token)
            if key in self._asks or deadline_us <= self._now_us():
                continue
            if len(self._asks) >= self._settings.asks_max and type(ask) is not m.AskStatus:
                self._send(connection, m.Replies(_EPOCH, [token], [_OVERLOADED]))
                continue
            task = asyncio.create_task(self._serve(connection, token, ask))
            self._asks[key] = task
            if self._seat is not None:
                self._seat.hurry()
            task.add_done_callback(functools.partial(self._forget, key))

    def disconnected(self, connection: Connection, reason: str) -> None:
        """Part of being a Handler."""

    def _forget(self, key: tuple[int, int], task: asyncio.Task[None]) -> None:
        del self._asks[key]
        if self._seat is not None and not self._asks:
            self._seat.give_way()

    async def _serve(self, connection: Connection, token: int, ask: m.Ask) -> None:
        if type(ask) is m.AskStatus:
            answer: m.Answer = self._status()
        elif is_history(ask):
            answer = await self.answer(ask)
        else:
            what = f"{type(ask).__name__} is not asked of the archive"
            answer = Refused(Reason.INVALID_ARGUMENT, what)
        self._send(connection, m.Replies(_EPOCH, [token], [answer]))

    def _send(self, connection: Connection, replies: m.Replies) -> None:
        try:
            connection.send(m.encode(replies))
        except WireError as fault:
            # Whoever asked asks again over the next connection.
            logger.info("nothing was sent to %s: %s", connection.name, fault)
            connection.close(str(fault))

    # Questions.

    async def answer(self, ask: Any) -> m.Answer:
        """The answer to a question about the past, or why there is none now."""
        try:
            self._archive.look()
            reading = reading_of(ask, self._shard_of)
            places = reading.places(self._archive.markets())
            async with asyncio.timeout(self._settings.question_s):
                await self._archive.catch_up({_stream_of(place) for place in places})
                return await self._read(reading, places)
        except TooManyRows as fault:
            return Refused(Reason.LIMIT_TOO_BIG, str(fault))
        except TimeoutError:
            return Refused(Reason.SERVICE_TIMEOUT, "the question took too long")
        except (LakeError, StorageError, OSError, duckdb.Error) as fault:
            if isinstance(fault, StaleManifest):
                logger.error("another archive writes this lake: %s", fault)
            return self._unreadable(fault)
        except Exception as error:
            reference = secrets.token_hex(4)
            logger.exception("internal error %s in %s: %s", reference, type(ask).__name__, error)
            return Refused(Reason.INTERNAL_ERROR, f"reference {reference}")

    async def _read(self, reading: Reading, places: Sequence[Place]) -> m.Answer:
        """Ask the lake and its tail about this moment."""
        now_us = self._now_us()
        for place in places:
            now_us = max(now_us, self._extend(place))
        archive = self._archive
        watermarks = archive.manifest.watermarks
        moment = self._live.moment(
            archive.manifest,
            lambda place: watermarks.get(_stream_of(place), 0),
            lambda user: [self._shard_of(user)],
        )
        pool = "wide" if reading.wide else "narrow"
        now_s = now_us // 1_000_000
        asked = self._live.ask(pool, moment, lambda db, scope: reading.answer(db, scope, now_s))
        self._moments[id(moment)] = moment
        try:
            return await asyncio.wrap_future(asked.future)
        finally:
            asked.interrupt()
            del self._moments[id(moment)]

    def _extend(self, place: Place) -> int:
        """Have the tail of a place as far as its stream was read; the stream's time, in us."""
        follower = self._archive.follower(_stream_of(place))
        if follower is None:
            return 0
        known = max(self._live.until_seq(place), follower.watermark)
        if follower.made_seq > known:
            rows = self._archive.tail(*place, after_seq=known)
            self._live.extend(place, rows, follower.made_seq)
        return follower.time_us

    def _trim(self) -> None:
        """Let go of the rows that are in files now, unless a question under way looks at them."""
        loop = asyncio.get_running_loop()
        self._trimming = loop.call_later(_TRIM_S, self._trim)
        for place in self._live.places():
            seq = self._archive.manifest.watermarks.get(_stream_of(place), 0)
            for moment in self._moments.values():
                seq = min(seq, moment.after_seqs.get(place, seq))
            self._live.trim(place, seq)

    def _shard_of(self, user: int) -> int:
        shards = self._archive.shards()
        if not shards:
            raise JournalFailed("the catalog was not read, so nobody knows where a user is kept")
        return shard_of(user, shards)

    def _unreadable(self, fault: Exception) -> Refused:
        text = f"{type(fault).__name__}: {fault}"
        logger.error("a question could not be answered: %s", text)
        detail = "the history cannot be read now; the archive's log says why"
        return Refused(Reason.SERVICE_UNAVAILABLE, detail)

    def _status(self) -> m.Status:
        """How far the archive is, for exchange.status."""
        streams = self._archive.status()
        facts = {
            "version": self._archive.manifest.version,
            "files": len(self._archive.manifest.files),
            "rows_held": sum(int(state.get("rows", 0)) for state in streams.values()),
            "asks": len(self._asks),
        }
        troubles = [str(state["stopped"] or state["trouble"]) for state in streams.values()]
        trouble = "; ".join(filter(None, [self._archive.trouble, *troubles]))
        return m.Status(ARCHIVE, _EPOCH, 0, facts, {"trouble": trouble})


def _stream_of(place: Place) -> str:
    table, part = place
    return shard_name(part) if table == "balances" else market_name(part)


_OVERLOADED = Refused(Reason.SERVICE_UNAVAILABLE, "too many questions are under way")
