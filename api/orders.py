"""Orders: the handlers of order.*: what goes to a market or comes from its book.

Separate from balances and markets by the family of methods.  It must not know the envelope, or
how a market executes.

A put or cancel is checked without waiting, so that a batch reaches its market in order, and
finished when its answer is there.  The checks stand in the order in which they are promised.
Source: the order methods of the RPC reference.
"""

from __future__ import annotations

from typing import Any

from api import replies
from api.calls import Call, Issue, Result, catalog_behind, expect, success
from api.params import (
    PAGE_LIMIT_MAX,
    above_zero,
    bad_limit,
    bad_order_id,
    bad_page,
    bad_side,
    bad_user,
    bytes_of,
    decimal,
    invalid,
    rate,
    shown,
)
from excore_ray.core import messages as m
from excore_ray.core.commands import Cancel, PutLimit, PutMarket
from excore_ray.core.names import Listing, Names
from excore_ray.core.orders import FEE_SCALE, Side
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.specs import SOURCE_BYTES_MAX
from excore_ray.core.units import format_plain


def put_limit(call: Call, index: int, params: list[Any]) -> Issue | Refused:
    """Check order.put_limit; of ten parameters, two name a referrer and the referrer's share."""
    user, market, side, amount_text, price_text, taker_text, maker_text = params[:7]
    source = params[-1]
    ref_user, ref_text = params[7:9] if len(params) == 10 else (None, None)
    if (ref_user is None) != (ref_text is None):
        return Refused(Reason.INVALID_ARGUMENT, "ref_user, ref_rate: one is null, the other not")
    if ref_user is None:
        ref_user, ref_text = 0, "0"
    elif refused := bad_user(ref_user, "ref_user"):
        return refused
    listing = _listing_for(call.names, user, market, side)
    if isinstance(listing, Refused):
        return listing
    amount = above_zero("amount", amount_text, listing.stock_prec)
    if isinstance(amount, Refused):
        return amount
    price = above_zero("price", price_text, listing.money_prec)
    if isinstance(price, Refused):
        return price
    if amount * price >= listing.money_limit:
        return invalid("amount", amount_text, f"times price {price_text} is not below 10^18")
    taker_fee = rate("taker_fee", taker_text)
    if isinstance(taker_fee, Refused):
        return taker_fee
    maker_fee = rate("maker_fee", maker_text)
    if isinstance(maker_fee, Refused):
        return maker_fee
    ref_rate = rate("ref_rate", ref_text, FEE_SCALE)
    if isinstance(ref_rate, Refused):
        return ref_rate
    if refused := _bad_source(source):
        return refused
    if amount < listing.min_amount:
        least = format_plain(listing.min_amount, listing.stock_prec)
        detail = f"amount: {shown(amount_text)} is below the market's minimum {least}"
        return Refused(Reason.AMOUNT_TOO_SMALL, detail)
    put = PutLimit(
        call.request_id(index),
        call.caller.stamp_ms,
        user,
        side,
        amount,
        price,
        taker_fee,
        maker_fee,
        ref_user,
        ref_rate,
        source,
    )
    return Issue(listing, put)


def put_market(call: Call, index: int, params: list[Any]) -> Issue | Refused:
    """Check order.put_market.  amount is stock to sell, or money to spend."""
    user, market, side, amount_text, taker_text, source = params
    listing = _listing_for(call.names, user, market, side)
    if isinstance(listing, Refused):
        return listing
    buys = side == Side.BUY
    scale = listing.money_prec if buys else listing.stock_prec
    amount = above_zero("amount", amount_text, scale)
    if isinstance(amount, Refused):
        return amount
    taker_fee = rate("taker_fee", taker_text)
    if isinstance(taker_fee, Refused):
        return taker_fee
    if refused := _bad_source(source):
        return refused
    if buys:
        amount *= listing.stock_factor
    put = PutMarket(
        call.request_id(index), call.caller.stamp_ms, user, side, amount, taker_fee, source
    )
    return Issue(listing, put)


def placed(issue: Issue, answer: m.Answer) -> Result:
    """The result of a put."""
    placed = expect(answer, m.Placed)
    if isinstance(placed, Refused) or isinstance(issue.command, Cancel):
        return placed
    return replies.placed_reply(issue.listing, issue.command, placed)


def cancel(call: Call, index: int, params: list[Any]) -> Issue | Refused:
    """Check order.cancel: of one order, or of all the user's orders in the market."""
    user, market, order_id = params
    if order_id is not None and (refused := bad_order_id(order_id)):
        return refused
    if refused := bad_user(user):
        return refused
    listing = _listing_of(call.names, market)
    if isinstance(listing, Refused):
        return listing
    command = Cancel(call.request_id(index), call.caller.stamp_ms, user, order_id or 0)
    return Issue(listing, command)


