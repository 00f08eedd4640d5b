"""A naive exchange for the tests of checks: whoever comes trades with whoever is there.

Separate because it is an oracle: it shares no arithmetic with the checks or with the real rules.
It has no prices to cross and no holds, only what the lake tells of: deals, finished orders, and
what they do to accounts, with fees and referrals, shard by shard and late.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Context, Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

from analytics.lake import AssetEntry, Lake, MarketEntry, bars_of
from tests.analytics.filled_lake import table_of

Row = dict[str, Any]

ASSETS: list[AssetEntry] = [
    {"asset_id": 1, "name": "BTC", "prec_save": 8, "prec_show": 8},
    {"asset_id": 2, "name": "USDT", "prec_save": 20, "prec_show": 8},
    {"asset_id": 3, "name": "DOGE", "prec_save": 4, "prec_show": 4},
]
MARKETS: list[MarketEntry] = [
    {"market": 1, "name": "BTC_USDT", "stock": 1, "money": 2, "stock_prec": 4, "money_prec": 6},
    {"market": 2, "name": "DOGE_BTC", "stock": 3, "money": 1, "stock_prec": 0, "money_prec": 4},
]
SHARDS, USERS = 2, 8
SELL, BUY, LIMIT, MARKET = 1, 2, 1, 2
MAKER, TAKER = 1, 2
START_US = 1_767_225_000_000_000  # ten minutes before a midnight
_EXACT = Context(prec=90, rounding=ROUND_DOWN)


@dataclass
class Told:
    """All rows of all streams, by table and part; each has the entry that made it as seq."""

    tables: dict[str, dict[int, list[Row]]] = field(
        default_factory=lambda: {
            table: defaultdict(list) for table in ("deals", "orders", "balances", "bars")
        }
    )

    def last_seq(self, table: str, part: int) -> int:
        """The entry of the newest row, 0 when there is none."""
        return max((row["seq"] for row in self.tables[table][part]), default=0)

    def all(self, table: str) -> list[Row]:
        """The rows of every part, in their order."""
        return [row for part in sorted(self.tables[table]) for row in self.tables[table][part]]


class NaiveExchange:
    """Two markets, two shards and a few users, driven by chance.

    told: what the lake would know.  pending: what each shard has not applied yet.
    """

    def __init__(self, seed: int) -> None:
        self.told = Told()
        self.pending: dict[int, list[Callable[[int, int], Row]]] = defaultdict(list)
        self._chance = random.Random(seed)
        self._now_us = START_US
        self._seqs: dict[tuple[str, int], int] = defaultdict(int)
        self._orders: dict[int, list[Row]] = {1: [], 2: []}
        self._order_count = 0
        self._balances: dict[tuple[int, int], Decimal] = defaultdict(Decimal)

    def run(self, steps: int) -> Told:
        """So many things that happen, and then all that is pending."""
        for user in range(1, USERS + 1):
            self.update(user, 2, Decimal("700000000000000000"))
        for _ in range(steps):
            self._now_us += self._chance.choice((0, 1, 999_999, self._chance.randrange(40_000_000)))
            match self._chance.randrange(6):
                case 0:
                    amount = Decimal(self._chance.randrange(-(10**6), 10**7)).scaleb(-4)
                    self.update(self._user(), self._chance.choice((1, 2, 3)), amount)
                case 1 | 2:
                    self.deliver(self._chance.randrange(SHARDS), self._chance.randint(1, 5))
                case _:
                    self._put(self._chance.choice((1, 2)))
        for shard in range(SHARDS):
            self.deliver(shard, len(self.pending[shard]))
        return self.told

    def update(self, user: int, asset: int, change: Decimal) -> None:
        """Somebody pays in or out; a caller may use any word for it."""
        word = self._chance.choice(("deposit", "trade", "ref"))
        self.pending[user % SHARDS].append(
            lambda seq, step: self._posting(user, asset, change, (seq, step), business=word)
        )

    def deliver(self, shard: int, count: int) -> None:
        """The shard applies the next so many changes as one entry."""
        seq = self._next("balances", shard)
        jobs, self.pending[shard] = self.pending[shard][:count], self.pending[shard][count:]
        self.told.tables["balances"][shard] += [job(seq, step) for step, job in enumerate(jobs)]

    def _put(self, market: int) -> None:
        """A new order, which trades with some that are there."""
        side, seq = self._chance.choice((SELL, BUY)), self._next("deals", market)
        rates = [Decimal(self._chance.choice((0, 1, 20, 9_999))).scaleb(-4) for _ in range(2)]
        order = {
            "order_id": self._new_order_id(market),
            "user": self._user(),
            "side": side,
            "type": self._chance.choice((LIMIT, MARKET)),
            "price": self._price(market),
            "taker_fee": rates[0],
            "maker_fee": rates[1],
            "ref_user": self._chance.choice((0, self._user())),
            "ref_rate": Decimal(self._chance.choice((0, 3_333, 10_000))).scaleb(-4),
            "source": "naive",
            "ctime": self._now_us,
            "ftime": self._now_us,
            **dict.fromkeys(("deal_stock", "deal_money", "deal_fee"), Decimal(0)),
        }
        makers = [each for each in self._orders[market] if each["side"] != side]
        for maker in makers[: self._chance.randint(0, 3)]:
            whole = maker["open"] if self._chance.random() < 0.6 else None
            self._deal(market, seq, (order, maker), whole or self._size(market, maker["open"]))
        rest = self._size(market, Decimal(50)) if order["type"] == LIMIT else Decimal(0)
        order["open"] = rest
        if order["type"] == LIMIT and self._chance.random() < 0.9:
            self._orders[market].append(order)
        elif order["deal_stock"]:
            self._finish(market, seq, order)
        for each in [each for each in makers if not each["open"] or self._chance.random() < 0.1]:
            self._orders[market].remove(each)
            if each["deal_stock"]:
                self._finish(market, seq, each)

    def _deal(self, market: int, seq: int, pair: tuple[Row, Row], amount: Decimal) -> None:
        taker, maker = pair
        deals = self.told.tables["deals"][market]
        money = _EXACT.multiply(maker["price"], amount)
        deal = {"deal_id": len(deals) + 1, "time": self._now_us, "side": taker["side"]}
        deal |= {"price": maker["price"], "amount": amount, "deal": money, "seq": seq}
        maker["open"] -= amount
        for role, name, order in ((TAKER, "taker", taker), (MAKER, "maker", maker)):
            fee = self._leg(market, deal, order, role)
            deal |= {f"{name}_order_id": order["order_id"], f"{name}_user": order["user"]}
            deal[f"{name}_fee"] = fee
        deals.append(deal)

    def _leg(self, market: int, deal: Row, order: Row, role: int) -> Decimal:
        """What one side pays and receives; its fee."""
        stock, money = MARKETS[market - 1]["stock"], MARKETS[market - 1]["money"]
        if order["side"] == SELL:
            paid, got = (stock, deal["amount"]), (money, deal["deal"])
        else:
            paid, got = (money, deal["deal"]), (stock, deal["amount"])
        rate = order["taker_fee"] if role == TAKER else order["maker_fee"]
        fee = _cut(got[0], got[1], rate)
        order["deal_stock"] += deal["amount"]
        order["deal_money"] = _EXACT.add(order["deal_money"], deal["deal"])
        order["deal_fee"] = _EXACT.add(order["deal_fee"], fee)
        about = {"market": market, "order_id": order["order_id"], "deal_id": deal["deal_id"]}
        numbers = {"price": deal["price"], "amount": deal["amount"], "business": "trade"}
        user = order["user"]
        self._later(user, paid[0], -paid[1], about | numbers)
        self._later(user, got[0], got[1], about | numbers)
        if fee:
            self._later(user, got[0], -fee, about | numbers | {"fee_rate": rate})
        share = _cut(got[0], fee, order["ref_rate"]) if order["ref_user"] else Decimal(0)
        if share:
            self._later(order["ref_user"], got[0], share, about | {"business": "ref"})
        return fee

    def _later(self, user: int, asset: int, change: Decimal, more: Mapping[str, Any]) -> None:
        self.pending[user % SHARDS].append(
            lambda seq, step: self._posting(user, asset, change, (seq, step), **more)
        )

    def _posting(
        self, user: int, asset: int, change: Decimal, place: tuple[int, int], **more: Any
    ) -> Row:
        balance = _EXACT.add(self._balances[user, asset], change)
        self._balances[user, asset] = balance
        row = {"user": user, "asset": asset, "time": self._now_us, "change": change}
        row |= {"balance": balance, "seq": place[0], "step": place[1], "detail": ""}
        return row | {"business_id": 0} | more

    def _finish(self, market: int, seq: int, order: Row) -> None:
        spends = order["side"] == BUY and order["type"] == MARKET
        filled = order["deal_money"] if spends else order["deal_stock"]
        left = order["open"]
        row = order | {"amount": _EXACT.add(filled, left), "left": left, "ftime": self._now_us}
        self.told.tables["orders"][market].append(row | {"seq": seq})

    def _next(self, table: str, part: int) -> int:
        self._seqs[table, part] += 1
        return self._seqs[table, part]

    def _new_order_id(self, market: int) -> int:
        self._order_count += 1
        return self._order_count * 4096 + market

    def _user(self) -> int:
        return self._chance.randint(1, USERS)

    def _price(self, market: int) -> Decimal:
        digits = MARKETS[market - 1]["money_prec"]
        return Decimal(self._chance.randrange(1, 10**7)).scaleb(-digits)

    def _size(self, market: int, below: Decimal) -> Decimal:
        """More than 0, and no more than `below`."""
        digits = MARKETS[market - 1]["stock_prec"]
        return Decimal(self._chance.randint(1, int(below.scaleb(digits)))).scaleb(-digits)


def _cut(asset: int, quantity: Decimal, rate: Decimal) -> Decimal:
    """Quantity * rate, without the digits that the asset does not keep."""
    step = Decimal(1).scaleb(-ASSETS[asset - 1]["prec_save"])
    return _EXACT.multiply(quantity, rate).quantize(step, context=_EXACT)


def with_bars(told: Told, flushes: int) -> Told:
    """Adds the bars that a writer makes at each of so many flushes of a market."""
    for market, deals in told.tables["deals"].items():
        for first, last in spans(told.last_seq("deals", market), flushes):
            rows = [row for row in deals if first <= row["seq"] <= last]
            bars = bars_of(table_of("deals", rows)).to_pylist() if rows else []
            told.tables["bars"][market] += [bar | {"seq": last} for bar in bars]
    return told


def spans(last_seq: int, flushes: int) -> list[tuple[int, int]]:
    """The entries 1 to last_seq as so many ranges."""
    edges = [last_seq * k // flushes for k in range(flushes + 1)]
    return [(a + 1, b) for a, b in pairwise(edges) if a < b]


def write(told: Told, root: Path | str, flushes: int = 2) -> Lake:
    """A lake of these rows, in so many flushes of each stream."""
    lake = Lake(str(root))
    for table, parts in told.tables.items():
        for part, rows in parts.items():
            seq = told.last_seq(table if table == "balances" else "deals", part)
            for first, last in spans(max(seq, told.last_seq(table, part)), flushes):
                kept = [row for row in rows if first <= row["seq"] <= last]
                if kept:
                    added = lake.write(table, part, first, last, table_of(table, kept))
                    lake.commit(lake.manifest(), add=added, assets=ASSETS, markets=MARKETS)
    return lake
