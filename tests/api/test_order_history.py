"""order.deals, order.finished(_detail) and market.user_deals; and that all history adds up."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest

from tests.api.gateway_world import MARKET, Gateway, opened, run

OTHER = "BTC EOS"  # 2 and 0 digits
SECOND = 1_000_000
BUY, SELL = 2, 1
EVERYTHING = (0, 0, 0, 100)
DEALT = ("deal_stock", "deal_money", "deal_fee")
SHOWN = {"BTC": Decimal("1e-8"), "BCH": Decimal("1e-12")}  # the last digit of balance.query


def test_deals_of_an_order_are_told_from_its_side() -> None:
    async def body() -> None:
        gateway = await opened()
        dear = (await gateway.put(1, SELL, "1", "6"))["id"]
        cheap = (await gateway.put(1, SELL, "2", "5"))["id"]
        taker = (await gateway.put(2, BUY, "2.5", "7"))["id"]
        time = (gateway.exchange.time_us) / SECOND
        second, first = await gateway.records("order.deals", taker, 0, 100)
        assert list(first.items()) == [
            ("id", 1),
            ("time", time),
            ("user", 2),
            ("role", 2),
            ("amount", "2"),
            ("price", "5"),
            ("deal", "10"),
            ("fee", "0.004"),  # of the stock it receives
            ("deal_order_id", cheap),
        ]
        assert (second["id"], second["deal_order_id"], second["deal"]) == (2, dear, "3")
        [other] = await gateway.records("order.deals", dear, 0, 100)
        assert (other["user"], other["role"], other["deal_order_id"]) == (1, 1, taker)
        assert (other["fee"], other["deal"]) == ("0.003", "3")  # of the money it receives
        for nobody in (taker + 4096, taker + 1, 1, 2**53 - 1):
            assert await gateway.records("order.deals", nobody, 0, 100) == []

    run(body())


def test_an_order_dealing_with_its_own_user_has_its_own_side_alone() -> None:
    async def body() -> None:
        gateway = await opened()
        maker, taker = [(await gateway.put(1, side, "1", "5"))["id"] for side in (SELL, BUY)]
        for order, role in ((maker, 1), (taker, 2)):
            [deal] = await gateway.records("order.deals", order, 0, 100)
            assert (deal["role"], deal["deal_order_id"]) == (role, maker + taker - order)
        both = await gateway.records("market.user_deals", 1, MARKET, 0, 100)
        assert [(deal["role"], deal["side"]) for deal in both] == [(1, SELL), (2, BUY)]
        assert [deal["fee"] for deal in both] == ["0.005", "0.002"]
        assert [deal["deal_order_id"] for deal in both] == [taker, maker]
        assert {deal["id"] for deal in both} == {1}

    run(body())


def test_deals_of_a_user_are_of_one_market_or_of_all() -> None:
    async def body() -> None:
        gateway = await opened()
        await gateway.deposit(2, "EOS", "100")
        for market in (MARKET, OTHER, MARKET):
            await gateway.put(1, SELL, "1", "5", market)
            await gateway.put(2, BUY, "1", "5", market)
        asked = [
            await gateway.records("market.user_deals", 2, market, 0, 100)
            for market in (None, "", MARKET, OTHER)
        ]
        ids = [[(deal["market"], deal["id"]) for deal in deals] for deals in asked]
        everywhere = [(MARKET, 2), (OTHER, 1), (MARKET, 1)]
        assert ids == [everywhere, everywhere, [(MARKET, 2), (MARKET, 1)], [(OTHER, 1)]]
        names = "time user id market side role price amount deal fee deal_order_id"
        assert list(asked[0][0]) == names.split()
        assert await gateway.records("market.user_deals", 3, None, 0, 100) == []

    run(body())


async def with_finished_orders(gateway: Gateway) -> dict[str, int]:
    """The ids of user 1's orders in every state there is, by what they are."""
    orders = {
        "filled last": await gateway.put(1, SELL, "1", "9"),
        "cancelled, dealt in": await gateway.put(1, SELL, "5", "5"),
        "cancelled, untouched": await gateway.put(1, SELL, "1", "10"),
        "open, dealt in": await gateway.put(1, BUY, "2", "3"),
    }
    await gateway.put(2, BUY, "2", "5")
    await gateway.put(2, SELL, "1", "3")
    buy = [1, MARKET, BUY, "10.1", "0.001", "by market"]
    orders["market"] = await gateway.ask("order.put_market", *buy)
    for cancelled in ("cancelled, dealt in", "cancelled, untouched"):
        await gateway.ask("order.cancel", 1, MARKET, orders[cancelled]["id"])
    await gateway.put(2, BUY, "1", "9")
    return {what: order["id"] for what, order in orders.items()}


@pytest.mark.parametrize(
    ("side", "found"),
    [
        ([], ["market", "cancelled, dealt in", "filled last"]),
        ([None], ["market", "cancelled, dealt in", "filled last"]),
        ([0], ["market", "cancelled, dealt in", "filled last"]),
        ([SELL], ["cancelled, dealt in", "filled last"]),
        ([BUY], ["market"]),
    ],
)
def test_orders_that_are_done_are_shown_by_creation(side: list[Any], found: list[str]) -> None:
    async def body() -> None:
        gateway = await opened()
        kept = await with_finished_orders(gateway)
        page = await gateway.records("order.finished", 1, MARKET, *EVERYTHING, *side)
        assert [order["id"] for order in page] == [kept[what] for what in found]
        assert await gateway.records("order.finished", 1, OTHER, *EVERYTHING, *side) == []
        for order in page:
            assert await gateway.ask("order.finished_detail", order["id"]) == order
        for what in ("cancelled, untouched", "open, dealt in"):
            assert await gateway.ask("order.finished_detail", kept[what]) is None
        assert await gateway.ask("order.finished_detail", 2**53 - 1) is None

    run(body())


