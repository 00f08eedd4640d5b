"""A hop over the wire beside a call of a Ray actor: round trip, CPU on each side, throughput.

Run as `python -m tests.bench.wire [--calls N] [--bytes N] [--no-ray]`.  Each hop is between two
processes of this machine and carries the same payload there and back: a bare asyncio echo without
frames or challenge as the floor, the wire, and an async Ray actor.  CPU is that of the two
processes with all their threads; what Ray's own daemons use comes on top of it and is not shown.
A lone round trip takes three times as long when the kernel has put the two processes on cores that
fall asleep in between: compare several runs.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from multiprocessing.connection import Connection as Pipe
from typing import Any, NamedTuple

import uvloop

from excore_ray.actors.wire import Connection, Endpoint, Link, serve

CALLS, PAYLOAD_BYTES, IN_FLIGHT = 10_000, 5_000, 64
_SECRET = b"the secret of the benchmark"

Call = Callable[[bytes], Awaitable[object]]  # sends a payload, done when it is back
CalleeCpu = Callable[[], Awaitable[float]]  # seconds of CPU the other process has used


class Hop(NamedTuple):
    """One way to reach another process and back.

    Alone: one call at a time; p50, p99 and CPU of caller and callee in microseconds.
    Together: IN_FLIGHT calls under way; calls a second, and CPU of each side a call.
    """

    name: str
    p50_us: float
    p99_us: float
    caller_us: float
    callee_us: float
    calls_a_second: float
    together_caller_us: float
    together_callee_us: float


async def measure(name: str, call: Call, callee_cpu: CalleeCpu, calls: int, size: int) -> Hop:
    """Time `calls` calls one by one, then twice as many with IN_FLIGHT at once."""
    payload = secrets.token_bytes(size)
    for _ in range(min(calls, 1_000)):
        await call(payload)
    took: list[float] = []

    async def alone() -> None:
        for _ in range(calls):
            began = time.perf_counter()
            await call(payload)
            took.append(time.perf_counter() - began)

    async def together() -> None:
        left = iter(range(2 * calls))

        async def one_by_one() -> None:
            for _ in left:
                await call(payload)

        await asyncio.gather(*(one_by_one() for _ in range(IN_FLIGHT)))

    _, *cpu_alone = await _spent(alone, callee_cpu)
    seconds, *cpu_together = await _spent(together, callee_cpu)
    percentiles = statistics.quantiles(took, n=100)
    return Hop(
        name,
        percentiles[49] * 1e6,
        percentiles[98] * 1e6,
        *(cpu / calls * 1e6 for cpu in cpu_alone),
        2 * calls / seconds,
        *(cpu / calls / 2 * 1e6 for cpu in cpu_together),
    )


async def _spent(
    work: Callable[[], Awaitable[None]], callee_cpu: CalleeCpu
) -> tuple[float, float, float]:
    """Seconds by the clock, and of CPU here and there."""
    there, here, began = await callee_cpu(), time.process_time(), time.perf_counter()
    await work()
    seconds, spent = time.perf_counter() - began, time.process_time() - here
    return seconds, spent, await callee_cpu() - there


class _Caller:
    """Matches what comes back to what was sent; speaks over a connection of the wire."""

    def __init__(self) -> None:
        self.met = asyncio.Event()
        self.connection: Connection | None = None
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._next = 0

    def connected(self, connection: Connection) -> None:
        self.connection = connection
        self.met.set()

    def received(self, connection: Connection, request_id: int, body: bytes) -> None:
        self._waiting.pop(request_id).set_result(body)

    def disconnected(self, connection: Connection, reason: str) -> None:
        for waiting in self._waiting.values():
            waiting.set_exception(ConnectionError(reason))

    def call(self, payload: bytes) -> asyncio.Future[bytes]:
        assert self.connection is not None, "called before the peer was met"
        self._next += 1
        self._waiting[self._next] = waiting = asyncio.get_running_loop().create_future()
        self.connection.send(payload, self._next)
        return waiting

    async def callee_cpu(self) -> float:
        return float(await self.call(b""))


class _Callee:
    """Gives every frame back; an empty one asks for the CPU time used so far."""

    def connected(self, connection: Connection) -> None:
        pass

    def received(self, connection: Connection, request_id: int, body: bytes) -> None:
        connection.send(body or repr(time.process_time()).encode(), request_id)

    def disconnected(self, connection: Connection, reason: str) -> None:
        pass


class _BareEcho(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class _BareCaller(asyncio.Protocol):
    """Counts the bytes that come back: payloads of one size need no frames to be told apart."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._sent = self._back = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._back += len(data)
        while self._waiting and self._waiting[0][0] <= self._back:
            self._waiting.pop(0)[1].set_result(None)

    def call(self, payload: bytes) -> asyncio.Future[None]:
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sent += len(payload)
        self._waiting.append((self._sent, waiting))
        self._transport.write(payload)
        return waiting


async def _serve_wire(pipe: Pipe) -> None:
    server = await serve(_Callee(), name="callee", secret=_SECRET, host="127.0.0.1")
    await _until_told(pipe, server.endpoint)
    server.close()
    await server.wait_closed()


