"""Told: what one market must have done, worked out anew from the answers its clients were given.

Separate from the test because it is an oracle: it shares nothing with what it checks.  Whoever
sends everything of a market over one connection knows the order in which it was executed; with
that, and the ids in the answers, every deal, finished order and account change follows.  Numbers
are small enough that no fee is ever truncated.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from typing import Any

SELL, BUY = 1, 2
LIMIT, MARKET = 1, 2
ZERO = Decimal(0)
STOCK_STEP = Decimal("0.0001")  # four digits

# user, asset, business, change, what `detail` must hold
Change = tuple[int, str, str, Decimal, dict[str, Any]]


@dataclass
class Order:
    """An order as it was put, and what has become of it.  price: 0 for a market order."""

    id: int
    user: int
    side: int
    type: int
    price: Decimal
    amount: Decimal
    left: Decimal
    taker_fee: Decimal
    maker_fee: Decimal
    ref_user: int
    ref_rate: Decimal
    stock: Decimal = ZERO
    money: Decimal = ZERO
    fee: Decimal = ZERO
    deals: list[dict[str, Any]] = field(default_factory=list)


class Told:
    """One market.  stock, money: names of its assets.

    deals: oldest first, each as its two sides see it.  finished: ids that order.finished lists.
    changes: of all users' accounts, in the order of the market.
    """

    def __init__(self, name: str, stock: str, money: str) -> None:
        self.name = name
        self.assets = {SELL: stock, BUY: money}
        self.orders: dict[int, Order] = {}
        self.deals: list[dict[str, Any]] = []
        self.of_user: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        self.finished: set[int] = set()
        self.changes: list[Change] = []
        self._book: dict[int, list[Order]] = {SELL: [], BUY: []}

    def put(self, item: tuple[Any, ...], result: dict[str, Any]) -> None:
        """A put and its answer, which is compared."""
        if item[0] == "order.put_limit":
            _, user, _, side, amount, price, taker, maker, ref_user, ref_rate, _ = item
        else:
            _, user, _, side, amount, taker, _ = item
            price, maker, ref_user, ref_rate = "0", "0", 0, "0"
        order = Order(
            result["id"],
            user,
            side,
            LIMIT if item[0] == "order.put_limit" else MARKET,
            *map(Decimal, (price, amount, amount, taker, maker)),
            ref_user or 0,
            Decimal(ref_rate or "0"),
        )
        self.orders[order.id] = order
        self._execute(order)
        told = (result["left"], result["deal_stock"], result["deal_money"], result["deal_fee"])
        assert tuple(map(Decimal, told)) == (order.left, order.stock, order.money, order.fee)

    def cancel(self, order_id: int) -> None:
        """A cancel that was answered with success."""
        order = self.orders[order_id]
        self._book[order.side].remove(order)
        if order.stock:
            self.finished.add(order.id)

    def open_ids(self, user: int) -> list[int]:
        """The ids of a user's open orders."""
        return [o.id for side in self._book.values() for o in side if o.user == user]

    def _execute(self, order: Order) -> None:
        makers = self._book[3 - order.side]
        sign = 1 if order.side == BUY else -1
        while order.left and makers:
            maker = makers[0]
            if order.type == LIMIT and (maker.price - order.price) * sign > 0:
                break
            if not self._trade(order, maker):
                break
            if not maker.left:
                makers.pop(0)
                self.finished.add(maker.id)
        if order.type == LIMIT and order.left:
            self._rest(order)
        else:
            self.finished.add(order.id)

    def _rest(self, order: Order) -> None:
        side = self._book[order.side]
        sign = -1 if order.side == BUY else 1
        place = len(side)
        while place and (side[place - 1].price - order.price) * sign > 0:
            place -= 1
        side.insert(place, order)

    def _trade(self, taker: Order, maker: Order) -> bool:
        price = maker.price
        spends = taker.type == MARKET and taker.side == BUY
        wants = taker.left
        if spends:
            wants = (taker.left / price).quantize(STOCK_STEP, ROUND_DOWN)
        amount = min(wants, maker.left)
        if not amount:
            return False
        taker.left -= amount * price if spends else amount
        maker.left -= amount
        deal_id = len(self.deals) + 1
        self.deals.append({"id": deal_id, "side": taker.side, "price": price, "amount": amount})
        for order, other, role, rate in (
            (taker, maker, 2, taker.taker_fee),
            (maker, taker, 1, maker.maker_fee),
        ):
            self._side(order, other.id, (deal_id, role, price, amount), rate)
        return True

    def _side(
        self, order: Order, other: int, deal: tuple[int, int, Decimal, Decimal], rate: Decimal
    ) -> None:
        deal_id, role, price, amount = deal
        money = amount * price
        paid, got = (amount, money) if order.side == SELL else (money, amount)
        fee = got * rate
        order.stock += amount
        order.money += money
        order.fee += fee
        seen = {
            "id": deal_id,
            "user": order.user,
            "market": self.name,
            "side": order.side,
            "role": role,
            "price": price,
            "amount": amount,
            "deal": money,
            "fee": fee,
            "deal_order_id": other,
        }
        order.deals.append(seen)
        self.of_user[order.user].append(seen)
        given, received = self.assets[order.side], self.assets[3 - order.side]
        detail = {"a": amount, "p": price, "m": self.name, "id": order.id}
        rows: list[Change] = [
            (order.user, given, "trade", -paid, detail),
            (order.user, received, "trade", got, detail),
        ]
        if fee:
            rows.append((order.user, received, "trade", -fee, detail | {"f": rate}))
        share = fee * order.ref_rate if order.ref_user else ZERO
        if share:
            about = {"m": self.name, "id": order.id}
            rows.append((order.ref_user, received, "ref", share, about))
        self.changes += rows
