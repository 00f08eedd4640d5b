"""A whole exchange on a private Ray: it starts, trades, survives kill -9 of any part, restarts."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest

from excore_ray.actors import cluster as clusters
from excore_ray.actors.clock import SteadyClock
from excore_ray.actors.cluster import Cluster
from excore_ray.actors.compactor import CompactorSettings
from excore_ray.actors.plan import ClusterSettings, GatewaySettings, NodeSettings
from excore_ray.actors.shell import ShellSettings
from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.names import Names
from excore_ray.errors import SettingsError
from excore_ray.exchange import Exchange

pytestmark = pytest.mark.system

Result = TypeVar("Result")
STOCK, MONEY, SELL, BUY = 1, 2, 1, 2
USERS = (1, 2)  # one at each shard
RICH = 10**15
RSS_MAX = 120_000_000


class Running:
    """A cluster with a façade, and the loop both live on."""

    def __init__(self, data: Path) -> None:
        self.runner = asyncio.Runner()
        self.settings = ClusterSettings(
            NodeSettings(
                str(data),
                str(data / "log"),
                str(data / "cluster.secret"),
                shell=ShellSettings(checkpoint_records=5),
            ),
            compactor=CompactorSettings(compact_s=0.5, records_min=5),
            gateway=GatewaySettings("tests.system.gateway_app:create_app", "hello", port=0),
            gateways=2,
        )
        self.cluster: Cluster
        self.exchange: Exchange
        self.number = 0

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(work)

    async def start(self) -> None:
        self.cluster = await clusters.start(self.settings)
        self.exchange = Exchange(self.cluster.wiring(), SteadyClock())
        self.exchange.start()
        assert isinstance(await self.exchange.fresh_names(), Names)

    async def stop(self) -> None:
        await self.exchange.close()
        await self.cluster.stop()

    async def update(self, user: int, asset: int) -> m.Answer:
        self.number += 1
        request_id = self.exchange.new_request_id()
        key = ("deposit", int(time.time()) * 1000 + self.number)
        update = c.Update(request_id, 0, user, asset, *key, RICH, "{}", False, 10**40)
        return await self.exchange.ask_shard(user, update)

    async def put(self, user: int, side: int, amount: int, price: int) -> m.Answer:
        request_id = self.exchange.new_request_id()
        put = c.PutLimit(request_id, 0, user, side, amount, price, 10, 5, 0, 0, "")
        return await self.exchange.ask_market(1, put)

    async def accounts(self) -> list[m.Answer]:
        asks = [self.exchange.ask_shard(u, m.AskAccounts(u, [STOCK, MONEY])) for u in USERS]
        return [await ask for ask in asks]

    async def trade(self) -> None:
        """One deal of two users at two shards."""
        resting = await self.put(1, SELL, 2, 100)
        taken = await self.put(2, BUY, 2, 100)
        assert type(resting) is m.Placed, resting
        assert type(taken) is m.Placed, taken
        assert taken.left == 0

    async def pid_of(self, name: str) -> int:
        return int((await self.cluster.status())[name]["pid"])

    def get(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"http://127.0.0.1:{self.cluster.port}/").json()
        return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A cluster with one market, traded once; ended, with all its processes, after the module."""
    made = Running(tmp_path_factory.mktemp("data"))

    async def prepare() -> None:
        await made.start()
        exchange = made.exchange
        for name in ("STOCK", "MONEY"):
            asset = c.AddAsset(exchange.new_request_id(), 0, name, 4, 4, "")
            assert await exchange.ask_catalog(asset) == m.Done()
        market = ("S/M", "STOCK", 0, "MONEY", 0, 1, "")
        add = c.AddMarket(exchange.new_request_id(), 0, *market)
        assert await exchange.ask_catalog(add) == m.Done()
        for user in USERS:
            for asset_id in (STOCK, MONEY):
                assert await made.update(user, asset_id) == m.Done()
        await made.trade()

    made.run(prepare())
    yield made
    made.run(made.stop())
    made.runner.close()
    assert not children(), "processes left behind"


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def test_everything_serves_and_says_so(running: Running) -> None:
    status = running.run(running.cluster.status())
    parts = "catalog archive compactor ledger-0 ledger-1 market-1 http-0 http-1"
    assert set(status) == set(parts.split())
    assert {found["trouble"] for found in status.values()} == {""}
    assert running.get()["markets"] == ["S/M"]
    assert running.get()["says"] == "hello"


