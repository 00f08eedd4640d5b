"""Abuse: what thousands of slow connections and an overload do to a running exchange.

`python -m tests.bench.abuse`: starts an exchange of its own in a temporary directory and prints
what honest clients see before, meanwhile and afterwards, and what memory it takes.  Everything
shares this machine's processors, the abusers too.  Trust ratios within one run.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import uvloop

from tests.bench.arrivals import Arrivals, Plan, Told
from tests.bench.http import (
    PARTS,
    USERS,
    Server,
    exchange_on,
    in_process,
    order,
    prepare,
    requests_of,
)

FILES = 20_000
HONEST_CONNECTIONS = 16
PREPARED = 20_000
# More than one key and these users may send by default: overload is what is to be seen.
SETTINGS = """
[limits.key]
per_s = 1e9
burst = 1_000_000_000
[limits.user]
per_s = 1e6
burst = 1_000_000
"""


# What is measured.


def memory(server: Server) -> dict[str, float]:
    """Resident megabytes by part of the exchange."""
    found: dict[str, float] = {}
    for child in psutil.Process(server.process.pid).children(recursive=True):
        try:
            title = " ".join(child.cmdline())
            resident = child.memory_info().rss / 2**20
        except psutil.Error:
            continue
        for actor, part in PARTS.items():
            if actor in title:
                found[part] = found.get(part, 0.0) + resident
    return found


def grown(before: dict[str, float], after: dict[str, float]) -> str:
    """What has grown, in words."""
    names = ("gateway", "market", "ledger")
    return ", ".join(f"{name} {after.get(name, 0) - before.get(name, 0):+.0f}" for name in names)


def share(server: Server, before: dict[str, float], seconds: float) -> str:
    """How much of one processor the parts have used since cpu() gave `before`."""
    after = server.cpu()
    parts = ("gateway", "market", "ledger", "archive")
    return "CPU " + " ".join(
        f"{part} {(after[part] - before.get(part, 0.0)) / seconds:.0%}" for part in parts
    )


def prepared(server: Server, batch: int) -> list[bytes]:
    """Signed requests of so many orders; without a TIMESTAMP, so that they may be sent often.

    One in twenty cancels all of the next user's, so that the book stays as it is.
    """
    chance = random.Random(batch)
    users = itertools.cycle(range(1, USERS + 1))
    bodies = []
    for _ in range(max(200, PREPARED // batch)):
        orders = [
            cancel(next(users)) if chance.random() < 0.05 else order(chance) for _ in range(batch)
        ]
        bodies.append(json.dumps(orders if batch > 1 else orders[0]).encode())
    return requests_of(server, bodies)


def cancel(user: int) -> dict[str, Any]:
    """All of a user's orders."""
    return {"id": user, "method": "order.cancel", "params": [user, "M0"]}


def honest(server: Server, requests: Sequence[bytes], rate: float, seconds: float) -> Told:
    """What clients see who ask little."""
    return finished(Arrivals(Plan(server.port, rate, seconds, HONEST_CONNECTIONS), requests))


def finished(arrivals: Arrivals) -> Told:
    while not arrivals.done(1.0):
        pass
    return arrivals.result()


def show(name: str, told: Told, rest: str = "") -> None:
    """Print one row."""
    p50, p99 = told.percentile(0.5), told.percentile(0.99)
    codes = " ".join(f"{code}:{count:,}" for code, count in sorted(told.codes.items()))
    print(
        f"{name:32} {told.done_a_second:8,.0f}/s  p50 {p50:7.2f}  p99 {p99:8.2f} ms"
        f"  {rest}{'  errors ' + codes if codes else ''}",
        flush=True,
    )


# Slow connections.


