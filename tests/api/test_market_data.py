"""market.last, deals, deal_history, kline, status and status_today on a naive exchange."""

from __future__ import annotations

from typing import Any

import pytest

from excore_ray.core import commands as c
from excore_ray.core import questions as q
from tests.api.gateway_world import MARKET, Gateway, opened, run

OTHER = "BTC EOS"  # 2 and 0 digits; by name before the other
SECOND = 1_000_000
DAY_S, WEEK_S, MONTH_S = 86_400, 604_800, 2_592_000
BUY, SELL = 2, 1
ROWS_MAX = 10_000


async def deal(
    gateway: Gateway, at_s: int, price: str, amount: str = "1", market: str = MARKET
) -> None:
    """One deal at the very second, made by a buyer."""
    gateway.exchange.time_us = at_s * SECOND - 2  # each order takes a microsecond
    await gateway.put(1, SELL, amount, price, market)
    await gateway.put(1, BUY, amount, price, market)


async def traded(now_s: int) -> Gateway:
    """Three deals within a minute, one more later."""
    gateway = await opened()
    for at_s, price, amount in ((60, "5", "1"), (61, "7", "2"), (119, "6", "1"), (245, "4", "3")):
        await deal(gateway, at_s, price, amount)
    gateway.exchange.time_us = now_s * SECOND
    return gateway


def test_deals_are_told_newest_first_and_their_history_oldest_first() -> None:
    async def body() -> None:
        gateway = await traded(300)
        await gateway.put(2, BUY, "1", "3")
        await gateway.put(1, SELL, "0.5", "2")
        newest = await gateway.ask("market.deals", MARKET, 2, 0)
        assert list(newest[0].items()) == [
            ("id", 5),
            ("time", 300.000002),
            ("price", "3"),
            ("amount", "0.5"),
            ("type", "sell"),
        ]
        assert newest[1] == {"id": 4, "time": 245, "price": "4", "amount": "3", "type": "buy"}
        oldest = await gateway.records("market.deal_history", MARKET, 1)
        assert list(oldest[0].items()) == [
            *(("time", 60), ("id", 1), ("side", BUY)),
            *(("price", "5"), ("amount", "1"), ("market", MARKET)),
        ]
        await gateway.ask("market.rename", MARKET, "new")
        [told] = await gateway.records("market.deal_history", "new", 1, 4)
        assert (told["id"], told["side"], told["market"]) == (5, SELL, "new")
        assert (await gateway.refusal("market.deals", MARKET, 1, 0))[1] == 43

    run(body())


@pytest.mark.parametrize(
    ("limit", "last_id", "newest", "oldest"),
    [
        (1000, 0, [4, 3, 2, 1], [1, 2, 3, 4]),
        (2, 0, [4, 3], [1, 2]),
        (2, 1, [4, 3], [2, 3]),
        (1000, 3, [4], [4]),
        (1000, 4, [], []),
        (1, 2**63 - 1, [], []),
    ],
)
def test_deals_are_those_beyond_the_last_id(
    limit: int, last_id: int, newest: list[int], oldest: list[int]
) -> None:
    async def body() -> None:
        gateway = await traded(300)
        deals = await gateway.ask("market.deals", MARKET, limit, last_id)
        assert [told["id"] for told in deals] == newest
        deals = await gateway.records("market.deal_history", MARKET, limit, last_id)
        assert [told["id"] for told in deals] == oldest
        assert await gateway.ask("market.deals", OTHER, limit, last_id) == []
        none = {"records": []}
        assert await gateway.ask("market.deal_history", OTHER, limit, last_id) == none

    run(body())


