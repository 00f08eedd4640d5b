"""order.* on a naive exchange: that the right thing is asked, and the answer well told."""

from __future__ import annotations

from typing import Any

import pytest

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.reasons import Reason, Refused
from tests.api.gateway_world import MARKET, opened, run

OTHER = "BTC EOS"  # 2 and 0 digits


def test_the_command_of_a_limit_order_is_in_scaled_integers() -> None:
    async def body() -> None:
        gateway = await opened()
        params = [1, OTHER, 2, "12.349", "7.9", "0.00159", "0.5", 9, "0.12345", "ü"]
        gateway.exchange.answer_with[c.PutLimit] = Refused(Reason.BALANCE_NOT_ENOUGH)
        await gateway.refusal("order.put_limit", *params)
        [(_, ask)] = gateway.exchange.asked
        assert isinstance(ask, c.PutLimit)
        numbers = (ask.user, ask.side, ask.amount, ask.price)
        assert numbers == (1, 2, 1234, 7)
        rates = (ask.taker_fee, ask.maker_fee, ask.ref_user, ask.ref_rate)
        assert rates == (15, 5000, 9, 1234)
        assert (ask.source, ask.stamp_ms, len(ask.request_id)) == ("ü", 0, 16)

    run(body())


@pytest.mark.parametrize(
    ("side", "amount", "scaled", "echoed"),
    [
        (1, "1.239", 123, "1.23"),  # stock, at stock_prec
        (2, "500.9", 500 * 100, "500"),  # money cut to money_prec, at stock_prec + money_prec
    ],
)
def test_the_command_of_a_market_order_is_in_scaled_integers(
    side: int, amount: str, scaled: int, echoed: str
) -> None:
    async def body() -> None:
        gateway = await opened()
        gateway.exchange.answer_with[c.PutMarket] = m.Placed(4098, 1, 2, scaled)
        order = await gateway.ask("order.put_market", 1, OTHER, side, amount, "0.1", "s")
        [(_, ask)] = gateway.exchange.asked
        assert isinstance(ask, c.PutMarket)
        assert (ask.user, ask.side, ask.amount, ask.taker_fee) == (1, side, scaled, 1000)
        assert (order["amount"], order["left"]) == (echoed, echoed)
        assert (order["price"], order["maker_fee"]) == ("0", "0")
        assert (order["ref_user"], order["ref_rate"]) == (0, "0")

    run(body())


def test_a_deal_is_paid_by_both_sides() -> None:
    async def body() -> None:
        gateway = await opened()
        await gateway.put(1, 1, "2", "100")
        order = await gateway.put(2, 2, "3", "110")
        assert (order["left"], order["deal_stock"], order["deal_money"]) == ("1", "2", "200")
        assert order["deal_fee"] == "0.004"  # of the stock it receives
        seller, buyer = [await gateway.ask("balance.query", user) for user in (1, 2)]
        assert seller["BTC"] == {"available": "998", "freeze": "0"}
        assert seller["BCH"] == {"available": "1000199.8", "freeze": "0"}
        assert buyer["BTC"] == {"available": "1001.996", "freeze": "0"}
        assert buyer["BCH"] == {"available": "999690", "freeze": "110"}
        fees = {fee["name"]: fee["fees"] for fee in await gateway.ask("asset.fees")}
        assert fees == {"BTC": "0.004", "BCH": "0.2", "EOS": "0"}

    run(body())


def test_a_market_buy_stops_where_its_money_buys_nothing_more() -> None:
    async def body() -> None:
        gateway = await opened()
        await gateway.put(1, 1, "10", "3")
        order = await gateway.ask("order.put_market", 2, MARKET, 2, "10", "0", "")
        assert order["deal_stock"] == "3.33333333"
        assert (order["deal_money"], order["left"]) == ("9.99999999", "0.00000001")
        balance = await gateway.ask("balance.query", 2, "BCH")
        assert balance["BCH"] == {"available": "999990.00000001", "freeze": "0"}

    run(body())


def test_books_are_read_best_first_and_pending_newest_first() -> None:
    async def body() -> None:
        gateway = await opened()
        ids = [
            (await gateway.put(user, 1, "1", price))["id"]
            for user, price in ((1, "5"), (2, "4"), (1, "5"), (1, "3"))
        ]
        a, b, third, d = ids
        book = await gateway.ask("order.book", MARKET, 1, 1, 2)
        assert [order["id"] for order in book["orders"]] == [b, a]
        assert (book["offset"], book["limit"], book["total"]) == (1, 2, 4)
        pending = await gateway.ask("order.pending", 1, MARKET, 0, 2)
        assert [order["id"] for order in pending["records"]] == [d, third]
        assert (pending["offset"], pending["limit"], pending["total"]) == (0, 2, 3)
        assert (await gateway.ask("order.book", MARKET, 2, 0, 100))["orders"] == []
        assert (await gateway.ask("order.pending", 1, MARKET, 2**63 - 1, 1))["records"] == []
        detail = await gateway.ask("order.pending_detail", MARKET, b)
        assert (detail["id"], detail["user"], detail["price"]) == (b, 2, "4")
        assert await gateway.ask("order.pending_detail", OTHER, b) is None

    run(body())


