"""What every method that looks back asks of the archive, and balance.history on a naive one."""

from __future__ import annotations

from typing import Any

import pytest

from excore_ray.core import messages as m
from excore_ray.core import questions as q
from excore_ray.core.reasons import Reason, Refused
from tests.api.gateway_world import MARKET, opened, run

OTHER = "BTC EOS"  # market number 2, with 2 and 0 digits
SECOND = 1_000_000
BUY, SELL = 2, 1
LAST_MOMENT_S = 253_402_300_799
EVERYTHING = (0, 0, 0, 100)


# method, params, the question in numbers
QUESTIONS = [
    ("balance.history", [1, None, None, 0, 0, 0, 1], q.AskBalanceHistory(1, 0, "", 0, 0, 0, 1)),
    ("balance.history", [1, "", "", 0, 0, 0, 1], q.AskBalanceHistory(1, 0, "", 0, 0, 0, 1)),
    (
        "balance.history",
        [4294967295, "BCH", "ref", LAST_MOMENT_S, LAST_MOMENT_S, 2**63 - 1, 100],
        q.AskBalanceHistory(4294967295, 2, "ref", LAST_MOMENT_S, LAST_MOMENT_S, 2**63 - 1, 100),
    ),
    # An end before the start is an empty span, and no business is too long to have none.
    (
        "balance.history",
        [1, "EOS", "x" * 99, 9, 5, 0, 1],
        q.AskBalanceHistory(1, 3, "x" * 32, 9, 5, 0, 1),
    ),
    ("order.deals", [1, 0, 100], q.AskOrderDeals(1, 0, 100)),
    ("order.deals", [2**53 - 1, 2**63 - 1, 1], q.AskOrderDeals(2**53 - 1, 2**63 - 1, 1)),
    ("order.finished", [1, MARKET, 0, 0, 0, 1], q.AskFinished(1, 1, 0, 0, 0, 0, 1)),
    ("order.finished", [1, MARKET, 0, 0, 0, 1, None], q.AskFinished(1, 1, 0, 0, 0, 0, 1)),
    ("order.finished", [1, MARKET, 0, 0, 0, 1, 0], q.AskFinished(1, 1, 0, 0, 0, 0, 1)),
    ("order.finished", [7, OTHER, 5, 9, 3, 100, 1], q.AskFinished(7, 2, 1, 5, 9, 3, 100)),
    ("order.finished", [7, OTHER, 5, 9, 3, 100, 2], q.AskFinished(7, 2, 2, 5, 9, 3, 100)),
    ("order.finished_detail", [2**53 - 1], q.AskFinishedDetail(2**53 - 1)),
    ("market.user_deals", [1, None, 0, 1], q.AskUserDeals(1, 0, 0, 1)),
    ("market.user_deals", [1, "", 0, 1], q.AskUserDeals(1, 0, 0, 1)),
    ("market.user_deals", [7, OTHER, 2**63 - 1, 100], q.AskUserDeals(7, 2, 2**63 - 1, 100)),
    ("market.last", [OTHER], q.AskPrice(2)),
    ("market.deals", [OTHER, 1000, 2**63 - 1], q.AskDeals(2, 2**63 - 1, 1000, True)),
    ("market.deal_history", [MARKET, 1], q.AskDeals(1, 0, 1, False)),
    ("market.deal_history", [MARKET, 1, None], q.AskDeals(1, 0, 1, False)),
    ("market.deal_history", [OTHER, 1000, 9], q.AskDeals(2, 9, 1000, False)),
    ("market.kline", [OTHER, 5, 9, 60], q.AskKline([2], [OTHER], 5, 9, 60)),
    ("market.kline", [None, 0, 9, 1], q.AskKline([2, 1], [OTHER, MARKET], 0, 9, 1)),
    ("market.status", [OTHER, 604_800], q.AskPeriod(2, 604_800)),
    ("market.status", [MARKET, 1], q.AskPeriod(1, 1)),
    ("market.status_today", [OTHER], q.AskPeriod(2, 0)),
]


@pytest.mark.parametrize(("method", "params", "question"), QUESTIONS)
def test_the_archive_is_asked_in_numbers(method: str, params: list[Any], question: Any) -> None:
    async def body() -> None:
        gateway = await opened()
        await gateway.ask(method, *params)
        assert [ask for _, ask in gateway.exchange.asked] == [question]
        for refused, expected in (
            (
                Refused(Reason.SERVICE_UNAVAILABLE, "silent"),
                (503, 3, "service unavailable: silent"),
            ),
            (Refused(Reason.SERVICE_TIMEOUT, "10 s"), (504, 5, "service timeout: 10 s")),
            (Refused(Reason.LIMIT_TOO_BIG, "9 rows"), (400, 27, "limit too big: 9 rows")),
            (
                Refused(Reason.INTERNAL_ERROR, "reference 1"),
                (500, 2, "internal error: reference 1"),
            ),
        ):
            gateway.exchange.answer_with[type(question)] = refused
            assert await gateway.refusal(method, *params) == expected

    run(body())


