"""Archive rows: what records tell, as the tables of the lake.

Separate because it is pure arithmetic: events and scales in, columns out.  It must not know
journals, files or time.  A column is built as a whole, for a row is millions of times one.

Nothing is rounded: every quantity is an integer at a scale that is permanent, so rows made again
from the same journal are the same rows.

Source: analytics/lake_schema.py for the columns; core/events.py for the scales of an event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from analytics.lake import SCHEMAS, decimal_array
from excore_ray.core.events import Deal, OrderFinished
from excore_ray.core.orders import FEE_SCALE, OrderType, Side
from excore_ray.core.postings import TRADE, LegPosted, Posting
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
    Cost: 1.5 us a row, and 0.2 ms.
    """
    is_deal = [type(event) is Deal for event in events]
    deals = [event for event in events if type(event) is Deal]
    orders = [event for event in events if type(event) is OrderFinished]
    assert len(deals) + len(orders) == len(events) == len(seqs)
    tables: dict[str, pa.Table] = {}
    if deals:
        tables["deals"] = _deals(deals, list(compress(seqs, is_deal)), scales)
    if orders:
        order_seqs = [seq for seq, other in zip(seqs, is_deal, strict=True) if not other]
        tables["orders"] = _orders(orders, order_seqs, scales)
    return tables


def ledger_rows(
    events: Sequence[LegPosted | Posting], seqs: Sequence[int], scales: Scales
) -> dict[str, pa.Table]:
    """What a shard told, as table "balances", in the order it was told.

    seqs: the entry of each event; all events of an entry must be there, for their rows are
    numbered.  Without events there is no table.
    A leg makes a row for what was paid, one for what came and, when there is a fee, one for that.
    A referral's price and amount are null: its posting does not carry the deal's.
    Raises UnknownScale; ValueError when a quantity reaches 10**18.
    Cost: 1.5 us an event, and 0.3 ms.
    """
    if not events:
        return {}
    legs = [event for event in events if type(event) is LegPosted]
    postings = [event for event in events if type(event) is Posting]
    assert len(legs) + len(postings) == len(events) == len(seqs)
    is_leg = pa.array([type(event) is LegPosted for event in events], pa.bool_())
    # First all columns come in an order in which they are cheap to make, then in that of the rows.
    row = _in_order(is_leg, [each.leg.fee != 0 for each in legs])
    leg, posting = pa.arange(0, len(legs)), pa.arange(len(legs), len(events))
    event = pa.concat_arrays([leg, leg, leg, posting]).take(row)
    columns = {name: each.take(row) for name, each in _changes(legs, postings, scales).items()}
    causes = _causes(legs, postings, scales)
    causes["seq"] = _legs_first(pa.array(seqs, pa.int64()), is_leg)
    columns |= {name: each.take(event) for name, each in causes.items()}
    columns["step"] = _steps(columns["seq"])
    names = SCHEMAS["balances"].names
    return {"balances": _table("balances", **{name: columns[name] for name in names})}


def _in_order(is_leg: pa.Array, has_fee: list[bool]) -> pa.Array:
    """For each row the place of its change among those of `_changes`.

    is_leg: of each event.  has_fee: of each leg.
    """
    room = pa.arange(0, 3 * len(is_leg), 3)  # for the three rows of a leg
    paid = room.filter(is_leg)
    fee = pc.if_else(pa.array(has_fee, pa.bool_()), pc.add(paid, 2), pa.scalar(None, pa.int64()))
    places = [paid, pc.add(paid, 1), fee, room.filter(pc.invert(is_leg))]
    most = 3 * len(is_leg) - 1
    row = pc.inverse_permutation(pa.concat_arrays(places), max_index=most).drop_null()
    # Without the bits that say where it is null, which nothing is now, columns taken have none.
    return pa.Array.from_buffers(row.type, len(row), [None, row.buffers()[1]])


def _legs_first(of_events: pa.Array, is_leg: pa.Array) -> pa.Array:
    return pa.concat_arrays([of_events.filter(is_leg), of_events.filter(pc.invert(is_leg))])


def _changes(legs: list[LegPosted], postings: list[Posting], scales: Scales) -> dict[str, pa.Array]:
    """The columns in which the rows of a leg differ.

    Order: what each leg paid, what each received, the fee of each, though it be 0; postings.
    """
    booked = [each.leg for each in legs]
    fees = [leg.fee for leg in booked]
    given = pa.array([each.debit_asset for each in legs], pa.int32())
    taken = pa.array([leg.credit_asset for leg in booked], pa.int32())
    posted = pa.array([each.asset for each in postings], pa.int32())
    asset = pa.concat_arrays([given, taken, taken, posted])
    save = _digits(asset, scales.asset)
    change = [-leg.debit for leg in booked]
    change += [leg.credit for leg in booked]
    change += [-fee for fee in fees]
    change += [each.change for each in postings]
    balance = [each.debit_balance for each in legs]
    balance += [each.credit_balance + fee for each, fee in zip(legs, fees, strict=True)]
    balance += [each.credit_balance for each in legs]
    balance += [each.balance for each in postings]
    no_fee, no_fee_either = pa.nulls(2 * len(legs), _RATE), pa.nulls(len(postings), _RATE)
    fee_rate = _rates([leg.fee_rate for leg in booked])
    return {
        "asset": asset,
        "change": decimal_array(change, save),
        "balance": decimal_array(balance, save),
        "fee_rate": pa.concat_arrays([no_fee, fee_rate, no_fee_either]),
    }


