"""Archive rows: what a machine told, as the tables of the lake.

Separate because it is pure arithmetic: events and scales in, columns out.  It must not know
journals, files or time.  A column is built as a whole, for a row is millions of times one.

Nothing is rounded: every quantity is an integer at a scale that is permanent, so rows made again
from the same journal are the same rows.

Source: analytics/lake_schema.py for the columns; core/events.py for the scales of an event.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pyarrow as pa

from analytics.lake import SCHEMAS, decimal_array
from excore_ray.core.events import Deal, OrderFinished, Posting
from excore_ray.core.orders import FEE_SCALE, OrderType, Side
from excore_ray.core.specs import Asset, Market

_RATE = SCHEMAS["orders"].field("taker_fee").type


class UnknownScale(LookupError):
    """An event speaks of an asset or a market whose definition has not been read."""


class MarketScales(NamedTuple):
    """Digits of one market's quantities.

    stock, money: of its amounts and of its prices.  stock_save, money_save: of its assets' fees.
    """

    stock: int
    money: int
    stock_save: int
    money_save: int


class Scales:
    """Digits of everything the catalog defines.  They are permanent, unlike the names."""

    def __init__(self, assets: Iterable[Asset] = (), markets: Iterable[Market] = ()) -> None:
        self._assets = {asset.asset_id: asset.prec_save for asset in assets}
        self._markets: dict[int, MarketScales] = {}
        for market in markets:
            rules = market.rules
            self._markets[rules.market_no] = MarketScales(
                rules.stock_prec,
                rules.money_prec,
                self.asset(rules.stock_id),
                self.asset(rules.money_id),
            )

    def asset(self, asset_id: int) -> int:
        """prec_save of an asset.  Raises UnknownScale."""
        found = self._assets.get(asset_id)
        if found is None:
            raise UnknownScale(f"the catalog, as far as it was read, knows no asset {asset_id}")
        return found

    def market(self, market_no: int) -> MarketScales:
        """The digits of a market's quantities.  Raises UnknownScale."""
        found = self._markets.get(market_no)
        if found is None:
            raise UnknownScale(f"the catalog, as far as it was read, knows no market {market_no}")
        return found


def market_rows(
    events: Sequence[Deal | OrderFinished], seqs: Sequence[int], scales: MarketScales
) -> dict[str, pa.Table]:
    """What a market told, as tables "deals" and "orders", in the order it was told.

    seqs: the entry of each event.  A table without rows is left out.
    Raises ValueError when a quantity reaches 10**18.
    Cost: 2 to 3 us a row.
    """
    deals: list[Deal] = []
    orders: list[OrderFinished] = []
    deal_seqs: list[int] = []
    order_seqs: list[int] = []
    for event, seq in zip(events, seqs, strict=True):
        if type(event) is Deal:
            deals.append(event)
            deal_seqs.append(seq)
        else:
            assert type(event) is OrderFinished
            orders.append(event)
            order_seqs.append(seq)
    tables: dict[str, pa.Table] = {}
    if deals:
        tables["deals"] = _deals(deals, deal_seqs, scales)
    if orders:
        tables["orders"] = _orders(orders, order_seqs, scales)
    return tables


def ledger_rows(
    postings: Sequence[Posting], seqs: Sequence[int], scales: Scales
) -> dict[str, pa.Table]:
    """What a shard told, as table "balances", in the order it was told.

    seqs: the entry of each posting; all postings of an entry must be there, for they are
    numbered.  Without postings there is no table.
    A referral's price and amount are null: its posting does not carry the deal's.
    Raises UnknownScale; ValueError when a quantity reaches 10**18.  Cost: 2 to 3 us a row.
    """
    if not postings:
        return {}
    saves = {asset: scales.asset(asset) for asset in {each.asset for each in postings}}
    stock, money = {0: 0}, {0: 0}
    for market_no in {each.market_no for each in postings} - {0}:
        stock[market_no], money[market_no], _, _ = scales.market(market_no)
    of_account = [saves[each.asset] for each in postings]
    table = _table(
        "balances",
        user=[each.user for each in postings],
        asset=[each.asset for each in postings],
        time=[each.time_us for each in postings],
        business=[each.business for each in postings],
        change=decimal_array([each.change for each in postings], of_account),
        balance=decimal_array([each.balance for each in postings], of_account),
        business_id=[each.business_id for each in postings],
        detail=[each.detail for each in postings],
        # Markets, orders, deals, prices and amounts of deals are all above 0.
        market=[each.market_no or None for each in postings],
        order_id=[each.order_id or None for each in postings],
        deal_id=[each.deal_id or None for each in postings],
        price=decimal_array(
            [each.price or None for each in postings], [money[each.market_no] for each in postings]
        ),
        amount=decimal_array(
            [each.amount or None for each in postings], [stock[each.market_no] for each in postings]
        ),
        fee_rate=_rates([None if each.fee_rate < 0 else each.fee_rate for each in postings]),
        seq=seqs,
        step=_steps(seqs),
    )
    return {"balances": table}


