"""A lake as months of trading leave it, drawn at random, made by vectors.

Separate from the benchmark, which asks it.  Deals, orders, changes of balances and bars tell of the
same trading: users pay what others receive, accounts go on from what they were, orders are the
sums of their deals.  A tenth of all orders comes from a thousandth of the users.

All entries are numbered from FIRST_SEQ on and no watermark is set, so an exchange whose journals
are empty can be started on this lake: its own entries do not collide with these.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from analytics import lake_compact
from analytics.lake import (
    SCHEMAS,
    AssetEntry,
    FileEntry,
    Lake,
    Manifest,
    MarketEntry,
    bars_of,
)
from analytics.lake_schema import QUANTITY, RATE
from excore_ray.core.orders import ORDER_ID_STRIDE

MARKETS, DAYS, USERS, BUSY_USERS = 8, 30, 100_000, 100
FIRST_SEQ = 1_000_000_000
STOCK, MONEY = 1, 2
ID_STEP = 3  # two of three order ids are of orders that never dealt, which no lake knows
_SLICES = 4  # flushes of a day
_DEALS_A_TURN, _ROWS_A_DEAL = 20, 6
_DAY_US = 86_400_000_000
_TAKER_RATE, _MAKER_RATE = 20, 10  # in ten-thousandths
_DIGITS = 12  # at which every quantity is a whole number: an amount has 6, a price 2, a fee 4 more
_OPENING = 10**18  # what each account has before, at _DIGITS
# Eight deals are of nine orders: takers 0 to 3 with two deals each, makers 4 to 8, whose deals
# lie across those of the takers.  These are the first and the last deal of each.
_DEALS, _ORDERS = 8, 9
_FIRST_DEAL = np.array([0, 2, 4, 6, 0, 1, 3, 5, 7])
_LAST_DEAL = np.array([1, 3, 5, 7, 0, 2, 4, 6, 7])
_IS_TAKER = np.arange(_ORDERS) < 4

Columns = dict[str, np.ndarray]


class Made(NamedTuple):
    """What making took.  rows: by table, bars as they are after compaction."""

    rows: dict[str, int]
    write_s: float
    compact_s: float


def lake_dates() -> list[str]:
    """The UTC dates of a lake that is made now: DAYS of them, ending yesterday."""
    today = datetime.now(UTC).date()
    return [(today - timedelta(days=n)).isoformat() for n in range(DAYS, 0, -1)]


def is_made(manifest: Manifest) -> bool:
    """Whether the lake was made to its end; ValueError when making it was broken off."""
    if manifest.files and not manifest.markets:
        raise ValueError("this lake was not made to its end: remove it")
    return bool(manifest.files)


def make(lake: Lake, deals: int) -> Made:
    """Fill an empty lake with about `deals` deals; flushed in parts, then compacted.

    Memory: what a quarter of a day has, and one merge.
    """
    chance = np.random.default_rng(1)
    markets = [_Market(number) for number in range(1, MARKETS + 1)]
    ledger = _Ledger()
    count = max(1, round(deals / (MARKETS * DAYS * _SLICES * _DEALS))) * _DEALS
    written_s = compacted_s = 0.0
    for date in lake_dates():
        began = time.perf_counter()
        for bounds_us in _slices(date):
            _write_slice(lake, markets, ledger, (chance, count, bounds_us))
        written = time.perf_counter()
        compact(lake)
        written_s += written - began
        compacted_s += time.perf_counter() - written
    lake.commit(lake.manifest(), assets=_ASSETS, markets=_MARKETS)
    lake.sweep(0, time.time() + 1)
    rows = dict.fromkeys(SCHEMAS, 0)
    for entry in lake.manifest().files:
        rows[entry.table] += entry.rows
    return Made(rows, written_s, compacted_s)


def compact(lake: Lake) -> None:
    """Merge until there is nothing left to merge; one commit a round."""
    today = datetime.now(UTC).date().isoformat()
    while True:
        manifest = lake.manifest()
        merges = lake_compact.plan(manifest, today)
        if not merges:
            return
        added = [
            made for each in merges for made in lake_compact.merge(lake, each, manifest.version)
        ]
        lake.commit(manifest, add=added, remove=[old for each in merges for old in each.files])


class _Market:
    """Where one market stands: its newest entry, deal, order number and price."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.seq = FIRST_SEQ - 1
        self.deal_id = self.order_number = 0
        self.price = 20_000 * number


