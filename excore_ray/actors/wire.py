"""The wire: one persistent connection between two actors that carries batches as opaque bytes.

Separate because Ray calls cost ten times as much as a frame, and because everything above needs
only this port: connections that send, handlers that receive, a server, and a link that redials.
It must not know what a body says, and it does not import Ray: where a peer lives is the business
of the `resolve` a link is given.

A frame is delivered at most once and in order within one connection.  A frame that was sent may
be lost with its connection: whoever needs an answer repeats the request on the next one.

Source: the reconnecting channel of gRPC (its connection back-off protocol), on asyncio.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import zlib
from collections.abc import Awaitable, Callable
from ssl import SSLContext
from typing import Protocol

import msgspec

from excore_ray.actors.wire_challenge import check_identity, client_challenge
from excore_ray.actors.wire_connection import HEADER, FramedConnection, report_failure
from excore_ray.actors.wire_server import Server
from excore_ray.errors import WireClosed, WireError

_log = logging.getLogger(__name__)
# A peer is lost when it acknowledges nothing for so long, or when it reads nothing for so long
# while data wait for it.  The kernel watches this, so an idle wire costs no CPU.
_SILENCE_S = 10
_BACKLOG = 256


class Endpoint(msgspec.Struct, frozen=True):
    """Where a server can be reached."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one side of a wire accepts.  ValueError when the limits contradict each other.

    frame_bytes_max: the longest body, in and out.  stranger_frame_bytes_max: before the challenge
    is passed.  unsent_bytes_max: what may wait to be sent on one connection; more is refused with
    WireOverloaded.  unsent_bytes_high: above it a connection is not writable.
    connections_max: proven peers of a server.  strangers_max: peers yet to prove themselves;
    another one takes the place of the oldest.
    handshake_timeout_ms: for a connection to open and to pass the challenge.
    linger_timeout_ms: for a closed connection to send what is queued.
    resolve_timeout_ms: for a link to learn the endpoint.
    redial_first_ms, redial_max_ms: the pause before a link dials again grows from one to the
    other, each time shortened by up to a half.
    """

    frame_bytes_max: int = 64 * 1024 * 1024
    stranger_frame_bytes_max: int = 512
    unsent_bytes_max: int = 128 * 1024 * 1024
    unsent_bytes_high: int = 1024 * 1024
    connections_max: int = 1024
    strangers_max: int = 256
    handshake_timeout_ms: int = 2_000
    linger_timeout_ms: int = 1_000
    resolve_timeout_ms: int = 10_000
    redial_first_ms: int = 20
    redial_max_ms: int = 1_000

    def __post_init__(self) -> None:
        if min(msgspec.structs.astuple(self)) <= 0:
            raise ValueError("every limit must be positive")
        if self.frame_bytes_max >= 2**32:
            raise ValueError("the length of a frame must fit into 32 bits")
        if self.unsent_bytes_high > self.unsent_bytes_max:
            raise ValueError("unsent_bytes_high must not be above unsent_bytes_max")
        if self.unsent_bytes_max < self.frame_bytes_max + HEADER.size:
            raise ValueError("unsent_bytes_max must leave room for one frame of frame_bytes_max")


DEFAULT_LIMITS = Limits()


class Connection(Protocol):
    """One live connection to a proven peer.

    id: unique within the process, never used again.  name: the peer's.
    """

    @property
    def id(self) -> int:
        """Unique within the process, never used again."""

    @property
    def name(self) -> str:
        """Who the peer is, proven by the challenge: "gateway-1", "market-3"."""

    @property
    def writable(self) -> bool:
        """False above `unsent_bytes_high`, until most of it is sent; False once it is over."""

    def send(self, body: bytes, request_id: int = 0) -> None:
        """Queue one frame; it leaves with the others of this turn of the loop.  Never blocks.

        request_id: 0 to 2**64 - 1.  Raises, having queued nothing: WireClosed when the connection
        is over, WireOverloaded when too much waits to be sent, FrameTooLarge.
        """

    def pause_reading(self) -> None:
        """Take no more frames in, so that the peer's sends pile up at the peer.

        Frames that were read together with the current one still come: at most 256 KiB of them.
        While reading is paused, an end of the connection may go unnoticed.  Over TCP a pause of
        more than 10 s, while the peer has data to send, is an end of the connection.
        """

    def resume_reading(self) -> None:
        """Take frames in again."""

    def close(self, reason: str = "") -> None:
        """Send what is queued, then close.  Nothing is delivered from now on.

        `disconnected` is called with `reason` in a later turn of the loop, never from in here.
        """


class Handler(Protocol):
    """What an actor does with its connections.  All three are called from the loop, never nested.

    An exception out of them is a bug: it goes to the loop's exception handler, and the connection
    is closed.
    """

    def connected(self, connection: Connection) -> None:
        """The peer has proven itself; frames may be sent."""

    def received(self, connection: Connection, request_id: int, body: bytes) -> None:
        """One frame, in the order of sending."""

    def disconnected(self, connection: Connection, reason: str) -> None:
        """The connection is over; called once for each `connected`."""


class Arrival(Protocol):
    """Somebody who has reached a listener."""

    async def attach(self, protocol: asyncio.Protocol) -> None:
        """Run `protocol` over the new connection.  OSError when that fails."""

    def discard(self) -> None:
        """Hang up, unless a protocol was attached before."""


class Listener(Protocol):
    """A place to be reached at."""

    @property
    def endpoint(self) -> Endpoint:
        """What to dial."""

    async def accept(self) -> Arrival:
        """The next to arrive.  OSError when there is no room for it now."""

    def close(self) -> None:
        """Take no more; who waits to be accepted is hung up on."""


Connect = Callable[[Endpoint, asyncio.Protocol], Awaitable[None]]


async def connect_tcp(
    endpoint: Endpoint, protocol: asyncio.Protocol, ssl: SSLContext | None = None
) -> None:
    """Run `protocol` over a new TCP connection.  ssl: a client context, for TLS.

    OSError when nobody can be reached there.
    """
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(
        lambda: protocol, endpoint.host, endpoint.port, ssl=ssl
    )
    _tune(transport.get_extra_info("socket"))


class Link:
    """The dialling side of one pair of actors: keeps a connection to `peer` until it is closed.

    resolve: tells the peer's endpoint, asked anew before each dial; whatever it raises counts as
    one failed attempt.  connect: how to reach an endpoint; for TLS,
    `functools.partial(connect_tcp, ssl=context)`.
    connection: the live one, or None.  trouble: why there is none, as far as is known.
    Raises ValueError when a name or `secret` cannot be used.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        name: str,
        peer: str,
        secret: bytes,
        resolve: Callable[[], Awaitable[Endpoint]],
        limits: Limits = DEFAULT_LIMITS,
        connect: Connect = connect_tcp,
    ) -> None:
        check_identity(name, secret)
        check_identity(peer, secret)
        self.connection: Connection | None = None
        self.trouble: WireError | None = None
        self._handler = handler
        self._name = name
        self._peer = peer
        self._secret = secret
        self._resolve = resolve
        self._limits = limits
        self._connect = connect
        self._dialled: FramedConnection | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin dialling; `connected` is called as soon as the peer was reached.  Once only."""
        assert self._task is None, "a link is started once"
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(report_failure)

    async def close(self) -> None:
        """Dial no more, close the connection, and return when nothing is left of it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._dialled is not None:
            self._dialled.close("the link was closed")
            await asyncio.wait([self._dialled.gone])

    def opened(self, connection: FramedConnection) -> None:
        """Part of being the owner of connections."""
        self.connection, self.trouble = connection, None
        _log.info("%s: connected to %s", self._name, self._peer)

    def lost(self, connection: FramedConnection, reason: str) -> None:
        """Part of being the owner of connections."""
        self.connection, self.trouble = None, WireClosed(reason)
        _log.info("%s: disconnected from %s: %s", self._name, self._peer, reason)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        for attempt in itertools.count():
            began = loop.time()
            try:
                connection = await self._dial()
                await asyncio.wait([connection.gone])
            except WireError as error:
                # The same failure over and over is worth one line.
                if str(error) != str(self.trouble):
                    _log.warning("%s: no connection to %s: %s", self._name, self._peer, error)
                self.trouble = error
            short = (loop.time() - began) * 1000 < self._limits.redial_max_ms
            failures = failures + 1 if short else 0
            await asyncio.sleep(self._pause_s(failures, attempt))

    def _pause_s(self, failures: int, attempt: int) -> float:
        """How long to wait before the next dial, shortened by a share that differs by link.

        Links to one restarted peer thus do not dial in step, and a simulation still repeats.
        """
        longest = min(self._limits.redial_first_ms << min(failures, 20), self._limits.redial_max_ms)
        share = zlib.crc32(f"{self._name} {self._peer} {attempt}".encode()) / 2**32
        return longest * (1 - share / 2) / 1000

    async def _dial(self) -> FramedConnection:
        """One attempt.  Returns an opened connection or raises WireError."""
        endpoint = await self._resolved()
        challenge = client_challenge(self._name, self._peer, self._secret)
        connection = FramedConnection(self._handler, self, challenge, self._limits)
        self._dialled = connection
        await connection.open(self._connect(endpoint, connection))
        if connection.error is not None and not connection.name:
            raise type(connection.error)(f"{endpoint}: {connection.error}")
        return connection

    async def _resolved(self) -> Endpoint:
        try:
            async with asyncio.timeout(self._limits.resolve_timeout_ms / 1000):
                return await self._resolve()
        except Exception as error:
            # Foreign code: a peer that cannot be found now is looked for again, whatever it says.
            raise WireClosed(f"it cannot be found: {error!r}") from error


