"""Order: one order of one market, the level it rests in, and the small enumerations around it.

Separate because book, matching, market and snapshot share it and none owns it.
It must not know accounts, wire or clock.

Source: the order fields of the RPC reference.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

import msgspec

FEE_SCALE = 10_000  # fee and referral rates carry four digits: 0.002 is 20
ORDER_ID_STRIDE = 4096  # order_id = n * 4096 + market_no
ORDER_NUMBER_MAX = 2**41 - 1  # so that every order id stays below 2**53
MARKET_NO_MAX = 4095


class Side(enum.IntEnum):
    """1 sell (ask), 2 buy (bid), as on the wire."""

    SELL = 1
    BUY = 2


class OrderType(enum.IntEnum):
    """1 limit, 2 market, as on the wire."""

    LIMIT = 1
    MARKET = 2


class Role(enum.IntEnum):
    """1 maker (rested in the book), 2 taker (arrived), as on the wire."""

    MAKER = 1
    TAKER = 2


class Order(msgspec.Struct, gc=False, weakref=False):
    """One order while its market knows it.

    amount, left: stock at the market's stock_prec; of a market buy: money at
    stock_prec + money_prec.  price: money at money_prec, 0 for a market order.
    deal_stock: stock_prec.  deal_money: stock_prec + money_prec.  deal_fee: the received asset's
    prec_save (a seller receives money, a buyer stock).  Rates in ten-thousandths.
    Times in microseconds since the epoch.  `level` to `user_newer` chain the order into its level
    and into its user's open orders; they are None while the order is in no book.  user_count: of
    a user's newest open order, how many there are.
    """

    order_id: int
    user: int
    side: int
    type: int
    price: int
    amount: int
    left: int
    taker_fee: int
    maker_fee: int
    ref_user: int
    ref_rate: int
    source: str
    ctime_us: int
    mtime_us: int
    deal_stock: int = 0
    deal_money: int = 0
    deal_fee: int = 0
    level: Level | None = None
    older: Order | None = None
    newer: Order | None = None
    user_older: Order | None = None
    user_newer: Order | None = None
    user_count: int = 1


class Level:
    """All orders of one price: their number, their summed `left`, and the ends of their chain."""

    __slots__ = ("amount", "count", "newest", "oldest", "price")

    def __init__(self, price: int) -> None:
        self.price = price
        self.amount = 0
        self.count = 0
        self.oldest: Order | None = None
        self.newest: Order | None = None

    def __iter__(self) -> Iterator[Order]:
        """Orders, oldest first.  The level must not change meanwhile."""
        order = self.oldest
        while order is not None:
            yield order
            order = order.newer


def order_id_of(number: int, market_no: int) -> int:
    """The id of the `number`-th order of market `market_no`: unique over all markets."""
    return number * ORDER_ID_STRIDE + market_no


def market_no_of(order_id: int) -> int:
    """The market an order id leads to."""
    return order_id % ORDER_ID_STRIDE