def test_a_deal_makes_the_rows_of_both_sides_and_of_their_referrers() -> None:
    # All of them are one user, so that the order of the rows is seen.
    async def body() -> None:
        gateway = await opened()
        sell = [1, MARKET, SELL, "2", "100", "0.002", "0.001", 1, "0.5", ""]
        buy = [1, MARKET, BUY, "3", "110", "0.002", "0.001", 1, "0.25", ""]
        maker, taker = [
            (await gateway.ask("order.put_limit", *params))["id"] for params in (sell, buy)
        ]
        page = await gateway.ask("balance.history", 1, None, None, 0, 0, 0, 100)
        assert list(page) == ["offset", "limit", "records"]
        assert (page["offset"], page["limit"]) == (0, 100)
        deal = {"a": "2", "m": MARKET, "p": "100"}
        seconds = (gateway.exchange.time_us - 1) / SECOND
        expected = [
            ("BCH", "trade", "-200", "999800", {**deal, "id": taker}),
            ("BTC", "trade", "2", "1002", {**deal, "id": taker}),
            ("BTC", "trade", "-0.004", "1001.996", {**deal, "id": taker, "f": "0.002"}),
            ("BTC", "trade", "-2", "999.996", {**deal, "id": maker}),
            ("BCH", "trade", "200", "1000000", {**deal, "id": maker}),
            ("BCH", "trade", "-0.2", "999999.8", {**deal, "id": maker, "f": "0.001"}),
            ("BTC", "ref", "0.001", "999.997", {"id": taker, "m": MARKET}),
            ("BCH", "ref", "0.1", "999999.9", {"id": maker, "m": MARKET}),
        ]
        fields = ("asset", "business", "change", "balance", "detail")
        newest = page["records"][:8]
        assert [tuple(row[name] for name in fields) for row in reversed(newest)] == expected
        assert {row["time"] for row in newest} == {seconds}
        assert [row["business"] for row in page["records"][8:]] == ["deposit", "deposit"]

    run(body())


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, {"id": 77}),
        ({"b": [1, 2.5, None], "a": "ü\u0000"}, {"b": [1, 2.5, None], "a": "ü\u0000", "id": 77}),
        ({"id": {"not": "ours"}, "z": 1}, {"id": 77, "z": 1}),
        (
            {"m": "M", "p": "1", "f": "", "n": 10**30},
            {"m": "M", "p": "1", "f": "", "n": 10**30, "id": 77},
        ),
    ],
)
def test_an_update_shows_what_was_given_and_its_business_id(
    given: dict[str, Any], shown: dict[str, Any]
) -> None:
    async def body() -> None:
        gateway = await opened()
        # Even one that calls itself a trade.
        await gateway.ask("balance.update", 5, "EOS", "trade", 77, "-1.2345", given, "force")
        [row] = await gateway.records("balance.history", 5, None, None, *EVERYTHING)
        assert list(row) == ["time", "asset", "business", "change", "balance", "detail"]
        # Not cut to the digits that are shown of an asset.
        assert (row["change"], row["balance"]) == ("-1.2345", "-1.2345")
        assert (row["asset"], row["business"]) == ("EOS", "trade")
        assert list(row["detail"].items()) == list(shown.items())

    run(body())


@pytest.mark.parametrize(
    ("asset", "business", "changes"),
    [
        (None, None, ["3", "2", "1"]),
        ("", "", ["3", "2", "1"]),
        ("EOS", None, ["3", "1"]),
        (None, "bonus", ["3", "2"]),
        ("EOS", "bonus", ["3"]),
        ("BTC", None, []),
        ("EOS", "Bonus", []),
    ],
)
def test_changes_are_of_an_asset_and_of_a_business(
    asset: str | None, business: str | None, changes: list[str]
) -> None:
    async def body() -> None:
        gateway = await opened()
        for number, (kept, why) in enumerate(
            [("EOS", "deposit"), ("BCH", "bonus"), ("EOS", "bonus")], 1
        ):
            await gateway.ask("balance.update", 7, kept, why, 1, str(number), {})
        found = await gateway.records("balance.history", 7, asset, business, *EVERYTHING)
        assert [row["change"] for row in found] == changes

    run(body())


@pytest.mark.parametrize(
    ("start_s", "end_s", "found"),
    [
        (0, 0, [2, 1, 0]),
        (100, 0, [2, 1]),
        (101, 0, [2]),
        (0, 101, [1, 0]),
        (0, 100, [0]),
        (100, 101, [1]),
        (100, 100, []),
        (101, 100, []),
        (LAST_MOMENT_S, 0, []),
        (0, LAST_MOMENT_S, [2, 1, 0]),
    ],
)
def test_a_span_has_its_start_and_not_its_end(start_s: int, end_s: int, found: list[int]) -> None:
    # Changes, and orders done at once, in the last moment before 100, at 100, and at 101.
    moments_us = [100 * SECOND - 1, 100 * SECOND, 101 * SECOND]

    async def body() -> None:
        gateway = await opened()
        await gateway.put(1, SELL, "9", "5")
        ids = []
        for number, at_us in enumerate(moments_us):
            gateway.exchange.time_us = at_us - 1  # asking takes a microsecond
            await gateway.deposit(7, "EOS", "1", number + 1)
            gateway.exchange.time_us = at_us - 1
            ids.append((await gateway.put(2, BUY, "1", "5"))["id"])
        span = (start_s, end_s, 0, 100)
        changes = await gateway.records("balance.history", 7, "EOS", "deposit", *span)
        assert [row["detail"]["id"] - 1 for row in changes] == found
        assert [row["time"] * SECOND for row in changes] == [moments_us[each] for each in found]
        orders = await gateway.records("order.finished", 2, MARKET, *span)
        assert [order["id"] for order in orders] == [ids[each] for each in found]

    run(body())


