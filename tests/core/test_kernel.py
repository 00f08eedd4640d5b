"""Matching against public vectors, and against a matcher of sixty lines.

Source: tests/vectors/README.md.
"""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from excore_ray.core import commands as c
from excore_ray.core.audit import check_conservation, check_market
from excore_ray.core.events import Deal, events_of
from excore_ray.core.market import Market
from excore_ray.core.orders import Side, order_id_of
from excore_ray.core.reasons import Reason, Refused
from tests.core import vectors
from tests.core.kernel import Kernel, Message
from tests.core.machines import PLAIN, cancel, new_market, put_limit, put_market
from tests.core.naive import NaiveMatcher

CONFORMANCE: dict[str, dict[str, Any]] = vectors.load("kernel/conformance_34.json")["cases"]
COINTOSSX: list[dict[str, Any]] = vectors.load("kernel/cointossx_22_cases.json")["cases"]
SIDES = {"buy": Side.BUY, "sell": Side.SELL}


def sha256(reports: list[str]) -> str:
    return hashlib.sha256("\n".join(reports).encode()).hexdigest()


def conformance_messages(name: str) -> list[Message]:
    messages = CONFORMANCE[name]["messages"]
    if isinstance(messages, list):
        return [tuple(message) for message in messages]
    assert messages["generator"].startswith("5000x NEW(i,SELL,1,100) then NEW(5001,BUY,5000,100")
    return [(0, 1, 0, 1, i, 100) for i in range(1, 5001)] + [(0, 0, 1, 5000, 5001, 100)]


@pytest.mark.parametrize("name", CONFORMANCE)
def test_conformance(name: str) -> None:
    # Also the cases that use an id twice: the driver gives each order an id of its own.
    case = CONFORMANCE[name]
    kernel = Kernel()
    reports: list[str] = []
    bests: list[list[int | None]] = []
    for message in conformance_messages(name):
        kernel.feed([message], reports)
        bests.append(kernel.best_bid_ask())
        if len(bests) <= 20:
            check_market(kernel.market)
    if isinstance(case["reports"], list):
        assert reports == case["reports"]
        assert bests == case["best_bid_ask_after_each"]
    else:
        assert len(reports) == case["reports"]["count"]
    assert sha256(reports) == case["sha256"]
    check_market(kernel.market)


class Table:
    """One CoinTossX case at work: their refs are our order numbers."""

    def __init__(self) -> None:
        self.market = new_market()
        self.refs: dict[int, int] = {}
        self.number = 0

    def put(self, row: dict[str, Any], money: int) -> object:
        self.number += 1
        order_id = order_id_of(self.number, PLAIN.market_no)
        self.refs[row["ref"]] = order_id
        side, user = SIDES[row["side"]], row["ref"]
        put: c.PutLimit | c.PutMarket
        if row["type"] == "market":
            amount = money if side == Side.BUY else int(row["amount"])
            put = put_market(user, side, amount)
        else:
            put = put_limit(user, side, int(row["amount"]), int(row["price"]))
        return self.market.execute(c.Place(order_id, put))

    def cancel(self, row: dict[str, Any]) -> object:
        return self.market.execute(cancel(row["ref"], self.refs.get(row["ref"], 4097)))

    def book(self) -> list[tuple[int, int, int, int]]:
        sides = self.market.sides.values()
        return [(o.order_id, o.side, o.price, o.left) for side in sides for o in side]


@pytest.mark.parametrize("case", COINTOSSX, ids=lambda case: case["source"].split(maxsplit=1)[1])
def test_cointossx(case: dict[str, Any]) -> None:
    table = Table()
    for row in case["init"]:
        table.put(row, 0)
    table.market.told.clear()
    for row in case["input"]:
        if case["kind"] == "cancel":
            answer = table.cancel(row)
            refused = answer.reason if isinstance(answer, Refused) else None
            assert refused == (Reason.ORDER_NOT_FOUND if case["expect_error"] else None)
        else:
            answer = table.put(row, int(case.get("rpc_market_buy_money", "0")))
            empty = row["type"] == "market" and not case["expect_trades"]
            assert isinstance(answer, Refused) == empty
    trades = [
        (e.price, e.amount) for e in events_of(table.market.record([])) if isinstance(e, Deal)
    ]
    assert trades == [(int(t["price"]), int(t["amount"])) for t in case["expect_trades"]]
    # Sides as they were put: the book of limitOrder/Test7 names the wrong one.
    sides = {row["ref"]: SIDES[row["side"]] for row in (*case["init"], *case["input"])}
    expected = [
        (table.refs[row["ref"]], sides[row["ref"]], int(row["price"]), int(row["amount"]))
        for row in case["expect_book"]
    ]
    # The tables list orders of one price in no order; ids grow with the time of arrival.
    best_first = sorted(expected, key=lambda o: (o[1], o[2] if o[1] == Side.SELL else -o[2], o[0]))
    assert table.book() == best_first
    check_market(table.market)


def test_the_normal_workload_begins_as_a_naive_matcher_has_it() -> None:
    assert_like_naive(vectors.read_messages(vectors.NORMAL, 10_000))


@pytest.mark.slow
def test_the_normal_workload_goes_on_as_a_naive_matcher_has_it() -> None:
    assert_like_naive(vectors.read_messages(vectors.NORMAL, 100_000))


def assert_like_naive(messages: list[Message]) -> None:
    naive = NaiveMatcher()
    naive.feed_all(messages)
    kernel = Kernel()
    reports: list[str] = []
    kernel.feed_all(messages, reports)
    assert reports == naive.reports
    check_market(kernel.market)
    assert_same_book(kernel, naive)


def assert_same_book(kernel: Kernel, naive: NaiveMatcher) -> None:
    market: Market = kernel.market
    for side, levels in zip((Side.BUY, Side.SELL), naive.sides, strict=True):
        amounts = {price: sum(left for _, left in queue) for price, queue in levels.items()}
        assert {level.price: level.amount for level in market.sides[side].levels()} == amounts
    check_conservation([market], [])


@pytest.mark.slow
def test_the_normal_workload_has_the_published_hash() -> None:
    messages = vectors.read_messages(vectors.NORMAL)
    kernel = Kernel()
    reports: list[str] = []
    kernel.feed_all(messages, reports)
    assert len(messages) == 1_996_097
    assert sha256(reports) == vectors.load("kernel/published_hashes.json")["normal_seed23"]
    check_market(kernel.market)
