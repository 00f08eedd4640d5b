"""A gateway that serves on a port of its own, and callers of it who speak bytes.

Separate because the tests of the server and those of its limits both start from it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from excore_ray.actors.clock import SteadyClock
from excore_ray.actors.gateway import Gateway, reserve
from excore_ray.actors.gateway_crowd import Crowd
from excore_ray.actors.plan import GatewaySettings, HttpLimits
from excore_ray.actors.wire import Endpoint
from excore_ray.actors.wiring import TcpWiring
from tests.actors.wire_world import until

LIMITS = HttpLimits(
    connections_max=20, head_s=0.3, body_s=0.3, send_s=0.3, head_bytes_max=2_000, keep_alive_s=1
)
HERE = "tests.actors.gateway_world"
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
PATIENCE_S = 10.0
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
both_loops = pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])


async def nowhere(name: str) -> Endpoint:
    raise OSError(f"{name} is nowhere")


class Caller:
    """A client that speaks bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hear(self, seconds: float = PATIENCE_S) -> bytes:
        """All that comes until the connection is closed, however it is."""
        heard = bytearray()
        async with asyncio.timeout(seconds):
            while not self.reader.at_eof():
                try:
                    heard += await self.reader.read(65_536)
                except ConnectionResetError:
                    break
        return bytes(heard)

    async def hear_reply(self) -> bytes:
        """One reply, whose body is chunked."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            return head + await self.reader.readuntil(b"0\r\n\r\n")


class Place:
    """A gateway that serves, and callers of it."""

    def __init__(self, gateway: Gateway, port: int) -> None:
        self.gateway = gateway
        self.port = port
        self.callers: list[Caller] = []

    @property
    def crowd(self) -> Crowd:
        protocol: Any = self.gateway._server.config.http
        crowd: Crowd = protocol.crowd
        return crowd

    async def call(self, *, receive_bytes: int | None = None) -> Caller:
        """A new connection.  receive_bytes: how much its system takes in before it is read."""
        line = socket.socket()
        if receive_bytes is not None:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        line.setblocking(False)
        await asyncio.get_running_loop().sock_connect(line, ("127.0.0.1", self.port))
        caller = Caller(*await asyncio.open_connection(sock=line, limit=2**16))
        self.callers.append(caller)
        return caller


def play(
    scenario: Callable[[Place], Coroutine[Any, Any, None]],
    limits: HttpLimits = LIMITS,
    *,
    loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    **settings: float,
) -> None:
    """Run a scenario against a gateway of its own, and see that nothing of it is left counted."""

    async def main() -> None:
        with reserve("127.0.0.1", 0) as port:
            plan = GatewaySettings(
                f"{HERE}:create_app",
                settings,
                port=port.getsockname()[1],
                exchange=f"{HERE}:QuietExchange",
                limits=limits,
            )
            wiring = TcpWiring("gateway-1", b"s" * 32, nowhere)
            gateway = Gateway(wiring, SteadyClock(), plan)
            await gateway.open()
            place = Place(gateway, plan.port)
            try:
                await scenario(place)
            finally:
                for caller in place.callers:
                    caller.writer.transport.abort()
                await gateway.drain(1)
            crowd = place.crowd
            await until(lambda: not len(crowd))
            assert (crowd.body_bytes, crowd.unsent_bytes) == (0, 0)
        calls = gateway.exchange.calls  # type: ignore[attr-defined]
        assert calls[:3] == ["start", "names", "close"]

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