def _deals(deals: list[Deal], seqs: list[int], scales: MarketScales) -> pa.Table:
    # What a side received is what its fee is in.
    taker: dict[int, int] = {Side.SELL: scales.money_save, Side.BUY: scales.stock_save}
    maker: dict[int, int] = {Side.SELL: scales.stock_save, Side.BUY: scales.money_save}
    return _table(
        "deals",
        deal_id=[deal.deal_id for deal in deals],
        time=[deal.time_us for deal in deals],
        side=[deal.side for deal in deals],
        price=decimal_array([deal.price for deal in deals], scales.money),
        amount=decimal_array([deal.amount for deal in deals], scales.stock),
        deal=decimal_array([deal.price * deal.amount for deal in deals], _money_of(scales)),
        taker_order_id=[deal.taker_order_id for deal in deals],
        taker_user=[deal.taker_user for deal in deals],
        taker_fee=decimal_array(
            [deal.taker_fee for deal in deals], [taker[deal.side] for deal in deals]
        ),
        maker_order_id=[deal.maker_order_id for deal in deals],
        maker_user=[deal.maker_user for deal in deals],
        maker_fee=decimal_array(
            [deal.maker_fee for deal in deals], [maker[deal.side] for deal in deals]
        ),
        seq=seqs,
    )


def _orders(orders: list[OrderFinished], seqs: list[int], scales: MarketScales) -> pa.Table:
    received: dict[int, int] = {Side.SELL: scales.money_save, Side.BUY: scales.stock_save}
    # A market buy says how much money to spend, everything else how much stock.
    of_size = [
        _money_of(scales)
        if order.side == Side.BUY and order.type == OrderType.MARKET
        else scales.stock
        for order in orders
    ]
    return _table(
        "orders",
        order_id=[order.order_id for order in orders],
        user=[order.user for order in orders],
        side=[order.side for order in orders],
        type=[order.type for order in orders],
        price=decimal_array([order.price for order in orders], scales.money),
        amount=decimal_array([order.amount for order in orders], of_size),
        left=decimal_array([order.left for order in orders], of_size),
        taker_fee=_rates([order.taker_fee for order in orders]),
        maker_fee=_rates([order.maker_fee for order in orders]),
        ref_user=[order.ref_user for order in orders],
        ref_rate=_rates([order.ref_rate for order in orders]),
        source=[order.source for order in orders],
        ctime=[order.ctime_us for order in orders],
        ftime=[order.ftime_us for order in orders],
        deal_stock=decimal_array([order.deal_stock for order in orders], scales.stock),
        deal_money=decimal_array([order.deal_money for order in orders], _money_of(scales)),
        deal_fee=decimal_array(
            [order.deal_fee for order in orders], [received[order.side] for order in orders]
        ),
        seq=seqs,
    )


def _money_of(scales: MarketScales) -> int:
    """Digits of price * amount."""
    return scales.stock + scales.money


def _table(name: str, **columns: Sequence[object] | pa.Array) -> pa.Table:
    """The columns, which must be exactly those of the table's schema, in their types."""
    schema = SCHEMAS[name]
    assert list(columns) == schema.names, f"the columns of {name} are {schema.names}"
    arrays = [
        given if isinstance(given, pa.Array) else pa.array(given, field.type)
        for given, field in zip(columns.values(), schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _rates(rates: Sequence[int | None]) -> pa.Array:
    """Ten-thousandths as decimals of four digits, which is what they are: the bits are copied."""
    known = [rate or 0 for rate in rates]
    assert not known or 0 <= min(known) <= max(known) <= FEE_SCALE, "a rate outside 0 to 1"
    words = array("q", bytes(16 * len(known)))
    words[::2] = array("q", known)  # the low word of each; a decimal is 16 bytes
    valid = pa.array(rates, pa.int64()).buffers()[0]
    return pa.Array.from_buffers(_RATE, len(known), [valid, pa.py_buffer(words)])


def _steps(seqs: Sequence[int]) -> list[int]:
    """The place of each row within its entry, from 0."""
    steps: list[int] = []
    step, before = 0, 0
    for seq in seqs:
        step = step + 1 if seq == before else 0
        before = seq
        steps.append(step)
    return steps
