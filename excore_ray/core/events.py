"""Events: what a market's record tells the world of, read from the record alone.

Separate from `market.py`, which executes: a record has what came of its commands beside them, so
whoever wants to know what happened need not execute it again.
Quantities have the scales of `orders.Order`; times are microseconds since the epoch.
"""

from __future__ import annotations

from typing import Any

import msgspec

from excore_ray.core.commands import MarketRecord

DEAL, FINISHED = 1, 2  # what begins each event in a record


class Deal(msgspec.Struct, frozen=True, gc=False):
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


class OrderFinished(msgspec.Struct, frozen=True, gc=False):
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


def events_of(record: MarketRecord) -> list[Deal | OrderFinished]:
    """All that a record tells, in the order in which it happened.

    Raises ValueError when that is not what a market tells.
    """
    events: list[Deal | OrderFinished] = []
    told: list[Any] = record.told
    time_us, at = record.time_us, 0
    try:
        while at < len(told):
            if told[at] == DEAL:
                after = at + _DEAL_LENGTH
                events.append(Deal(told[at + 1], time_us, *told[at + 2 : after]))
            elif told[at] == FINISHED:
                after = at + _FINISHED_LENGTH
                fields = told[at + 1 : after]
                fields.insert(_FTIME_PLACE, time_us)
                events.append(OrderFinished(*fields))
            else:
                raise ValueError(f"{told[at]!r} is no kind of event")
            at = after
    except TypeError:
        raise ValueError("the last event is cut off") from None
    return events


# In a record an event has its kind in front, and neither time_us nor ftime_us, which are the
# record's.
_DEAL_LENGTH = len(Deal.__struct_fields__)
_FINISHED_LENGTH = len(OrderFinished.__struct_fields__)
_FTIME_PLACE = OrderFinished.__struct_fields__.index("ftime_us")
