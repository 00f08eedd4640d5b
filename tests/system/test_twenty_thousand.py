"""20,000 orders by 10,000 users: the books balance meanwhile, and survive a power cut exactly."""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections.abc import Coroutine, Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from tests.system.connection import Connection
from tests.system.server import Server, command, serving
from tests.system.storm import (
    ASSETS,
    CONNECTIONS,
    MARKETS,
    NOT_ENOUGH,
    NOT_FOUND,
    ORDERS_EACH,
    USERS,
    Storm,
    expect_success,
    frozen_by,
)

pytestmark = pytest.mark.system

SAMPLE = 1_000  # users whose balances and lists of orders are looked at
SETTLE_S = 20.0
STREAMS = ["catalog", *(f"ledger-{k}" for k in range(3)), *(f"market-{k}" for k in range(1, 5))]
LATE_MARKET, LATE_USER = "DDD_USD", USERS + 1
SETTINGS = """
[compactor]
compact_s = 5.0
records_min = 500
truncate = false
[shell]
checkpoint_records = 200
checkpoint_spacing = 20
"""


class Picture(NamedTuple):
    """What the exchange says to be true."""

    orders: dict[int, Any]
    balances: dict[int, Any]
    lists: list[Any]
    summary: Any
    fees: Any
    markets: Any


class Scene:
    """A storm that is over, and the audits that ran meanwhile."""

    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.storm = Storm(server, seed)
        self.sample = random.Random(seed).sample(range(1, USERS + 1), SAMPLE)
        self.audits: list[list[Any]] = []
        self.rage_s = 0.0

    async def play(self) -> None:
        began = time.monotonic()
        await self.storm.prepare()
        print(f"{len(self.storm.deposits)} deposits in {time.monotonic() - began:.1f} s")
        over = threading.Event()
        auditing = asyncio.create_task(asyncio.to_thread(self._audit_until, over))
        began = time.monotonic()
        await self.storm.rage()
        self.rage_s = time.monotonic() - began
        over.set()
        await auditing
        await self._settled()

    async def picture(self) -> Picture:
        """What is true of every order, the sampled users, and in sum."""
        storm, sample = self.storm, self.sample
        balances = await storm.read([("balance.query", user) for user in sample])
        lists: list[tuple[Any, ...]] = [
            ("order.pending", user, market, 0, 100) for user in sample for market in MARKETS
        ]
        totals = await storm.read([("asset.summary",), ("asset.fees",), ("market.summary",)])
        return Picture(
            await storm.open_orders(),
            dict(zip(sample, balances, strict=True)),
            await storm.read(lists),
            *totals,
        )

    async def _settled(self) -> None:
        """Return when every market has heard from every shard that all is settled."""
        until = time.monotonic() + SETTLE_S
        while True:
            [status] = await self.storm.read([("exchange.status",)])
            facts = [market["facts"] for market in status["markets"]]
            if all(f["queue"] == 0 and f["lag_entries"] == 0 for f in facts):
                return
            assert time.monotonic() < until, facts
            await asyncio.sleep(0.1)

    def _audit_until(self, over: threading.Event) -> None:
        while not over.is_set():
            how = ["--online"] if self.audits else []
            self.audits.append(command("audit", *how, "--data", str(self.server.data)))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    place = tmp_path_factory.mktemp("storm")
    (place / "excore.toml").write_text(SETTINGS)
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    config = str(place / "excore.toml")
    with serving(place / "data", "--shards", "3", "--config", config) as server:
        made = Scene(server, seed)
        run(made.play())
        yield made
        assert server.stop() == 0


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def test_every_order_was_answered(scene: Scene) -> None:
    storm = scene.storm
    count = USERS * ORDERS_EACH
    print(f"{count / scene.rage_s:.0f} orders/s; {dict(storm.refused)}")
    assert set(storm.refused) <= {f"put {NOT_ENOUGH}", f"cancel {NOT_FOUND}"}
    assert len(storm.placed) + storm.refused[f"put {NOT_ENOUGH}"] == count
    assert len(storm.placed) > count * 0.9
    assert storm.cancelled


def test_the_books_balanced_meanwhile(scene: Scene) -> None:
    for code, out, err in scene.audits:
        print(out)
        assert (code, err) == (0, "")
        assert out.endswith("exact\n")
    assert scene.server.excore("audit").endswith("exact\n")