class _Ledger:
    """Where the shard stands: its newest entry, and each account by user and asset."""

    def __init__(self) -> None:
        self.seq = FIRST_SEQ - 1
        self.balances = np.full((USERS + 1) * 2, _OPENING)


def _slices(date: str) -> Iterator[tuple[int, int]]:
    first = datetime.fromisoformat(date).replace(tzinfo=UTC)
    first_us = int(first.timestamp()) * 1_000_000
    step_us = _DAY_US // _SLICES
    for n in range(_SLICES):
        yield first_us + n * step_us, first_us + (n + 1) * step_us


def _write_slice(
    lake: Lake,
    markets: list[_Market],
    ledger: _Ledger,
    drawn: tuple[np.random.Generator, int, tuple[int, int]],
) -> None:
    """One flush of each market and of the shard.  drawn: from what, deals a market, and when."""
    files: list[FileEntry] = []
    all_deals: list[Columns] = []
    for market in markets:
        first = market.seq + 1
        deals, orders = _trade(market, *drawn)
        all_deals.append(deals)
        rows = _deals_table(deals)
        files += lake.write("deals", market.number, first, market.seq, rows)
        files += lake.write("bars", market.number, first, market.seq, bars_of(rows))
        files += lake.write("orders", market.number, first, market.seq, _orders_table(orders))
    first = ledger.seq + 1
    merged = {name: np.concatenate([each[name] for each in all_deals]) for name in all_deals[0]}
    in_time = np.argsort(merged["time"], kind="stable")
    changes = _settle(ledger, {name: column[in_time] for name, column in merged.items()})
    files += lake.write("balances", 0, first, ledger.seq, _balances_table(changes))
    lake.commit(lake.manifest(), add=files)


def _users(chance: np.random.Generator, count: int) -> np.ndarray:
    """Users of so many orders: each tenth is one of the busy."""
    users = chance.integers(1, USERS + 1, count)
    busy = chance.random(count) < 0.1
    users[busy] = chance.integers(1, BUSY_USERS + 1, busy.sum())
    return users


