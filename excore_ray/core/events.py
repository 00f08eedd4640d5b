"""Events: every output of a machine that the world may be told of, frozen.

Separate from commands because events follow from them and are never applied.
Quantities have the scales of `orders.Order`; times are microseconds since the epoch.
"""

from __future__ import annotations

import msgspec

from excore_ray.core.commands import Leg

TRADE, REFERRAL = "trade", "ref"  # the business of a leg's changes, and of a referrer's share


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


class LegPosted(Event, frozen=True, tag="leg"):
    """The changes of one side of a deal: what was paid, what came and, unless it is 0, the fee.

    Told as one, because nearly all changes are of deals, and share all but a few numbers.
    debit_asset: what was paid.  debit_balance, credit_balance: available + frozen of the two
    accounts after all of it, at prec_save; until the fee the latter was higher by the fee.
    """

    time_us: int
    market_no: int
    leg: Leg
    debit_asset: int
    debit_balance: int
    credit_balance: int


class Posting(Event, frozen=True, tag="posting"):
    """One change of one account, other than by a leg.

    change and balance (available + frozen after it) at prec_save.
    business: "ref", or the caller's.  detail: for the caller's, JSON text; for a referrer's share
    "" with the numbers in market_no, order_id and deal_id.
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
