"""Replies: what goes back to the caller: envelopes, errors with their codes, and reply objects.

Separate because this is the only place that knows the codes and texts of the reference, and the
order of fields in its replies.  It must not know how an answer came about.

All quantities are decimal strings, all times float seconds with microseconds.
Source: the RPC reference: its error table and the examples of every method.
"""

from __future__ import annotations

from typing import Any

import msgspec

from excore_ray.core.commands import PutLimit, PutMarket
from excore_ray.core.messages import OrderView, Placed
from excore_ray.core.names import Listing
from excore_ray.core.orders import OrderType, Side
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.specs import RATE_PREC
from excore_ray.core.units import format_often, format_plain

MICROSECONDS = 1_000_000


class ErrorKind(msgspec.Struct, frozen=True):
    """How a reason reads on the wire.  status: of the HTTP reply when it is the only request."""

    code: int
    status: int
    text: str


ERROR_KINDS = {
    Reason.SERVICE_UNAVAILABLE: ErrorKind(3, 503, "service unavailable"),
    Reason.SERVICE_TIMEOUT: ErrorKind(5, 504, "service timeout"),
    Reason.INTERNAL_ERROR: ErrorKind(2, 500, "internal error"),
    Reason.METHOD_NOT_FOUND: ErrorKind(4, 404, "method not found"),
    Reason.AUTHENTICATION_FAILED: ErrorKind(8, 401, "authentication failed"),
    Reason.SCOPE_MISSING: ErrorKind(8, 403, "authentication failed"),
    Reason.TOO_MANY_REQUESTS: ErrorKind(9, 429, "too many requests"),
    Reason.INVALID_ARGUMENT: ErrorKind(1, 400, "invalid argument"),
    Reason.INVALID_USER: ErrorKind(6, 400, "invalid user_id"),
    Reason.ASSET_NOT_FOUND: ErrorKind(12, 404, "asset not found"),
    Reason.INVALID_ASSET: ErrorKind(13, 400, "invalid asset"),
    Reason.ORDER_MARKET_NOT_FOUND: ErrorKind(25, 404, "market not found"),
    Reason.MARKET_NOT_FOUND: ErrorKind(43, 404, "market not found"),
    Reason.MARKET_ASSET_NOT_FOUND: ErrorKind(41, 404, "asset not found"),
    Reason.INVALID_PRECISION: ErrorKind(42, 400, "invalid precision"),
    Reason.EXISTS_YET: ErrorKind(7, 409, "exist yet"),
    Reason.INVALID_SIDE: ErrorKind(26, 400, "invalid side"),
    Reason.SOURCE_TOO_LONG: ErrorKind(27, 400, "source too long"),
    Reason.LIMIT_TOO_BIG: ErrorKind(27, 400, "limit too big"),
    Reason.AMOUNT_TOO_SMALL: ErrorKind(21, 400, "amount too small"),
    Reason.REPEAT_UPDATE: ErrorKind(10, 409, "repeat update"),
    Reason.BALANCE_NOT_ENOUGH: ErrorKind(11, 400, "balance not enough"),
    Reason.NO_ENOUGH_TRADER: ErrorKind(22, 400, "no enough trader"),
    Reason.ORDER_NOT_FOUND: ErrorKind(23, 404, "order not found"),
    Reason.USER_NOT_MATCH: ErrorKind(24, 403, "user not match"),
}


class Error(msgspec.Struct, frozen=True, gc=False):
    """The error object.  message begins with the words of the reference's table."""

    code: int
    message: str


class Reply(msgspec.Struct, frozen=True):
    """The envelope of one reply.  error is null exactly on success.

    id: the request's, null when it had none that could be read.
    """

    error: Error | None
    result: Any
    id: int | None


class Status(msgspec.Struct, frozen=True):
    """The result of what has no other."""

    status: str


class BalanceReply(msgspec.Struct, frozen=True, gc=False):
    """One asset of balance.query."""

    available: str
    freeze: str


class AssetReply(msgspec.Struct, frozen=True, gc=False):
    """One record of asset.list.  prec: digits shown."""

    name: str
    prec: int


class AssetSummary(msgspec.Struct, frozen=True, gc=False):
    """One asset of asset.summary, over all users.  Counts are users with a nonzero part."""

    name: str
    total_balance: str
    available_count: int
    available_balance: str
    freeze_count: int
    freeze_balance: str


class AssetFees(msgspec.Struct, frozen=True, gc=False):
    """One asset of asset.fees: what the exchange has collected."""

    name: str
    fees: str


class MarketReply(msgspec.Struct, frozen=True, gc=False):
    """One record of market.list."""

    name: str
    stock: str
    money_prec: int
    stock_prec: int
    min_amount: str
    money: str


class MarketSummary(msgspec.Struct, frozen=True, gc=False):
    """One market of market.summary: orders resting on each side."""

    name: str
    ask_count: int
    bid_count: int


class ListReply(msgspec.Struct, frozen=True):
    """A page of asset.list or market.list."""

    limit: int
    offset: int
    records: list[Any]