@pytest.mark.parametrize(
    ("past", "last", "change"),
    [
        ("100", "110", "10"),
        ("110", "100", "-9.09"),
        ("1.7291", "1.5158", "-12.34"),
        ("1", "1.125", "12.5"),
        ("100", "100", "0"),
        # A half goes away from zero, and what is left of zero has no sign.
        ("1", "1.00005", "0.01"),
        ("1", "1.00004999", "0"),
        ("1", "0.99995", "-0.01"),
        ("1", "0.99996", "0"),
        ("1", "1.01235", "1.24"),
        ("999999999999999999", "0.00000001", "-100"),
        ("0.00000001", "999999999999999999", "9999999999999999989999999900"),
        ("0.00000001", "0.00000002", "100"),
    ],
)
def test_the_change_of_a_price_is_in_percent(past: str, last: str, change: str) -> None:
    async def body() -> None:
        gateway = await opened()
        gateway.exchange.answer_with[q.AskPrice] = q.Price(last, past)
        shown = await gateway.ask("market.last", MARKET)
        assert list(shown) == ["price", "change"]
        assert shown["change"] == change
        whole, _, fraction = shown["price"].partition(".")
        assert len(fraction) == 8
        assert [whole, fraction.rstrip("0")] == [*last.split("."), ""][:2]

    run(body())


def test_a_price_is_compared_with_that_of_a_day_ago_or_the_first() -> None:
    async def body() -> None:
        gateway = await opened()
        assert await gateway.ask("market.last", MARKET) == {"price": "0.00000000", "change": "0"}
        assert await gateway.ask("market.last", OTHER) == {"price": "0", "change": "0"}
        first_s = 10 * DAY_S
        await deal(gateway, first_s, "100")
        await deal(gateway, first_s + 3600, "120.5")
        for now_s, change in (
            (first_s + 7200, "20.5"),
            (first_s + DAY_S + 10, "20.5"),
            (first_s + DAY_S + 3610, "0"),
        ):
            gateway.exchange.time_us = now_s * SECOND
            shown = await gateway.ask("market.last", MARKET)
            assert shown == {"price": "120.50000000", "change": change}
        await gateway.deposit(1, "EOS", "100")
        await deal(gateway, first_s, "7", market=OTHER)
        assert await gateway.ask("market.last", OTHER) == {"price": "7", "change": "0"}

    run(body())


def test_an_interval_divides_a_minute_an_hour_or_a_day_or_is_a_week_or_a_month() -> None:
    wholes = (60, 3600, DAY_S)
    kinds = [s for s in range(1, DAY_S + 1) if any(whole % s == 0 for whole in wholes)]

    async def body() -> None:
        gateway = await opened()
        for interval_s in (*kinds, WEEK_S, MONTH_S):
            assert await gateway.ask("market.kline", MARKET, 0, 100, interval_s) == []
        refused = [0, -1, -60, 7, 11, 59, 61, 3599, 7000, DAY_S + 1, 2 * DAY_S, 7 * DAY_S - 1]
        refused += [7 * DAY_S + 1, MONTH_S - 1, MONTH_S + 1, 31 * DAY_S, 2**63, 10**40, -(2**63)]
        for interval_s in refused:
            told = await gateway.refusal("market.kline", MARKET, 0, 100, interval_s)
            assert told[:2] == (400, 1), interval_s
            assert told[2].startswith(f"invalid argument: interval: {interval_s}"[:60])

    run(body())


@pytest.mark.parametrize(
    ("start_s", "end_s", "interval_s", "buckets"),
    [
        (0, 400, 60, [60, 120, 180, 240, 300]),  # it is 330 now
        (61, 239, 60, [60, 120, 180]),
        (119, 120, 60, [60, 120]),
        (120, 179, 60, [120]),
        (245, 245, 60, [240]),
        (0, 59, 60, []),
        (0, 0, 60, []),
        (0, 60, 60, [60]),
        (61, 63, 1, [61, 62, 63]),
        (0, 63, 1, [60, 61, 62, 63]),
        (100, 330, 120, [0, 120, 240]),
        (0, 330, 3600, [0]),
        # A start after the end, or after now, still has its bucket when that begins by then.
        (200, 190, 60, [180]),
        (200, 179, 60, []),
        (331, 9999, 60, [300]),
        (360, 9999, 60, []),
        (9999, 0, 60, []),
    ],
)
def test_a_kline_begins_with_the_bucket_of_its_start(
    start_s: int, end_s: int, interval_s: int, buckets: list[int]
) -> None:
    async def body() -> None:
        gateway = await traded(330)
        rows = await gateway.ask("market.kline", MARKET, start_s, end_s, interval_s)
        assert [row[0] for row in rows] == buckets
        assert {row[-1] for row in rows} <= {MARKET}
        assert await gateway.ask("market.kline", OTHER, start_s, end_s, interval_s) == []

    run(body())


