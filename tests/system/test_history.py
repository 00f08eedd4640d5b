"""50,000 orders while the archive is killed over and over: the past is told once, and as it was.

What clients were answered is the oracle; who reads the lake meanwhile never sees an error, a
doubled deal or a hole.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import analytics
from analytics import checks
from tests.system.connection import Connection, Item, connect
from tests.system.server import Server, serving
from tests.system.storm import expect_success, spread
from tests.system.told import Told

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

ARCHIVE = "ray::ArchiveActor"
ORDERS, BATCH, USERS, KILLS, SAMPLE = 50_000, 50, 1_000, 50, 200
MARKETS = {
    "A/U": ("AAA", "USD"),
    "B/U": ("BBB", "USD"),
    "C/U": ("CCC", "USD"),
    "A/B": ("AAA", "BBB"),
}
SETTINGS = """
[lake]
upkeep_s = 1.0
[lake.flush]
age_s = 0.5
rows_max = 2000
poll_s = 0.05
idle_s = 1.0
"""


class Scene:
    """One run.  kills: how often the archive was ended.  looks: how often readers have looked."""

    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.chance = random.Random(seed)
        self.told = {name: Told(name, *assets) for name, assets in MARKETS.items()}
        self.kills = 0
        self.looks: Counter[str] = Counter()
        self.over = threading.Event()

    async def play(self) -> None:
        key = self.server.credential()
        connections = [await connect(self.server.url, *key) for _ in MARKETS]
        await self._prepare(connections)
        helpers = [self._strike, self._read_files, self._read_deals]
        helping = [asyncio.create_task(asyncio.to_thread(helper)) for helper in helpers]
        try:
            await asyncio.gather(
                *(self._trade(t, c) for t, c in zip(self.told.values(), connections, strict=True))
            )
            await helping[0]
        finally:
            self.over.set()
            for connection in connections:
                connection.close()
            await asyncio.gather(*helping)

    async def _prepare(self, connections: list[Connection]) -> None:
        first = connections[0]
        for asset in ("AAA", "BBB", "CCC", "USD"):
            await expect_success(first, "asset.add", asset, 12, 8, "")
        for market, (stock, money) in MARKETS.items():
            await expect_success(first, "market.add", market, stock, 4, money, 4, "0.5", "")
        deposits: list[Item] = [
            ("balance.update", user, asset, "deposit", 1, "1000000000", {"by": "test"})
            for user in range(1, USERS + 1)
            for asset in ("AAA", "BBB", "CCC", "USD")
        ]
        replies = await spread(connections, deposits, 500)
        assert all(reply["error"] is None for reply in replies)

    async def _trade(self, told: Told, connection: Connection) -> None:
        """All of one market's orders, a batch at a time, for as long as the kills take."""
        chance = random.Random(self.chance.random())
        batches = ORDERS // len(MARKETS) // BATCH
        for number in range(batches):
            items = [self._wish(told, chance) for _ in range(BATCH)]
            for item, reply in zip(items, await connection.batch(items), strict=True):
                self._hear(told, item, reply)
            await asyncio.to_thread(self._keep_step, number / batches)

    def _keep_step(self, share: float) -> None:
        """Return when as large a share of the kills is done."""
        while self.kills < share * KILLS and not self.over.is_set():
            time.sleep(0.02)

    def _hear(self, told: Told, item: Item, reply: dict[str, Any]) -> None:
        error, method = reply["error"], item[0]
        if error is None and method == "order.cancel":
            told.cancel(item[3])
        elif error is None:
            told.put(item, reply["result"])
        elif method == "order.cancel":
            # An earlier item of its batch has filled it, or cancelled it.
            assert error["code"] == 23, reply
            assert item[3] not in told.open_ids(item[1])
        else:
            assert method == "order.put_market", reply
            assert error["code"] in (21, 22), reply

    def _wish(self, told: Told, chance: random.Random) -> Item:
        user, side = chance.randint(1, USERS), chance.choice((1, 2))
        kind = chance.random()
        if kind < 0.1 and (mine := told.open_ids(user)):
            return ("order.cancel", user, told.name, chance.choice(mine))
        if kind < 0.2:
            amount = str(chance.randint(1, 40) * (100 if side == 2 else 1))
            return ("order.put_market", user, told.name, side, amount, "0.002", "history")
        amount, price = str(chance.randint(1, 50)), str(chance.randint(90, 110))
        fees = chance.choice((("0.002", "0.001"), ("0", "0"), ("0.001", "0")))
        referral = (chance.randint(1, USERS), "0.3") if chance.random() < 0.3 else (None, None)
        return (
            "order.put_limit",
            user,
            told.name,
            side,
            amount,
            price,
            *fees,
            *referral,
            "history",
        )

    # Beside the trading, each in a thread.

    def _strike(self) -> None:
        chance = random.Random(self.chance.random())
        while self.kills < KILLS and not self.over.is_set():
            before = self.server.actors(ARCHIVE)
            if before and self.server.strike(ARCHIVE) is not None:
                self.kills += 1
                until = time.monotonic() + 30
                while self.server.actors(ARCHIVE) in (before, []):
                    assert time.monotonic() < until, "the archive does not come back"
                    time.sleep(0.02)
            time.sleep(chance.uniform(0.0, 1.5))

    def _read_files(self) -> None:
        """Whoever opens the lake sees deals without a hole and without a double."""
        place = str(self.server.places.lake)
        before: dict[int, int] = {}
        while not self.over.is_set():
            connection = analytics.connect(place)
            rows = connection.execute(
                "SELECT market_no, count(*), count(DISTINCT deal_id), min(deal_id), max(deal_id)"
                " FROM deals GROUP BY market_no"
            ).fetchall()
            for market, count, distinct, first, last in rows:
                assert (first, count, distinct) == (1, last, last)
                assert last >= before.get(market, 0)
                before[market] = last
            connection.close()
            self.looks["files"] += 1

    def _read_deals(self) -> None:
        """Whoever follows market.deal_history misses nothing and gets nothing twice."""
        with self.server.client() as client:
            last = dict.fromkeys(MARKETS, 0)
            while not self.over.is_set():
                for market in MARKETS:
                    page = client.call("market.deal_history", market, 1000, last[market])["records"]
                    ids = [deal["id"] for deal in page]
                    assert ids == list(range(last[market] + 1, last[market] + 1 + len(ids)))
                    last[market] += len(ids)
                    self.looks["deals"] += 1


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    place = tmp_path_factory.mktemp("history")
    config = place / "excore.toml"
    config.write_text(SETTINGS)
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    with serving(place / "data", "--shards", "3", "--config", str(config)) as server:
        made = Scene(server, seed)
        asyncio.run(made.play())
        yield made
        assert server.stop() == 0