def test_an_idle_process_is_small_and_still(running: Running) -> None:
    names = ("market-1", "ledger-0", "ledger-1", "catalog", "compactor")
    found = [psutil.Process(running.run(running.pid_of(name))) for name in names]
    for name, process in zip(names, found, strict=True):
        libraries = {
            Path(each.path).parts[-2] for each in process.memory_maps() if "/" in each.path
        }
        heavy = {"pyarrow", "duckdb", "numpy", "pandas", "pydantic_core", "httptools"}
        assert not libraries & heavy, name
        assert process.memory_info().rss < RSS_MAX, name
    before = [sum(process.cpu_times()[:2]) for process in found]
    time.sleep(3)
    used = [sum(p.cpu_times()[:2]) - b for p, b in zip(found, before, strict=True)]
    print("CPU in 3 s:", dict(zip(names, used, strict=True)))
    assert max(used) < 0.15, "5 % of one processor"


def test_nobody_else_gets_in(running: Running) -> None:
    data = Path(running.settings.node.data)
    assert stat.S_IMODE((data / "cluster.secret").stat().st_mode) == 0o600
    place = Path((data / "exchange.lock").read_text())
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE((place / "token").stat().st_mode) == 0o600
    listening = [
        connection.laddr.ip
        for process in children()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    # The second is the first, as a socket of IPv6 says it.
    assert set(listening) <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_a_second_exchange_on_the_same_data_is_refused(running: Running) -> None:
    with pytest.raises(SettingsError, match="already"):
        running.run(clusters.start(running.settings))
    running.run(running.trade())


@pytest.mark.parametrize("victim", "market-1 ledger-0 ledger-1 catalog archive compactor".split())
def test_everything_goes_on_after_kill_9_of(victim: str, running: Running) -> None:
    async def scenario() -> None:
        before = await running.accounts()
        pid = await running.pid_of(victim)
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        await clusters.bind.wait_ready([victim], 20)
        print(f"{victim} serves again after {time.monotonic() - began:.2f} s")
        assert await running.accounts() == before
        assert type(await running.exchange.ask_catalog(m.AskKeys())) is m.Keys
        await running.trade()
        print(f"and trade goes on after {time.monotonic() - began:.2f} s")
        assert await running.pid_of(victim) != pid
        assert isinstance(await running.exchange.fresh_names(), Names)

    running.run(scenario())


def test_snapshots_are_written_and_every_replay_agrees(running: Running) -> None:
    async def scenario() -> None:
        end = time.monotonic() + 20
        streams = ("market-1", "ledger-0", "ledger-1")
        while True:
            await running.trade()
            status = (await running.cluster.status())["compactor"]
            states = [status.get(stream, {"snapshot_seq": 0}) for stream in streams]
            if all(state["snapshot_seq"] for state in states):
                break
            assert time.monotonic() < end, states
        assert {state["stopped"] for state in states} == {""}

    running.run(scenario())


def test_a_killed_gateway_comes_back_on_its_port(running: Running) -> None:
    pid = running.run(running.pid_of("http-1"))
    os.kill(pid, signal.SIGKILL)
    # The other one goes on meanwhile.
    assert running.get()["markets"] == ["S/M"]
    running.run(clusters.bind.wait_ready(["http-1"], 20))
    again = running.run(running.pid_of("http-1"))
    assert again != pid
    assert {running.get()["pid"] for _ in range(100)} >= {again}


def test_a_restart_of_everything_brings_everything_back(running: Running) -> None:
    async def scenario() -> None:
        assert type(await running.put(1, SELL, 7, 200)) is m.Placed
        before = await running.accounts()
        await running.stop()
        assert not children()
        await running.start()
        assert await running.accounts() == before
        counts = await running.exchange.ask_market(1, m.AskCounts())
        assert counts == m.Counts(1, 0)
        await running.trade()

    running.run(scenario())
