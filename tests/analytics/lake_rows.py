"""Rows for the lake, made from seeds, and the naive oracle of its bars."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from analytics.lake import SCHEMAS

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """The rows as `name` wants them; what a row does not say is null."""
    return pa.Table.from_pylist(rows, schema=SCHEMAS[name])


def deals(seed: int, count: int = 200, *, start: datetime = NOON, seconds: float = 3.0) -> pa.Table:
    """Deals 1 to `count`, entry by entry, about `seconds` apart; some share an entry and a time."""
    chance = random.Random(seed)
    time, seq, rows = start, 1, []
    for deal_id in range(1, count + 1):
        if deal_id > 1 and chance.random() < 0.8:
            time += timedelta(microseconds=chance.randrange(int(2_000_000 * seconds)))
            seq += 1
        price = Decimal(chance.randrange(1, 10**9)).scaleb(-8)
        amount = Decimal(chance.randrange(1, 10**9)).scaleb(-8)
        rows.append(
            {"deal_id": deal_id, "time": time, "side": chance.choice((1, 2)), "price": price}
            | {"amount": amount, "deal": price * amount, "seq": seq}
            | {
                f"{role}_{part}": chance.randrange(1, 10**6)
                for role in ("taker", "maker")
                for part in ("order_id", "user")
            }
            | {f"{role}_fee": amount.scaleb(-3) for role in ("taker", "maker")}
        )
    return table("deals", rows)


def naive_bars(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What bars_of should say, one deal after another."""
    bars: dict[datetime, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: int(row["deal_id"])):
        minute, price = row["time"].replace(second=0, microsecond=0), row["price"]
        bar = bars.setdefault(
            minute,
            {"minute": minute, "open": price, "close": price, "high": price, "low": price}
            | {"volume": Decimal(0), "amount": Decimal(0), "deals": 0}
            | {"first_deal_id": row["deal_id"], "last_deal_id": row["deal_id"]},
        )
        bar["close"], bar["last_deal_id"] = price, row["deal_id"]
        bar["high"], bar["low"] = max(bar["high"], price), min(bar["low"], price)
        bar["volume"] += row["amount"]
        bar["amount"] += row["deal"]
        bar["deals"] += 1
    return [bars[minute] for minute in sorted(bars)]