def test_readers_were_never_disturbed(scene: Scene) -> None:
    print(f"{scene.kills} kills; {dict(scene.looks)}")
    assert scene.kills == KILLS
    assert scene.looks["files"] > KILLS
    assert scene.looks["deals"] > KILLS


def test_every_deal_is_told_as_it_was(scene: Scene) -> None:
    with scene.server.client() as client:
        for market, told in scene.told.items():
            assert len(told.deals) > ORDERS / len(MARKETS) / 4
            got: list[dict[str, Any]] = []
            while page := client.call("market.deal_history", market, 1000, len(got))["records"]:
                got += page
            assert [plain(deal, "id side price amount") for deal in got] == told.deals
            newest = client.call("market.deals", market, 1000, 0)
            assert [deal["id"] for deal in newest] == [d["id"] for d in told.deals[:-1001:-1]]


def test_orders_are_told_as_they_were(scene: Scene) -> None:
    with scene.server.client() as client:
        for told in scene.told.values():
            for order in scene.chance.sample(sorted(told.orders), SAMPLE // len(MARKETS)):
                mine = told.orders[order]
                records = client.call("order.deals", order, 0, 100)["records"]
                expected = [
                    pick(d, "id user role price amount deal fee deal_order_id") for d in mine.deals
                ]
                shown = "id user role price amount deal fee deal_order_id"
                assert [plain(record, shown) for record in records] == expected[::-1][:100]
                detail = client.call("order.finished_detail", order)
                assert (detail is not None) == (order in told.finished)
                if detail is not None:
                    assert (detail["id"], detail["user"], detail["type"]) == (
                        order,
                        mine.user,
                        mine.type,
                    )
                    sums = tuple(
                        Decimal(detail[f"deal_{what}"]) for what in ("stock", "money", "fee")
                    )
                    assert sums == (mine.stock, mine.money, mine.fee)


def test_users_are_told_what_they_did(scene: Scene) -> None:
    changes: defaultdict[int, list[Any]] = defaultdict(list)
    for told in scene.told.values():
        for user, *change in told.changes:
            changes[user].append(change)
    with scene.server.client() as client:
        for user in scene.chance.sample(range(1, USERS + 1), SAMPLE):
            check_balances(
                user, pages(client, "balance.history", user, "", "", 0, 0), changes[user]
            )
            for market, told in scene.told.items():
                deals = pages(client, "market.user_deals", user, market)
                shown = "id user market side role price amount deal fee deal_order_id"
                mine = [pick(deal, shown) for deal in told.of_user[user]]
                mine.sort(key=lambda deal: (-deal["id"], deal["role"]))
                assert [plain(deal, shown) for deal in deals] == mine
                done = [i for i in told.finished if told.orders[i].user == user]
                finished = pages(client, "order.finished", user, market, 0, 0, last=(0,))
                assert [order["id"] for order in finished] == sorted(done, reverse=True)


def check_balances(user: int, rows: list[dict[str, Any]], changes: list[Any]) -> None:
    """Each change there is, once; and each balance follows from the one before."""
    balances: dict[str, Decimal] = {}
    told: Counter[Any] = Counter()
    for row in reversed(rows):
        change = Decimal(row["change"])
        balances[row["asset"]] = balances.get(row["asset"], Decimal(0)) + change
        assert Decimal(row["balance"]) == balances[row["asset"]], (user, row)
        if row["business"] == "deposit":
            assert row["detail"] == {"by": "test", "id": 1}
        else:
            told[row["asset"], row["business"], change, frozen(row["detail"])] += 1
    assert told == Counter((a, b, change, frozen(detail)) for a, b, change, detail in changes)


def test_the_lake_agrees_with_itself(scene: Scene) -> None:
    assert scene.server.stop() == 0
    place = str(scene.server.places.lake)
    connection = analytics.connect(place)
    assert checks.check(connection) == []
    rows = connection.execute(
        "SELECT market, max(deal_id), count(*) FROM deals GROUP BY 1"
    ).fetchall()
    assert {m: (last, count) for m, last, count in rows} == {
        name: (len(told.deals), len(told.deals)) for name, told in scene.told.items()
    }
    files = connection.execute("SELECT count(*) FROM lake_files").fetchone()
    stored = sum(1 for _ in Path(place).rglob("*.parquet"))
    print(f"{files} live of {stored} files")
    scene.server.start()


def pages(client: Any, method: str, *params: Any, last: tuple[Any, ...] = ()) -> list[Any]:
    """All records of a method, page by page."""
    found: list[Any] = []
    while page := client.call(method, *params, len(found), 100, *last)["records"]:
        found += page
    return found


def pick(row: dict[str, Any], names: str) -> dict[str, Any]:
    return {name: row[name] for name in names.split()}


def plain(row: dict[str, Any], names: str) -> dict[str, Any]:
    """Some fields of a record, quantities as numbers."""
    quantities = {"price", "amount", "deal", "fee"}
    return {n: Decimal(row[n]) if n in quantities else row[n] for n in names.split()}


def frozen(detail: dict[str, Any]) -> tuple[Any, ...]:
    """What a detail says, quantities as numbers."""
    return tuple(sorted((k, Decimal(v) if k in {"a", "p", "f"} else v) for k, v in detail.items()))
