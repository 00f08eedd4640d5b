"""History: the handlers of all methods that look back: changes of balances, deals, klines.

Separate from those that ask a market or a shard, because all of these ask the archive.  It must
not know the envelope, or where the past is kept.

An unknown market is 25 to order.* and 43 to market.*, an unknown asset 12, as everywhere.
Source: balance.history, order.deals, order.finished(_detail) and market.* of the RPC reference.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, TypeVar

from api import history_replies as replies
from api.calls import Call, Result, catalog_behind, expect
from api.params import (
    bad_asset,
    bad_limit,
    bad_order_id,
    bad_page,
    bad_side,
    bad_user,
    invalid,
    shown,
)
from excore_ray.core import questions as q
from excore_ray.core.messages import Answer
from excore_ray.core.names import Listing, Names
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.specs import BUSINESS_BYTES_MAX
from excore_ray.core.units import format_plain

AnswerType = TypeVar("AnswerType", bound=Answer)

DEALS_LIMIT_MAX = 1000
PERIOD_S_MAX = 604_800
SECONDS_MAX = 253_402_300_799  # the end of the year 9999
_EXACT = Context(prec=60)  # prices have at most 38 digits


async def balance_history(call: Call, index: int, params: list[Any]) -> Result:
    """Answer balance.history."""
    user, asset_name, business, start_s, end_s, offset, limit = params
    if refused := bad_user(user):
        return refused
    names, asset_id = call.names, 0
    if asset_name:
        asset = names.asset_by_name.get(asset_name)
        if asset is None:
            missing = Refused(Reason.ASSET_NOT_FOUND, f"asset: {shown(asset_name)}")
            return bad_asset(asset_name) or missing
        asset_id = asset.asset_id
    if refused := _bad_span(start_s, end_s) or bad_page(offset, limit):
        return refused
    # One too long to exist is asked for all the same, but need not travel as a whole.
    business = (business or "")[: BUSINESS_BYTES_MAX + 1]
    ask = q.AskBalanceHistory(user, asset_id, business, start_s, end_s, offset, limit)
    answer = await _ask(call, ask, q.Changes)
    if isinstance(answer, Refused):
        return answer
    records = []
    for change in answer.records:
        known = names.asset_by_id.get(change.asset)
        if known is None:
            return catalog_behind(f"asset number {change.asset}")
        market = _name_of(names, change.market_no) if change.market_no else ""
        if market is None:
            return catalog_behind(f"market number {change.market_no}")
        records.append(replies.change_reply(change, known.name, market))
    return replies.PageReply(offset, limit, records)


async def order_deals(call: Call, index: int, params: list[Any]) -> Result:
    """Answer order.deals: none for an order that nobody knows."""
    order_id, offset, limit = params
    if refused := bad_order_id(order_id) or bad_page(offset, limit):
        return refused
    answer = await _ask(call, q.AskOrderDeals(order_id, offset, limit), q.OwnDeals)
    if isinstance(answer, Refused):
        return answer
    return replies.PageReply(offset, limit, [replies.order_deal_reply(d) for d in answer.records])


async def order_finished(call: Call, index: int, params: list[Any]) -> Result:
    """Answer order.finished; side 0 or null for both."""
    user, market, start_s, end_s, offset, limit, side = params
    if refused := bad_user(user):
        return refused
    listing = _listing(call.names, market, Reason.ORDER_MARKET_NOT_FOUND)
    if isinstance(listing, Refused):
        return listing
    if side and (refused := bad_side(side)):
        return refused
    if refused := _bad_span(start_s, end_s) or bad_page(offset, limit):
        return refused
    ask = q.AskFinished(user, listing.market_no, side or 0, start_s, end_s, offset, limit)
    answer = await _ask(call, ask, q.FinishedOrders)
    if isinstance(answer, Refused):
        return answer
    records = [replies.finished_reply(order, listing.name) for order in answer.records]
    return replies.PageReply(offset, limit, records)


async def order_finished_detail(call: Call, index: int, params: list[Any]) -> Result:
    """Answer order.finished_detail: the order, or null when it is not done."""
    [order_id] = params
    if refused := bad_order_id(order_id):
        return refused
    answer = await _ask(call, q.AskFinishedDetail(order_id), q.FinishedOrders)
    if isinstance(answer, Refused) or not answer.records:
        return answer if isinstance(answer, Refused) else None
    [order] = answer.records
    market = _name_of(call.names, order.market_no)
    if market is None:
        return catalog_behind(f"market number {order.market_no}")
    return replies.finished_reply(order, market)


async def market_user_deals(call: Call, index: int, params: list[Any]) -> Result:
    """Answer market.user_deals; no market for all of them."""
    user, market, offset, limit = params
    if refused := bad_user(user):
        return refused
    names, market_no = call.names, 0
    if market:
        listing = _listing(names, market)
        if isinstance(listing, Refused):
            return listing
        market_no = listing.market_no
    if refused := bad_page(offset, limit):
        return refused
    answer = await _ask(call, q.AskUserDeals(user, market_no, offset, limit), q.OwnDeals)
    if isinstance(answer, Refused):
        return answer
    records = []
    for deal in answer.records:
        name = _name_of(names, deal.market_no)
        if name is None:
            return catalog_behind(f"market number {deal.market_no}")
        records.append(replies.user_deal_reply(deal, name))
    return replies.PageReply(offset, limit, records)


async def market_deals(call: Call, index: int, params: list[Any]) -> Result:
    """Answer market.deals: the newest beyond last_id, newest first."""
    deals = await _public_deals(call, params, newest=True)
    if isinstance(deals, Refused):
        return deals
    return [replies.deal_reply(deal) for deal in deals[1]]


async def market_deal_history(call: Call, index: int, params: list[Any]) -> Result:
    """Answer market.deal_history: the first beyond last_id, oldest first."""
    deals = await _public_deals(call, params, newest=False)
    if isinstance(deals, Refused):
        return deals
    listing, found = deals
    return replies.RecordsReply([replies.deal_history_reply(d, listing.name) for d in found])


async def market_last(call: Call, index: int, params: list[Any]) -> Result:
    """Answer market.last: the price with all its digits, the change of a day in percent."""
    listing = _listing(call.names, params[0])
    if isinstance(listing, Refused):
        return listing
    answer = await _ask(call, q.AskPrice(listing.market_no), q.Price)
    if isinstance(answer, Refused):
        return answer
    last = Decimal(answer.last or "0")
    price = f"{last:.{listing.money_prec}f}"
    return replies.PriceReply(price, _percent(answer) if answer.last else "0")


async def market_kline(call: Call, index: int, params: list[Any]) -> Result:
    """Answer market.kline; no market for all of them, by name."""
    market, start_s, end_s, interval_s = params
    if market is None:
        listings = sorted(call.names.markets, key=_name)
    else:
        listing = _listing(call.names, market)
        if isinstance(listing, Refused):
            return listing
        listings = [listing]
    if refused := _bad_moment("start", start_s) or _bad_moment("end", end_s):
        return refused
    if not _is_interval(interval_s):
        fault = "divides no minute, hour or day, and is neither a week nor a month"
        return invalid("interval", interval_s, fault)
    if not listings:
        return []
    numbers, names = [each.market_no for each in listings], [each.name for each in listings]
    answer = await _ask(call, q.AskKline(numbers, names, start_s, end_s, interval_s), q.Kline)
    return answer if isinstance(answer, Refused) else answer.rows


async def market_status(call: Call, index: int, params: list[Any]) -> Result:
    """Answer market.status: a rolling window of `period` seconds."""
    market, period_s = params
    listing = _listing(call.names, market)
    if isinstance(listing, Refused):
        return listing
    if not 1 <= period_s <= PERIOD_S_MAX:
        return invalid("period", period_s, f"is not in 1..{PERIOD_S_MAX}")
    p = await _ask(call, q.AskPeriod(listing.market_no, period_s), q.Period)
    if isinstance(p, Refused):
        return p
    return replies.StatusReply(period_s, p.last, p.open, p.close, p.high, p.low, p.volume, p.deal)


async def market_status_today(call: Call, index: int, params: list[Any]) -> Result:
    """Answer market.status_today: since 00:00 UTC."""
    listing = _listing(call.names, params[0])
    if isinstance(listing, Refused):
        return listing
    p = await _ask(call, q.AskPeriod(listing.market_no, 0), q.Period)
    if isinstance(p, Refused):
        return p
    return replies.TodayReply(p.open, p.last, p.high, p.low, p.volume, p.deal)


async def _ask(call: Call, ask: q.HistoryQuestion, kind: type[AnswerType]) -> AnswerType | Refused:
    return expect(await call.exchange.ask_archive(ask), kind)


async def _public_deals(
    call: Call, params: list[Any], newest: bool
) -> tuple[Listing, list[q.PublicDeal]] | Refused:
    market, limit, last_id = params
    listing = _listing(call.names, market)
    if isinstance(listing, Refused):
        return listing
    last_id = last_id or 0
    if refused := bad_limit(limit, DEALS_LIMIT_MAX):
        return refused
    if not 0 <= last_id < 2**63:
        return invalid("last_id", last_id, "is not in 0..2^63-1")
    ask = q.AskDeals(listing.market_no, last_id, limit, newest)
    answer = await _ask(call, ask, q.PublicDeals)
    return answer if isinstance(answer, Refused) else (listing, answer.records)


def _listing(
    names: Names, market: str, reason: Reason = Reason.MARKET_NOT_FOUND
) -> Listing | Refused:
    listing = names.market_by_name.get(market)
    return Refused(reason, f"market: {shown(market)}") if listing is None else listing


def _name_of(names: Names, market_no: int) -> str | None:
    listing = names.market_by_no.get(market_no)
    return None if listing is None else listing.name


def _name(listing: Listing) -> str:
    return listing.name


def _bad_span(start_s: int, end_s: int) -> Refused | None:
    return _bad_moment("start_time", start_s) or _bad_moment("end_time", end_s)


def _bad_moment(name: str, at_s: int) -> Refused | None:
    if 0 <= at_s <= SECONDS_MAX:
        return None
    return invalid(name, at_s, "is no second of the years 1970 to 9999")


def _is_interval(interval_s: int) -> bool:
    if interval_s in (q.WEEK_S, q.MONTH_S):
        return True
    return 1 <= interval_s <= q.DAY_S and q.DAY_S % interval_s == 0


def _percent(price: q.Price) -> str:
    """How much the price has changed, in percent with at most two decimals.

    A half is rounded away from zero.
    """
    last, past = Decimal(price.last), Decimal(price.past)
    change = _EXACT.divide(_EXACT.multiply(_EXACT.subtract(last, past), Decimal(10_000)), past)
    return format_plain(int(change.to_integral_value(ROUND_HALF_UP)), 2)
