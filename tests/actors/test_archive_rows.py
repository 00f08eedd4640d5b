"""Rows of the archive against tables made by hand, and against the accounts."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from excore_ray.actors.archive_follower import Follower
from excore_ray.actors.archive_rows import Scales, UnknownScale, ledger_rows, market_rows
from excore_ray.core.events import Posting
from excore_ray.core.orders import Side, order_id_of
from excore_ray.core.specs import Asset, Market
from tests.actors.archive_world import BTC, RULES, TABLES, USDT, Life, live
from tests.core import machines
from tests.core.machines import START_US, cancel, put_limit, put_market, with_fees

SELLER, BUYER, REFERRER = 1, 2, 3
ASSETS = [Asset(BTC, "BTC", 8, 8, ""), Asset(USDT, "USDT", 6, 6, "")]
SCALES = Scales(ASSETS, [Market("BTC/USDT", "", RULES)])


def rows_of(life: Life, stream: str) -> dict[str, list[dict[str, Any]]]:
    """All rows of a stream, replayed from its journal."""
    follower = Follower(life.reader(stream), 0, 0.0)
    while follower.read():
        follower.convert(SCALES, 0.0)
    names = TABLES[:2] if follower.kind == "market" else TABLES[2:]
    return {name: follower.tail(name).to_pylist() for name in names}


def small_life() -> Life:
    """A referred maker meets a limit order and a market order, and what is left is cancelled."""
    life = Life(shards=1)
    life.pay_in(SELLER, 10, 0)
    life.update(machines.update(BUYER, USDT, 1_000 * 10**6))
    life.wait(1)
    # 2 BTC at 100.00; half of the fee of 0.1 % goes to the referrer.
    life.put(with_fees(put_limit(SELLER, Side.SELL, 20_000, 10_000), 0, 10, (REFERRER, 5_000)))
    untouched = put_limit(SELLER, Side.SELL, 1, 20_000)
    life.put(untouched)
    life.wait(1)
    # 1.5 BTC at up to 101.00, fee 0.2 %.
    life.put(with_fees(put_limit(BUYER, Side.BUY, 15_000, 10_100), 20))
    life.wait(1)
    # As much as 45 USDT buy: 0.45 BTC, at 100.00.
    life.put(put_market(BUYER, Side.BUY, 45_005_000))
    life.wait(1)
    life.cancel(cancel(SELLER))
    life.wait(1)
    life.settle_all()
    return life


def plain(rows: list[dict[str, Any]], names: str) -> list[tuple[Any, ...]]:
    """Some columns: decimals as short text, times as microseconds since 1970."""
    return [tuple(_plain(row[name]) for name in names.split()) for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, datetime):
        return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return value


def test_deals() -> None:
    deals = rows_of(small_life(), "market-1")["deals"]
    resting, limit, market = (order_id_of(number, 1) for number in (1, 3, 4))
    assert plain(deals, "deal_id time side price amount deal taker_fee maker_fee seq") == [
        (1, START_US + 2, 2, "100", "1.5", "150", "0.003", "0.15", 6),
        (2, START_US + 3, 2, "100", "0.45", "45", "0", "0.045", 7),
    ]
    assert plain(deals, "taker_order_id taker_user maker_order_id maker_user") == [
        (limit, BUYER, resting, SELLER),
        (market, BUYER, resting, SELLER),
    ]


def test_orders() -> None:
    orders = rows_of(small_life(), "market-1")["orders"]
    resting, limit, market = (order_id_of(number, 1) for number in (1, 3, 4))
    names = "order_id user side type price amount left taker_fee maker_fee ref_user ref_rate source"
    # The order that was cancelled without a deal leaves no row.
    assert plain(orders, names) == [
        (limit, BUYER, 2, 1, "101", "1.5", "0", "0.002", "0", 0, "0", ""),
        (market, BUYER, 2, 2, "0", "45.005", "0.005", "0", "0", 0, "0", ""),
        (resting, SELLER, 1, 1, "100", "2", "0.05", "0", "0.001", REFERRER, "0.5", ""),
    ]
    assert plain(orders, "ctime ftime deal_stock deal_money deal_fee seq") == [
        (START_US + 2, START_US + 2, "1.5", "150", "0.003", 6),
        (START_US + 3, START_US + 3, "0.45", "45", "0", 7),
        (START_US + 1, START_US + 4, "1.95", "195", "0.195", 8),
    ]


def test_balances() -> None:
    life = small_life()
    rows = rows_of(life, "ledger-0")["balances"]
    last = life.disks["ledger-0"].next_seq - 1
    resting, limit, market = (order_id_of(number, 1) for number in (1, 3, 4))
    updates, trades = rows[:3], rows[3:]
    names = "user asset time business change balance detail market order_id deal_id price amount"
    nothing = (None,) * 5
    assert plain(updates, names) == [
        (SELLER, BTC, START_US, "test", "10", "10", "{}", *nothing),
        (SELLER, USDT, START_US, "test", "0", "0", "{}", *nothing),
        (BUYER, USDT, START_US, "test", "1000", "1000", "{}", *nothing),
    ]
    assert all(row["business_id"] > 0 and row["fee_rate"] is None for row in updates)
    assert [(row["seq"], row["step"]) for row in updates] == [(3, 0), (4, 0), (5, 0)]
    one, two = ("100", "1.5"), ("100", "0.45")
    assert plain(trades, "user asset business change balance order_id deal_id price amount") == [
        (BUYER, USDT, "trade", "-150", "850", limit, 1, *one),
        (BUYER, BTC, "trade", "1.5", "1.5", limit, 1, *one),
        (BUYER, BTC, "trade", "-0.003", "1.497", limit, 1, *one),
        (SELLER, BTC, "trade", "-1.5", "8.5", resting, 1, *one),
        (SELLER, USDT, "trade", "150", "150", resting, 1, *one),
        (SELLER, USDT, "trade", "-0.15", "149.85", resting, 1, *one),
        (REFERRER, USDT, "ref", "0.075", "0.075", resting, 1, None, None),
        (BUYER, USDT, "trade", "-45", "805", market, 2, *two),
        (BUYER, BTC, "trade", "0.45", "1.947", market, 2, *two),
        (SELLER, BTC, "trade", "-0.45", "8.05", resting, 2, *two),
        (SELLER, USDT, "trade", "45", "194.85", resting, 2, *two),
        (SELLER, USDT, "trade", "-0.045", "194.805", resting, 2, *two),
        (REFERRER, USDT, "ref", "0.0225", "0.0975", resting, 2, None, None),
    ]
    rates = [None, None, "0.002", None, None, "0.001", None, *[None] * 4, "0.001", None]
    assert plain(trades, "fee_rate") == [(rate,) for rate in rates]
    assert plain(trades, "time business_id detail market") == [(START_US + 5, 0, "", 1)] * 13
    assert [(row["seq"], row["step"]) for row in trades] == [(last, n) for n in range(13)]


@pytest.mark.parametrize("seed", range(5))
def test_the_changes_add_up_to_the_accounts(seed: int) -> None:
    print(f"seed {seed}")
    life = Life()
    live(life, random.Random(seed), 200)
    for shard, ledger in enumerate(life.ledgers):
        sums: dict[tuple[int, int], Decimal] = {}
        newest: dict[tuple[int, int], Decimal] = {}
        for row in rows_of(life, f"ledger-{shard}")["balances"]:
            account = row["user"], row["asset"]
            sums[account] = sums.get(account, Decimal(0)) + row["change"]
            newest[account] = row["balance"]
        held = {
            (user, asset): Decimal(account.available + account.frozen).scaleb(-save)
            for user, accounts in ledger.accounts.items()
            for asset, account in accounts.items()
            for save in [{BTC: 8, USDT: 6}[asset]]
        }
        assert sums == newest
        assert {key: value for key, value in sums.items() if value} == {
            key: value for key, value in held.items() if value
        }
    assert life.deals


def posting(**change: Any) -> Posting:
    fields = {"user": 1, "asset": BTC, "time_us": START_US, "business": "test"}
    return Posting(**({**fields, "change": 1, "balance": 1} | change))


UNKNOWN = [
    (posting(asset=9), "knows no asset 9"),
    (posting(market_no=7, order_id=7, deal_id=1, price=1, amount=1), "knows no market 7"),
]


@pytest.mark.parametrize(("told", "what"), UNKNOWN)
def test_what_the_catalog_does_not_know_yet_makes_no_row(told: Posting, what: str) -> None:
    with pytest.raises(UnknownScale, match=what):
        ledger_rows([told], [1], SCALES)


def test_a_quantity_the_lake_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="18"):
        ledger_rows([posting(balance=10**26)], [1], SCALES)


def test_the_largest_and_the_smallest_quantities_are_exact() -> None:
    largest = 10**26 - 1
    rows = ledger_rows([posting(change=-largest, balance=largest)], [1], SCALES)["balances"]
    assert rows["change"].to_pylist() == [-Decimal(largest).scaleb(-8)]
    assert rows["balance"].to_pylist() == [Decimal(largest).scaleb(-8)]


def test_steps_begin_anew_with_each_entry() -> None:
    seqs = [4, 4, 4, 5, 9, 9]
    rows = ledger_rows([posting()] * 6, seqs, SCALES)["balances"]
    assert rows["step"].to_pylist() == [0, 1, 2, 0, 0, 1]
    assert rows["seq"].to_pylist() == seqs


def test_nothing_told_makes_no_table() -> None:
    assert market_rows([], [], SCALES.market(1)) == {}
    assert ledger_rows([], [], SCALES) == {}
