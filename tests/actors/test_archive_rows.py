"""Rows of the archive against tables made by hand, and against the accounts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.lake import SCHEMAS
from excore_ray.actors.archive_follower import Follower
from excore_ray.actors.archive_rows import Scales, UnknownScale, ledger_rows, market_rows
from excore_ray.core.commands import Leg
from excore_ray.core.events import Deal, OrderFinished
from excore_ray.core.orders import Side, order_id_of
from excore_ray.core.postings import LegPosted, Posting
from excore_ray.core.specs import Asset, Market
from tests.actors.archive_world import BTC, RULES, TABLES, USDT, Life, live
from tests.core import machines
from tests.core.machines import START_US, cancel, put_limit, put_market, with_fees
from tests.core.postings import changes_of

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


def leg_posted(**change: Any) -> LegPosted:
    """Of a user who sells one BTC for one USDT; names are those of event and leg together."""
    leg = {"order_id": 4097, "user": 1, "side": 1, "role": 2, "deal_id": 1, "price": 100}
    leg |= {"amount": 10_000, "fee_rate": 0, "debit": 10**8, "credit_asset": USDT}
    leg |= {"credit": 10**6, "fee": 0, "referral": 0}
    event = {"time_us": START_US, "market_no": 1, "debit_asset": BTC}
    event |= {"debit_balance": 0, "credit_balance": 10**6}
    assert change.keys() <= leg.keys() | event.keys()
    leg |= {name: value for name, value in change.items() if name in leg}
    return LegPosted(leg=Leg(**leg), **(event | {k: v for k, v in change.items() if k in event}))


UNKNOWN = [
    (posting(asset=9), "knows no asset 9"),
    (posting(market_no=7, order_id=7, deal_id=1), "knows no market 7"),
    (leg_posted(debit_asset=9), "knows no asset 9"),
    (leg_posted(credit_asset=9), "knows no asset 9"),
    (leg_posted(market_no=7), "knows no market 7"),
]


@pytest.mark.parametrize(("told", "what"), UNKNOWN)
def test_what_the_catalog_does_not_know_yet_makes_no_row(
    told: LegPosted | Posting, what: str
) -> None:
    with pytest.raises(UnknownScale, match=what):
        ledger_rows([told], [1], SCALES)


TOO_LARGE = [
    posting(balance=10**26),
    posting(change=-(10**26)),
    leg_posted(debit=10**26),
    leg_posted(credit=10**24),
    leg_posted(fee=10**24),
    leg_posted(debit_balance=10**26),
    leg_posted(credit_balance=10**24),
    leg_posted(credit_balance=10**24 - 1, fee=1),  # before the fee it was one more
    leg_posted(price=10**20),
    leg_posted(amount=10**22),
]


@pytest.mark.parametrize("told", TOO_LARGE)
def test_a_quantity_the_lake_cannot_hold_is_refused(told: LegPosted | Posting) -> None:
    with pytest.raises(ValueError, match="18"):
        ledger_rows([posting(), told], [1, 1], SCALES)


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


def naive_rows(events: Sequence[LegPosted | Posting], seqs: Sequence[int]) -> list[dict[str, Any]]:
    """The rows of balances, one after the other."""
    rows: list[dict[str, Any]] = []
    for event, seq in zip(events, seqs, strict=True):
        for told in changes_of([event]):
            step = rows[-1]["step"] + 1 if rows and rows[-1]["seq"] == seq else 0
            save = {BTC: 8, USDT: 6}[told.asset]
            values = [
                told.user,
                told.asset,
                datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=told.time_us),
                told.business,
                exact(told.change, save),
                exact(told.balance, save),
                told.business_id,
                told.detail,
                told.market_no or None,
                told.order_id or None,
                told.deal_id or None,
                exact(told.price, 2) if told.price else None,
                exact(told.amount, 4) if told.amount else None,
                exact(told.fee_rate, 4) if told.fee_rate >= 0 else None,
                seq,
                step,
            ]
            rows.append(dict(zip(SCHEMAS["balances"].names, values, strict=True)))
    return rows


def exact(value: int, digits: int) -> Decimal:
    return Decimal(f"{value}e-{digits}")  # which, unlike scaleb, never rounds


NOTHING_OR_MORE = st.integers(0, 1_000) | st.integers(0, 2**65)
ANY_SIZE = st.integers(-1_000, 1_000) | st.integers(-(2**64), 2**64)
IDS = st.integers(1, 2**53)
LEGS = st.builds(
    leg_posted,
    time_us=st.integers(0, 2**52),
    user=st.integers(1, 2**32),
    order_id=IDS,
    deal_id=IDS,
    price=st.integers(1, 2**65),
    amount=st.integers(1, 2**65),
    fee_rate=st.integers(0, 10_000),
    debit=NOTHING_OR_MORE,
    credit=NOTHING_OR_MORE,
    fee=st.just(0) | NOTHING_OR_MORE,
    debit_balance=ANY_SIZE,
    credit_balance=ANY_SIZE,
    debit_asset=st.sampled_from((BTC, USDT)),
    credit_asset=st.sampled_from((BTC, USDT)),
)
POSTINGS = st.builds(
    posting,
    asset=st.sampled_from((BTC, USDT)),
    business=st.text(max_size=3),
    change=ANY_SIZE,
    balance=ANY_SIZE,
    business_id=st.integers(0, 2**63 - 1),
    detail=st.text(max_size=3),
) | st.builds(posting, business=st.just("ref"), market_no=st.just(1), order_id=IDS, deal_id=IDS)


@given(st.lists(st.tuples(LEGS | POSTINGS, st.integers(0, 1)), min_size=1))
def test_rows_are_what_a_naive_count_says(
    told: list[tuple[LegPosted | Posting, int]],
) -> None:
    events, seqs, seq = [], [], 1
    for event, later in told:
        seq += later
        events.append(event)
        seqs.append(seq)
    rows = ledger_rows(events, seqs, SCALES)["balances"]
    rows.validate(full=True)
    assert rows.schema.equals(SCHEMAS["balances"], check_metadata=True)
    assert rows.to_pylist() == naive_rows(events, seqs)
    # Nobody sees where a chunk ends: the rows are the same when it ends between any two entries.
    cut = seqs.index(seqs[len(seqs) // 2])
    parts = [
        ledger_rows(events[some], seqs[some], SCALES) for some in (slice(cut), slice(cut, None))
    ]
    apart = [row for part in parts for table in part.values() for row in table.to_pylist()]
    assert apart == rows.to_pylist()


def test_the_events_of_a_market_keep_their_entries_and_order() -> None:
    deals = [Deal(n, START_US, 2 - n % 2, 10_000, n, 1, 1, n, 2, 2, n) for n in (1, 2, 3)]
    finished = [
        OrderFinished(n, 1, side, kind, 10_000, 5, 5, 0, 0, 0, 0, "", 1, 2, 3, 4, 5)
        for n, (side, kind) in enumerate(((1, 1), (1, 2), (2, 1), (2, 2)))
    ]
    events = [deals[0], finished[0], finished[1], deals[1], finished[2], deals[2], finished[3]]
    tables = market_rows(events, [1, 1, 2, 3, 4, 4, 9], SCALES.market(1))
    # A taker who sells pays the fee in USDT, and the maker in BTC; and the other way round.
    assert plain(tables["deals"].to_pylist(), "deal_id side taker_fee maker_fee seq") == [
        (1, 1, "0.000001", "0.00000001", 1),
        (2, 2, "0.00000002", "0.000002", 3),
        (3, 1, "0.000003", "0.00000003", 4),
    ]
    # A market buy alone has its size in USDT.
    assert plain(tables["orders"].to_pylist(), "order_id amount left deal_fee seq") == [
        (0, "0.0005", "0.0005", "0.000005", 1),
        (1, "0.0005", "0.0005", "0.000005", 2),
        (2, "0.0005", "0.0005", "0.00000005", 4),
        (3, "0.000005", "0.000005", "0.00000005", 9),
    ]