def _causes(legs: list[LegPosted], postings: list[Posting], scales: Scales) -> dict[str, pa.Array]:
    """The columns that are alike in all rows of an event, but seq: those of legs, then postings."""
    booked = [each.leg for each in legs]
    none: list[int | None] = [None] * len(postings)

    def column(name: str, of_legs: Sequence[object], of_postings: Sequence[object]) -> pa.Array:
        return pa.array([*of_legs, *of_postings], SCHEMAS["balances"].field(name).type)

    def column_alike(name: str, of_legs: object, of_postings: Sequence[object]) -> pa.Array:
        kind = SCHEMAS["balances"].field(name).type
        alike = pa.repeat(pa.scalar(of_legs, kind), len(legs))
        return pa.concat_arrays([alike, pa.array(of_postings, kind)])

    # Markets, orders and deals are above 0; an update has none of them.
    market = column(
        "market", [each.market_no for each in legs], [each.market_no or None for each in postings]
    )
    stock = _digits(market, lambda market_no: scales.market(market_no).stock)
    money = _digits(market, lambda market_no: scales.market(market_no).money)
    return {
        "user": column("user", [leg.user for leg in booked], [each.user for each in postings]),
        "time": column(
            "time", [each.time_us for each in legs], [each.time_us for each in postings]
        ),
        "business": column_alike("business", TRADE, [each.business for each in postings]),
        "business_id": column_alike("business_id", 0, [each.business_id for each in postings]),
        "detail": column_alike("detail", "", [each.detail for each in postings]),
        "market": market,
        "order_id": column(
            "order_id",
            [leg.order_id for leg in booked],
            [each.order_id or None for each in postings],
        ),
        "deal_id": column(
            "deal_id", [leg.deal_id for leg in booked], [each.deal_id or None for each in postings]
        ),
        "price": decimal_array([*(leg.price for leg in booked), *none], money),
        "amount": decimal_array([*(leg.amount for leg in booked), *none], stock),
    }


def _deals(deals: list[Deal], seqs: list[int], scales: MarketScales) -> pa.Table:
    # What a side received is what its fee is in.
    taker: dict[int, int] = {Side.SELL: scales.money_save, Side.BUY: scales.stock_save}
    maker: dict[int, int] = {Side.SELL: scales.stock_save, Side.BUY: scales.money_save}
    side = pa.array([deal.side for deal in deals], pa.int8())
    return _table(
        "deals",
        deal_id=[deal.deal_id for deal in deals],
        time=[deal.time_us for deal in deals],
        side=side,
        price=decimal_array([deal.price for deal in deals], scales.money),
        amount=decimal_array([deal.amount for deal in deals], scales.stock),
        deal=decimal_array([deal.price * deal.amount for deal in deals], _money_of(scales)),
        taker_order_id=[deal.taker_order_id for deal in deals],
        taker_user=[deal.taker_user for deal in deals],
        taker_fee=decimal_array(
            [deal.taker_fee for deal in deals], _digits(side, taker.__getitem__)
        ),
        maker_order_id=[deal.maker_order_id for deal in deals],
        maker_user=[deal.maker_user for deal in deals],
        maker_fee=decimal_array(
            [deal.maker_fee for deal in deals], _digits(side, maker.__getitem__)
        ),
        seq=seqs,
    )


def _orders(orders: list[OrderFinished], seqs: list[int], scales: MarketScales) -> pa.Table:
    received: dict[int, int] = {Side.SELL: scales.money_save, Side.BUY: scales.stock_save}
    # A market buy says how much money to spend, everything else how much stock.
    money, buy, market = _money_of(scales), Side.BUY, OrderType.MARKET
    of_size = pa.array(
        [money if order.type == market and order.side == buy else scales.stock for order in orders],
        pa.int8(),
    ).dictionary_encode()
    side = pa.array([order.side for order in orders], pa.int8())
    return _table(
        "orders",
        order_id=[order.order_id for order in orders],
        user=[order.user for order in orders],
        side=side,
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
            [order.deal_fee for order in orders], _digits(side, received.__getitem__)
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


def _digits(ids: pa.Array, digits_of: Callable[[int], int]) -> pa.DictionaryArray:
    """The digits of the quantities that belong to these ids, every id asked for once."""
    encoded = ids.dictionary_encode()
    digits = [digits_of(each) for each in encoded.dictionary.to_pylist()] or [0]
    # Where an id is null, the quantity is null too, and any digits will do.
    index = encoded.indices.fill_null(0)
    return pa.DictionaryArray.from_arrays(index, pa.array(digits, pa.int8()))


def _rates(rates: Sequence[int]) -> pa.Array:
    """Ten-thousandths as decimals of four digits, which is what they are: the bits are copied."""
    whole = pa.array(rates, pa.int64())
    low, high = (each.as_py() or 0 for each in pc.min_max(whole).values())
    assert 0 <= low <= high <= FEE_SCALE, "a rate outside 0 to 1"
    words = whole.cast(pa.decimal128(19, 0)).buffers()
    return pa.Array.from_buffers(_RATE, len(rates), words)


def _steps(seqs: pa.Array) -> pa.Array:
    """The place of each row within its entry, from 0."""
    ends = pc.run_end_encode(seqs, run_end_type=pa.int64()).run_ends
    begins = pa.concat_arrays([pa.array([0], pa.int64()), ends.slice(0, len(ends) - 1)])
    begin = pc.run_end_decode(pa.RunEndEncodedArray.from_arrays(ends, begins))
    return pc.subtract(pa.arange(0, len(seqs)), begin).cast(pa.int32())
