"""A lake filled through its own writer, for the tests that ask it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from analytics.lake import SCHEMAS, AssetEntry, FileEntry, Lake, MarketEntry, bars_of

Row = Mapping[str, Any]

ASSETS: list[AssetEntry] = [
    {"asset_id": 1, "name": "BTC", "prec_save": 20, "prec_show": 8},
    {"asset_id": 2, "name": "USDT", "prec_save": 20, "prec_show": 8},
]
MARKETS: list[MarketEntry] = [
    {"market": 1, "name": "BTC_USDT", "stock": 1, "money": 2, "stock_prec": 8, "money_prec": 8},
    {"market": 3, "name": "it's 3", "stock": 2, "money": 1, "stock_prec": 8, "money_prec": 8},
]
# Fields a test does not care about.
USUAL: dict[str, Row] = {
    "deals": {
        "side": 2,
        "taker_order_id": 8193,
        "taker_user": 10,
        "taker_fee": Decimal(0),
        "maker_order_id": 4097,
        "maker_user": 20,
        "maker_fee": Decimal(0),
    },
    "orders": {
        "user": 10,
        "side": 2,
        "type": 1,
        "price": Decimal(100),
        "amount": Decimal(5),
        "left": Decimal(0),
        "taker_fee": Decimal("0.002"),
        "maker_fee": Decimal("0.001"),
        "ref_user": 0,
        "ref_rate": Decimal(0),
        "source": "test",
        "deal_stock": Decimal(5),
        "deal_money": Decimal(500),
        "deal_fee": Decimal("0.01"),
    },
    "balances": {
        "user": 10,
        "asset": 1,
        "business": "deposit",
        "change": Decimal(1),
        "balance": Decimal(1),
        "business_id": 7,
        "detail": "{}",
        "market": None,
        "order_id": None,
        "deal_id": None,
        "price": None,
        "amount": None,
        "fee_rate": None,
        "step": 0,
    },
    "bars": {},
}


def deal(deal_id: int, at_us: int, price: str, amount: str, **other: object) -> dict[str, Any]:
    """A deal of its own journal entry, with the fields a test names and usual others."""
    fixed = {"deal_id": deal_id, "seq": deal_id, "time": at_us}
    money = {"price": Decimal(price), "amount": Decimal(amount)}
    return {**USUAL["deals"], "deal": exact_product(price, amount), **fixed, **money, **other}


def exact_product(left: str, right: str) -> Decimal:
    """The product without the rounding of Decimal's usual context."""
    a, b = Decimal(left).as_tuple(), Decimal(right).as_tuple()
    exponent = int(a.exponent) + int(b.exponent)
    digits = int("".join(map(str, a.digits))) * int("".join(map(str, b.digits)))
    return Decimal(f"{digits}E{exponent}")


def table_of(table: str, rows: Sequence[Row]) -> pa.Table:
    """Rows with the schema of their table; a missing field has its usual value."""
    full = [{**USUAL[table], **row} for row in rows]
    schema = SCHEMAS[table]
    arrays = [pa.array([row[field.name] for row in full], field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def flush(
    lake: Lake, table: str, part: int, rows: Sequence[Row], names: Sequence[MarketEntry] = MARKETS
) -> list[FileEntry]:
    """Writes rows of one stream, deals with their bars, and makes them live."""
    seqs = [row["seq"] for row in rows]
    ordered = table_of(table, rows)
    added = lake.write(table, part, min(seqs), max(seqs), ordered)
    if table == "deals":
        added += lake.write("bars", part, min(seqs), max(seqs), bars_of(ordered))
    lake.commit(lake.manifest(), add=added, assets=ASSETS, markets=names)
    return added


def lake_of_deals(
    root: Path | str, deals: Sequence[Row], cuts: Iterable[int] = (), market: int = 1
) -> Lake:
    """A lake whose deals of one market were flushed at the given places of the list."""
    lake = Lake(str(root))
    edges = sorted({0, len(deals), *cuts})
    for first, until in pairwise(edges):
        flush(lake, "deals", market, deals[first:until])
    return lake