@pytest.mark.parametrize(
    ("offset", "limit", "found"),
    [
        (0, 100, [5, 4, 3, 2, 1]),
        (0, 2, [5, 4]),
        (2, 2, [3, 2]),
        (4, 2, [1]),
        (5, 1, []),
        (2**63 - 1, 100, []),
    ],
)
def test_pages_begin_with_the_newest(offset: int, limit: int, found: list[int]) -> None:
    async def body() -> None:
        gateway = await opened()
        resting = (await gateway.put(1, SELL, "9", "5"))["id"]
        bought = [await gateway.put(2, BUY, "1", "5") for _ in range(5)]
        numbers = {order["id"]: number for number, order in enumerate(bought, 1)}
        for number in range(1, 6):
            await gateway.deposit(7, "EOS", str(number), number)
        for method, params, field in (
            ("balance.history", [7, None, None, 0, 0], "change"),
            ("order.deals", [resting], "id"),
            ("order.finished", [2, MARKET, 0, 0], "id"),
            ("market.user_deals", [2, MARKET], "id"),
        ):
            page = await gateway.ask(method, *params, offset, limit)
            assert list(page) == ["offset", "limit", "records"]
            assert (page["offset"], page["limit"]) == (offset, limit)
            shown = [record[field] for record in page["records"]]
            assert [numbers.get(each, int(each)) for each in shown] == found, method

    run(body())


def test_the_past_is_shown_under_the_names_of_today() -> None:
    async def body() -> None:
        gateway = await opened()
        await gateway.put(1, SELL, "2", "5")
        order = (await gateway.put(2, BUY, "1", "5"))["id"]
        await gateway.ask("market.rename", MARKET, "new market")
        await gateway.ask("asset.rename", "BTC", "new asset")
        newest = (await gateway.records("balance.history", 2, "new asset", None, *EVERYTHING))[0]
        assert (newest["asset"], newest["detail"]["m"]) == ("new asset", "new market")
        assert (await gateway.ask("order.finished_detail", order))["market"] == "new market"
        finished = await gateway.records("order.finished", 2, "new market", *EVERYTHING)
        assert [each["market"] for each in finished] == ["new market"]
        [deal] = await gateway.records("market.user_deals", 2, None, 0, 1)
        assert deal["market"] == "new market"
        refused = await gateway.refusal("balance.history", 2, "BTC", None, *EVERYTHING)
        assert refused[1] == 12
        assert (await gateway.refusal("order.finished", 2, MARKET, *EVERYTHING))[1] == 25
        assert (await gateway.refusal("market.user_deals", 2, MARKET, 0, 1))[1] == 43

    run(body())


def change(asset: int, market_no: int) -> q.Change:
    return q.Change(1, asset, "trade", "1", "1", 0, "", market_no, 4097, "1", "1", "")


NEW_ORDER = q.FinishedOrder(4099, 3, 1, 1, 1, *["1"] * 4, 0, "0", "", 1, 2, *["0"] * 3)
NEW_DEAL = q.OwnDeal(1, 1, 1, 3, 1, 1, *["1"] * 4, 4099)


@pytest.mark.parametrize(
    ("method", "params", "answer", "what"),
    [
        (
            "balance.history",
            [1, None, None, *EVERYTHING],
            q.Changes([change(1, 1), change(4, 0)]),
            "asset number 4",
        ),
        (
            "balance.history",
            [1, "BTC", None, *EVERYTHING],
            q.Changes([change(1, 3)]),
            "market number 3",
        ),
        ("order.finished_detail", [4099], q.FinishedOrders([NEW_ORDER]), "market number 3"),
        ("market.user_deals", [1, None, 0, 1], q.OwnDeals([NEW_DEAL]), "market number 3"),
    ],
)
def test_what_is_newer_than_the_names_at_hand_is_asked_again(
    method: str, params: list[Any], answer: m.Answer, what: str
) -> None:
    async def body() -> None:
        gateway = await opened()
        for kind in (q.AskBalanceHistory, q.AskFinishedDetail, q.AskUserDeals):
            gateway.exchange.answer_with[kind] = answer
        status, code, message = await gateway.refusal(method, *params)
        assert (status, code) == (503, 3)
        assert f"{what} is newer than this copy of the catalog" in message

    run(body())
