"""Exact arithmetic between scaled integers, quantities and bars.

Separate because it computes and reads no file.  No float is made anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from analytics.lake_schema import QUANTITY, SCHEMAS

_MAGNITUDE_MAX = 10**QUANTITY.precision
_EXACT = {int, type(None)}
# Sums are taken in a wider type, because a sum that leaves decimal128 wraps in silence.
_WIDE = pa.decimal256(76, QUANTITY.scale)


def decimal_array(values: Sequence[int | None], scale: int | Sequence[int]) -> pa.Array:
    """Scaled integers as QUANTITY, exactly: `value` at `scale` means value * 10**-scale.

    scale: one for all values, or one a value; 0 to 20.  None becomes null.
    ValueError when a scale is outside, the lengths differ, or a quantity reaches 10**18 in
    magnitude; TypeError when a value is no int.  Cost: about 0.2 us a value.
    """
    if not set(map(type, values)) <= _EXACT:
        raise TypeError("a quantity is an int or None, so that it is exact")
    known = [value is not None for value in values]
    whole = values if all(known) else [0 if value is None else value for value in values]
    if isinstance(scale, int):
        factor = _factor(scale)
        scaled = [value * factor for value in whole]  # type: ignore[operator]
    else:
        factors = {each: _factor(each) for each in set(scale)}
        pairs = zip(whole, scale, strict=True)
        scaled = [value * factors[each] for value, each in pairs]  # type: ignore[operator]
    if scaled and not -_MAGNITUDE_MAX < min(scaled) <= max(scaled) < _MAGNITUDE_MAX:
        raise ValueError("a quantity reaches 10**18 in magnitude, more than the lake can hold")
    data = b"".join([value.to_bytes(16, "little", signed=True) for value in scaled])
    valid = None if all(known) else pa.array(known, pa.bool_()).buffers()[1]
    return pa.Array.from_buffers(QUANTITY, len(scaled), [valid, pa.py_buffer(data)])


def _factor(scale: int) -> int:
    """What a value at `scale` is multiplied by to be a QUANTITY's integer."""
    if not 0 <= scale <= QUANTITY.scale:
        raise ValueError(f"scale {scale} is not from 0 to {QUANTITY.scale}")
    return int(10 ** (QUANTITY.scale - scale))


def bars_of(deals: pa.Table) -> pa.Table:
    """One-minute bars of exactly these deals, sorted; no bar for a minute without one.

    deals: a table with the columns of SCHEMAS["deals"], in any order.
    A minute has one bar, or several that follow each other when its volume or amount is 10**18
    or more: each row must fit, and whoever reads bars puts the parts of a minute together.
    """
    ordered = deals.select(["deal_id", "time", "price", "amount", "deal"]).sort_by("deal_id")
    bars = pa.concat_tables(_fitting_bars(ordered))
    return bars.sort_by([("minute", "ascending"), ("first_deal_id", "ascending")]).combine_chunks()


def _fitting_bars(ordered: pa.Table) -> list[pa.Table]:
    """Bars of deals in their order, in as few parts as it takes for all sums to fit."""
    try:
        return [_bars(ordered)]
    except pa.ArrowInvalid:
        half = len(ordered) // 2
        if not half:
            raise
        return _fitting_bars(ordered.slice(0, half)) + _fitting_bars(ordered.slice(half))


def _bars(ordered: pa.Table) -> pa.Table:
    """One bar a minute; ArrowInvalid when a sum does not fit."""
    grouped = pa.table(
        {
            "minute": pc.floor_temporal(ordered["time"], unit="minute"),
            "row": pa.array(range(len(ordered)), pa.int64()),
            "price": ordered["price"],
            "amount": ordered["amount"].cast(_WIDE),
            "deal": ordered["deal"].cast(_WIDE),
        }
    )
    wanted = [("row", "min"), ("row", "max"), ("row", "count"), ("price", "max")]
    wanted += [("price", "min"), ("amount", "sum"), ("deal", "sum")]
    bars = grouped.group_by("minute").aggregate(wanted).sort_by("minute")
    first, last = bars["row_min"], bars["row_max"]
    columns = {
        "minute": bars["minute"],
        "open": ordered["price"].take(first),
        "close": ordered["price"].take(last),
        "high": bars["price_max"],
        "low": bars["price_min"],
        "volume": bars["amount_sum"].cast(QUANTITY),
        "amount": bars["deal_sum"].cast(QUANTITY),
        "deals": bars["row_count"],
        "first_deal_id": ordered["deal_id"].take(first),
        "last_deal_id": ordered["deal_id"].take(last),
    }
    return pa.table(columns).cast(SCHEMAS["bars"])
