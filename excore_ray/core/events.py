"""Events: every output of a machine that the world may be told of, frozen.

Separate from commands because events follow from them and are never applied.
Quantities have the scales of `orders.Order`; times are microseconds since the epoch.
"""

from __future__ import annotations

import msgspec


class Event(msgspec.Struct, frozen=True, array_like=True, gc=False, tag_field="event"):
    """Base of all events."""


class Deal(Event, frozen=True, tag="deal"):
    """Two orders traded.  side is the taker's; fees are in what each side received (prec_save)."""

    deal_id: int
    time_us: int
    side: int
    price: int
    amount: int
    taker_order_id: int
    taker_user: int
    taker_fee: int
    maker_order_id: int
    maker_user: int
    maker_fee: int


class OrderFinished(Event, frozen=True, tag="finished"):
    """An order left its market for good: filled, cancelled with a deal, or a market order."""

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
    ftime_us: int
    deal_stock: int
    deal_money: int
    deal_fee: int


class Posting(Event, frozen=True, tag="posting"):
    """One change of one account.  change and balance (available + frozen after it) at prec_save.

    business: "trade", "ref", or the caller's.  detail: for the caller's, JSON text; for a deal,
    "" with the numbers in order_id, deal_id, price, amount and, on a fee row, fee_rate.
    """

    user: int
    asset: int
    time_us: int
    business: str
    change: int
    balance: int
    business_id: int = 0
    detail: str = ""
    market_no: int = 0
    order_id: int = 0
    deal_id: int = 0
    price: int = 0
    amount: int = 0
    fee_rate: int = -1
