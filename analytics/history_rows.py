"""What one asks history.py with, and the rows it answers.

Separate because whoever passes answers on needs their types and no database.  It must not know
where the rows come from.

Quantities are exact Decimals, times are datetimes in UTC; users, markets, assets and orders are
numbers.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple


class Page(NamedTuple):
    """Which rows of a long answer: `limit` of them after the first `offset`."""

    offset: int = 0
    limit: int = 100


class Span(NamedTuple):
    """From start_s, included, to end_s, not included, in epoch seconds; 0 leaves a side open."""

    start_s: int = 0
    end_s: int = 0


FIRST_PAGE = Page()
ALWAYS = Span()


class BalanceChange(NamedTuple):
    """One change of one account; market to amount are None for an update, fee_rate unless a fee.

    detail: the JSON text given with an update, "" for a trade.
    """

    time: datetime
    asset: int
    business: str
    change: Decimal
    balance: Decimal
    business_id: int
    detail: str
    market: int | None
    order_id: int | None
    deal_id: int | None
    price: Decimal | None
    amount: Decimal | None
    fee_rate: Decimal | None


class OwnDeal(NamedTuple):
    """One side of a deal, as its owner sees it: own side, role (1 maker, 2 taker) and fee."""

    time: datetime
    user: int
    deal_id: int
    market: int
    side: int
    role: int
    price: Decimal
    amount: Decimal
    deal: Decimal
    fee: Decimal
    order_id: int
    deal_order_id: int


class FinishedOrder(NamedTuple):
    """An order that is done; the fields are the columns of the lake's table orders."""

    order_id: int
    market: int
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
    source: str
    ctime: datetime
    ftime: datetime
    deal_stock: Decimal
    deal_money: Decimal
    deal_fee: Decimal


class PublicDeal(NamedTuple):
    """A deal as everyone may see it; side is the taker's, 1 sell, 2 buy."""

    deal_id: int
    time: datetime
    side: int
    price: Decimal
    amount: Decimal


class Bar(NamedTuple):
    """One bucket of a kline: time in epoch seconds, volume in stock, amount in money."""

    time: int
    open: Decimal
    close: Decimal
    high: Decimal
    low: Decimal
    volume: Decimal
    amount: Decimal


class Status(NamedTuple):
    """A rolling window of a market: volume in stock, deal in money; 0 where nothing happened."""

    last: Decimal
    open: Decimal
    close: Decimal
    high: Decimal
    low: Decimal
    volume: Decimal
    deal: Decimal


class StatusToday(NamedTuple):
    """A market's day so far: volume in stock, deal in money; all 0 before the first deal ever."""

    open: Decimal
    last: Decimal
    high: Decimal
    low: Decimal
    volume: Decimal
    deal: Decimal


def plain_text(quantity: Decimal) -> str:
    """A quantity as people write it: all its digits, no exponent, no zeros at the end."""
    text = f"{quantity:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