class PlacedReply(msgspec.Struct, frozen=True, gc=False):
    """The result of order.put_limit and order.put_market."""

    id: int
    market: str
    source: str
    type: int
    side: int
    user: int
    ctime: float
    mtime: float
    price: str
    amount: str
    taker_fee: str
    maker_fee: str
    left: str
    deal_stock: str
    deal_money: str
    deal_fee: str
    ref_user: int
    ref_rate: str


class OrderReply(msgspec.Struct, frozen=True, gc=False):
    """One open order, as order.book, order.pending and order.pending_detail show it."""

    id: int
    market: str
    type: int
    side: int
    user: int
    ctime: float
    mtime: float
    price: str
    amount: str
    taker_fee: str
    maker_fee: str
    left: str
    deal_stock: str
    deal_money: str
    deal_fee: str
    ref_user: int
    ref_rate: str


class BookReply(msgspec.Struct, frozen=True):
    """A page of order.book."""

    offset: int
    limit: int
    total: int
    orders: list[OrderReply]


class PendingReply(msgspec.Struct, frozen=True):
    """A page of order.pending."""

    limit: int
    offset: int
    total: int
    records: list[OrderReply]


class PendingMarket(msgspec.Struct, frozen=True, gc=False):
    """One market of order.pending_list, with the number of open orders."""

    name: str
    total: int


class PendingListReply(msgspec.Struct, frozen=True):
    """A page of order.pending_list."""

    limit: int
    offset: int
    markets: list[PendingMarket]


class DepthReply(msgspec.Struct, frozen=True):
    """Both sides of order.depth as pairs of price and amount, best first."""

    asks: list[tuple[str, str]]
    bids: list[tuple[str, str]]


SUCCESS = Status("success")


def error_of(refused: Refused) -> Error:
    """The error object of a refusal: the table's words, then what was wrong."""
    kind = ERROR_KINDS[refused.reason]
    if not refused.detail:
        return Error(kind.code, kind.text)
    return Error(kind.code, f"{kind.text}: {refused.detail}")


def reply_of(result: Any, request_id: int | None) -> Reply:
    """The envelope around a result, or around the error a refusal is."""
    if type(result) is Refused:
        return Reply(error_of(result), None, request_id)
    return Reply(None, result, request_id)


def seconds(time_us: int) -> float:
    """Microseconds since the epoch as seconds; printed, it has at most six decimals.

    True until the year 2242: only then do neighbouring doubles lie over a microsecond apart.
    """
    return time_us / MICROSECONDS


def placed_reply(listing: Listing, put: PutLimit | PutMarket, placed: Placed) -> PlacedReply:
    """An executed order with the values that were used."""
    money_scale = listing.money_scale
    ref_user, price, maker_fee, ref_rate = 0, "0", "0", "0"
    if type(put) is PutLimit:
        order_type = 1
        amount_scale = listing.stock_prec
        price = format_often(put.price, listing.money_prec)
        maker_fee = format_often(put.maker_fee, RATE_PREC)
        ref_user = put.ref_user
        ref_rate = format_often(put.ref_rate, RATE_PREC)
    else:
        order_type = 2
        # What a market order spends is money, kept at the scale of amount * price.
        amount_scale = money_scale if put.side == Side.BUY else listing.stock_prec
    return PlacedReply(
        placed.order_id,
        listing.name,
        put.source,
        order_type,
        put.side,
        put.user,
        placed.ctime_us / MICROSECONDS,
        placed.mtime_us / MICROSECONDS,
        price,
        format_plain(put.amount, amount_scale),
        format_often(put.taker_fee, RATE_PREC),
        maker_fee,
        format_plain(placed.left, amount_scale),
        format_plain(placed.deal_stock, listing.stock_prec),
        format_plain(placed.deal_money, money_scale),
        format_plain(placed.deal_fee, listing.fee_scales[put.side]),
        ref_user,
        ref_rate,
    )


def order_reply(listing: Listing, order: OrderView) -> OrderReply:
    """An open order, which is always a limit order."""
    return OrderReply(
        order.order_id,
        listing.name,
        int(OrderType.LIMIT),
        order.side,
        order.user,
        seconds(order.ctime_us),
        seconds(order.mtime_us),
        format_often(order.price, listing.money_prec),
        format_plain(order.amount, listing.stock_prec),
        format_often(order.taker_fee, RATE_PREC),
        format_often(order.maker_fee, RATE_PREC),
        format_plain(order.left, listing.stock_prec),
        format_plain(order.deal_stock, listing.stock_prec),
        format_plain(order.deal_money, listing.money_scale),
        format_plain(order.deal_fee, listing.fee_scales[order.side]),
        order.ref_user,
        format_often(order.ref_rate, RATE_PREC),
    )


def depth_side(listing: Listing, flat: list[int]) -> list[tuple[str, str]]:
    """Flat pairs of price and amount as pairs of decimals."""
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return [
        (format_often(price, listing.money_prec), format_plain(amount, listing.stock_prec))
        for price, amount in pairs
    ]
