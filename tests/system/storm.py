"""Storm: 20,000 orders by 10,000 users from 64 connections, planned by a seed, and what came of it.

Separate from the test so that what is sent and what is claimed about it can each be read alone.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, NamedTuple

from tests.system.connection import Connection, Item, connect
from tests.system.server import Server

USERS, ORDERS_EACH, CONNECTIONS = 10_000, 2, 64
ASSETS = ("AAA", "BBB", "CCC", "USD")
MARKETS = {  # name: stock and money
    "AAA_USD": ("AAA", "USD"),
    "BBB_USD": ("BBB", "USD"),
    "CCC_USD": ("CCC", "USD"),
    "AAA_BBB": ("AAA", "BBB"),
}
SELL, BUY = 1, 2
DEPOSITS_IN_BATCH, READS_IN_BATCH = 100, 100
NOT_ENOUGH, NOT_FOUND = 11, 23


class Plan(NamedTuple):
    """An order that will be put.  cancel: whether it is cancelled right afterwards."""

    user: int
    market: str
    side: int
    amount: int
    price: int
    cancel: bool

    def need(self) -> tuple[str, int]:
        """The asset it freezes, and how much."""
        stock, money = MARKETS[self.market]
        return (stock, self.amount) if self.side == SELL else (money, self.amount * self.price)


def planned(seed: int) -> dict[int, list[Plan]]:
    """What each user will do, in its order."""
    rng = random.Random(seed)
    names = list(MARKETS)
    return {
        user: [
            Plan(
                user,
                names[(user + number) % len(names)],
                rng.choice((SELL, BUY)),
                rng.randint(1, 50),
                rng.randint(95, 105),
                rng.random() < 0.15,
            )
            for number in range(ORDERS_EACH)
        ]
        for user in range(1, USERS + 1)
    }


class Storm:
    """All of it.

    deposits: of each user and asset.  placed: acknowledged orders, by id, with their plan.
    cancelled: ids whose cancel was acknowledged.  refused: answers other than these, by code.
    """

    def __init__(self, server: Server, seed: int) -> None:
        self.plans = planned(seed)
        self.deposits: dict[tuple[int, str], int] = {}
        self.placed: dict[int, Plan] = {}
        self.cancelled: set[int] = set()
        self.refused: Counter[str] = Counter()
        self._server = server
        self._poor = set(random.Random(seed + 1).sample(range(1, USERS + 1), USERS // 50))

    async def prepare(self) -> None:
        """Add assets and markets, and give each user what its orders need; few get nothing."""
        for user, plans in self.plans.items():
            if user not in self._poor:
                for asset, amount in (plan.need() for plan in plans):
                    key = user, asset
                    self.deposits[key] = self.deposits.get(key, 0) + amount
        async with self.connections() as connections:
            for asset in ASSETS:
                await expect_success(connections[0], "asset.add", asset, 12, 8, "")
            for market, (stock, money) in MARKETS.items():
                add = "market.add", market, stock, 4, money, 4, "0.5", ""
                await expect_success(connections[0], *add)
            items: list[Item] = [
                ("balance.update", user, asset, "deposit", 1, str(amount), {})
                for (user, asset), amount in self.deposits.items()
            ]
            replies = await spread(connections, items, DEPOSITS_IN_BATCH)
        assert all(reply["error"] is None for reply in replies)

    async def rage(self) -> None:
        """Put and cancel everything, one request at a time on each connection."""

        async def work(number: int, connection: Connection) -> None:
            for turn in range(ORDERS_EACH):
                for user in range(number + 1, USERS + 1, CONNECTIONS):
                    await self._put(connection, self.plans[user][turn])

        async with self.connections() as connections:
            await asyncio.gather(*(work(n, each) for n, each in enumerate(connections)))

    async def _put(self, connection: Connection, plan: Plan) -> None:
        order = plan.user, plan.market, plan.side, str(plan.amount), str(plan.price)
        reply = await connection.ask("order.put_limit", *order, "0.002", "0.001", "storm")
        if reply["error"] is not None:
            self.refused[f"put {reply['error']['code']}"] += 1
            return
        order_id = reply["result"]["id"]
        assert order_id not in self.placed, "an order id was given twice"
        self.placed[order_id] = plan
        if plan.cancel:
            reply = await connection.ask("order.cancel", plan.user, plan.market, order_id)
            if reply["error"] is None:
                self.cancelled.add(order_id)
            else:
                self.refused[f"cancel {reply['error']['code']}"] += 1

    async def open_orders(self) -> dict[int, Any]:
        """Every acknowledged order that is open now, as order.pending_detail shows it."""
        items: list[Item] = [
            ("order.pending_detail", plan.market, order_id)
            for order_id, plan in self.placed.items()
        ]
        results = await self.read(items)
        return {
            order_id: result
            for order_id, result in zip(self.placed, results, strict=True)
            if result is not None
        }

    async def read(self, items: list[Item]) -> list[Any]:
        """The results of many reads, which must succeed, in their order."""
        async with self.connections() as connections:
            replies = await spread(connections, items, READS_IN_BATCH)
        assert [reply["error"] for reply in replies if reply["error"]] == []
        return [reply["result"] for reply in replies]

    @asynccontextmanager
    async def connections(self) -> AsyncIterator[list[Connection]]:
        """As many connections as the storm has."""
        asked = (connect(self._server.url, *self._server.credential()) for _ in range(CONNECTIONS))
        connections = await asyncio.gather(*asked)
        try:
            yield list(connections)
        finally:
            for connection in connections:
                connection.close()


def frozen_by(orders: dict[int, Any]) -> dict[tuple[int, str], Decimal]:
    """What open orders freeze, of each user and asset."""
    frozen: defaultdict[tuple[int, str], Decimal] = defaultdict(Decimal)
    for order in orders.values():
        stock, money = MARKETS[order["market"]]
        left, price = Decimal(order["left"]), Decimal(order["price"])
        asset, amount = (stock, left) if order["side"] == SELL else (money, left * price)
        frozen[order["user"], asset] += amount
    return frozen


async def spread(
    connections: list[Connection], items: list[Item], batch: int
) -> list[dict[str, Any]]:
    """The replies to many requests, sent over all connections at once, in the order of `items`."""
    parts = [items[at : at + batch] for at in range(0, len(items), batch)]
    replies: list[list[dict[str, Any]]] = [[] for _ in parts]
    waiting = iter(enumerate(parts))

    async def work(connection: Connection) -> None:
        for number, part in waiting:
            replies[number] = await connection.batch(part)

    await asyncio.gather(*(work(connection) for connection in connections))
    return [reply for part in replies for reply in part]


async def expect_success(connection: Connection, method: str, *params: Any) -> None:
    """Ask, and fail unless it is done."""
    reply = await connection.ask(method, *params)
    assert reply["error"] is None, reply