def _trade(
    market: _Market, chance: np.random.Generator, count: int, bounds_us: tuple[int, int]
) -> tuple[Columns, Columns]:
    """`count` deals of a market within `bounds_us`, and the orders that they fill."""
    groups = count // _DEALS
    group, place = np.divmod(np.arange(count), _DEALS)
    taker, maker = group * _ORDERS + place // 2, group * _ORDERS + 4 + (place + 1) // 2
    # Both deals of a taker are of one moment.
    time_us = np.repeat(np.sort(chance.integers(*bounds_us, count // 2)), 2)
    prices = np.maximum(market.price + np.cumsum(chance.integers(-1, 2, groups * 5)), 1_000)
    market.price = int(prices[-1])
    price = prices[group * 5 + (place + 1) // 2]
    amount = chance.integers(1, 10**6, count)
    taker_side = np.repeat(chance.integers(1, 3, groups), _ORDERS)
    is_taker = np.tile(_IS_TAKER, groups)
    first, last = (
        (np.arange(groups)[:, None] * _DEALS + each).ravel() for each in (_FIRST_DEAL, _LAST_DEAL)
    )
    again = np.where(first == last, 0, 1)
    lag_us = np.where(is_taker, 0, chance.exponential(600e6, len(first))).astype(np.int64)
    orders: Columns = {
        "user": _users(chance, len(first)),
        "side": np.where(is_taker, taker_side, 3 - taker_side),
        "ctime": time_us[first] - lag_us,
        "ftime": time_us[last],
        "price": price[last],
        "deal_stock": amount[first] + again * amount[last],
        "deal_money": (amount * price)[first] + again * (amount * price)[last],
        "rate": np.where(is_taker, _TAKER_RATE, _MAKER_RATE),
    }
    number = np.empty(len(first), np.int64)
    number[np.argsort(orders["ctime"], kind="stable")] = np.arange(1, len(first) + 1)
    orders["order_id"] = (market.order_number + number) * ID_STEP * ORDER_ID_STRIDE + market.number
    seq = market.seq + 1 + np.arange(count) // _DEALS_A_TURN
    orders["seq"] = seq[last]
    deals: Columns = {
        "deal_id": market.deal_id + 1 + np.arange(count),
        "time": time_us,
        "side": orders["side"][taker],
        "price": price,
        "amount": amount,
        "deal": price * amount,
        "seq": seq,
        "market": np.full(count, market.number),
    }
    for role, order in (("taker", taker), ("maker", maker)):
        deals[f"{role}_order_id"] = orders["order_id"][order]
        deals[f"{role}_user"] = orders["user"][order]
        side, rate = orders["side"][order], orders["rate"][order]
        deals[f"{role}_fee"] = _fee(side, amount, deals["deal"], rate)
    market.seq, market.deal_id = int(seq[-1]), market.deal_id + count
    market.order_number += len(first)
    return deals, orders


def _fee(side: np.ndarray, stock: np.ndarray, money: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """The fee in what a side receives, at _DIGITS.  stock: with 6 digits, money: with 8."""
    fee: np.ndarray = np.where(side == 2, stock * 100, money) * rate
    return fee


def _settle(ledger: _Ledger, deals: Columns) -> Columns:
    """Changes of accounts that deals in their order make, with the balances they lead to."""
    count = len(deals["time"])
    stock, money = deals["amount"] * 10**6, deals["deal"] * 10**4
    users, assets, changes, orders = [], [], [], []
    for role in ("taker", "maker"):
        buys = (deals["side"] == 2) == (role == "taker")
        given, taken = np.where(buys, MONEY, STOCK), np.where(buys, STOCK, MONEY)
        assets += [given, taken, taken]
        changes += [-np.where(buys, money, stock), np.where(buys, stock, money)]
        changes.append(-deals[f"{role}_fee"])
        users += [deals[f"{role}_user"]] * 3
        orders += [deals[f"{role}_order_id"]] * 3
    turn, in_turn = np.divmod(np.arange(count), _DEALS_A_TURN)
    rows = _ROWS_A_DEAL
    made: Columns = {
        name: np.repeat(deals[name], rows)
        for name in ("time", "market", "deal_id", "price", "amount")
    }
    made |= {
        "user": np.stack(users, axis=1).ravel(),
        "asset": np.stack(assets, axis=1).ravel(),
        "change": np.stack(changes, axis=1).ravel(),
        "order_id": np.stack(orders, axis=1).ravel(),
        "rate": np.tile([0, 0, _TAKER_RATE, 0, 0, _MAKER_RATE], count),
        "seq": np.repeat(ledger.seq + 1 + turn, rows),
        "step": np.repeat(in_turn * rows, rows) + np.tile(np.arange(rows), count),
    }
    account = made["user"] * 2 + made["asset"] - 1
    order = np.argsort(account, kind="stable")
    account, change = account[order], made["change"][order]
    begins = np.flatnonzero(np.diff(account, prepend=-1))
    ends = np.append(begins[1:], len(account))
    total = np.cumsum(change)
    before = ledger.balances[account[begins]] - (total - change)[begins]
    balance = total + np.repeat(before, ends - begins)
    ledger.balances[account[begins]] = balance[ends - 1]
    made["balance"] = np.empty_like(balance)
    made["balance"][order] = balance
    ledger.seq = int(made["seq"][-1])
    return made


# Columns of numbers as tables of the lake.


def _quantity(values: np.ndarray, digits: int) -> pa.Array:
    """Whole numbers at `digits` as quantities; the cast appends the zeros that are missing."""
    cast = pa.array(values, pa.int64()).cast(pa.decimal128(38, QUANTITY.scale - digits))
    return pa.Array.from_buffers(QUANTITY, len(values), cast.buffers())


def _rate(values: np.ndarray, null_at_0: bool = False) -> pa.Array:
    """Ten-thousandths as rates."""
    whole = pa.array(values, pa.int64(), mask=(values == 0) if null_at_0 else None)
    return pa.Array.from_buffers(RATE, len(values), whole.cast(pa.decimal128(19, 0)).buffers())


def _alike(value: object, kind: pa.DataType, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, kind), count)


def _table(name: str, columns: dict[str, pa.Array]) -> pa.Table:
    """The columns with the types of the table; those that are numbers here are cast."""
    schema = SCHEMAS[name]
    arrays = [columns[field.name].cast(field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _deals_table(deals: Columns) -> pa.Table:
    columns = {name: pa.array(column) for name, column in deals.items()}
    columns |= {"price": _quantity(deals["price"], 2), "amount": _quantity(deals["amount"], 6)}
    columns["deal"] = _quantity(deals["deal"], 8)
    for role in ("taker", "maker"):
        columns[f"{role}_fee"] = _quantity(deals[f"{role}_fee"], _DIGITS)
    return _table("deals", columns)


def _orders_table(orders: Columns) -> pa.Table:
    count = len(orders["user"])
    columns = {name: pa.array(column) for name, column in orders.items()}
    stock, money = orders["deal_stock"], orders["deal_money"]
    fee = _fee(orders["side"], stock, money, orders["rate"])
    zeros = np.zeros(count, np.int64)
    columns |= {
        "type": _alike(1, pa.int8(), count),
        "price": _quantity(orders["price"], 2),
        "amount": _quantity(stock, 6),
        "left": _quantity(zeros, 6),
        "taker_fee": _rate(zeros + _TAKER_RATE),
        "maker_fee": _rate(zeros + _MAKER_RATE),
        "ref_user": pa.array(zeros),
        "ref_rate": _rate(zeros),
        "source": _alike("web", pa.string(), count),
        "deal_stock": _quantity(stock, 6),
        "deal_money": _quantity(money, 8),
        "deal_fee": _quantity(fee, _DIGITS),
    }
    return _table("orders", columns)


def _balances_table(changes: Columns) -> pa.Table:
    count = len(changes["user"])
    columns = {name: pa.array(column) for name, column in changes.items()}
    columns |= {
        "business": _alike("trade", pa.string(), count),
        "change": _quantity(changes["change"], _DIGITS),
        "balance": _quantity(changes["balance"], _DIGITS),
        "business_id": _alike(0, pa.int64(), count),
        "detail": _alike("", pa.string(), count),
        "price": _quantity(changes["price"], 2),
        "amount": _quantity(changes["amount"], 6),
        "fee_rate": _rate(changes["rate"], null_at_0=True),
    }
    return _table("balances", columns)


_ASSETS: list[AssetEntry] = [
    {"asset_id": STOCK, "name": "BTC", "prec_save": 20, "prec_show": 8},
    {"asset_id": MONEY, "name": "USDT", "prec_save": 20, "prec_show": 8},
]
_MARKETS: list[MarketEntry] = [
    {
        "market": number,
        "name": f"M{number}",
        "stock": STOCK,
        "money": MONEY,
        "stock_prec": 8,
        "money_prec": 8,
    }
    for number in range(1, MARKETS + 1)
]
