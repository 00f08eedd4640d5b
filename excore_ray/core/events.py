"""Events: what a market tells the world of, frozen.

Separate from commands because events follow from them and are never applied.  They are journaled
beside them: who wants to know what happened need not execute it again.
Quantities have the scales of `orders.Order`; times are microseconds since the epoch.
"""

from __future__ import annotations

import msgspec


class Event(msgspec.Struct, frozen=True, array_like=True, gc=False, tag_field="event"):
    """Base of all events: an array of tag and fields."""


class Deal(Event, frozen=True, tag="d"):
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


class OrderFinished(Event, frozen=True, tag="f"):
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
