"""A backup of a running exchange, restored: of one instant, with all acknowledged before it."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.system.connection import Connection, connect
from tests.system.server import Server, command, serving

pytestmark = pytest.mark.system

USERS, WORKERS, MOVED, EACH = 20, 8, 7, 10_000
MARKETS, ASSETS = ("AAA_USD", "BBB_USD"), ("AAA", "BBB", "USD", "TOKEN")
REPEATED = 10
SEED = 5


class Load:
    """Orders and transfers without end, and what of them was acknowledged.

    A transfer takes from one user and, that acknowledged, gives to another: at every instant
    there are at most as many tokens as in the beginning.
    orders: ids with their market, updates: keys, in the order they were acknowledged.
    """

    def __init__(self, server: Server) -> None:
        self.orders: list[tuple[int, str, int]] = []  # user, market, order id
        self.updates: list[tuple[int, str, str, int, int]] = []
        self.stopping = False
        self._server = server
        self._chance = random.Random(SEED)
        self._number = 1

    async def prepare(self) -> None:
        """Assets, markets, and much of everything for everybody."""
        connection = await connect(self._server.url, *self._server.credential())
        for asset in ASSETS:
            await _done(connection, "asset.add", asset, 12, 8, "")
        for market in MARKETS:
            stock, money = market.split("_")
            await _done(connection, "market.add", market, stock, 4, money, 4, "0.5", "")
        for user in range(1, USERS + 1):
            for asset in ASSETS:
                amount = EACH if asset == "TOKEN" else 10**7
                await self._update(connection, (user, asset, "deposit", 1, amount))
        connection.close()

    async def work(self) -> None:
        """One client, until `stopping`."""
        connection = await connect(self._server.url, *self._server.credential())
        while not self.stopping:
            if self._chance.random() < 0.3:
                await self._transfer(connection)
            else:
                await self._put(connection)
        connection.close()

    async def _put(self, connection: Connection) -> None:
        chance = self._chance
        user, market, side = chance.randint(1, USERS), chance.choice(MARKETS), chance.choice((1, 2))
        amount, price = str(chance.randint(1, 50)), str(chance.randint(95, 105))
        order = user, market, side, amount, price, "0.002", "0.001", "load"
        reply = await connection.ask("order.put_limit", *order)
        assert reply["error"] is None, reply
        self.orders.append((user, market, reply["result"]["id"]))

    async def _transfer(self, connection: Connection) -> None:
        self._number += 1
        number, (giver, taker) = self._number, self._chance.sample(range(1, USERS + 1), 2)
        await self._update(connection, (giver, "TOKEN", "give", number, -MOVED))
        await self._update(connection, (taker, "TOKEN", "take", number, MOVED))

    async def _update(self, connection: Connection, update: tuple[int, str, str, int, int]) -> None:
        user, asset, business, number, change = update
        await _done(connection, "balance.update", user, asset, business, number, str(change), {})
        self.updates.append(update)


async def _done(connection: Connection, method: str, *params: Any) -> None:
    reply = await connection.ask(method, *params)
    assert reply["error"] is None, reply


async def under_load(server: Server, target: Path) -> tuple[Load, Load]:
    """Back the exchange up under load; what was acknowledged before, and what by the end."""
    load, before = Load(server), Load(server)
    await load.prepare()
    workers = [asyncio.create_task(load.work()) for _ in range(WORKERS)]
    while len(load.orders) < 1_500:
        await asyncio.sleep(0.05)
        assert not any(worker.done() for worker in workers)
    before.orders, before.updates = [*load.orders], [*load.updates]
    code, out, err = await asyncio.to_thread(
        command, "backup", str(target), "--data", str(server.data)
    )
    assert code == 0, out + err
    assert "backed up as of" in out
    seen = len(load.orders)
    while len(load.orders) < seen + 200:
        await asyncio.sleep(0.05)
        assert not any(worker.done() for worker in workers)
    load.stopping = True
    await asyncio.gather(*workers)
    return before, load


async def check_restored(server: Server, before: Load, after: Load) -> None:
    """All that was acknowledged before is there; the tokens are of one instant; it trades."""
    connection = await connect(server.url, *server.credential())
    for user, asset, business, number, change in before.updates:
        again = user, asset, business, number, str(change), {}
        reply = await connection.ask("balance.update", *again)
        assert reply["error"] is not None, f"{again} was lost"
        assert reply["error"]["code"] == REPEATED
    lost = []
    for user, market, order_id in before.orders:
        pending = await connection.ask("order.pending_detail", market, order_id)
        if pending["result"] is None:
            found = await connection.ask("order.finished_detail", order_id)
            if found["result"] is None:
                lost.append((user, order_id))
    assert lost == []
    tokens = Decimal(0)
    for user in range(1, USERS + 1):
        reply = await connection.ask("balance.query", user, "TOKEN")
        tokens += Decimal(reply["result"]["TOKEN"]["available"])
    assert USERS * EACH - WORKERS * MOVED <= tokens <= USERS * EACH
    user, asset, business, number, change = after.updates[-1]
    # It was acknowledged long after the instant, so here it never happened.
    await _done(connection, "balance.update", user, asset, business, number, str(change), {})
    await _done(connection, "order.put_limit", 1, "AAA_USD", 1, "1", "90", "0", "0", "after")
    reply = await connection.ask("order.put_limit", 2, "AAA_USD", 2, "1", "200", "0", "0", "after")
    assert reply["result"]["left"] == "0", reply
    connection.close()


def test_a_backup_under_load_is_an_exchange(tmp_path: Path) -> None:
    backup, again = tmp_path / "backup", tmp_path / "again"
    with serving(tmp_path / "data", "--shards", "2") as server:
        before, after = asyncio.run(under_load(server, backup))
        assert "exact as of" in server.excore("audit", "--deep")
        assert server.stop() == 0
        assert "exact as of" in server.excore("audit", "--deep")
    code, out, err = command("restore", str(backup), str(again))
    assert code == 0, out + err
    assert "exact as of" in out
    with serving(again) as restored:
        asyncio.run(check_restored(restored, before, after))
        assert restored.excore("audit").endswith("exact\n")
        assert "exact as of" in restored.excore("audit", "--deep")
        assert restored.stop() == 0