def test_a_bucket_without_a_deal_repeats_the_close() -> None:
    async def body() -> None:
        gateway = await traded(330)
        rows = await gateway.ask("market.kline", MARKET, 0, 330, 60)
        assert rows == [
            [60, "5", "6", "7", "5", "4", "25", MARKET],
            [120, "6", "6", "6", "6", "0", "0", MARKET],
            [180, "6", "6", "6", "6", "0", "0", MARKET],
            [240, "4", "4", "4", "4", "3", "12", MARKET],
            [300, "4", "4", "4", "4", "0", "0", MARKET],
        ]

    run(body())


def test_weeks_begin_on_monday_and_months_with_their_first_day() -> None:
    monday_s, january_s, february_s, march_s = 1515369600, 1514764800, 1517443200, 1519862400

    async def body() -> None:
        gateway = await opened()
        await deal(gateway, 1515760692, "5")
        await deal(gateway, 1518000000, "6")
        gateway.exchange.time_us = march_s * SECOND
        weeks = await gateway.ask("market.kline", MARKET, 0, march_s, WEEK_S)
        assert [row[0] for row in weeks] == list(range(monday_s, march_s + 1, WEEK_S))
        months = await gateway.ask("market.kline", MARKET, 0, march_s, MONTH_S)
        assert [row[:3] for row in months] == [
            [january_s, "5", "5"],
            [february_s, "6", "6"],
            [march_s, "6", "6"],
        ]

    run(body())


def test_klines_of_all_markets_stand_by_name() -> None:
    async def body() -> None:
        gateway = await traded(119)
        await gateway.deposit(1, "EOS", "100")
        await deal(gateway, 70, "9", market=OTHER)
        gateway.exchange.time_us = 330 * SECOND
        asked = [None, 0, 150, 60]
        rows = await gateway.ask("market.kline", *asked)
        assert [(row[0], row[-1]) for row in rows] == [
            *((at_s, OTHER) for at_s in (60, 120)),
            *((at_s, MARKET) for at_s in (60, 120)),
        ]
        alone = [await gateway.ask("market.kline", each, *asked[1:]) for each in (OTHER, MARKET)]
        assert rows == alone[0] + alone[1]
        await gateway.ask("market.rename", OTHER, "Z")
        rows = await gateway.ask("market.kline", *asked)
        assert [row[-1] for row in rows] == [MARKET, MARKET, "Z", "Z"]
        batch = [{"id": 1, "method": "market.kline", "params": asked}]
        assert (await gateway.post(batch)).json()[0]["result"] == rows

    run(body())


def test_without_a_market_there_is_no_kline() -> None:
    async def body() -> None:
        gateway = Gateway()
        assert await gateway.ask("market.kline", None, 0, 100, 60) == []
        assert (await gateway.refusal("market.kline", None, 0, 100, 7))[:2] == (400, 1)
        assert gateway.exchange.asked == []

    run(body())


def test_a_kline_has_only_so_many_rows() -> None:
    async def body() -> None:
        gateway = await opened()
        await deal(gateway, 60, "5")
        gateway.exchange.time_us = 10**9 * SECOND
        rows = await gateway.ask("market.kline", MARKET, 0, 59 + ROWS_MAX, 1)
        assert len(rows) == ROWS_MAX
        for market in (MARKET, None):
            refusal = await gateway.refusal("market.kline", market, 0, 60 + ROWS_MAX, 1)
            assert refusal[:2] == (400, 27)
            assert refusal[2].startswith("limit too big: ")
            assert "10001" in refusal[2]

    run(body())


