"""Orders over HTTP, end to end and durable, beside a no-op endpoint and a bare wire hop.

`python -m tests.bench.http`: starts an exchange of its own in a temporary directory, prints a
table, writes nothing else.  Trust ratios within one run, not figures of different runs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from api.auth import signature
from api.client import Client
from tests.bench.load import Outcome, run

USERS = 1_000
MARKETS = 1
PARTS = {
    "GatewayActor": "gateway",
    "MarketActor": "market",
    "LedgerActor": "ledger",
    "CatalogActor": "catalog",
    "CompactorActor": "compactor",
    "ArchiveActor": "archive",
}


class Server:
    """An exchange that was started for the benchmark."""

    def __init__(self, process: subprocess.Popen[str], url: str, data: Path) -> None:
        self.process = process
        self.url = url
        self.port = int(url.rpartition(":")[2])
        found = json.loads((data / "admin.json").read_text())
        self.key, self.secret = found["key"], found["secret"]

    def client(self) -> Client:
        """A signing client."""
        return Client(f"{self.url}/", self.key, self.secret)

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far, by part of the exchange."""
        found: dict[str, float] = {}
        for child in psutil.Process(self.process.pid).children(recursive=True):
            title = " ".join(child.cmdline())
            for actor, part in PARTS.items():
                if actor in title:
                    times = child.cpu_times()
                    found[part] = found.get(part, 0.0) + times.user + times.system
        return found

    def cpu_since(self, before: dict[str, float], orders: int) -> str:
        """CPU microseconds an order since cpu() gave `before`, by part, as text."""
        after = self.cpu()
        return " ".join(
            f"{part} {1e6 * (after[part] - before.get(part, 0.0)) / orders:.1f}"
            for part in PARTS.values()
            if part in after
        )


@contextmanager
def exchange(arguments: list[str]) -> Iterator[Server]:
    """A running exchange in a temporary directory, ended afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="excore-bench-") as directory,
        exchange_on(Path(directory) / "data", arguments) as server,
    ):
        yield server


@contextmanager
def exchange_on(data: Path, arguments: list[str]) -> Iterator[Server]:
    """A running exchange on a data directory, ended afterwards."""
    command = [sys.executable, "-m", "excore_ray", "serve", "--data", str(data), "--port", "0"]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        url = ""
        for line in process.stdout:
            if line.startswith("excore ready "):
                url = line.split()[2]
                break
        if not url:
            raise RuntimeError("the exchange did not start")
        yield Server(process, url, data)
    finally:
        process.terminate()
        process.wait(60)


def prepare(client: Client) -> None:
    """Two assets, the markets, and users with plenty of both."""
    client.call("asset.add", "BTC", 20, 8, "")
    client.call("asset.add", "USDT", 20, 8, "")
    for number in range(MARKETS):
        client.call("market.add", f"M{number}", "BTC", 8, "USDT", 8, "0.001", "")
    pay_in(client)


def pay_in(client: Client) -> None:
    """Plenty of both assets for every user."""
    updates = [
        ("balance.update", user, asset, "deposit", 1, amount, {})
        for user in range(1, USERS + 1)
        for asset, amount in (("BTC", "1000000"), ("USDT", "10000000000"))
    ]
    for start in range(0, len(updates), 500):
        client.batch(updates[start : start + 500])


def order(chance: random.Random) -> dict[str, Any]:
    """A limit order near the middle: about every second one meets another."""
    side = chance.randint(1, 2)
    price = 8_000 + chance.randint(-20, 20)
    amount = f"0.{chance.randint(1, 99):02d}1"
    user = chance.randint(1, USERS)
    market = f"M{chance.randrange(MARKETS)}"
    params = [user, market, side, amount, str(price), "0.002", "0.001", "bench"]
    return {"id": chance.randrange(10**9), "method": "order.put_limit", "params": params}


def requests_of(server: Server, bodies: list[bytes]) -> list[bytes]:
    """Complete, signed HTTP requests."""
    made = []
    for body in bodies:
        sign = signature(server.secret, body).decode()
        head = (
            f"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nKEY: {server.key}\r\nSIGN: {sign}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


def measure(server: Server, case: tuple[int, int, int]) -> None:
    """One row.  case: connections, orders in a request, requests."""
    connections, batch, count = case
    chance = random.Random(connections * 1_000 + batch)
    bodies = []
    for _ in range(count):
        orders = [order(chance) for _ in range(batch)]
        bodies.append(json.dumps(orders if batch > 1 else orders[0]).encode())
    requests = requests_of(server, bodies)
    before, began = server.cpu(), os.times()
    outcome = in_process(server.port, requests, connections)
    orders_done = count * batch
    used = server.cpu_since(before, orders_done)
    ended = os.times()
    own = ended.children_user + ended.children_system - began.children_user - began.children_system
    name = f"{connections} connections" + (f", batches of {batch}" if batch > 1 else "")
    show(name, orders_done, outcome, f"{used} client {1e6 * own / orders_done:.1f}")
    if outcome.errors:
        print(f"    {len(outcome.errors)} errors, as {outcome.errors[0][:200]!r}")


def _child(port: int, requests: list[bytes], connections: int, pipe: Any) -> None:
    pipe.send(run("127.0.0.1", port, requests, connections))
    pipe.close()


def in_process(port: int, requests: list[bytes], connections: int) -> Outcome:
    """Run the load in a process of its own, so that its CPU can be told from ours."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.Process(target=_child, args=(port, requests, connections, theirs))
    child.start()
    theirs.close()
    outcome: Outcome = ours.recv()
    child.join()
    return outcome


def show(name: str, count: int, outcome: Outcome, rest: str) -> None:
    """Print one row."""
    rate = count / outcome.seconds
    p50, p99 = outcome.percentile(0.5), outcome.percentile(0.99)
    print(f"{name:34} {rate:9,.0f}/s  p50 {p50:7.2f} ms  p99 {p99:7.2f} ms   {rest}", flush=True)


async def _nothing(request: Request) -> JSONResponse:
    return JSONResponse({"error": None, "result": await request.json(), "id": 1})


def _serve_nothing(port: int) -> None:
    app = Starlette(routes=[Route("/", _nothing, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


def measure_nothing(connections: int, count: int) -> None:
    """The same requests to a Starlette endpoint that only reads and returns them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    child = multiprocessing.Process(target=_serve_nothing, args=(port,))
    child.start()
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        body = json.dumps(order(random.Random(1))).encode()
        head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        outcome = in_process(port, [head + body] * count, connections)
        show(f"no-op Starlette, {connections} connections", count, outcome, "")
    finally:
        child.terminate()
        child.join()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.http", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="part of the usual work")
    parser.add_argument("--serve", default="", help="options for `excore serve`")
    arguments = parser.parse_args()
    scale = arguments.scale
    measure_nothing(64, int(20_000 * scale))
    with exchange(arguments.serve.split()) as server:
        with server.client() as client:
            prepare(client)
        print("CPU in microseconds an order, by process")
        for connections, batch, count in (
            (1, 1, 2_000),
            (64, 1, 30_000),
            (512, 1, 30_000),
            (1, 100, 300),
            (64, 100, 2_000),
        ):
            measure(server, (connections, batch, max(connections, int(count * scale))))


if __name__ == "__main__":
    main()
