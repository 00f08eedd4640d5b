"""Who has no business here gets nothing: a thief of requests, a stranger at a port, a reader of
what processes and logs show.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from api.auth import signature
from tests.bench.load import run
from tests.system.server import Server, serving

pytestmark = pytest.mark.system

REPLAYS = 1_000
# With Ray's own client, and no token: prints what it was told.
JOIN = """
import sys, ray
try:
    ray.init(address=sys.argv[1], logging_level="ERROR", _node_ip_address="127.0.0.1")
    print("joined", ray.nodes())
except BaseException as refused:
    print("refused", type(refused).__name__)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An exchange with one market, where one user has plenty."""
    data = tmp_path_factory.mktemp("strangers") / "data"
    with serving(data, "--shards", "2", "--gateways", "2") as running:
        with running.client() as client:
            for asset in ("BTC", "USD"):
                client.call("asset.add", asset, 12, 8, "")
                client.call("balance.update", 1, asset, "deposit", 1, "1000000", {})
            client.call("market.add", "BTC_USD", "BTC", 4, "USD", 4, "0.001", "")
        yield running
        assert running.stop() == 0


@contextmanager
def many_files() -> Iterator[None]:
    """A thousand connections, where one may have them."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before, min(most, 4 * REPLAYS)), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


def port_of(server: Server) -> int:
    """Where it serves."""
    return int(server.url.rpartition(":")[2])


def stamped(server: Server, method: str, *params: Any) -> bytes:
    """A whole HTTP request, signed with a TIMESTAMP."""
    key, secret = server.credential()
    body = json.dumps({"id": 7, "method": method, "params": params}).encode()
    stamp = str(time.time_ns() // 1_000_000)
    sign = signature(secret, stamp.encode() + b"." + body).decode()
    head = f"POST / HTTP/1.1\r\nHost: x\r\nKEY: {key}\r\nSIGN: {sign}\r\nTIMESTAMP: {stamp}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def at_once(server: Server, request: bytes) -> list[bytes]:
    """The bodies of the replies to a request that is sent over many connections at once."""
    pairs = [await asyncio.open_connection("127.0.0.1", port_of(server)) for _ in range(REPLAYS)]
    for _, writer in pairs:
        writer.write(request)
    bodies = []
    for reader, writer in pairs:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        bodies.append(await reader.readexactly(length))
        writer.close()
    return bodies


def served_by(server: Server) -> list[int]:
    """How many connections each gateway has."""
    gateways = [psutil.Process(pid) for pid in server.actors("ray::GatewayActor")]
    return [
        sum(each.laddr.port == port_of(server) for each in gateway.net_connections("tcp"))
        for gateway in gateways
    ]


def test_a_request_that_is_sent_a_thousand_times_at_once_is_executed_once(server: Server) -> None:
    request = stamped(server, "order.put_limit", 1, "BTC_USD", 1, "2", "9000", "0", "0", "")
    with many_files():
        bodies = asyncio.run(at_once(server, request))
    replies = [json.loads(body) for body in bodies]
    told = {json.dumps(reply["result"]) for reply in replies if reply["error"] is None}
    codes = {reply["error"]["code"] for reply in replies if reply["error"] is not None}
    assert codes <= {3}, codes
    # Whoever was turned away for the crowd asks again, and is told the same.
    while codes:
        outcome = run("127.0.0.1", port_of(server), [request] * 10, 1)
        codes = {json.loads(body)["error"]["code"] for body in outcome.errors}
        assert codes <= {3}, codes
    assert len(told) == 1
    assert len([reply for reply in replies if reply["error"] is None]) > REPLAYS / 2
    with server.client() as client:
        pending = client.call("order.pending", 1, "BTC_USD", 0, 10)
        assert [order["amount"] for order in pending["records"]] == ["2"]
        assert client.call("balance.query", 1, "BTC") == {
            "BTC": {"available": "999998", "freeze": "2"}
        }


def test_both_gateways_have_their_share_of_connections(server: Server) -> None:
    sockets = [socket.create_connection(("127.0.0.1", port_of(server))) for _ in range(40)]
    try:
        time.sleep(0.5)
        assert min(served_by(server)) > 1, "a listening socket and somebody at it"
    finally:
        for each in sockets:
            each.close()


def listening(server: Server) -> list[tuple[str, int, str]]:
    """Address, port and process of every TCP socket that the exchange listens on."""
    found = []
    for process in server.family():
        for one in process.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN:
                found.append((one.laddr.ip, one.laddr.port, process.name()))
    return found


def is_local(address: str) -> bool:
    """Whether only this machine can reach it."""
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def test_a_stranger_at_any_port_learns_and_changes_nothing(server: Server) -> None:
    ports = listening(server)
    assert {name for _, _, name in ports} >= {"gcs_server", "raylet"}
    assert all(is_local(address) for address, _, _ in ports), ports
    words = [os.urandom(4_096), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]
    words.append(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    for address, port, _ in ports:
        for said in words:
            with socket.create_connection((address, port), timeout=5.0) as stranger:
                stranger.settimeout(0.3)
                stranger.sendall(said)
                try:
                    answer = stranger.recv(65_536)
                except (TimeoutError, ConnectionError):
                    answer = b""
            assert not any(secret in answer for secret in secrets_of(server))
    with server.client() as client:
        assert client.call("exchange.audit")["findings"] == []
        assert not any("error" in one for one in client.call("exchange.status")["shards"])


def test_ray_takes_nobody_in_without_its_token(server: Server) -> None:
    [(address, port)] = {(a, p) for a, p, name in listening(server) if name == "gcs_server"}
    bare = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", JOIN, f"{address}:{port}"],
        env=bare | {"RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.startswith("refused"), done.stdout + done.stderr
    with server.client() as client:
        assert client.call("exchange.audit")["findings"] == []


def secrets_of(server: Server) -> list[bytes]:
    """What nobody may be shown: the cluster's secret, and that of the API's administrator."""
    cluster = (server.data / "cluster.secret").read_bytes().strip()
    return [cluster, server.credential().secret.encode()]


def test_no_secret_is_shown_by_processes_logs_or_answers(server: Server) -> None:
    with server.client() as client:
        shown = [json.dumps(client.call("exchange.status")).encode()]
        shown.append(json.dumps(client.call("keys.list")).encode())
    for process in server.family():
        shown.append(" ".join(process.cmdline()).encode())
        shown.append(json.dumps(process.environ()).encode())
    place = Path((server.places.journals / "exchange.lock").read_text())
    logs = [*server.data.joinpath("logs").rglob("*"), *place.rglob("*.log"), *place.rglob("*.out")]
    logs += place.rglob("*.err")
    shown += [log.read_bytes() for log in logs if log.is_file()]
    shown += [server.out.encode(), server.err.encode()]
    assert len(shown) > 20
    for secret in secrets_of(server):
        assert len(secret) >= 16
        assert not any(secret in text for text in shown)
    for private in ("cluster.secret", "admin.json"):
        assert (server.data / private).stat().st_mode & 0o077 == 0
