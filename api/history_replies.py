"""History replies: what the methods that look back return.

Separate from the other replies because their quantities come as text: the archive tells them as
they were kept.  It must not know how an answer came about.

Source: the examples of balance.history, order.deals, order.finished and market.* in the RPC
reference.
"""

from __future__ import annotations

from typing import Any

import msgspec

from api.replies import seconds
from excore_ray.core.questions import Change, FinishedOrder, OwnDeal, PublicDeal


class PageReply(msgspec.Struct, frozen=True):
    """A page of balance.history, order.deals, order.finished or market.user_deals."""

    offset: int
    limit: int
    records: list[Any]


class ChangeReply(msgspec.Struct, frozen=True, gc=False):
    """One change of an account.  balance: available and frozen after it."""

    time: float
    asset: str
    business: str
    change: str
    balance: str
    detail: dict[str, Any]


class OrderDealReply(msgspec.Struct, frozen=True, gc=False):
    """One deal of order.deals, as the order's owner sees it."""

    id: int
    time: float
    user: int
    role: int
    amount: str
    price: str
    deal: str
    fee: str
    deal_order_id: int


class UserDealReply(msgspec.Struct, frozen=True, gc=False):
    """One deal of market.user_deals."""

    time: float
    user: int
    id: int
    market: str
    side: int
    role: int
    price: str
    amount: str
    deal: str
    fee: str
    deal_order_id: int


class FinishedReply(msgspec.Struct, frozen=True, gc=False):
    """One order of order.finished and order.finished_detail."""

    id: int
    ctime: float
    ftime: float
    user: int
    market: str
    source: str
    type: int
    side: int
    price: str
    amount: str
    taker_fee: str
    maker_fee: str
    deal_stock: str
    deal_money: str
    deal_fee: str
    ref_user: int
    ref_rate: str


class DealReply(msgspec.Struct, frozen=True, gc=False):
    """One deal of market.deals.  type: what the taker did, "sell" or "buy"."""

    id: int
    time: float
    price: str
    amount: str
    type: str


class DealHistoryReply(msgspec.Struct, frozen=True, gc=False):
    """One deal of market.deal_history.  side: the taker's."""

    time: float
    id: int
    side: int
    price: str
    amount: str
    market: str


class RecordsReply(msgspec.Struct, frozen=True):
    """The result of market.deal_history."""

    records: list[DealHistoryReply]


class PriceReply(msgspec.Struct, frozen=True, gc=False):
    """The result of market.last."""

    price: str
    change: str


class StatusReply(msgspec.Struct, frozen=True, gc=False):
    """The result of market.status."""

    period: int
    last: str
    open: str
    close: str
    high: str
    low: str
    volume: str
    deal: str


class TodayReply(msgspec.Struct, frozen=True, gc=False):
    """The result of market.status_today."""

    open: str
    last: str
    high: str
    low: str
    volume: str
    deal: str


_TYPES = {1: "sell", 2: "buy"}


def change_reply(change: Change, asset: str, market: str) -> ChangeReply:
    """One change.  asset, market: their names; "" for the market of an update."""
    if not market:
        detail = dict(msgspec.json.decode(change.detail or "{}", type=dict[str, Any]))
        detail["id"] = change.business_id
    else:
        given = {"a": change.amount, "f": change.fee_rate, "id": change.order_id}
        given |= {"m": market, "p": change.price}
        detail = {name: value for name, value in given.items() if value != ""}
    return ChangeReply(
        seconds(change.time_us), asset, change.business, change.change, change.balance, detail
    )


def order_deal_reply(deal: OwnDeal) -> OrderDealReply:
    """One deal of an order."""
    return OrderDealReply(
        deal.deal_id,
        seconds(deal.time_us),
        deal.user,
        deal.role,
        deal.amount,
        deal.price,
        deal.deal,
        deal.fee,
        deal.deal_order_id,
    )


def user_deal_reply(deal: OwnDeal, market: str) -> UserDealReply:
    """One deal of a user.  market: its name."""
    return UserDealReply(
        seconds(deal.time_us),
        deal.user,
        deal.deal_id,
        market,
        deal.side,
        deal.role,
        deal.price,
        deal.amount,
        deal.deal,
        deal.fee,
        deal.deal_order_id,
    )


def finished_reply(order: FinishedOrder, market: str) -> FinishedReply:
    """One order that is done.  market: its name."""
    return FinishedReply(
        order.order_id,
        seconds(order.ctime_us),
        seconds(order.ftime_us),
        order.user,
        market,
        order.source,
        order.type,
        order.side,
        order.price,
        order.amount,
        order.taker_fee,
        order.maker_fee,
        order.deal_stock,
        order.deal_money,
        order.deal_fee,
        order.ref_user,
        order.ref_rate,
    )


def deal_reply(deal: PublicDeal) -> DealReply:
    """One deal of market.deals."""
    kind = _TYPES[deal.side]
    return DealReply(deal.deal_id, seconds(deal.time_us), deal.price, deal.amount, kind)


def deal_history_reply(deal: PublicDeal, market: str) -> DealHistoryReply:
    """One deal of market.deal_history."""
    time = seconds(deal.time_us)
    return DealHistoryReply(time, deal.deal_id, deal.side, deal.price, deal.amount, market)
