"""Exchange: the whole exchange as one object, for whoever asks it: gateways, tools, tests.

Separate because connections, futures and the clock belong to an event loop, while what to ask of
whom again, and what to believe, are rules of the core.  It must not know HTTP.  It keeps one
connection to each actor it was ever asked about, and asks made in one turn of the loop leave as
one batch an actor.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from excore_ray.actors.clock import Clock
from excore_ray.actors.wire import Connection, Link
from excore_ray.actors.wiring import Wiring
from excore_ray.core.commands import REQUEST_ID_BYTES
from excore_ray.core.custodian import market_name
from excore_ray.core.lease import CatalogLease
from excore_ray.core.messages import Answer, Ask, WireMessage, decode, encode
from excore_ray.core.names import Names
from excore_ray.core.questions import ARCHIVE
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.registrar import CATALOG
from excore_ray.core.routing import Router, RouterLimits
from excore_ray.core.sharding import shard_of
from excore_ray.core.shardlink import shard_name
from excore_ray.errors import WireError

logger = logging.getLogger(__name__)

_COUNTER_BYTES = 6  # 2**48 requests of one process


class ExchangeSettings(msgspec.Struct, frozen=True):
    """limits: of the requests under way.  renew_us: between two renewals of the catalog's copy.

    tick_ms: how exactly deadlines are kept.  names_wait_ms: how long fresh_names() waits for the
    catalog.  A catalog that restarts is away for about two seconds.
    """

    limits: RouterLimits = RouterLimits()
    renew_us: int = 300_000
    tick_ms: int = 50
    names_wait_ms: int = 5_000


_DEFAULTS = ExchangeSettings()


class _Gathering:
    """Asks of one moment until all are answered.  done: called when they are."""

    def __init__(
        self, future: asyncio.Future[list[Answer]], count: int, done: Callable[[], None]
    ) -> None:
        self._future = future
        self._answers: list[Any] = [None] * count
        self._missing = count
        self._done = done

    def deliver(self, place: int, answer: Answer) -> None:
        """One answer."""
        self._answers[place] = answer
        self._missing -= 1
        if not self._missing:
            if not self._future.done():  # its caller may have given up waiting
                self._future.set_result(self._answers)
            self._done()


class Exchange:
    """The exchange behind one name on the wire.  Used from one event loop.

    A future always resolves, with an answer or with a refusal: SERVICE_UNAVAILABLE says that
    nothing was done and nothing will be, SERVICE_TIMEOUT that nobody knows.  It may be cancelled;
    what was asked is then done or not done all the same.  Asks made of one actor without an await
    between them reach it in that order.
    """

    def __init__(
        self, wiring: Wiring, clock: Clock, settings: ExchangeSettings = _DEFAULTS
    ) -> None:
        self._wiring = wiring
        self._clock = clock
        self._settings = settings
        self._router = Router(settings.limits)
        self._lease = CatalogLease(settings.renew_us)
        self._links: dict[str, Link] = {}
        self._connections: dict[str, Connection] = {}
        self._shards = 0
        self._open = 0  # asked and not answered
        self._flush_due = False
        self._closed = False
        self._renewed: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self._id_prefix = secrets.token_bytes(REQUEST_ID_BYTES - _COUNTER_BYTES)
        self._id_count = 0

    def start(self) -> None:
        """Begin to keep a copy of the catalog.  Once only, on the loop that will ask."""
        assert self._ticking is None, "an exchange is started once"
        self._reach(CATALOG)
        self._tick()

    async def close(self, patience_s: float = 10.0) -> None:
        """Wait for what is unanswered, at most so long; give up the rest; hang up.

        Nothing may be asked any more.
        """
        if self._open:
            self._drained = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._drained], timeout=patience_s)
            self._drained = None
        self._closed = True
        if self._ticking is not None:
            self._ticking.cancel()
        self._router.tick(self._clock.now_us() + self._settings.limits.deadline_us + 1)
        for link in self._links.values():
            await link.close()

    # Asking.

    @property
    def names(self) -> Names | None:
        """A copy of the catalog that is valid now, or None when its lease has run out."""
        return self._lease.names(self._clock.now_us())

    async def fresh_names(self) -> Names | Refused:
        """A valid copy of the catalog, waiting for the lease to be renewed when it must."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._settings.names_wait_ms / 1000
        while (names := self.names) is None:
            left_s = end - loop.time()
            if left_s <= 0 or self._closed:
                return Refused(Reason.SERVICE_UNAVAILABLE, "the catalog does not answer")
            if self._renewed is None:
                self._renewed = loop.create_future()
            await asyncio.wait([self._renewed], timeout=left_s)
        return names

    def ask_market(self, market_no: int, ask: Ask) -> asyncio.Future[Answer]:
        """Ask one market, which must exist."""
        return self._ask(market_name(market_no), ask)

    def ask_markets(self, asks: Sequence[tuple[int, Ask]]) -> asyncio.Future[list[Answer]]:
        """Ask markets, each by its number; the answers in the order of the asks."""
        assert not self._closed, "asked after close"
        future: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        gathering = _Gathering(future, len(asks), self._answered)
        self._open += 1
        now_us, deliver, ask_router = self._clock.now_us(), gathering.deliver, self._router.ask
        for place, (market_no, ask) in enumerate(asks):
            actor = market_name(market_no)
            if actor not in self._links:
                self._reach(actor)
            ask_router(actor, ask, deliver, place, now_us)
        self._flush_soon()
        return future

    def ask_shard(self, user: int, ask: Ask) -> asyncio.Future[Answer]:
        """Ask the ledger shard that keeps `user`."""
        if not self._shards:
            return _answered(_NO_CATALOG)
        return self._ask(shard_name(shard_of(user, self._shards)), ask)

    async def ask_shards(self, ask: Ask) -> list[Answer]:
        """Ask every ledger shard; answers in the order of the shards, none without a catalog."""
        asked = [self._ask(shard_name(shard), ask) for shard in range(self._shards)]
        return list(await asyncio.gather(*asked))

    def ask_archive(self, ask: Ask) -> asyncio.Future[Answer]:
        """Ask what happened: the archive answers from files and from what is not yet in one."""
        return self._ask(ARCHIVE, ask)

    def ask_catalog(self, ask: Ask) -> asyncio.Future[Answer]:
        """Ask the catalog."""
        return self._ask(CATALOG, ask)

    def new_request_id(self) -> bytes:
        """16 bytes that no other request has or will have."""
        self._id_count += 1
        return self._id_prefix + self._id_count.to_bytes(_COUNTER_BYTES, "big")

    def _ask(self, actor: str, ask: Ask) -> asyncio.Future[Answer]:
        assert not self._closed, "asked after close"
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._open += 1

        def deliver(_place: int, answer: Answer) -> None:
            if not future.done():  # its caller may have given up waiting
                future.set_result(answer)
            self._answered()

        self._reach(actor)
        self._router.ask(actor, ask, deliver, 0, self._clock.now_us())
        self._flush_soon()
        return future

    def _answered(self) -> None:
        self._open -= 1
        if not self._open and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # The wire.

    def connected(self, connection: Connection) -> None:
        """Part of being a Handler."""
        self._connections[connection.name] = connection
        self._router.connected(connection.name)
        self._flush_soon()
        if connection.name == CATALOG:
            self._renew()

    def received(self, connection: Connection, request_id: int, body: bytes) -> None:
        """Part of being a Handler."""
        try:
            message = decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
            logger.error("%s sent what is no message: %s", connection.name, fault)
            connection.close("this is no message")
            return
        if connection.name == CATALOG:
            self._hear_catalog(message)
        self._router.receive(connection.name, message)
        self._flush_soon()

    def disconnected(self, connection: Connection, reason: str) -> None:
        """Part of being a Handler."""
        if self._connections.get(connection.name) is connection:
            del self._connections[connection.name]
            self._router.disconnected(connection.name)

    def _reach(self, actor: str) -> None:
        """See to it that there is a link to `actor`."""
        if actor not in self._links:
            link = self._links[actor] = self._wiring.link(self, actor)
            link.start()

    def _hear_catalog(self, message: WireMessage) -> None:
        self._lease.receive(message)
        self._renew()
        names = self.names
        if names is None:
            return
        self._shards = names.shards
        if self._renewed is not None:
            self._renewed.set_result(None)
            self._renewed = None

    def _renew(self) -> None:
        """Ask for another lease, or acknowledge a new copy, when that is due."""
        if CATALOG in self._connections:
            renewal = self._lease.renewal(self._clock.now_us())
            if renewal is not None:
                self._send(CATALOG, renewal)

    def _tick(self) -> None:
        self._ticking = asyncio.get_running_loop().call_later(
            self._settings.tick_ms / 1000, self._tick
        )
        self._renew()
        if self._open:
            self._router.tick(self._clock.now_us())
            self._flush()

    def _flush_soon(self) -> None:
        """Send at the end of this turn of the loop, so that what is asked in it goes together."""
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        for actor, message in self._router.flush(self._clock.now_us()):
            self._send(actor, message)

    def _send(self, actor: str, message: WireMessage) -> None:
        connection = self._connections.get(actor)
        if connection is None:
            return
        try:
            connection.send(encode(message))
        except WireError as fault:
            # Whatever is unanswered is sent again over the next connection.
            logger.warning("nothing was sent to %s: %s", actor, fault)
            connection.close(str(fault))


def _answered(answer: Answer) -> asyncio.Future[Answer]:
    future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    future.set_result(answer)
    return future


_NO_CATALOG = Refused(Reason.SERVICE_UNAVAILABLE, "no copy of the catalog was ever received")
