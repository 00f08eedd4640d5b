"""The wire without sockets: the same server, link and connections over transports in memory.

Separate so that tests of actors and the simulation can run the real framing, challenge and limits
on any event loop, and break the network at will.  It must not know what travels over it.

Like TCP, a connection delivers in order or breaks: bytes behind a black hole are kept and arrive
after it is healed, unless one side gave the connection up meanwhile.  Unlike TCP there is no
buffer below: what a paused reader does not take stays with the sender, and pushes back.

Source: `asyncio.Transport`, whose contract the transports here keep.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import itertools
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from excore_ray.actors.wire import DEFAULT_LIMITS, Arrival, Endpoint, Handler, Limits, Link
from excore_ray.actors.wire_challenge import check_identity
from excore_ray.actors.wire_server import Server

_READ_BYTES = 64 * 1024  # delivered at once at most, so that long frames arrive in pieces


class Pair(NamedTuple):
    """Who is connected to whom; "" stands for everybody where faults are set."""

    client: str = ""
    server: str = ""

    def covers(self, other: Pair) -> bool:
        """Whether a fault set for this pair concerns `other`."""
        return self.client in {"", other.client} and self.server in {"", other.server}


class MemoryNetwork:
    """A network of one event loop, with faults to switch on between any client and server.

    The faults name links by their own name and servers by theirs; "" means all of them.
    """

    def __init__(self) -> None:
        self._ports = itertools.count(1)
        self._listeners: dict[Endpoint, MemoryListener] = {}
        self._transports: set[MemoryTransport] = set()
        self._refused: set[Pair] = set()
        self._black: set[Pair] = set()

    async def serve(
        self,
        handler: Handler,
        *,
        name: str,
        secret: bytes,
        host: str = "memory",
        port: int = 0,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Server:
        """Listen under `name`, as `wire.serve` does.  OSError when the address is taken."""
        check_identity(name, secret)
        listener = self.listen(name, host, port)
        return Server(handler, listener, name=name, secret=secret, limits=limits)

    def link(
        self,
        handler: Handler,
        *,
        name: str,
        peer: str,
        secret: bytes,
        resolve: Callable[[], Awaitable[Endpoint]],
        limits: Limits = DEFAULT_LIMITS,
    ) -> Link:
        """A link that dials in here; in all else a `wire.Link`."""
        return Link(
            handler,
            name=name,
            peer=peer,
            secret=secret,
            resolve=resolve,
            limits=limits,
            connect=functools.partial(self.connect, client=name),
        )

    def listen(self, name: str, host: str, port: int = 0) -> MemoryListener:
        """Take an address without serving on it yet.  OSError when it is taken."""
        endpoint = Endpoint(host, port or next(self._ports))
        while not port and endpoint in self._listeners:
            endpoint = Endpoint(host, next(self._ports))
        if endpoint in self._listeners:
            raise OSError(errno.EADDRINUSE, f"{endpoint} is taken")
        listener = MemoryListener(endpoint, name, lambda: self._listeners.pop(endpoint, None))
        self._listeners[endpoint] = listener
        return listener

    async def connect(
        self, endpoint: Endpoint, protocol: asyncio.Protocol, client: str = ""
    ) -> None:
        """Run `protocol` over a new connection.  OSError when nobody listens or it is refused."""
        listener = self._listeners.get(endpoint)
        if listener is None:
            raise ConnectionRefusedError(f"nobody listens at {endpoint}")
        pair = Pair(client, listener.name)
        if any(fault.covers(pair) for fault in self._refused):
            raise ConnectionRefusedError(f"{endpoint} is made to refuse {client}")
        if self.is_black(pair):
            await asyncio.Event().wait()  # for ever: whoever dials has a timeout
        near, far = MemoryTransport(self, pair), MemoryTransport(self, pair)
        near.peer, far.peer = far, near
        self._transports |= {near, far}
        listener.arrivals.put_nowait(MemoryArrival(far))
        near.attach(protocol)

    def cut(self, client: str = "", server: str = "") -> int:
        """Break live connections, as a reset does; returns how many there were."""
        fault = Pair(client, server)
        hit = [each for each in self._transports if fault.covers(each.pair)]
        for transport in hit:
            transport.reset()
        return len(hit) // 2

    def refuse(self, client: str = "", server: str = "") -> None:
        """Turn further dials away; live connections stay."""
        self._refused.add(Pair(client, server))

    def black_hole(self, client: str = "", server: str = "") -> None:
        """Let nothing through and tell nobody: dials hang, live connections fall silent."""
        self._black.add(Pair(client, server))

    def heal(self, client: str = "", server: str = "") -> None:
        """End the faults set for these; what was held back arrives now."""
        healed = Pair(client, server)
        self._refused = {each for each in self._refused if not healed.covers(each)}
        self._black = {each for each in self._black if not healed.covers(each)}
        for transport in self._transports:
            transport.wake()

    def is_black(self, pair: Pair) -> bool:
        """Whether nothing goes through between these two."""
        return any(fault.covers(pair) for fault in self._black)

    def forget(self, *ended: MemoryTransport) -> None:
        """Both ends of a connection are over."""
        self._transports.difference_update(ended)


class MemoryListener:
    """An address of the network and the queue of those who dialled it."""

    def __init__(self, endpoint: Endpoint, name: str, release: Callable[[], object]) -> None:
        self.endpoint = endpoint
        self.name = name
        self.arrivals: asyncio.Queue[MemoryArrival] = asyncio.Queue()
        self._release = release

    async def accept(self) -> Arrival:
        """The next to arrive."""
        return await self.arrivals.get()

    def close(self) -> None:
        """Give the address back and hang up on who waits."""
        self._release()
        while not self.arrivals.empty():
            self.arrivals.get_nowait().discard()


class MemoryArrival:
    """The far end of a dialled connection, until the server runs its protocol on it."""

    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport

    async def attach(self, protocol: asyncio.Protocol) -> None:
        """Run `protocol` over it."""
        self._transport.attach(protocol)

    def discard(self) -> None:
        """Hang up, unless a protocol was attached before."""
        if not self._transport.attached:
            self._transport.abort()


class MemoryTransport(asyncio.Transport):
    """One end of a connection.  Delivery to the other end happens in a later turn of the loop."""

    peer: MemoryTransport

    def __init__(self, network: MemoryNetwork, pair: Pair) -> None:
        super().__init__({"peername": (pair.client or "memory", 0)})
        self.pair = pair
        self._network = network
        self._loop = asyncio.get_running_loop()
        self._protocol: asyncio.Protocol | None = None
        self._unsent = bytearray()
        self._high, self._low = 64 * 1024, 16 * 1024
        self._reading = True
        self._full = False  # the protocol was told to pause writing
        self._closing = False  # takes no more from its protocol, and gives it no more
        self._ended = False  # its protocol knows of the end
        self._due = False

    @property
    def attached(self) -> bool:
        """Whether a protocol runs on this end."""
        return self._protocol is not None

    def attach(self, protocol: asyncio.Protocol) -> None:
        """Run `protocol` on this end."""
        self._protocol = protocol
        protocol.connection_made(self)
        if self._ended:  # it was cut before anybody took it
            self._loop.call_soon(protocol.connection_lost, None)
        self.peer.wake()

    def pause_reading(self) -> None:
        """Deliver nothing until `resume_reading`, not even the end."""
        self._reading = False

    def resume_reading(self) -> None:
        """Deliver again."""
        self._reading = True
        self.peer.wake()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Above `high` unsent bytes the protocol pauses writing, at `low` it resumes."""
        self._high = 64 * 1024 if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        """Bytes the other end has not taken yet."""
        return len(self._unsent)

    def write(self, data: Any) -> None:
        """Queue bytes for the other end."""
        if self._closing:
            return
        self._unsent += data
        self.wake()
        if len(self._unsent) > self._high and not self._full and self._protocol is not None:
            self._full = True
            self._protocol.pause_writing()

    def close(self) -> None:
        """Deliver what is queued, then end."""
        self._closing = True
        self.wake()

    def abort(self) -> None:
        """End now; what is queued is lost."""
        self._unsent.clear()
        self.close()
        self._end(None)

    def reset(self) -> None:
        """End as a broken connection does: with an error, and without telling the other end."""
        self._unsent.clear()
        self._closing = True
        self._end(ConnectionResetError("the connection was cut"))

    def wake(self) -> None:
        """Look, in the next turn of the loop, at what can be delivered."""
        if not self._due:
            self._due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Carry queued bytes to the other end, and after the last of them the news of the end."""
        self._due = False
        peer = self.peer
        waits = not peer._closing and not (peer.attached and peer._reading)
        if waits or self._network.is_black(self.pair):
            return
        if self._unsent:
            data = bytes(self._unsent[:_READ_BYTES])
            del self._unsent[:_READ_BYTES]
            if peer._protocol is not None and not peer._closing:
                peer._protocol.data_received(data)
            if self._full and len(self._unsent) <= self._low and self._protocol is not None:
                self._full = False
                self._protocol.resume_writing()
        if self._unsent:
            self.wake()
        elif self._closing:
            self._end(None)
            peer._hear_end()

    def _hear_end(self) -> None:
        """The other end will send no more."""
        if not self._closing:
            if self._protocol is not None:
                self._protocol.eof_received()
            self.close()

    def _end(self, error: Exception | None) -> None:
        if self._ended:
            return
        self._ended = True
        if self._protocol is not None:
            self._loop.call_soon(self._protocol.connection_lost, error)
        if self.peer._ended:
            self._network.forget(self, self.peer)
