"""Arrivals: requests that come at their own times, whether or not the last ones were answered.

Separate from `load.py`, whose clients wait for an answer before they ask again: those slow down
with the server, and so never overload it.  A request that finds all connections taken waits for
one, and its time counts from when it came; one that has waited too long goes away unsent.
"""

from __future__ import annotations

import asyncio
import functools
import multiprocessing
import re
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import uvloop

from tests.bench.load import whole_body

_STEP_S = 0.002
_PATIENCE_S = 5.0  # of who waits for a connection
_CODE = re.compile(rb'"code":(\d+)')


class Plan(NamedTuple):
    """rate: HTTP requests a second.  connections: at most so many at once."""

    port: int
    rate: float
    seconds: float
    connections: int


class Slice(NamedTuple):
    """What came in one second.  done: requests answered without error, counted in batches too.

    codes: of errors; "lost" when the connection ended, "unsent" when none was free in time.
    """

    done: int
    codes: dict[str, int]
    latencies: list[float]


class Told:
    """What a run has measured, second by second."""

    def __init__(self, slices: list[Slice]) -> None:
        self.slices = slices

    @property
    def done_a_second(self) -> float:
        """Requests answered without error, a second."""
        return sum(part.done for part in self.slices) / max(1, len(self.slices))

    @property
    def codes(self) -> dict[str, int]:
        """How many errors of each kind."""
        found: Counter[str] = Counter()
        for part in self.slices:
            found.update(part.codes)
        return dict(found)

    def percentile(self, part: float) -> float:
        """Milliseconds that `part` of the requests without error stayed under."""
        ordered = sorted(latency for one in self.slices for latency in one.latencies)
        return 1_000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


class _Lane(asyncio.Protocol):
    """One keep-alive connection, at most one request on it."""

    def __init__(self, crowd: _Crowd) -> None:
        self._crowd = crowd
        self._buffer = b""
        self._came_at = 0.0
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.gone(self, self._busy)

    def ask(self, request: bytes, came_at: float) -> None:
        """Send a request that came at this time."""
        self._came_at, self._busy = came_at, True
        self._transport.write(request)

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        body = whole_body(self._buffer)
        if body is None:
            return
        self._buffer, self._busy = b"", False
        self._crowd.answered(self, body, self._came_at)


class _Crowd:
    """All connections of one run, and who waits for one."""

    def __init__(self, plan: Plan, requests: Sequence[bytes]) -> None:
        self._plan = plan
        self._requests = requests
        self._free: deque[_Lane] = deque()
        self._lanes: set[_Lane] = set()
        self._dialing: set[asyncio.Task[Any]] = set()
        self._waiting: deque[tuple[bytes, float]] = deque()
        self._began = 0.0
        self._done: Counter[int] = Counter()
        self._codes: list[Counter[str]] = [Counter() for _ in range(int(plan.seconds))]
        self._latencies: list[list[float]] = [[] for _ in range(int(plan.seconds))]

    async def run(self) -> list[Slice]:
        """Let requests come for as long as planned; what is under way then is not counted."""
        plan, requests = self._plan, self._requests
        self._began, came = time.perf_counter(), 0
        while (passed := time.perf_counter() - self._began) < plan.seconds:
            due = int(passed * plan.rate)
            for number in range(came, due):
                came_at = self._began + number / plan.rate
                self._waiting.append((requests[number % len(requests)], came_at))
            came = due
            self._serve()
            await asyncio.sleep(_STEP_S)
        for lane in self._lanes:
            lane.close()
        await asyncio.gather(*self._dialing, return_exceptions=True)
        rows = zip(range(len(self._codes)), self._codes, self._latencies, strict=True)
        return [Slice(self._done[n], dict(codes), times) for n, codes, times in rows]

    def answered(self, lane: _Lane, body: bytes, came_at: float) -> None:
        """A reply has come."""
        now = time.perf_counter()
        second = int(now - self._began)
        if second < len(self._codes):
            done = body.count(b'"error":null')
            self._done[second] += done
            if done:
                self._latencies[second].append(now - came_at)
            for code in _CODE.findall(body):
                self._codes[second][code.decode()] += 1
        self._free.append(lane)
        self._serve()

    def gone(self, lane: _Lane, busy: bool) -> None:
        """A connection has ended."""
        self._lanes.discard(lane)
        if busy:
            self._count("lost")
        elif lane in self._free:
            self._free.remove(lane)

    def _serve(self) -> None:
        long_ago = time.perf_counter() - _PATIENCE_S
        while self._waiting:
            request, came_at = self._waiting[0]
            if came_at < long_ago:
                self._count("unsent")
            elif self._free:
                self._free.pop().ask(request, came_at)
            else:
                break
            self._waiting.popleft()
        wanted = min(len(self._waiting), 50) - len(self._dialing)
        for _ in range(min(wanted, self._plan.connections - len(self._lanes))):
            task = asyncio.create_task(self._dial())
            self._dialing.add(task)
            task.add_done_callback(self._dialing.discard)

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        make = functools.partial(_Lane, self)
        try:
            _, lane = await loop.create_connection(make, "127.0.0.1", self._plan.port)
        except OSError:
            self._count("unreachable")
            return
        self._lanes.add(lane)
        self._free.append(lane)

    def _count(self, what: str) -> None:
        second = min(int(time.perf_counter() - self._began), len(self._codes) - 1)
        self._codes[second][what] += 1


def _child(plan: Plan, requests: Sequence[bytes], pipe: Any) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        pipe.send(runner.run(_Crowd(plan, requests).run()))
    pipe.close()


class Arrivals:
    """A run under way in a process of its own."""

    def __init__(self, plan: Plan, requests: Sequence[bytes]) -> None:
        self._ours, theirs = multiprocessing.Pipe(duplex=False)
        self._process = multiprocessing.Process(target=_child, args=(plan, requests, theirs))
        self._process.start()
        theirs.close()

    def done(self, wait_s: float) -> bool:
        """Whether it is over, after waiting at most so long."""
        return bool(self._ours.poll(wait_s))

    def result(self) -> Told:
        """What it has measured, when it is over."""
        slices: list[Slice] = self._ours.recv()
        self._process.join()
        return Told(slices)