def test_nothing_was_lost_or_made(scene: Scene) -> None:
    seen = run(scene.picture())
    deposited = {
        asset: Decimal(sum(v for (_, a), v in scene.storm.deposits.items() if a == asset))
        for asset in ASSETS
    }
    fees = {row["name"]: Decimal(row["fees"]) for row in seen.fees}
    held = {row["name"]: Decimal(row["total_balance"]) for row in seen.summary}
    assert {asset: held[asset] + fees[asset] for asset in ASSETS} == deposited
    assert all(fees[asset] > 0 for asset in ASSETS)
    open_count = sum(row["ask_count"] + row["bid_count"] for row in seen.markets)
    assert open_count == len(seen.orders)
    assert not scene.storm.cancelled & seen.orders.keys()
    frozen = frozen_by(seen.orders)
    for user, balances in seen.balances.items():
        for asset in ASSETS:
            assert Decimal(balances[asset]["freeze"]) == frozen.get((user, asset), 0)
    listed = {order["id"] for page in seen.lists for order in page["records"]}
    sample = set(scene.sample)
    assert listed == {i for i, order in seen.orders.items() if order["user"] in sample}


def test_a_power_cut_loses_nothing_that_was_acknowledged(scene: Scene) -> None:
    server = scene.server
    before = run(scene.picture())
    hashes = {stream: replayed(server.excore("replay", stream)) for stream in STREAMS}
    late = run(until_cut(scene))
    print(f"{len(late)} orders acknowledged before the cut, in the middle of the next")
    began = time.monotonic()
    server.start()
    print(f"it serves again after {time.monotonic() - began:.1f} s")
    after = run(scene.picture())
    late_assets, late_markets = {"DDD"}, {LATE_MARKET}
    assert after.orders == before.orders
    assert {u: without(b, late_assets) for u, b in after.balances.items()} == before.balances
    assert after.lists == before.lists
    for rows, earlier, new in (
        (after.summary, before.summary, late_assets | {"USD"}),
        (after.fees, before.fees, late_assets),
        (after.markets, before.markets, late_markets),
    ):
        kept = [row for row in rows if row["name"] not in new]
        assert kept == [row for row in earlier if row["name"] not in new]
    for stream, (seq, state_hash) in hashes.items():
        again = replayed(server.excore("replay", stream, "--to", str(seq)))
        assert again == (seq, state_hash), stream
    run(check_late(scene, late))
    assert server.excore("audit").endswith("exact\n")


async def until_cut(scene: Scene) -> list[Any]:
    """Put orders in a market of their own until every process is killed; those acknowledged."""
    acknowledged: list[Any] = []

    async def put(connection: Connection, user: int) -> None:
        while True:
            order = user, LATE_MARKET, 1, "1", "100", "0", "0", "late"
            try:
                reply = await connection.ask("order.put_limit", *order)
            except (OSError, EOFError):
                return
            assert reply["error"] is None, reply
            acknowledged.append(reply["result"])

    async with scene.storm.connections() as connections:
        first = connections[0]
        await expect_success(first, "asset.add", "DDD", 12, 8, "")
        await expect_success(first, "market.add", LATE_MARKET, "DDD", 4, "USD", 4, "0.5", "")
        users = range(LATE_USER, LATE_USER + CONNECTIONS)
        for user in users:
            detail: dict[str, Any] = {}
            deposit = user, "DDD", "deposit", 1, "100000", detail
            await expect_success(first, "balance.update", *deposit)
        putting = [put(each, user) for each, user in zip(connections, users, strict=True)]
        working = asyncio.gather(*putting)
        await asyncio.sleep(1.5)
        await asyncio.to_thread(scene.server.kill)
        await working
    return acknowledged


async def check_late(scene: Scene, late: list[Any]) -> None:
    """Every acknowledged order is there; of each user at most the one under way besides."""
    assert late
    items: list[tuple[Any, ...]] = [
        ("order.pending_detail", LATE_MARKET, order["id"]) for order in late
    ]
    for order, found in zip(late, await scene.storm.read(items), strict=True):
        assert found is not None, f"lost: {order}"
        assert found == {name: order[name] for name in found}
    for user in range(LATE_USER, LATE_USER + CONNECTIONS):
        own = sum(order["user"] == user for order in late)
        [page, balance] = await scene.storm.read(
            [("order.pending", user, LATE_MARKET, 0, 1), ("balance.query", user, "DDD")]
        )
        assert page["total"] in (own, own + 1)
        assert Decimal(balance["DDD"]["freeze"]) == page["total"]
        assert Decimal(balance["DDD"]["available"]) == 100_000 - page["total"]


def replayed(text: str) -> tuple[int, str]:
    """Sequence and state_hash of what `excore replay` printed."""
    found = re.search(r"sequence (\d+) state_hash ([0-9a-f]{64})", text)
    assert found is not None, text
    return int(found[1]), found[2]


def without(balances: dict[str, Any], assets: set[str]) -> dict[str, Any]:
    return {asset: value for asset, value in balances.items() if asset not in assets}