async def _serve_bare(pipe: Pipe) -> None:
    server = await asyncio.get_running_loop().create_server(_BareEcho, "127.0.0.1", 0)
    await _until_told(pipe, Endpoint(*server.sockets[0].getsockname()))
    server.close()


async def _until_told(pipe: Pipe, endpoint: Endpoint) -> None:
    """Say where we are, and answer with the CPU time used until the caller hangs up."""
    pipe.send(endpoint)
    told = asyncio.Event()

    def answer() -> None:
        try:
            pipe.recv()
            pipe.send(time.process_time())
        except EOFError:
            loop.remove_reader(pipe.fileno())
            told.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(pipe.fileno(), answer)
    await told.wait()


def _run_callee(serving: Callable[[Pipe], Coroutine[Any, Any, None]], pipe: Pipe) -> None:
    uvloop.run(serving(pipe))


async def _with_callee(
    serving: Callable[[Pipe], Coroutine[Any, Any, None]],
    work: Callable[[Endpoint, CalleeCpu], Coroutine[Any, Any, Hop]],
) -> Hop:
    """Start the other process, do `work`, and see that it ends."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    callee = spawn.Process(target=_run_callee, args=(serving, theirs), daemon=True)
    callee.start()
    theirs.close()

    async def callee_cpu() -> float:
        ours.send(None)
        return float(ours.recv())

    try:
        return await work(ours.recv(), callee_cpu)
    finally:
        ours.close()
        callee.join(10)


async def wire_hop(calls: int = CALLS, size: int = PAYLOAD_BYTES) -> Hop:
    """The wire with all it has: frames, limits, back-pressure, a link that would redial."""

    async def work(endpoint: Endpoint, _: CalleeCpu) -> Hop:
        async def resolve() -> Endpoint:
            return endpoint

        caller = _Caller()
        link = Link(caller, name="caller", peer="callee", secret=_SECRET, resolve=resolve)
        link.start()
        await caller.met.wait()
        try:
            return await measure("the wire", caller.call, caller.callee_cpu, calls, size)
        finally:
            await link.close()

    return await _with_callee(_serve_wire, work)


async def bare_hop(calls: int = CALLS, size: int = PAYLOAD_BYTES) -> Hop:
    """The floor: asyncio giving bytes back, one write a call."""

    async def work(endpoint: Endpoint, callee_cpu: CalleeCpu) -> Hop:
        loop = asyncio.get_running_loop()
        transport, caller = await loop.create_connection(_BareCaller, endpoint.host, endpoint.port)
        try:
            return await measure("bare asyncio", caller.call, callee_cpu, calls, size)
        finally:
            transport.close()

    return await _with_callee(_serve_bare, work)


async def ray_hop(calls: int = CALLS // 5, size: int = PAYLOAD_BYTES) -> Hop:
    """A call of an async Ray actor, awaited on the loop as an actor would.  Ray must be started."""
    import ray

    class Callee:
        async def back(self, payload: bytes) -> bytes:
            return payload

        async def cpu(self) -> float:
            return time.process_time()

    actor = ray.remote(Callee).remote()

    async def call(payload: bytes) -> object:
        return await actor.back.remote(payload)

    async def callee_cpu() -> float:
        return float(await actor.cpu.remote())

    try:
        await callee_cpu()
        return await measure("a Ray actor call", call, callee_cpu, calls, size)
    finally:
        ray.kill(actor)


def with_ray(work: Callable[[], Coroutine[Any, Any, Hop]]) -> Hop:
    """Run `work` in a Ray of its own."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    # Ray puts sockets there, and the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        try:
            return asyncio.run(work())
        finally:
            ray.shutdown()


def main() -> None:
    """Read the command line, measure, print a table."""
    parser = argparse.ArgumentParser(prog="tests.bench.wire", description=__doc__)
    parser.add_argument("--calls", type=int, default=CALLS, help="one by one; Ray gets a fifth")
    parser.add_argument("--bytes", type=int, default=PAYLOAD_BYTES, help="of a payload")
    parser.add_argument("--no-ray", action="store_true", help="leave the Ray actor out")
    told = parser.parse_args()
    print(f"{told.bytes} bytes there and back; microseconds; {IN_FLIGHT} at once on the right")
    print(f"{'':18}{'p50':>8}{'p99':>8}{'caller':>8}{'callee':>8}{'calls/s':>10}", end="")
    print(f"{'caller':>8}{'callee':>8}")
    hops = [lambda: uvloop.run(bare_hop(told.calls, told.bytes))]
    hops.append(lambda: uvloop.run(wire_hop(told.calls, told.bytes)))
    if not told.no_ray:
        hops.append(lambda: with_ray(lambda: ray_hop(max(told.calls // 5, 1), told.bytes)))
    for hop in hops:
        name, p50, p99, caller, callee, speed, *together = hop()
        alone = "".join(f"{figure:8.1f}" for figure in (p50, p99, caller, callee))
        print(f"{name:18}{alone}{speed:10.0f}{together[0]:8.1f}{together[1]:8.1f}", flush=True)


if __name__ == "__main__":
    main()