def test_a_finished_order_has_all_its_fields() -> None:
    async def body() -> None:
        gateway = await opened()
        kept = await with_finished_orders(gateway)
        order = await gateway.ask("order.finished_detail", kept["market"])
        assert order["ctime"] == order["ftime"]
        del order["ctime"], order["ftime"]
        assert list(order.items()) == [
            *(("id", kept["market"]), ("user", 1), ("market", MARKET), ("source", "by market")),
            *(("type", 2), ("side", BUY), ("price", "0"), ("amount", "10.1")),
            *(("taker_fee", "0.001"), ("maker_fee", "0")),
            *(("deal_stock", "2.02"), ("deal_money", "10.1"), ("deal_fee", "0.00202")),
            *(("ref_user", 0), ("ref_rate", "0")),
        ]
        cancelled = await gateway.ask("order.finished_detail", kept["cancelled, dealt in"])
        assert (cancelled["amount"], cancelled["deal_stock"]) == ("5", "4.02")
        assert (cancelled["type"], cancelled["price"]) == (1, "5")
        assert cancelled["ctime"] < cancelled["ftime"]

    run(body())


async def whole(gateway: Gateway, method: str, *params: Any, page: int = 7) -> list[dict[str, Any]]:
    """All records there are, page by page."""
    found: list[dict[str, Any]] = []
    while more := await gateway.records(method, *params, len(found), page):
        found += more
    return found


async def lively(seed: int) -> Gateway:
    """A gateway after some hundred orders and cancels of three users."""
    chance = random.Random(seed)
    gateway = await opened()
    await gateway.deposit(3, "BCH", "5000")
    for _ in range(250):
        user, side = chance.randint(1, 3), chance.choice((SELL, BUY))
        amount = f"{chance.randint(1, 4000) / 1000}"
        price, kind = f"{chance.randint(95, 105)}", chance.random()
        fees = [chance.choice(("0", "0.002")), chance.choice(("0", "0.001"))]
        if kind < 0.15:
            await gateway.reply("order.put_market", user, MARKET, side, amount, fees[0], "")
        elif kind < 0.2:
            await gateway.reply("order.cancel", user, MARKET)
        else:
            refer = [chance.randint(1, 3), chance.choice(("0", "0.5", "1"))]
            limit = [user, MARKET, side, amount, price, *fees, *refer, ""]
            await gateway.reply("order.put_limit", *limit)
    return gateway


def total(records: list[dict[str, Any]], field: str) -> Decimal:
    return sum((Decimal(record[field]) for record in records), Decimal(0))


@pytest.mark.parametrize("seed", range(3))
def test_whichever_way_one_looks_the_past_adds_up(seed: int) -> None:
    async def body() -> None:
        gateway = await lively(seed)
        deals = await gateway.records("market.deal_history", MARKET, 1000)
        assert [deal["id"] for deal in deals] == list(range(1, len(deals) + 1))
        newest = await gateway.ask("market.deals", MARKET, 1000, 0)
        assert [deal["id"] for deal in reversed(newest)] == [deal["id"] for deal in deals]
        day = await gateway.ask("market.status", MARKET, 86400)
        assert Decimal(day["volume"]) == total(deals, "amount")
        rows = await gateway.ask("market.kline", MARKET, 0, 2**32, 3600)
        assert [sum(Decimal(row[at]) for row in rows) for at in (5, 6)] == [
            Decimal(day["volume"]),
            Decimal(day["deal"]),
        ]
        sides, fees = [], dict.fromkeys(("BTC", "BCH"), Decimal(0))
        for user in (1, 2, 3):
            sides += await whole(gateway, "market.user_deals", user, None)
            for order in await whole(gateway, "order.finished", user, MARKET, 0, 0):
                own = await whole(gateway, "order.deals", order["id"], page=3)
                for field, of_order in zip(("amount", "deal", "fee"), DEALT, strict=True):
                    assert total(own, field) == Decimal(order[of_order])
            for asset in ("BTC", "BCH"):
                changes = await whole(gateway, "balance.history", user, asset, "", 0, 0)
                balance = Decimal(0)
                for change in reversed(changes):
                    balance += Decimal(change["change"])
                    assert Decimal(change["balance"]) == balance
                fees[asset] -= total([c for c in changes if "f" in c["detail"]], "change")
                now = (await gateway.ask("balance.query", user))[asset]
                kept = Decimal(now["available"]) + Decimal(now["freeze"])
                assert 0 <= balance - kept < 2 * SHOWN[asset]
        assert sorted(side["id"] for side in sides) == sorted([*range(1, len(deals) + 1)] * 2)
        for asset, side in (("BTC", BUY), ("BCH", SELL)):
            assert fees[asset] == total([each for each in sides if each["side"] == side], "fee")
        assert len(deals) > 50

    run(body())
