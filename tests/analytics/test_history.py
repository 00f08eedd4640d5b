"""What each question answers: which rows, in which order, with which fields."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pytest

from analytics import history, market_data, warehouse
from analytics.history_rows import (
    BalanceChange,
    FinishedOrder,
    OwnDeal,
    Page,
    PublicDeal,
    Span,
    Status,
    StatusToday,
)
from analytics.lake import Lake
from tests.analytics.filled_lake import deal, flush

SECOND = 1_000_000
DAY_S = 86_400
# Orders 1, 2, 3 … of market 1 and of market 3.
ONE, THREE = [[n * 4096 + market for n in range(8)] for market in (1, 3)]


def at(at_us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)


def parties(taker: tuple[int, int], maker: tuple[int, int], **other: object) -> dict[str, Any]:
    """Fields of a deal between two (order, user)."""
    fees = {"taker_fee": Decimal("0.2"), "maker_fee": Decimal("0.1")}
    orders = {"taker_order_id": taker[0], "maker_order_id": maker[0]}
    return {**fees, **orders, "taker_user": taker[1], "maker_user": maker[1], **other}


DEALS = [
    deal(1, 10 * SECOND + 1, "100", "2", **parties((ONE[2], 10), (ONE[1], 20), side=1)),
    deal(2, 10 * SECOND + 1, "101", "1", **parties((ONE[2], 10), (ONE[3], 30), side=1)),
    deal(3, 95 * SECOND, "102", "1", **parties((ONE[4], 20), (ONE[3], 30))),
    deal(4, DAY_S * SECOND, "99", "3", **parties((ONE[5], 10), (ONE[6], 10))),
]
ELSEWHERE = [deal(1, 50 * SECOND, "7", "1", **parties((THREE[1], 10), (THREE[2], 20)))]


def order(n: int, ctime_s: int, **other: object) -> dict[str, Any]:
    times = {"ctime": ctime_s * SECOND + 250, "ftime": ctime_s * SECOND + 500}
    return {"order_id": ONE[n], "seq": n, **times, **other}


NOTHING = Decimal(0)
ORDERS = [
    order(1, 5),
    order(2, 6, side=1),
    order(3, 7, left=Decimal(5), deal_stock=NOTHING, deal_money=NOTHING, deal_fee=NOTHING),
    order(4, 8, left=Decimal(3), ref_user=77, ref_rate=Decimal("0.5")),
    order(5, 8, type=2, price=NOTHING, deal_stock=NOTHING),
    order(6, 9, user=20),
]
CHANGES = [
    {
        "seq": 1,
        "time": 5 * SECOND,
        "change": Decimal(9),
        "balance": Decimal(9),
        "detail": '{"a":1}',
    },
    {
        "seq": 2,
        "step": 0,
        "time": 6 * SECOND,
        "business": "trade",
        "business_id": 0,
        "change": Decimal(-2),
        "balance": Decimal(7),
        "detail": "",
        "market": 1,
        "deal_id": 1,
        "order_id": ONE[2],
        "price": Decimal(100),
        "amount": Decimal(2),
    },
    {
        "seq": 2,
        "step": 1,
        "time": 6 * SECOND,
        "business": "trade",
        "asset": 2,
        "market": 1,
        "change": Decimal("-0.2"),
        "fee_rate": Decimal("0.001"),
        "order_id": ONE[2],
    },
    # The clock of the shard may differ from a later one's; the journal decides.
    {"seq": 3, "time": 4 * SECOND, "business": "withdraw", "change": Decimal(-1)},
    {"seq": 4, "time": 7 * SECOND, "user": 20},
]


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    root = str(tmp_path_factory.mktemp("lake"))
    lake = Lake(root)
    for rows in (DEALS[:1], DEALS[1:3], DEALS[3:]):
        flush(lake, "deals", 1, rows)
    flush(lake, "deals", 3, ELSEWHERE)
    flush(lake, "orders", 1, ORDERS)
    flush(lake, "balances", 0, CHANGES)
    return warehouse.connect(root)


@pytest.mark.parametrize(
    ("asked", "places"),
    [
        ({}, [(3, 0), (2, 1), (2, 0), (1, 0)]),
        ({"asset": 1}, [(3, 0), (2, 0), (1, 0)]),
        ({"asset": 2}, [(2, 1)]),
        ({"business": "trade"}, [(2, 1), (2, 0)]),
        ({"asset": 1, "business": "trade"}, [(2, 0)]),
        ({"span": Span(5, 0)}, [(2, 1), (2, 0), (1, 0)]),
        ({"span": Span(0, 6)}, [(3, 0), (1, 0)]),
        ({"span": Span(5, 6)}, [(1, 0)]),
        ({"page": Page(1, 2)}, [(2, 1), (2, 0)]),
        ({"asset": 3}, []),
    ],
)
def test_balance_history_is_newest_first(
    connection: duckdb.DuckDBPyConnection, asked: dict[str, Any], places: list[tuple[int, int]]
) -> None:
    time_and_change = {
        (row["seq"], row.get("step", 0)): (at(row["time"]), row["change"]) for row in CHANGES[:4]
    }
    rows = history.balance_history(connection, 10, **asked)
    assert [(row.time, row.change) for row in rows] == [time_and_change[place] for place in places]


def test_fields_of_a_balance_change(connection: duckdb.DuckDBPyConnection) -> None:
    trade, update = history.balance_history(connection, 10, asset=1, page=Page(1, 2))
    nothing = (None, None, None, None, None, None)
    deposit = (at(5 * SECOND), 1, "deposit", Decimal(9), Decimal(9), 7, '{"a":1}')
    assert update == BalanceChange(*deposit, *nothing)
    why = (1, ONE[2], 1, Decimal(100), Decimal(2), None)
    assert trade == BalanceChange(at(6 * SECOND), 1, "trade", Decimal(-2), Decimal(7), 0, "", *why)
    [fee] = history.balance_history(connection, 10, asset=2)
    assert fee.fee_rate == Decimal("0.001")


def test_deals_of_an_order_are_newest_first(connection: duckdb.DuckDBPyConnection) -> None:
    rows = history.order_deals(connection, ONE[2])
    assert [(row.deal_id, row.deal_order_id) for row in rows] == [(2, ONE[3]), (1, ONE[1])]
    assert history.order_deals(connection, ONE[2], Page(1, 1)) == rows[1:]
    both = history.order_deals(connection, ONE[3])
    assert [(row.deal_id, row.role, row.side, row.user) for row in both] == [
        (3, 1, 1, 30),
        (2, 1, 2, 30),
    ]
    assert history.order_deals(connection, ONE[7]) == []


def test_deals_of_a_user(connection: duckdb.DuckDBPyConnection) -> None:
    rows = history.user_deals(connection, 10)
    # A deal with oneself is two rows.
    places = [(1, 4, 1), (1, 4, 2), (3, 1, 2), (1, 2, 2), (1, 1, 2)]
    assert [(row.market, row.deal_id, row.role) for row in rows] == places
    assert history.user_deals(connection, 10, page=Page(2, 2)) == rows[2:4]
    assert history.user_deals(connection, 10, 3) == rows[2:3]
    prices = Decimal(100), Decimal(2), Decimal(200)
    taker = (at(10 * SECOND + 1), 10, 1, 1, 1, 2, *prices, Decimal("0.2"), ONE[2], ONE[1])
    maker = (at(10 * SECOND + 1), 20, 1, 1, 2, 1, *prices, Decimal("0.1"), ONE[1], ONE[2])
    assert rows[4] == OwnDeal(*taker)
    assert history.user_deals(connection, 20, 1)[-1] == OwnDeal(*maker)


@pytest.mark.parametrize(
    ("asked", "orders"),
    [
        ({}, [5, 4, 2, 1]),
        ({"side": 1}, [2]),
        ({"side": 2}, [5, 4, 1]),
        ({"span": Span(6, 8)}, [2]),
        ({"span": Span(6, 0)}, [5, 4, 2]),
        ({"span": Span(0, 6)}, [1]),
        ({"page": Page(1, 2)}, [4, 2]),
    ],
)
def test_finished_orders(
    connection: duckdb.DuckDBPyConnection, asked: dict[str, Any], orders: list[int]
) -> None:
    # The third was cancelled without a deal, the sixth is another user's.
    rows = history.finished(connection, 10, 1, **asked)
    assert [row.order_id for row in rows] == [ONE[n] for n in orders]
    assert history.finished(connection, 10, 3, **asked) == []


def test_a_finished_order(connection: duckdb.DuckDBPyConnection) -> None:
    size = Decimal(100), Decimal(5), Decimal(3), Decimal("0.002"), Decimal("0.001")
    referral = 77, Decimal("0.5"), "test", at(8 * SECOND + 250), at(8 * SECOND + 500)
    done = Decimal(5), Decimal(500), Decimal("0.01")
    expected = FinishedOrder(ONE[4], 1, 10, 2, 1, *size, *referral, *done)
    assert history.finished_detail(connection, ONE[4]) == expected
    for n in (3, 7):
        assert history.finished_detail(connection, ONE[n]) is None


@pytest.mark.parametrize(
    ("last_id", "limit", "after", "newest"),
    [(0, 9, [1, 2, 3, 4], [4, 3, 2, 1]), (1, 2, [2, 3], [4, 3]), (4, 9, [], [])],
)
def test_deals_of_a_market(
    connection: duckdb.DuckDBPyConnection,
    last_id: int,
    limit: int,
    after: list[int],
    newest: list[int],
) -> None:
    rows = history.deals_after(connection, 1, last_id, limit)
    assert [row.deal_id for row in rows] == after
    rows = history.newest_deals(connection, 1, last_id, limit)
    assert [row.deal_id for row in rows] == newest


def test_fields_of_a_public_deal(connection: duckdb.DuckDBPyConnection) -> None:
    expected = PublicDeal(1, at(10 * SECOND + 1), 1, Decimal(100), Decimal(2))
    assert history.deals_after(connection, 1, 0, 1) == [expected]


@pytest.mark.parametrize(
    ("period_s", "now_s", "expected"),
    [
        # Prices: last, open, close, high, low; then volume and deal.
        (DAY_S, DAY_S, "99 100 99 102 99 7 700"),
        (DAY_S - 10, DAY_S, "99 100 99 102 99 7 700"),
        (DAY_S - 11, DAY_S, "99 102 99 102 99 4 399"),
        (DAY_S - 95, DAY_S, "99 102 99 102 99 4 399"),
        (DAY_S - 96, DAY_S, "99 99 99 99 99 3 297"),
        (DAY_S - 120, DAY_S, "99 99 99 99 99 3 297"),
        (1, DAY_S + 1, "99 99 99 99 99 3 297"),
        (1, DAY_S + 2, "99 0 0 0 0 0 0"),
        (604_800, DAY_S, "99 100 99 102 99 7 700"),
    ],
)
def test_status_is_a_rolling_window(
    connection: duckdb.DuckDBPyConnection, period_s: int, now_s: int, expected: str
) -> None:
    rolling = market_data.status(connection, 1, period_s, now_s)
    assert rolling == Status(*map(Decimal, expected.split()))


@pytest.mark.parametrize(
    ("market", "now_s", "expected"),
    [
        # Prices: open, last, high, low; then volume and deal.
        (1, DAY_S, "99 99 99 99 3 297"),
        (1, 2 * DAY_S - 1, "99 99 99 99 3 297"),
        (1, 2 * DAY_S, "99 99 99 99 0 0"),
        (3, 100, "7 7 7 7 1 7"),
        (2, 100, "0 0 0 0 0 0"),
    ],
)
def test_status_of_today_begins_at_midnight(
    connection: duckdb.DuckDBPyConnection, market: int, now_s: int, expected: str
) -> None:
    today = market_data.status_today(connection, market, now_s)
    assert today == StatusToday(*map(Decimal, expected.split()))


def test_a_market_without_a_deal(connection: duckdb.DuckDBPyConnection) -> None:
    assert market_data.status(connection, 2, 60, 100) == Status(*[Decimal(0)] * 7)
    assert market_data.kline(connection, 2, Span(0, 1000), 60) == []


def test_questions_of_several_threads_use_cursors(connection: duckdb.DuckDBPyConnection) -> None:
    cursor = connection.cursor()
    assert history.user_deals(cursor, 10) == history.user_deals(connection, 10)
