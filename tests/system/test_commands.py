"""The `excore` command: what each part of it prints, changes, and ends with."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.client import Client
from tests.system.connection import connect
from tests.system.server import Server, command, serving

pytestmark = pytest.mark.system

DONE, WRONG, MISUSED = 0, 1, 2
STREAMS = ["catalog", "ledger-0", "ledger-1", "market-1"]
CONNECTIONS = 12  # enough for both gateways to have some
REFUSED_KEY = (401, 8)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An exchange with one market, in which two users have traded."""
    data = tmp_path_factory.mktemp("commands") / "data"
    with serving(data, "--shards", "2", "--gateways", "2") as running:
        with running.client() as client:
            trade(client)
        yield running
        assert running.stop() == DONE


def trade(client: Client) -> None:
    for asset in ("BTC", "USD"):
        client.call("asset.add", asset, 12, 8, "")
        for user in (1, 2):
            client.call("balance.update", user, asset, "deposit", 1, "1000", {})
    client.call("market.add", "BTC_USD", "BTC", 4, "USD", 4, "0.001", "")
    client.call("order.put_limit", 1, "BTC_USD", 1, "2", "100", "0.002", "0.001", "")
    client.call("order.put_limit", 2, "BTC_USD", 2, "1", "100", "0.002", "0.001", "")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("--help", "serve status audit replay keys"),
        ("serve --help", "--host --port --data --config --gateways --shards --no-auth"),
        ("status --help", "--data --url"),
        ("audit --help", "--data --url --online"),
        ("replay --help", "--to --data stream"),
        ("keys --help", "add list revoke"),
        ("keys add --help", "--notes read trade admin"),
    ],
)
def test_help_tells(args: str, words: str) -> None:
    code, out, err = command(*args.split())
    assert (code, err) == (DONE, "")
    assert [word for word in words.split() if word not in out] == []


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ("", "Usage"),
        ("keys", "Usage"),
        ("nonsense", "No such command"),
        ("serve --nonsense", "No such option"),
        ("serve --port many", "valid integer"),
        ("keys add", "Missing argument"),
        ("replay", "Missing argument"),
        ("replay nonsense --data {data}", "not the name of a market, a ledger or the catalog"),
        ("replay ../ledger-0 --data {data}", "not the name of a market"),
        ("replay ledger-0 --to 0 --data {data}", "entries 1.."),
        ("replay ledger-0 --to 1000000 --data {data}", "entries 1.."),
        ("status --data {nowhere}", "no exchange seems to run"),
        ("audit --data {nowhere}", "no exchange seems to run"),
        ("keys list --data {nowhere}", "no exchange seems to run"),
    ],
)
def test_wrong_use_ends_with_2(args: str, says: str, server: Server) -> None:
    nowhere = server.data.parent / "nowhere"
    code, out, err = command(*args.format(data=server.data, nowhere=nowhere).split())
    assert code == MISUSED
    assert says in out + err
    assert "Traceback" not in out + err
    assert not nowhere.exists()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ("replay ledger-7 --data {data}", "no stream ledger-7"),
        ("keys add everything --data {data}", "none of read, trade, admin"),
        ("keys revoke nobody --data {data}", "no such live key"),
        ("status --data {empty} --url {url}", "authentication failed"),
    ],
)
def test_what_cannot_be_done_ends_with_1(args: str, says: str, server: Server) -> None:
    empty = server.data.parent / "empty"
    empty.mkdir(exist_ok=True)
    words = args.format(data=server.data, empty=empty, url=server.url).split()
    code, out, err = command(*words)
    assert (code, out) == (WRONG, "")
    assert says in err
    assert err.startswith("excore: ")
    assert "Traceback" not in err


def test_status_shows_every_actor_and_its_process(server: Server) -> None:
    rows = [line.split() for line in server.excore("status").splitlines()]
    found = {row[0]: row for row in rows if row and row[0] in STREAMS}
    assert set(found) == set(STREAMS)
    for stream, row in found.items():
        assert str(server.owner(stream)) in row, row
    assert "BTC_USD" in found["market-1"]


