"""Answers to questions that change nothing, from the state of a market or a shard.

Separate so that the machines hold rules only.  A read is answered in the turn it arrives in,
after the turn's commands, and leaves with them.
"""

from __future__ import annotations

from itertools import islice

from excore_ray.core import messages as m
from excore_ray.core.ledger import Ledger, resting_key
from excore_ray.core.market import Market
from excore_ray.core.orders import Order, Side
from excore_ray.core.reasons import Reason, Refused


def answer_market_query(market: Market, ask: m.Ask) -> m.Answer:
    """The answer of `market` to a question about its book."""
    if type(ask) is m.AskBook:
        side = market.sides[ask.side]
        return m.Orders(side.count, [view_of(o) for o in side.page(ask.offset, ask.limit)])
    if type(ask) is m.AskDepth:
        asks, bids = market.sides[Side.SELL], market.sides[Side.BUY]
        return m.Depth(asks.depth(ask.limit, ask.interval), bids.depth(ask.limit, ask.interval))
    if type(ask) is m.AskPending:
        # Not up to offset + limit: no iterator counts further than an index may be large.
        page = islice(islice(market.open_orders_of(ask.user), ask.offset, None), ask.limit)
        return m.Orders(market.open_count_of(ask.user), [view_of(o) for o in page])
    if type(ask) is m.AskOrder:
        order = market.orders.get(ask.order_id)
        if order is None:
            return Refused(Reason.ORDER_NOT_FOUND, f"order_id {ask.order_id} is not open")
        return view_of(order)
    if type(ask) is m.AskCounts:
        return m.Counts(market.sides[Side.SELL].count, market.sides[Side.BUY].count)
    return _foreign(ask)


def answer_ledger_query(ledger: Ledger, ask: m.Ask) -> m.Answer:
    """The answer of `ledger` to a question about accounts and holds."""
    if type(ask) is m.AskAccounts:
        return _accounts(ledger, ask)
    if type(ask) is m.AskAssets:
        return _totals(ledger, ask.assets)
    if type(ask) is m.AskPendingList:
        counts: list[int] = []
        for market_no in ledger.links:
            count = ledger.resting.get(resting_key(ask.user, market_no))
            if count is not None:
                counts += (market_no, count)
        return m.PendingCounts(counts)
    if type(ask) is m.AskHolds:
        return _holds(ledger, ask.market_no)
    return _foreign(ask)


def view_of(order: Order) -> m.OrderView:
    """An open order as it is told to gateways."""
    return m.OrderView(
        order.order_id,
        order.user,
        order.side,
        order.price,
        order.amount,
        order.left,
        order.taker_fee,
        order.maker_fee,
        order.ref_user,
        order.ref_rate,
        order.source,
        order.ctime_us,
        order.mtime_us,
        order.deal_stock,
        order.deal_money,
        order.deal_fee,
    )


def _accounts(ledger: Ledger, ask: m.AskAccounts) -> m.Accounts:
    accounts = ledger.accounts.get(ask.user, {})
    wanted = ask.assets or accounts
    return m.Accounts(
        [
            m.Account(asset, accounts[asset].available, accounts[asset].frozen)
            for asset in wanted
            if asset in accounts
        ]
    )


def _totals(ledger: Ledger, assets: list[int]) -> m.AssetTotals:
    """Sums over all accounts, taken now: the audit wants them independent of running totals."""
    sums: dict[int, list[int]] = {}
    for accounts in ledger.accounts.values():
        for asset, account in accounts.items():
            total = sums.get(asset)
            if total is None:
                total = sums[asset] = [0, 0, 0, 0]
            if account.available:
                total[0] += account.available
                total[1] += 1
            if account.frozen:
                total[2] += account.frozen
                total[3] += 1
    known = dict.fromkeys((*sums, *ledger.updates, *ledger.received, *ledger.fees))
    return m.AssetTotals(
        [
            _total(ledger, asset, sums.get(asset, [0, 0, 0, 0]))
            for asset in known
            if not assets or asset in assets
        ]
    )


def _total(ledger: Ledger, asset: int, sums: list[int]) -> m.AssetTotal:
    available, available_count, frozen, frozen_count = sums
    return m.AssetTotal(
        asset,
        available,
        available_count,
        frozen,
        frozen_count,
        ledger.fees.get(asset, 0),
        ledger.updates.get(asset, 0),
        ledger.received.get(asset, 0),
    )


def _holds(ledger: Ledger, market_no: int) -> m.ShardHolds:
    link = ledger.links.get(market_no)
    if link is None:
        return m.ShardHolds(0, [], (0, 0))
    flat: list[int] = []
    for order_id, hold in ledger.holds[market_no].items():
        flat += (order_id, hold.remaining)
    return m.ShardHolds(link.applied, flat, (link.received_stock, link.received_money))


def _foreign(ask: m.Ask) -> Refused:
    return Refused(Reason.INVALID_ARGUMENT, f"{type(ask).__name__} is not asked of this actor")
