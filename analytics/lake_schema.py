"""What the tables of the lake look like: their columns, units, order and search aids.

Separate because writer, reader and notebook must mean the same by every column.  It must not know
where files lie.

QUANTITY holds any price or amount exactly: below 10**18 in magnitude, 20 decimals.  RATE is a
share of 1, 4 decimals.  TIME is UTC in microseconds.  A column may hold null only where its
comment says when.
"""

from __future__ import annotations

import pyarrow as pa

QUANTITY = pa.decimal128(38, 20)
RATE = pa.decimal128(5, 4)
TIME = pa.timestamp("us", tz="UTC")


def _schema(*columns: tuple[str, pa.DataType, str]) -> pa.Schema:
    """The columns as fields with their comments; one whose comment speaks of null may be null."""
    return pa.schema(
        pa.field(name, kind, nullable="; null " in comment, metadata={"comment": comment})
        for name, kind, comment in columns
    )


_SEQ = ("seq", pa.int64(), "entry of the stream's journal that made this row, from 1")

_DEALS = _schema(
    ("deal_id", pa.int64(), "number of the deal in its market: 1, 2, 3, … without gaps"),
    ("time", TIME, "when the market recorded the deal, UTC"),
    ("side", pa.int8(), "side of the taker: 1 sell, 2 buy"),
    ("price", QUANTITY, "money for one unit of stock, the maker's price"),
    ("amount", QUANTITY, "stock that changed hands"),
    ("deal", QUANTITY, "money that changed hands: price * amount, exact"),
    ("taker_order_id", pa.int64(), "order that arrived"),
    ("taker_user", pa.int64(), "user of the order that arrived"),
    ("taker_fee", QUANTITY, "fee of the taker, in the asset the taker received"),
    ("maker_order_id", pa.int64(), "order that rested in the book"),
    ("maker_user", pa.int64(), "user of the order that rested in the book"),
    ("maker_fee", QUANTITY, "fee of the maker, in the asset the maker received"),
    _SEQ,
)

_ORDERS = _schema(
    ("order_id", pa.int64(), "number of the order, unique over all markets"),
    ("user", pa.int64(), "user whose order it was"),
    ("side", pa.int8(), "1 sell, 2 buy"),
    ("type", pa.int8(), "1 limit, 2 market"),
    ("price", QUANTITY, "limit, money for one unit of stock; 0 for a market order"),
    ("amount", QUANTITY, "size as it was put: stock, of a market buy money"),
    ("left", QUANTITY, "what was not filled, in the unit of amount"),
    ("taker_fee", RATE, "share of what is received, taken as fee when it takes, 0 to 1"),
    ("maker_fee", RATE, "share of what is received, taken as fee when it makes, 0 to 1"),
    ("ref_user", pa.int64(), "user who gets a share of the fees; 0 when nobody does"),
    ("ref_rate", RATE, "share of the fees that ref_user gets, 0 to 1"),
    ("source", pa.string(), "where the client says the order came from"),
    ("ctime", TIME, "when the order was put, UTC"),
    ("ftime", TIME, "when the order was finished, UTC"),
    ("deal_stock", QUANTITY, "stock of all its deals"),
    ("deal_money", QUANTITY, "money of all its deals"),
    ("deal_fee", QUANTITY, "fees of all its deals, in the asset received"),
    _SEQ,
)

_BALANCES = _schema(
    ("user", pa.int64(), "user whose account changed"),
    ("asset", pa.int32(), "number of the asset"),
    ("time", TIME, "when the ledger recorded the change, UTC"),
    (
        "business",
        pa.string(),
        "why: trade, ref (a share of a fee), or the word given with an update",
    ),
    ("change", QUANTITY, "what the account gained; negative when it lost"),
    ("balance", QUANTITY, "available and frozen together after the change"),
    ("business_id", pa.int64(), "number given with an update; 0 for trade and ref"),
    ("detail", pa.string(), "JSON given with an update; empty for trade and ref"),
    ("market", pa.int32(), "number of the market of the trade or share; null for an update"),
    ("order_id", pa.int64(), "order of the trade or share; null for an update"),
    ("deal_id", pa.int64(), "deal of the trade or share; null for an update"),
    ("price", QUANTITY, "price of the deal; null for an update and a share of a fee"),
    ("amount", QUANTITY, "stock of the deal; null for an update and a share of a fee"),
    ("fee_rate", RATE, "share taken as fee, 0 to 1; null unless the row is a fee"),
    _SEQ,
    ("step", pa.int32(), "place of the row within its entry, from 0"),
)

_BARS = _schema(
    ("minute", TIME, "first moment of the minute, UTC"),
    ("open", QUANTITY, "price of the first deal"),
    ("close", QUANTITY, "price of the last deal"),
    ("high", QUANTITY, "highest price"),
    ("low", QUANTITY, "lowest price"),
    ("volume", QUANTITY, "stock of all deals"),
    ("amount", QUANTITY, "money of all deals"),
    ("deals", pa.int64(), "number of deals, at least 1"),
    ("first_deal_id", pa.int64(), "smallest deal_id, whose price is open"),
    ("last_deal_id", pa.int64(), "largest deal_id, whose price is close"),
)

SCHEMAS: dict[str, pa.Schema] = {
    "deals": _DEALS,
    "orders": _ORDERS,
    "balances": _BALANCES,
    "bars": _BARS,
}

# The columns that order the rows of a file.  No two rows of a file agree in all of them.
SORT_KEYS: dict[str, list[str]] = {
    "deals": ["deal_id"],
    "orders": ["user", "order_id"],
    "balances": ["user", "seq", "step"],
    "bars": ["minute", "first_deal_id"],
}

# The columns that have few values, and so a dictionary of them in each row group.  In others it
# costs more than it saves: without, rows are written in 0.6 of the time, and files 0.7 as long.
DICTIONARY_COLUMNS: dict[str, list[str]] = {
    "deals": ["side"],
    "orders": ["side", "type", "taker_fee", "maker_fee", "ref_user", "ref_rate", "source"],
    "balances": ["asset", "business", "detail", "market", "fee_rate"],
    "bars": [],
}

# The column whose UTC date says in which folder a row lies.
DATE_COLUMNS = {"deals": "time", "orders": "ftime", "balances": "time", "bars": "minute"}

# What a file is a part of: a market, or a shard of the ledger.
PART_NAMES = {"deals": "market", "orders": "market", "balances": "shard", "bars": "market"}

# The columns by which one row is sought that statistics of a row group cannot rule out.
BLOOM_COLUMNS: dict[str, list[str]] = {
    "deals": ["taker_order_id", "taker_user", "maker_order_id", "maker_user"],
    "orders": ["order_id", "user"],
    "balances": ["order_id", "user"],
    "bars": [],
}
