"""Methods: the one table from a method's name to what answers it, who may ask, and with what.

Separate so that HTTP, WebSocket and documentation read the same table.  It must not know the
envelope.

Source: the methods of the RPC reference; asset.fees, keys.* and exchange.* extend it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from api import assets, audit, history, keys, markets, orders, status
from api.calls import Call, Issue, Result
from api.params import Kind, NameList, Param, Positional, Signature
from excore_ray.core.catalog import Scope
from excore_ray.core.messages import Answer
from excore_ray.core.reasons import Refused


class InOrder(msgspec.Struct, frozen=True):
    """A put or cancel: asked with those around it, in the order of the batch; finished later.

    scope: the bit of `catalog.Scope` a caller needs.
    """

    scope: int
    signature: Signature
    check: Callable[[Call, int, list[Any]], Issue | Refused]
    finish: Callable[[Issue, Answer], Result]


class Barrier(msgspec.Struct, frozen=True):
    """Any other method: asked when all before it is answered, and answered before all after it.

    scope: the bit of `catalog.Scope` a caller needs.
    """

    scope: int
    signature: Signature
    answer: Callable[[Call, int, list[Any]], Awaitable[Result]]


Method = InOrder | Barrier

_READ, _TRADE, _ADMIN = int(Scope.READ), int(Scope.TRADE), int(Scope.ADMIN)


def _integer(name: str) -> Param:
    return Param(name, Kind.INTEGER)


def _string(name: str) -> Param:
    return Param(name, Kind.STRING)


_USER = Param("user_id", Kind.USER)
_MARKET, _SIDE, _AMOUNT, _SOURCE = (
    _string("market"),
    _integer("side"),
    _string("amount"),
    _string("source"),
)
_OFFSET, _LIMIT = _integer("offset"), _integer("limit")
_ORDER_ID = _integer("order_id")
_LIST = Positional(
    Param("offset", Kind.INTEGER, required=False), Param("limit", Kind.INTEGER, required=False)
)
_RENAME = Positional(_string("origin_name"), _string("new_name"))
_NOTHING = Positional()
_LIMIT_ORDER = (
    _USER,
    _MARKET,
    _SIDE,
    _AMOUNT,
    _string("price"),
    _string("taker_fee"),
    _string("maker_fee"),
)
_PUT_LIMIT = Positional(
    *_LIMIT_ORDER,
    _SOURCE,
    longer=Positional(
        *_LIMIT_ORDER,
        Param("ref_user", Kind.USER, required=False),
        Param("ref_rate", Kind.STRING, required=False),
        _SOURCE,
    ),
)
_UPDATE = Positional(
    _USER,
    _string("asset"),
    _string("business"),
    _integer("business_id"),
    _string("change"),
    Param("detail", Kind.OBJECT),
    Param("force", Kind.STRING, required=False),
)
_ADD_ASSET = Positional(
    _string("name"), _integer("prec_save"), _integer("prec_show"), _string("notes")
)
_ADD_MARKET = Positional(
    _string("market_name"),
    _string("stock_name"),
    _integer("stock_prec"),
    _string("money_name"),
    _integer("money_prec"),
    _string("min_amount"),
    _string("notes"),
)
_CANCEL = Positional(_USER, _MARKET, Param("order_id", Kind.INTEGER, required=False))
_PUT_MARKET = Positional(_USER, _MARKET, _SIDE, _AMOUNT, _string("taker_fee_rate"), _SOURCE)
_ONE_BALANCE = Positional(_USER, Param("asset", Kind.STRING, required=False))
_NEW_KEY = Positional(Param("scopes", Kind.ARRAY), Param("notes", Kind.STRING, required=False))

_START, _END = _integer("start_time"), _integer("end_time")
_ASSET_CHANGES = Positional(
    _USER,
    Param("asset", Kind.STRING, required=False),
    Param("business", Kind.STRING, required=False),
    _START,
    _END,
    _OFFSET,
    _LIMIT,
)
_FINISHED = Positional(
    _USER, _MARKET, _START, _END, _OFFSET, _LIMIT, Param("side", Kind.INTEGER, required=False)
)
_ANY_MARKET = Param("market", Kind.STRING, required=False)
_USER_DEALS = Positional(_USER, _ANY_MARKET, _OFFSET, _LIMIT)
_DEALS = Positional(_MARKET, _LIMIT, _integer("last_id"))
_DEAL_HISTORY = Positional(_MARKET, _LIMIT, Param("last_id", Kind.INTEGER, required=False))
_KLINE = Positional(_ANY_MARKET, _integer("start"), _integer("end"), _integer("interval"))

METHODS: dict[str, Method] = {
    "balance.query": Barrier(_READ, _ONE_BALANCE, assets.balance_query),
    "balance.update": Barrier(_ADMIN, _UPDATE, assets.balance_update),
    "balance.history": Barrier(_READ, _ASSET_CHANGES, history.balance_history),
    "asset.list": Barrier(_READ, _LIST, assets.asset_list),
    "asset.summary": Barrier(_READ, NameList("asset"), assets.asset_summary),
    "asset.fees": Barrier(_READ, NameList("asset"), assets.asset_fees),
    "asset.add": Barrier(_ADMIN, _ADD_ASSET, assets.asset_add),
    "asset.rename": Barrier(_ADMIN, _RENAME, assets.asset_rename),
    "order.put_limit": InOrder(_TRADE, _PUT_LIMIT, orders.put_limit, orders.placed),
    "order.put_market": InOrder(_TRADE, _PUT_MARKET, orders.put_market, orders.placed),
    "order.cancel": InOrder(_TRADE, _CANCEL, orders.cancel, orders.cancelled),
    "order.book": Barrier(_READ, Positional(_MARKET, _SIDE, _OFFSET, _LIMIT), orders.book),
    "order.depth": Barrier(_READ, Positional(_MARKET, _LIMIT, _string("interval")), orders.depth),
    "order.pending_list": Barrier(_READ, Positional(_USER, _OFFSET, _LIMIT), orders.pending_list),
    "order.pending": Barrier(_READ, Positional(_USER, _MARKET, _OFFSET, _LIMIT), orders.pending),
    "order.pending_detail": Barrier(_READ, Positional(_MARKET, _ORDER_ID), orders.pending_detail),
    "order.deals": Barrier(_READ, Positional(_ORDER_ID, _OFFSET, _LIMIT), history.order_deals),
    "order.finished": Barrier(_READ, _FINISHED, history.order_finished),
    "order.finished_detail": Barrier(_READ, Positional(_ORDER_ID), history.order_finished_detail),
    "market.last": Barrier(_READ, Positional(_MARKET), history.market_last),
    "market.deals": Barrier(_READ, _DEALS, history.market_deals),
    "market.deal_history": Barrier(_READ, _DEAL_HISTORY, history.market_deal_history),
    "market.user_deals": Barrier(_READ, _USER_DEALS, history.market_user_deals),
    "market.kline": Barrier(_READ, _KLINE, history.market_kline),
    "market.status": Barrier(_READ, Positional(_MARKET, _integer("period")), history.market_status),
    "market.status_today": Barrier(_READ, Positional(_MARKET), history.market_status_today),
    "market.list": Barrier(_READ, _LIST, markets.market_list),
    "market.summary": Barrier(_READ, NameList("market"), markets.market_summary),
    "market.add": Barrier(_ADMIN, _ADD_MARKET, markets.market_add),
    "market.rename": Barrier(_ADMIN, _RENAME, markets.market_rename),
    "keys.add": Barrier(_ADMIN, _NEW_KEY, keys.keys_add),
    "keys.list": Barrier(_ADMIN, _NOTHING, keys.keys_list),
    "keys.revoke": Barrier(_ADMIN, Positional(_string("key")), keys.keys_revoke),
    "exchange.audit": Barrier(_ADMIN, _NOTHING, audit.exchange_audit),
    "exchange.status": Barrier(_ADMIN, _NOTHING, status.exchange_status),
}
