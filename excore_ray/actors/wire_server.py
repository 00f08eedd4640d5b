"""The listening side of the wire: takes in whoever passes the challenge, over any listener.

Separate because TCP and the in-memory network share it.  It must not know what arrives over:
a `Listener` hands it arrivals, and connections do the rest.

Source: the accept loop of uvloop and asyncio, with a bound on those who have not proven
themselves yet: a newcomer takes the place of the oldest, so that one who only holds places
cannot keep out an actor, which needs its place for some milliseconds.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING

from excore_ray.actors.wire_challenge import server_challenge
from excore_ray.actors.wire_connection import FramedConnection, report_failure

if TYPE_CHECKING:
    from excore_ray.actors.wire import Arrival, Endpoint, Handler, Limits, Listener

_log = logging.getLogger(__name__)
_ACCEPT_PAUSE_S = 0.2  # when accepting fails: out of descriptors or of memory
_ACCEPTS_MAX = 16  # in one turn of the loop: some 60 us each
_WARNINGS_MAX = 256  # different refusals a server warns about


class Server:
    """The listening side: takes in whoever passes the challenge.  Made by `serve`.

    refused_count: how many failed it.
    """

    def __init__(
        self, handler: Handler, listener: Listener, *, name: str, secret: bytes, limits: Limits
    ) -> None:
        self.refused_count = 0
        self._handler = handler
        self._listener = listener
        self._name = name
        self._secret = secret
        self._limits = limits
        self._held = False
        self._closed = False
        self._connections: set[FramedConnection] = set()
        self._strangers: dict[asyncio.Task[None], None] = {}  # the oldest first
        self._tasks: set[asyncio.Task[None]] = set()
        self._warned: set[tuple[str, object]] = set()
        accepting = self._start(self._accept())
        # Not before: a socket must not be closed while the loop still waits for it.
        accepting.add_done_callback(lambda _: self._listener.close())

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens, with the port that was really taken."""
        return self._listener.endpoint

    def pause_reading(self) -> None:
        """Take nothing in from any peer, present or to come; challenges still go on."""
        self._hold(True)

    def resume_reading(self) -> None:
        """Take frames in again, except where a connection itself is paused."""
        self._hold(False)

    def close(self) -> None:
        """Stop listening and close every connection; `wait_closed` tells when that is done."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        for connection in self._connections:
            connection.close("the server was closed")

    async def wait_closed(self) -> None:
        """Return when, after `close`, nothing of this server is left."""
        while self._tasks or self._connections:
            await asyncio.wait([*self._tasks, *(each.gone for each in self._connections)])
            await asyncio.sleep(0)  # so that the callbacks of what is done have run

    def opened(self, connection: FramedConnection) -> None:
        """Part of being the owner of connections."""
        self._connections.add(connection)
        connection.gone.add_done_callback(lambda _: self._connections.discard(connection))
        connection.hold(self._held)
        _log.info("%s: %s connected", self._name, connection.name)

    def lost(self, connection: FramedConnection, reason: str) -> None:
        """Part of being the owner of connections."""
        _log.info("%s: %s disconnected: %s", self._name, connection.name, reason)

    def _hold(self, held: bool) -> None:
        self._held = held
        for connection in self._connections:
            connection.hold(held)

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(report_failure)
        return task

    async def _accept(self) -> None:
        for count in itertools.count(1):
            try:
                arrival = await self._listener.accept()
            except OSError as error:
                _log.warning("%s: cannot accept connections: %s", self._name, error)
                await asyncio.sleep(_ACCEPT_PAUSE_S)
                continue
            if len(self._strangers) >= self._limits.strangers_max:
                oldest = next(iter(self._strangers))
                del self._strangers[oldest]
                oldest.cancel()
            task = self._start(self._admit(arrival))
            self._strangers[task] = None
            task.add_done_callback(functools.partial(self._admitted, arrival))
            if count % _ACCEPTS_MAX == 0:
                # Accepting may not have waited: leave the loop to others.  But not after each: a
                # busy loop goes round seldom, and actors would wait behind whoever came before.
                await asyncio.sleep(0)

    def _admitted(self, arrival: Arrival, task: asyncio.Task[None]) -> None:
        self._strangers.pop(task, None)
        arrival.discard()  # a task that was cancelled before it began has attached nothing

    async def _admit(self, arrival: Arrival) -> None:
        challenge = server_challenge(self._name, self._secret, self._has_room)
        connection = FramedConnection(self._handler, self, challenge, self._limits)
        try:
            await connection.open(arrival.attach(connection))
        finally:
            if not connection.name:
                self._warn(connection)
                await asyncio.wait([connection.gone])

    def _has_room(self) -> bool:
        # A proof may arrive after `close` and before the task that waits for it has been cancelled.
        return not self._closed and len(self._connections) < self._limits.connections_max

    def _warn(self, connection: FramedConnection) -> None:
        """Tell the log why somebody was refused: once for each address and reason."""
        self.refused_count += 1
        what = (connection.address, connection.refusal)
        if connection.refusal is None or what in self._warned:
            return
        if len(self._warned) < _WARNINGS_MAX:
            self._warned.add(what)
            text = connection.error
            _log.warning("%s refused a connection from %s: %s", self._name, what[0], text)