async def serve(
    handler: Handler,
    *,
    name: str,
    secret: bytes,
    host: str,
    port: int = 0,
    limits: Limits = DEFAULT_LIMITS,
    ssl: SSLContext | None = None,
) -> Server:
    """Listen on TCP for peers that hold `secret`, under `name`.

    host: an address of this machine, "0.0.0.0" or "::" for all.  port: 0 takes a free one.
    ssl: a server context, for TLS.  Raises OSError when the address cannot be taken, ValueError
    when `name` or `secret` cannot be used.
    """
    check_identity(name, secret)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, *_, address = found[0]
    listening = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    listening.setblocking(False)
    listener = _TcpListener(listening, ssl)
    return Server(handler, listener, name=name, secret=secret, limits=limits)


class _TcpListener:
    def __init__(self, listening: socket.socket, ssl: SSLContext | None) -> None:
        self.endpoint = Endpoint(*listening.getsockname()[:2])
        self._socket = listening
        self._ssl = ssl

    async def accept(self) -> Arrival:
        # Not `loop.sock_accept`: cancelled as it succeeds, it forgets the accepted socket.
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        while True:
            try:
                accepted, _ = self._socket.accept()
            except BlockingIOError:
                loop.add_reader(self._socket, readable.set)
            else:
                accepted.setblocking(False)
                return _TcpArrival(accepted, self._ssl)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(self._socket)
            readable.clear()

    def close(self) -> None:
        self._socket.close()


class _TcpArrival:
    def __init__(self, accepted: socket.socket, ssl: SSLContext | None) -> None:
        self._socket: socket.socket | None = accepted
        self._ssl = ssl

    async def attach(self, protocol: asyncio.Protocol) -> None:
        accepted, self._socket = self._socket, None
        assert accepted is not None, "an arrival is attached once"
        _tune(accepted)
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: protocol, accepted, ssl=self._ssl)

    def discard(self) -> None:
        if self._socket is not None:
            self._socket.close()


def _tune(connected: socket.socket) -> None:
    """No delay for small frames, and an end to peers whose machine is gone."""
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", _SILENCE_S // 2),
        ("TCP_KEEPINTVL", 1),
        ("TCP_KEEPCNT", _SILENCE_S // 2),
        ("TCP_USER_TIMEOUT", _SILENCE_S * 1000),
    ):
        # Not every system has all of them.
        if hasattr(socket, option):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