@pytest.mark.parametrize(
    ("period_s", "shown"),
    [
        (WEEK_S, ["6", "5", "6", "7", "5", "4", "25"]),
        (200, ["6", "7", "6", "7", "6", "3", "20"]),
        (199, ["6", "6", "6", "6", "6", "1", "6"]),
        (100, ["6", "6", "6", "6", "6", "1", "6"]),
        (99, ["6", *["0"] * 6]),
        (1, ["6", *["0"] * 6]),
    ],
)
def test_a_status_is_of_a_rolling_period(period_s: int, shown: list[str]) -> None:
    async def body() -> None:
        gateway = await opened()
        names = ["last", "open", "close", "high", "low", "volume", "deal"]
        nothing = {"period": period_s, **dict.fromkeys(names, "0")}
        assert await gateway.ask("market.status", MARKET, period_s) == nothing
        midnight_s = 10 * DAY_S
        for at_s, price, amount in ((-100, "5", "1"), (100, "7", "2"), (200, "6", "1")):
            await deal(gateway, midnight_s + at_s, price, amount)
        gateway.exchange.time_us = (midnight_s + 300) * SECOND
        status = await gateway.ask("market.status", MARKET, period_s)
        assert list(status.items()) == [("period", period_s), *zip(names, shown, strict=True)]

    run(body())


def test_a_day_begins_at_midnight() -> None:
    async def body() -> None:
        gateway = await opened()
        midnight_s = 10 * DAY_S
        for at_s, shown in (
            (None, ["0", "0", "0", "0", "0", "0"]),
            (-1, ["5", "5", "5", "5", "1", "5"]),
            (0, ["7", "7", "7", "7", "1", "7"]),
            (200, ["7", "6", "7", "6", "2", "13"]),
            (DAY_S, ["6", "6", "6", "6", "0", "0"]),
        ):
            if at_s in (-1, 0, 200):
                price = {-1: "5", 0: "7", 200: "6"}[at_s]
                await deal(gateway, midnight_s + at_s, price)
            else:
                gateway.exchange.time_us = (midnight_s + (at_s or 0)) * SECOND
            status = await gateway.ask("market.status_today", MARKET)
            names = ["open", "last", "high", "low", "volume", "deal"]
            assert list(status.items()) == list(zip(names, shown, strict=True)), at_s

    run(body())


def test_what_stands_before_in_a_batch_is_in_the_past_and_what_stands_after_is_not() -> None:
    def put(side: int) -> dict[str, Any]:
        params = [1, MARKET, side, "1", "5", "0", "0", ""]
        return {"id": 1, "method": "order.put_limit", "params": params}

    def ask(method: str, *params: Any) -> dict[str, Any]:
        return {"id": 2, "method": method, "params": list(params)}

    async def body() -> None:
        gateway = await opened()
        count = ask("market.deal_history", MARKET, 10)
        batch = [
            *(put(SELL), put(BUY), count, put(SELL), put(BUY)),
            *(count, ask("order.deals", 4097, 0, 1), ask("order.deals", 4097, 0, 101), put(SELL)),
        ]
        results = [reply["result"] for reply in (await gateway.post(batch)).json()]
        counts = [len(results[at]["records"]) for at in (2, 5, 6)]
        assert counts == [1, 2, 1]
        assert results[7] is None
        kinds = [type(each) for _, each in gateway.exchange.asked]
        turns = [turn for turn, _ in gateway.exchange.asked]
        assert kinds == [
            *(c.PutLimit, c.PutLimit, q.AskDeals, c.PutLimit, c.PutLimit),
            *(q.AskDeals, q.AskOrderDeals, c.PutLimit),
        ]
        assert turns[0] == turns[1] < turns[2] < turns[3] == turns[4] < turns[5] < turns[6]
        assert turns[6] < turns[7]

    run(body())