class _Slow:
    """Keeps so many connections open that never finish anything, whatever the server does."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._count = count
        self.told: Counter[str] = Counter()

    async def run(self, pipe: Any) -> None:
        """Go on until something is sent over `pipe`."""
        gate = asyncio.Semaphore(100)
        held = [asyncio.create_task(self._hold(n, gate)) for n in range(self._count)]
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(pipe.fileno(), ended.set)
        await ended.wait()
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        pipe.recv()
        pipe.send(self.told)

    async def _hold(self, number: int, gate: asyncio.Semaphore) -> None:
        said = (
            b"",
            b"POST / HTTP/1.1\r\nhost: a\r\nx-slow: ",
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n" + b" " * 20_000,
        )[number % 3]
        while True:
            try:
                async with gate:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                self.told["opened"] += 1
                writer.write(said)
                ended = asyncio.create_task(reader.read())
                while not ended.done():
                    await asyncio.wait([ended], timeout=random.uniform(2, 4))
                    if said:
                        writer.write(b"x")
                self.told["refused in words" if ended.result() else "closed"] += 1
                writer.close()
            except OSError:
                self.told["reset"] += 1
            await asyncio.sleep(random.uniform(0.1, 0.5))


def _hold_slow(port: int, count: int, pipe: Any) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_Slow(port, count).run(pipe))


def slow(server: Server, count: int, rate: float, seconds: float) -> None:
    """What `count` slow connections do to honest clients."""
    requests = prepared(server, 1)
    honest(server, requests, rate, 3)
    before_mb, began = memory(server), server.cpu()
    before = honest(server, requests, rate, seconds)
    show("before", before, share(server, began, seconds))
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.Process(target=_hold_slow, args=(server.port, count, theirs))
    child.start()
    theirs.close()
    opening = honest(server, requests, rate, 10)
    show(f"while {count:,} slow ones connect", opening)
    began = server.cpu()
    meanwhile = Arrivals(Plan(server.port, rate, seconds, HONEST_CONNECTIONS), requests)
    most_mb = memory(server)
    while not meanwhile.done(1.0):
        most_mb = {part: max(mb, most_mb.get(part, 0)) for part, mb in memory(server).items()}
    during = meanwhile.result()
    show(f"with {count:,} slow ones", during, share(server, began, seconds))
    print(f"    MB: {grown(before_mb, most_mb)}")
    ours.send("end")
    told = ours.recv()
    child.join()
    print(f"    slow connections: {dict(told)}")
    show("afterwards", honest(server, requests, rate, seconds))
    ratio = during.percentile(0.99) / before.percentile(0.99)
    gateway_mb = most_mb["gateway"] - before_mb["gateway"]
    verdict = "met" if ratio <= 2 and gateway_mb < 100 else "MISSED"
    print(
        f"goal {verdict}: p99 {ratio:.2f} times the normal (2), gateway {gateway_mb:+.0f} MB (100)"
    )


# Overload.


def overload(server: Server, batch: int, times: float, seconds: float) -> None:
    """What `times` as many orders as can be executed do."""
    requests = prepared(server, batch)
    closed = in_process(server.port, requests[: 5_000 // batch + 100], 64)  # warm
    warm = server.cpu()
    count = int(6 * len(closed.latencies) / closed.seconds)
    many = (requests * (count // len(requests) + 1))[:count]
    outcome = in_process(server.port, many, 64)
    peak = batch * count / outcome.seconds
    what = f"batches of {batch}" if batch > 1 else "single orders"
    used = share(server, warm, outcome.seconds)
    print(f"peak, 64 connections, {what}: {peak:,.0f}/s  {used}", flush=True)
    rate = peak / batch / 20
    normal = honest(server, requests, rate, 5)
    show("a twentieth of it", normal)
    before_mb = memory(server)
    connections = 2_000 if batch == 1 else 600
    plan = Plan(server.port, times * peak / batch, seconds, connections)
    used_before = server.cpu()
    arrivals, began = Arrivals(plan, requests), time.monotonic()
    looks: list[tuple[float, dict[str, float]]] = []
    while not arrivals.done(1.0):
        looks.append((time.monotonic() - began, memory(server)))
    told = arrivals.result()
    show(f"{times:g} times the peak", told, share(server, used_before, seconds))
    # Results are kept for 20 s: only then can memory stand still.
    for part in range(4):
        some = [mb for at, mb in looks if part * seconds / 4 <= at < (part + 1) * seconds / 4]
        if some:
            print(f"    MB in quarter {part + 1}: {grown(some[0], some[-1])}")
    print(f"    MB in all: {grown(before_mb, looks[-1][1])}")
    ended = time.monotonic()
    after = honest(server, requests, rate, 2)
    for _ in range(15):
        if after.percentile(0.99) <= 2 * normal.percentile(0.99) and not after.codes:
            break
        after = honest(server, requests, rate, 2)
    show(f"afterwards, {time.monotonic() - ended:.0f} s", after)
    goodput = told.done_a_second / peak
    verdict = "met" if goodput >= 0.8 else "MISSED"
    print(f"goal {verdict}: goodput {goodput:.0%} of the peak (80 %)")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.abuse", description=__doc__)
    parser.add_argument("--only", choices=("slow", "overload"), help="one of the two parts")
    parser.add_argument("--connections", type=int, default=5_000, help="slow ones")
    parser.add_argument("--rate", type=float, default=500.0, help="honest requests a second")
    parser.add_argument("--times", type=float, default=3.0, help="the capacity")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measurement")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 100], help="orders in each")
    parser.add_argument("--serve", default="", help="options for `excore serve`")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="excore-abuse-") as directory:
        config = Path(directory) / "excore.toml"
        config.write_text(SETTINGS)
        options = ["--config", str(config), *arguments.serve.split()]
        with exchange_on(Path(directory) / "data", options) as server:
            with server.client() as client:
                prepare(client)
            if arguments.only != "overload":
                slow(server, arguments.connections, arguments.rate, arguments.seconds)
            for batch in arguments.batches if arguments.only != "slow" else ():
                overload(server, batch, arguments.times, arguments.seconds)


if __name__ == "__main__":
    main()