def test_status_shows_actors_that_hang(server: Server) -> None:
    hung = ["ledger-1", "market-1"]
    pids = [pid for pid in map(server.owner, hung) if pid is not None]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        code, out, err = command("status", "--data", str(server.data))
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert len(pids) == len(hung)
    assert (code, err) == (WRONG, "")
    assert len(re.findall("service (?:timeout|unavailable)", out)) == len(hung)
    assert "{" not in out
    assert [stream for stream in STREAMS if stream not in out] == []
    server.excore("status")


def test_the_environment_names_the_data(server: Server) -> None:
    code, out, _ = command("status", environment={"EXCORE_DATA": str(server.data)})
    assert code == DONE
    assert "market-1" in out


def test_audit_is_exact_and_replays_every_stream(server: Server) -> None:
    out = server.excore("audit")
    assert out.endswith("\nexact\n")
    assert re.findall(r"replayed (\S+) to", out) == STREAMS
    out = server.excore("audit", "--online")
    assert out.endswith("\nexact\n")
    assert "replayed" not in out


def test_replay_agrees_with_itself(server: Server) -> None:
    for stream in STREAMS:
        whole = server.excore("replay", stream)
        seq = int(whole.split()[2])
        assert server.excore("replay", stream, "--to", str(seq)) == whole
        if seq > 1:
            earlier = server.excore("replay", stream, "--to", "1")
            assert earlier.split()[:3] == [stream, "sequence", "1"]
            assert earlier.split()[-1] != whole.split()[-1]


def test_a_damaged_journal_is_found(server: Server, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(server.data, copy)
    with sqlite3.connect(copy / "journals" / "ledger-0.db") as journal:
        [[seq, body]] = journal.execute("select seq, body from journal where seq = 2").fetchall()
        damaged = bytes(body).replace(b"1", b"2", 1)
        assert damaged != body
        journal.execute("update journal set body = ? where seq = ?", (damaged, seq))
    journal.close()
    code, _, err = command("replay", "ledger-0", "--data", str(copy))
    assert code == WRONG
    assert "entry 2" in err
    code, out, _ = command("audit", "--data", str(copy), "--url", server.url)
    assert code == WRONG
    assert "ledger-0: " in out
    assert out.endswith("1 findings\n")


def added(server: Server, *scopes: str) -> tuple[str, str]:
    """A new key with these scopes, and its secret."""
    found = re.fullmatch(r"key +(\w+)\nsecret +(\w+)\n", server.excore("keys", "add", *scopes))
    assert found is not None
    return found[1], found[2]


@pytest.mark.parametrize("scope", ["read", "trade", "admin"])
def test_a_key_may_do_what_its_scope_says(scope: str, server: Server) -> None:
    asks: dict[str, tuple[Any, ...]] = {
        "read": ("balance.query", 1, "BTC"),
        "trade": ("order.cancel", 1, "BTC_USD", 4096),
        "admin": ("keys.list",),
    }
    key, secret = added(server, scope)

    async def body() -> None:
        connection = await connect(server.url, key, secret)
        for needed, (method, *params) in asks.items():
            reply = await connection.ask(method, *params)
            if needed == scope:
                assert connection.status in (200, 404), reply
            else:
                assert (connection.status, reply["error"]["code"]) == (403, 8)
                assert needed in reply["error"]["message"]
        connection.close()

    asyncio.run(body())


def test_a_revoked_key_is_refused_at_once_by_every_gateway(server: Server) -> None:
    key, secret = added(server, "read", "trade")
    row = listed(server, key)
    assert row[1:4] == ["read", "trade", "False"]

    async def body() -> None:
        connections = [await connect(server.url, key, secret) for _ in range(CONNECTIONS)]
        for connection in connections:
            assert (await connection.ask("balance.query", 1))["error"] is None
        await asyncio.to_thread(server.excore, "keys", "revoke", key)
        for connection in connections:
            reply = await connection.ask("balance.query", 1)
            assert (connection.status, reply["error"]["code"]) == REFUSED_KEY
            connection.close()

    asyncio.run(body())
    assert listed(server, key)[3] == "True"
    code, _, err = command("keys", "revoke", key, "--data", str(server.data))
    assert code == WRONG
    assert "no such live key" in err


def listed(server: Server, key: str) -> list[str]:
    """The row of a key in the list, which must show the whole of it."""
    rows = [line.split() for line in server.excore("keys", "list").splitlines()]
    [row] = [row for row in rows if row[:1] == [key]]
    return row
