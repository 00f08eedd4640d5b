"""Worlds the wire is tested in, TCP on two event loops and memory, and the peers that people them.

Separate because every test of the wire runs in each of them.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

import uvloop

from excore_ray.actors import wire
from excore_ray.actors.wire import Connection, Endpoint, Limits, Link
from excore_ray.actors.wire_challenge import Challenge, client_challenge
from excore_ray.actors.wire_connection import HEADER, FrameReader
from excore_ray.actors.wire_memory import MemoryListener, MemoryNetwork
from excore_ray.actors.wire_server import Server

SECRET = b"the secret of the test cluster"
QUICK = Limits(handshake_timeout_ms=300, linger_timeout_ms=200, redial_max_ms=50)


async def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    """Return once `condition` holds; fail when it does not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.001)


async def turns(count: int = 20) -> None:
    """Let the loop go round, and a little time pass for the kernel to deliver."""
    for _ in range(count):
        await asyncio.sleep(0.0005)


class Recorder:
    """A handler that keeps all it is told.  answer: called with each frame, to send or to fail."""

    def __init__(self, answer: Callable[[Connection, int, bytes], object] | None = None) -> None:
        self.live: dict[int, Connection] = {}
        self.names: list[str] = []
        self.frames: list[tuple[int, bytes]] = []
        self.reasons: list[str] = []
        self.answer = answer

    def connected(self, connection: Connection) -> None:
        assert connection.id not in self.live
        self.live[connection.id] = connection
        self.names.append(connection.name)

    def received(self, connection: Connection, request_id: int, body: bytes) -> None:
        assert connection.id in self.live, "a frame outside of connected and disconnected"
        self.frames.append((request_id, body))
        if self.answer is not None:
            self.answer(connection, request_id, body)

    def disconnected(self, connection: Connection, reason: str) -> None:
        del self.live[connection.id]
        self.reasons.append(reason)

    @property
    def only(self) -> Connection:
        (connection,) = self.live.values()
        return connection


class Raw(asyncio.Protocol):
    """A peer that speaks bytes: what an attacker or a broken program can do."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.chunks = 0
        self.closed = False
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got += data
        self.chunks += 1

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True

    def frames(self) -> list[tuple[int, bytes]]:
        return list(FrameReader(2**31).read(bytes(self.got)))

    def say(self, *bodies: bytes) -> None:
        """Send one frame for each body, in one piece; nothing once the peer has hung up."""
        if self.closed:
            return
        self.transport.write(b"".join(HEADER.pack(len(body), 0) + body for body in bodies))

    async def pass_challenge(self, challenge: Challenge) -> list[bytes]:
        """Carry a challenge through as the client; returns what was said, the last frame heard."""
        said = [next(challenge)]
        for heard in range(1, 3):
            self.say(said[-1])
            await until(lambda heard=heard: len(self.frames()) >= heard or self.closed)
            if len(self.frames()) < heard:
                break
            try:
                said.append(challenge.send(self.frames()[-1][1]))
            except StopIteration:
                break
        return said


class TcpWorld:
    """Sockets of this machine."""

    def __init__(self) -> None:
        self._servers: list[asyncio.Server] = []

    async def serve(self, handler: Recorder, **options: Any) -> Server:
        defaults: dict[str, Any] = {"name": "ledger-0", "secret": SECRET, "limits": QUICK}
        return await wire.serve(handler, host="127.0.0.1", **defaults | options)

    def link(self, handler: Recorder, **options: Any) -> Link:
        defaults: dict[str, Any] = {"name": "market-1", "peer": "ledger-0", "limits": QUICK}
        return Link(handler, **defaults | {"secret": SECRET} | options)

    async def raw(self, endpoint: Endpoint) -> Raw:
        peer = Raw()
        await wire.connect_tcp(endpoint, peer)
        return peer

    async def raw_server(self, make: Callable[[], Raw]) -> Endpoint:
        server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
        self._servers.append(server)
        return Endpoint(*server.sockets[0].getsockname())

    async def close(self) -> None:
        for server in self._servers:
            server.close()
            await server.wait_closed()


class MemoryWorld:
    """A network in memory."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self._tasks: list[asyncio.Task[None]] = []
        self._listeners: list[MemoryListener] = []

    async def serve(self, handler: Recorder, **options: Any) -> Server:
        defaults: dict[str, Any] = {"name": "ledger-0", "secret": SECRET, "limits": QUICK}
        return await self.network.serve(handler, **defaults | options)

    def link(self, handler: Recorder, **options: Any) -> Link:
        defaults: dict[str, Any] = {"name": "market-1", "peer": "ledger-0", "limits": QUICK}
        return self.network.link(handler, **defaults | {"secret": SECRET} | options)

    async def raw(self, endpoint: Endpoint) -> Raw:
        peer = Raw()
        await self.network.connect(endpoint, peer)
        return peer

    async def raw_server(self, make: Callable[[], Raw]) -> Endpoint:
        listener = self.network.listen("raw", "memory")
        self._listeners.append(listener)

        async def accept() -> None:
            while True:
                await (await listener.accept()).attach(make())

        self._tasks.append(asyncio.create_task(accept()))
        return listener.endpoint

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for listener in self._listeners:
            listener.close()


World = TcpWorld | MemoryWorld
Scenario = Callable[[World], Coroutine[Any, Any, None]]
WORLDS: dict[str, tuple[Callable[[], World], Callable[[], asyncio.AbstractEventLoop]]] = {
    "tcp": (TcpWorld, asyncio.new_event_loop),
    "tcp-uvloop": (TcpWorld, uvloop.new_event_loop),
    "memory": (MemoryWorld, asyncio.new_event_loop),
}


def play(world: str, scenario: Scenario, bugs: Iterable[type[Exception]] = ()) -> None:
    """Run a scenario to its end and see that it leaves nothing behind.

    bugs: the exceptions the loop's exception handler must have been given, in order.
    """
    make, make_loop = WORLDS[world]
    seen: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
        scene = make()
        await scenario(scene)
        await scene.close()
        await turns()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left behind: {left}"
        if isinstance(scene, MemoryWorld):
            assert not scene.network._transports, "transports left behind"

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())
    gc.collect()
    assert [type(context.get("exception")) for context in seen] == list(bugs), seen


def at(endpoint: Endpoint) -> Callable[[], Awaitable[Endpoint]]:
    """A resolver that always answers the same."""

    async def resolve() -> Endpoint:
        return endpoint

    return resolve


async def close(server: Server, *links: Link) -> None:
    """Close everything, and wait for it."""
    for link in links:
        await link.close()
    server.close()
    await server.wait_closed()


async def met(world: World, server: Recorder, client: Recorder, **options: Any) -> Any:
    """A server and a started link that are connected; options are those of both."""
    serving = await world.serve(server, **options)
    link = world.link(client, resolve=at(serving.endpoint), **options)
    link.start()
    await until(lambda: server.live and client.live)
    return serving, link


def challenger(name: str = "market-1", secret: bytes = SECRET) -> Challenge:
    """The challenge a client of ledger-0 goes through."""
    return client_challenge(name, "ledger-0", secret)