def test_depth_is_merged_outwards() -> None:
    async def body() -> None:
        gateway = await opened()
        for side, price in ((1, "1.513"), (1, "1.52"), (1, "1.521"), (2, "1.19"), (2, "1.181")):
            await gateway.put(1, side, "1.5", price)
        depth = await gateway.ask("order.depth", MARKET, 100, "0")
        assert depth["asks"] == [["1.513", "1.5"], ["1.52", "1.5"], ["1.521", "1.5"]]
        depth = await gateway.ask("order.depth", MARKET, 2, "0.01000000999")
        assert depth["asks"] == [["1.52", "3"], ["1.53", "1.5"]]
        assert depth["bids"] == [["1.19", "1.5"], ["1.18", "1.5"]]

    run(body())


def test_cancel_gives_back_one_order_or_all() -> None:
    async def body() -> None:
        gateway = await opened()
        first = await gateway.put(1, 1, "1", "5")
        for amount in ("2", "3"):
            await gateway.put(1, 1, amount, "6")
        await gateway.put(2, 1, "9", "6")
        assert await gateway.ask("order.cancel", 1, MARKET, first["id"]) == {"status": "success"}
        assert (await gateway.ask("balance.query", 1, "BTC"))["BTC"]["freeze"] == "5"
        assert (await gateway.refusal("order.cancel", 1, MARKET, first["id"]))[1] == 23
        for _ in range(2):  # none left is a success too
            assert await gateway.ask("order.cancel", 1, MARKET) == {"status": "success"}
            assert (await gateway.ask("balance.query", 1, "BTC"))["BTC"]["freeze"] == "0"
        assert (await gateway.ask("order.book", MARKET, 1, 0, 10))["total"] == 1

    run(body())


def test_pending_list_is_by_name_and_asks_the_shard_alone() -> None:
    async def body() -> None:
        gateway = await opened()
        for market, price in ((MARKET, "5"), (OTHER, "5"), (MARKET, "6")):
            await gateway.put(1, 1, "1", price, market)
        await gateway.ask("market.rename", MARKET, "Z")
        gateway.exchange.asked.clear()
        listed = await gateway.ask("order.pending_list", 1, 0, 10)
        assert listed["markets"] == [{"name": OTHER, "total": 1}, {"name": "Z", "total": 2}]
        assert [type(ask) for _, ask in gateway.exchange.asked] == [m.AskPendingList]
        listed = await gateway.ask("order.pending_list", 1, 1, 1)
        assert listed == {"limit": 1, "offset": 1, "markets": [{"name": "Z", "total": 2}]}
        assert (await gateway.ask("order.pending_list", 77, 0, 10))["markets"] == []

    run(body())


def test_what_is_newer_than_the_names_at_hand_is_asked_again() -> None:
    async def body() -> None:
        gateway = await opened()
        gateway.exchange.answer_with[m.AskPendingList] = m.PendingCounts([1, 5, 3, 1])
        refusal = await gateway.refusal("order.pending_list", 1, 0, 10)
        assert refusal[:2] == (503, 3)
        assert "market number 3" in refusal[2]

    run(body())


@pytest.mark.parametrize(
    ("kind", "method", "params"),
    [
        (c.PutMarket, "order.put_market", [1, MARKET, 1, "1", "0", ""]),
        (c.Cancel, "order.cancel", [1, MARKET]),
        (m.AskBook, "order.book", [MARKET, 1, 0, 1]),
        (m.AskDepth, "order.depth", [MARKET, 1, "0"]),
        (m.AskPending, "order.pending", [1, MARKET, 0, 1]),
        (m.AskOrder, "order.pending_detail", [MARKET, 1]),
        (m.AskPendingList, "order.pending_list", [1, 0, 1]),
        (m.AskAccounts, "balance.query", [1]),
        (m.AskAssets, "asset.summary", []),
        (m.AskAssets, "asset.fees", []),
        (m.AskCounts, "market.summary", []),
        (c.Update, "balance.update", [1, "BTC", "b", 2, "1", {}]),
        (c.AddAsset, "asset.add", ["NEW", 8, 8, ""]),
        (c.RenameMarket, "market.rename", [MARKET, "M"]),
        (c.AddKey, "keys.add", [["read"]]),
        (m.AskKeys, "keys.list", []),
    ],
)
def test_what_the_exchange_cannot_answer_is_passed_on(
    kind: type, method: str, params: list[Any]
) -> None:
    async def body() -> None:
        gateway = await opened()
        gateway.exchange.answer_with[kind] = Refused(Reason.SERVICE_TIMEOUT, "10 s")
        expected = (504, 5, "service timeout: 10 s")
        assert await gateway.refusal(method, *params) == expected

    run(body())