def cancelled(issue: Issue, answer: m.Answer) -> Result:
    """The result of a cancel."""
    return success(answer)


async def book(call: Call, index: int, params: list[Any]) -> Result:
    """Answer order.book."""
    market, side, offset, limit = params
    listing = _listing_of(call.names, market)
    if isinstance(listing, Refused):
        return listing
    if refused := bad_side(side) or bad_page(offset, limit):
        return refused
    ask = m.AskBook(side, offset, limit)
    orders = expect(await call.exchange.ask_market(listing.market_no, ask), m.Orders)
    if isinstance(orders, Refused):
        return orders
    records = [replies.order_reply(listing, order) for order in orders.orders]
    return replies.BookReply(offset, limit, orders.total, records)


async def depth(call: Call, index: int, params: list[Any]) -> Result:
    """Answer order.depth."""
    market, limit, interval_text = params
    listing = _listing_of(call.names, market)
    if isinstance(listing, Refused):
        return listing
    if refused := bad_limit(limit, PAGE_LIMIT_MAX):
        return refused
    interval = decimal("interval", interval_text, listing.money_prec)
    if isinstance(interval, Refused):
        return interval
    if interval < 0:
        return invalid("interval", interval_text, "is below 0")
    ask = m.AskDepth(limit, interval)
    answer = expect(await call.exchange.ask_market(listing.market_no, ask), m.Depth)
    if isinstance(answer, Refused):
        return answer
    asks, bids = (replies.depth_side(listing, side) for side in (answer.asks, answer.bids))
    return replies.DepthReply(asks, bids)


async def pending(call: Call, index: int, params: list[Any]) -> Result:
    """Answer order.pending."""
    user, market, offset, limit = params
    if refused := bad_user(user):
        return refused
    listing = _listing_of(call.names, market)
    if isinstance(listing, Refused):
        return listing
    if refused := bad_page(offset, limit):
        return refused
    ask = m.AskPending(user, offset, limit)
    orders = expect(await call.exchange.ask_market(listing.market_no, ask), m.Orders)
    if isinstance(orders, Refused):
        return orders
    records = [replies.order_reply(listing, order) for order in orders.orders]
    return replies.PendingReply(limit, offset, orders.total, records)


async def pending_detail(call: Call, index: int, params: list[Any]) -> Result:
    """Answer order.pending_detail: the order, or null when it is not open."""
    market, order_id = params
    if refused := bad_order_id(order_id):
        return refused
    listing = _listing_of(call.names, market)
    if isinstance(listing, Refused):
        return listing
    ask = m.AskOrder(order_id)
    order = expect(await call.exchange.ask_market(listing.market_no, ask), m.OrderView)
    if isinstance(order, Refused):
        return None if order.reason == Reason.ORDER_NOT_FOUND else order
    return replies.order_reply(listing, order)


async def pending_list(call: Call, index: int, params: list[Any]) -> Result:
    """Answer order.pending_list, from the user's shard: it knows what is frozen, and for whom."""
    user, offset, limit = params
    if refused := bad_user(user) or bad_page(offset, limit):
        return refused
    names = call.names
    counts = expect(await call.exchange.ask_shard(user, m.AskPendingList(user)), m.PendingCounts)
    if isinstance(counts, Refused):
        return counts
    markets = []
    for market_no, total in zip(counts.counts[::2], counts.counts[1::2], strict=True):
        listing = names.market_by_no.get(market_no)
        if listing is None:
            return catalog_behind(f"market number {market_no}")
        markets.append(replies.PendingMarket(listing.name, total))
    markets.sort(key=lambda market: market.name)
    return replies.PendingListReply(limit, offset, markets[offset : offset + limit])


def _listing_of(names: Names, market: str) -> Listing | Refused:
    listing = names.market_by_name.get(market)
    if listing is None:
        return Refused(Reason.ORDER_MARKET_NOT_FOUND, f"market: {shown(market)}")
    return listing


def _listing_for(names: Names, user: Any, market: str, side: int) -> Listing | Refused:
    if refused := bad_user(user):
        return refused
    listing = _listing_of(names, market)
    if isinstance(listing, Refused):
        return listing
    return bad_side(side) or listing


def _bad_source(source: str) -> Refused | None:
    if bytes_of(source) <= SOURCE_BYTES_MAX:
        return None
    detail = f"source: {shown(source)} is over {SOURCE_BYTES_MAX} bytes"
    return Refused(Reason.SOURCE_TOO_LONG, detail)
