"""Questions: answered from the state as it is, changing nothing."""

from __future__ import annotations

import pytest

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.ledger import Ledger
from excore_ray.core.market import Market
from excore_ray.core.orders import order_id_of
from excore_ray.core.reads import answer_ledger_query, answer_market_query
from excore_ray.core.reasons import Reason, Refused
from tests.core.machines import MONEY, STOCK, update
from tests.core.play import play

BOOK = """
    put a1 ask 5 @ 101
    put a2 ask 3 @ 100 fee=20/10 ref=4/5000
    put a3 bid 4 @ 98
    put b1 bid 1 @ 99
    put b2 ask 2 @ 100
    put c1 bid 1 @ 100   -> a2 1@100
"""
A1, A2, A3, B1, B2, C1 = (order_id_of(n, 1) for n in range(1, 7))

PAGES = [
    (m.AskBook(1, 0, 10), 3, [A2, B2, A1]),
    (m.AskBook(2, 0, 10), 2, [B1, A3]),
    (m.AskBook(1, 1, 1), 3, [B2]),
    (m.AskBook(1, 3, 1), 3, []),
    (m.AskBook(1, 2**63 - 1, 100), 3, []),
    (m.AskPending(1, 0, 10), 3, [A3, A2, A1]),
    (m.AskPending(1, 1, 1), 3, [A2]),
    (m.AskPending(3, 0, 10), 0, []),
    (m.AskPending(1, 2**63 - 1, 100), 3, []),
]


@pytest.mark.parametrize(("ask", "total", "ids"), PAGES)
def test_pages_of_orders(market: Market, ask: m.Ask, total: int, ids: list[int]) -> None:
    play(market, BOOK)
    answer = answer_market_query(market, ask)
    assert isinstance(answer, m.Orders)
    assert (answer.total, [order.order_id for order in answer.orders]) == (total, ids)


def test_an_open_order(market: Market) -> None:
    play(market, BOOK)
    now = market.time_us
    view = m.OrderView(A2, 1, 1, 100, 3, 2, 20, 10, 4, 5000, "", now, now, 1, 100, 0)
    assert answer_market_query(market, m.AskOrder(A2)) == view
    for gone in (C1, order_id_of(9, 1)):
        answer = answer_market_query(market, m.AskOrder(gone))
        assert isinstance(answer, Refused)
        assert answer.reason is Reason.ORDER_NOT_FOUND


def test_depth_and_counts(market: Market) -> None:
    play(market, BOOK)
    depth = m.Depth([100, 4, 101, 5], [99, 1, 98, 4])
    assert answer_market_query(market, m.AskDepth(9, 0)) == depth
    assert answer_market_query(market, m.AskDepth(9, 50)) == m.Depth([100, 4, 150, 5], [50, 5])
    assert answer_market_query(market, m.AskCounts()) == m.Counts(3, 2)


def stocked(ledger: Ledger) -> Ledger:
    for row in ((1, STOCK, 10), (1, MONEY, 500), (2, STOCK, 7), (2, STOCK, -7), (3, MONEY, 1)):
        ledger.execute(update(*row))
    holds = [
        c.Hold(A1, 1, STOCK, 10, True),
        c.Hold(A2, 1, MONEY, 200, True),
        c.Hold(A3, 1, MONEY, 100, False),
    ]
    ledger.execute(c.Reserve(1, 1, holds))
    ledger.execute(c.Reserve(2, 1, [c.Hold(order_id_of(1, 2), 1, MONEY, 50, True)]))
    ledger.execute(c.Settle(1, 1, 0, 1, [c.Release(A1, 4)], (0, 0)))
    return ledger


def test_accounts(ledger: Ledger) -> None:
    stocked(ledger)
    both = [m.Account(STOCK, 4, 6), m.Account(MONEY, 150, 350)]
    assert answer_ledger_query(ledger, m.AskAccounts(1, [])) == m.Accounts(both)
    assert answer_ledger_query(ledger, m.AskAccounts(1, [MONEY, 9])) == m.Accounts(both[1:])
    assert answer_ledger_query(ledger, m.AskAccounts(9, [])) == m.Accounts([])
    assert 9 not in ledger.accounts


def test_totals_count_users_with_something(ledger: Ledger) -> None:
    stocked(ledger)
    stock = m.AssetTotal(STOCK, 4, 1, 6, 1, 0, 10, 0)
    money = m.AssetTotal(MONEY, 151, 2, 350, 1, 0, 501, 0)
    assert answer_ledger_query(ledger, m.AskAssets([])) == m.AssetTotals([stock, money])
    assert answer_ledger_query(ledger, m.AskAssets([MONEY])) == m.AssetTotals([money])
    assert answer_ledger_query(ledger, m.AskAssets([9])) == m.AssetTotals([])


def test_markets_where_a_user_has_open_orders(ledger: Ledger) -> None:
    stocked(ledger)
    assert answer_ledger_query(ledger, m.AskPendingList(1)) == m.PendingCounts([1, 2, 2, 1])
    assert answer_ledger_query(ledger, m.AskPendingList(2)) == m.PendingCounts([])


def test_holds_for_a_market(ledger: Ledger) -> None:
    stocked(ledger)
    holds = m.ShardHolds(1, [A1, 6, A2, 200, A3, 100], (0, 0))
    assert answer_ledger_query(ledger, m.AskHolds(0, 1)) == holds
    assert answer_ledger_query(ledger, m.AskHolds(0, 7)) == m.ShardHolds(0, [], (0, 0))


def test_a_question_for_somebody_else_is_refused(market: Market, ledger: Ledger) -> None:
    for answer in (
        answer_market_query(market, m.AskPendingList(1)),
        answer_ledger_query(ledger, m.AskCounts()),
    ):
        assert isinstance(answer, Refused)
        assert answer.reason is Reason.INVALID_ARGUMENT
