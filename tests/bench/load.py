"""Load: a generator of HTTP requests that costs little, in a process of its own.

Requests are made, signed and put together before the clock runs.  Each connection sends its next
request when the last one is answered.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Sequence
from typing import cast

import uvloop


class Outcome:
    """What a run has measured: seconds in all, seconds of each request, bodies with errors."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.latencies: list[float] = []
        self.errors: list[bytes] = []

    def percentile(self, part: float) -> float:
        """Milliseconds that `part` of all requests stayed under."""
        ordered = sorted(self.latencies)
        return 1_000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def whole_body(received: bytes) -> bytes | None:
    """The body of the one reply that is awaited, None until all of it has come."""
    head = received.find(b"\r\n\r\n")
    if head < 0:
        return None
    start = received.find(b"content-length: ") + 16
    length = int(received[start : received.find(b"\r", start)])
    return received[head + 4 :] if len(received) >= head + 4 + length else None


class _Connection(asyncio.Protocol):
    """One keep-alive connection that works off its share of the requests."""

    def __init__(self, requests: Sequence[bytes], outcome: Outcome) -> None:
        self._requests = iter(requests)
        self._outcome = outcome
        self._buffer = b""
        self._sent_at = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionResetError("the server hung up"))

    def send(self) -> None:
        """Send the next request, or end."""
        request = next(self._requests, None)
        if request is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        body = whole_body(self._buffer)
        if body is None:
            return
        self._outcome.latencies.append(time.perf_counter() - self._sent_at)
        if b'"code"' in body:
            self._outcome.errors.append(body)
        self._buffer = b""
        self.send()


async def _run(host: str, port: int, shares: list[Sequence[bytes]]) -> Outcome:
    outcome = Outcome()
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(functools.partial(_Connection, share, outcome), host, port)
        for share in shares
    ]
    began = time.perf_counter()
    for _, connection in made:
        connection.send()
    await asyncio.gather(*(connection.done for _, connection in made))
    outcome.seconds = time.perf_counter() - began
    return outcome


def run(host: str, port: int, requests: Sequence[bytes], connections: int) -> Outcome:
    """Send all `requests` over so many connections, as fast as they are answered."""
    shares = [requests[n::connections] for n in range(connections)]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(host, port, shares))
