"""Markets: the handlers of market.* that need no history.

Separate from orders and assets by the family of methods: here an unknown market is 43.  It must
not know the envelope, or what a book is.

Source: the market methods of the RPC reference.
"""

from __future__ import annotations

from typing import Any

from api import replies
from api.calls import Call, Result, expect, success
from api.params import (
    LIST_LIMIT_DEFAULT,
    LIST_LIMIT_MAX,
    bad_notes,
    bad_page,
    decimal,
    shown,
)
from excore_ray.core.commands import AddMarket, RenameMarket
from excore_ray.core.messages import AskCounts, Counts
from excore_ray.core.names import Listing, Names, bad_asset_name, bad_market_name
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.specs import PREC_MAX
from excore_ray.core.units import format_plain

_PREC_SENT_MAX = 10**9


async def market_list(call: Call, index: int, params: list[Any]) -> Result:
    """Answer market.list."""
    offset = 0 if params[0] is None else params[0]
    limit = LIST_LIMIT_DEFAULT if params[1] is None else params[1]
    if refused := bad_page(offset, limit, LIST_LIMIT_MAX):
        return refused
    page = call.names.markets[offset : offset + limit]
    return replies.ListReply(limit, offset, [_record(listing) for listing in page])


def _record(listing: Listing) -> replies.MarketReply:
    return replies.MarketReply(
        listing.name,
        listing.stock.name,
        listing.money_prec,
        listing.stock_prec,
        format_plain(listing.min_amount, listing.stock_prec),
        listing.money.name,
    )


async def market_summary(call: Call, index: int, params: list[Any]) -> Result:
    """Answer market.summary, asking all the markets at once."""
    listings = _listings_of(call.names, params)
    if isinstance(listings, Refused):
        return listings
    ask_market = call.exchange.ask_market
    asked = [(listing, ask_market(listing.market_no, AskCounts())) for listing in listings]
    summaries = []
    for listing, future in asked:
        counts = expect(await future, Counts)
        if isinstance(counts, Refused):
            return counts
        summaries.append(replies.MarketSummary(listing.name, counts.asks, counts.bids))
    return summaries


def _listings_of(names: Names, wanted: list[str]) -> tuple[Listing, ...] | Refused:
    if not wanted:
        return names.markets
    found = []
    for name in wanted:
        listing = names.market_by_name.get(name)
        if listing is None:
            return Refused(Reason.MARKET_NOT_FOUND, f"market: {shown(name)}")
        found.append(listing)
    return tuple(found)


async def market_add(call: Call, index: int, params: list[Any]) -> Result:
    """Answer market.add.

    Its assets, their precisions and what exists are for the catalog to judge: asked again, it
    repeats its success, whatever has changed since.
    """
    name, stock, stock_prec, money, money_prec, min_text, notes = params
    if refused := bad_notes(notes) or bad_market_name(name):
        return refused
    # A stock_prec out of bounds is refused by the catalog, in its turn; here it must not become
    # an exponent.
    scale = stock_prec if 0 <= stock_prec <= PREC_MAX else 0
    min_amount = decimal("min_amount", min_text, scale)
    if isinstance(min_amount, Refused):
        return min_amount
    for asset in (stock, money):
        if bad_asset_name(asset) is not None:
            return Refused(Reason.MARKET_ASSET_NOT_FOUND, f"asset: {shown(asset)}")
    command = AddMarket(
        call.request_id(index),
        call.caller.stamp_ms,
        name,
        stock,
        _bounded(stock_prec),
        money,
        _bounded(money_prec),
        min_amount,
        notes,
    )
    return success(await call.exchange.ask_catalog(command))


def _bounded(precision: int) -> int:
    # The catalog refuses both alike; thousands of digits need neither travel nor be told back.
    return max(-_PREC_SENT_MAX, min(precision, _PREC_SENT_MAX))


async def market_rename(call: Call, index: int, params: list[Any]) -> Result:
    """Answer market.rename.  A name that another market gave up is "exist yet" for 180 s."""
    old_name, new_name = params
    # Whether old_name is known only the catalog may say: asked again, it repeats its success.
    if refused := bad_market_name(new_name):
        return refused
    if bad_market_name(old_name) is not None:
        return Refused(Reason.MARKET_NOT_FOUND, f"market: {shown(old_name)}")
    command = RenameMarket(call.request_id(index), call.caller.stamp_ms, old_name, new_name)
    return success(await call.exchange.ask_catalog(command))
