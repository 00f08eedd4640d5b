"""Klines against known answers and against a slow and obvious way to make them."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import pytest

from analytics import market_data, warehouse
from analytics.history_rows import Bar, Span
from tests.analytics.filled_lake import deal, flush, lake_of_deals

VECTORS = Path(__file__).parents[1] / "vectors" / "kline"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_S = 86_400
INTERVALS = [1, 5, 7200, 30, 60, 90, 100, 300, 3600, DAY_S, market_data.WEEK_S, market_data.MONTH_S]


@pytest.fixture(scope="module")
def btc(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    root = tmp_path_factory.mktemp("btc")
    with gzip.open(VECTORS / "btcusdt_deals.csv.gz", "rt") as lines:
        deals = [
            deal(n, int(Decimal(row["time"]) * 1_000_000), row["price"], row["amount"])
            for n, row in enumerate(csv.DictReader(lines), 1)
        ]
    # Flushes that fall into minutes, so that a minute has several parts.
    lake_of_deals(root, deals, cuts=range(0, len(deals), 777))
    return warehouse.connect(str(root))


@pytest.mark.parametrize("interval_s", [10, 60, 300])
@pytest.mark.parametrize("market", [1, "BTC_USDT"])
@pytest.mark.parametrize("from_deals", [False, True])
def test_klines_of_real_trades(
    btc: duckdb.DuckDBPyConnection, interval_s: int, market: object, from_deals: bool
) -> None:
    klines = json.loads((VECTORS / "btcusdt_expected.json").read_text())["klines"]
    expected = [(row[0], *map(Decimal, row[1:7])) for row in klines[str(interval_s)]]
    got = btc.execute(
        "SELECT time, open, close, high, low, volume, amount"
        " FROM kline(?, ?, ?, ?, from_deals := ?)",
        [market, expected[0][0], expected[-1][0], interval_s, from_deals],
    ).fetchall()
    assert got == expected
    if market == 1 and not from_deals:
        span = Span(expected[0][0], expected[-1][0])
        assert market_data.kline(btc, 1, span, interval_s) == expected


def bucket_of(at: datetime, interval_s: int) -> datetime:
    """The start of the bucket, by the calendar."""
    if interval_s == market_data.MONTH_S:
        return at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    if interval_s == market_data.WEEK_S:
        monday = at - timedelta(days=at.weekday())
        return monday.replace(hour=0, minute=0, second=0, microsecond=0)
    return at - (at - EPOCH) % timedelta(seconds=interval_s)


def bucket_after(bucket: datetime, interval_s: int) -> datetime:
    """The start of the next bucket, by the calendar."""
    if interval_s == market_data.MONTH_S:
        return (bucket + timedelta(days=31)).replace(day=1)
    return bucket + timedelta(seconds=interval_s)


def naive_kline(
    deals: Sequence[dict[str, Any]], span: Span, interval_s: int
) -> list[tuple[object, ...]]:
    """What the kline means, one bucket and one deal at a time; totals as Fractions."""
    bucket = bucket_of(EPOCH + timedelta(seconds=span.start_s), interval_s)
    rows: list[tuple[object, ...]] = []
    while bucket <= EPOCH + timedelta(seconds=span.end_s):
        until = bucket_after(bucket, interval_s)
        times = [EPOCH + timedelta(microseconds=each["time"]) for each in deals]
        inside = [d for d, at in zip(deals, times, strict=True) if bucket <= at < until]
        past = [d for d, at in zip(deals, times, strict=True) if at < bucket]
        prices = [each["price"] for each in inside or past[-1:]]
        if prices:
            row = (int((bucket - EPOCH).total_seconds()), prices[0], prices[-1])
            volume = sum(Fraction(each["amount"]) for each in inside)
            amount = sum(Fraction(each["deal"]) for each in inside)
            rows.append((*row, max(prices), min(prices), volume, amount))
        bucket = until
    return rows


def as_fractions(bars: Sequence[Bar]) -> list[tuple[object, ...]]:
    return [(*bar[:5], Fraction(bar.volume), Fraction(bar.amount)) for bar in bars]


def random_deals(chance: random.Random, interval_s: int) -> list[dict[str, Any]]:
    """Deals with bursts inside one second and gaps of several buckets; some of them huge."""
    at_us = chance.randrange(1, 2_000_000_000) * 1_000_000 + chance.randrange(1_000_000)
    deals = []
    for deal_id in range(1, chance.randrange(2, 40)):
        at_us += chance.choice([0, 1, 400_000, chance.randrange(1, interval_s * 3_000_000)])
        price = f"{chance.randrange(1, 500)}.{chance.randrange(10**8):08}"
        whole = chance.choice([0, 1, chance.randrange(10**6)])
        deals.append(deal(deal_id, at_us, price, f"{whole}.{chance.randrange(1, 10**8):08}"))
    return deals


@pytest.mark.parametrize("seed", range(36))
def test_klines_are_those_of_the_naive_oracle(tmp_path: Path, seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    interval_s = INTERVALS[seed % len(INTERVALS)]
    deals = random_deals(chance, interval_s)
    cuts = [chance.randrange(len(deals)) for _ in range(chance.randrange(4))]
    lake = lake_of_deals(tmp_path, deals, cuts)
    # Another market at the same time must not be seen.
    flush(lake, "deals", 3, [{**each, "price": Decimal(10**9)} for each in deals[:2]])
    connection = warehouse.connect(str(tmp_path))
    first_s, last_s = deals[0]["time"] // 1_000_000, deals[-1]["time"] // 1_000_000
    for _ in range(8):
        start_s = max(0, chance.randint(first_s - 3 * interval_s, last_s + 2 * interval_s))
        end_s = max(0, chance.randint(start_s - interval_s, start_s + 90 * interval_s))
        for asked_s in {interval_s, 60 * interval_s} & set(INTERVALS):
            span = Span(start_s, end_s)
            expected = naive_kline(deals, span, asked_s)
            got = market_data.kline(connection, 1, span, asked_s)
            assert as_fractions(got) == expected, (span, asked_s)
            raw, rolled = (
                connection.execute(
                    "SELECT time, open, close, high, low, volume, amount"
                    " FROM kline(1, ?, ?, ?, from_deals := ?)",
                    [start_s, end_s, asked_s, from_deals],
                ).fetchall()
                for from_deals in (True, False)
            )
            assert rolled == raw, (span, asked_s)


@pytest.mark.parametrize(
    ("at", "interval_s", "bucket"),
    [
        ("2024-03-04T00:00:00", market_data.WEEK_S, "2024-03-04T00:00:00"),  # a Monday
        ("2024-03-03T23:59:59", market_data.WEEK_S, "2024-02-26T00:00:00"),
        ("1970-01-02T00:00:00", market_data.WEEK_S, "1969-12-29T00:00:00"),
        ("2024-02-29T23:59:59", market_data.MONTH_S, "2024-02-01T00:00:00"),
        ("2024-03-01T00:00:00", market_data.MONTH_S, "2024-03-01T00:00:00"),
        ("2024-12-31T12:00:00", DAY_S, "2024-12-31T00:00:00"),
    ],
)
def test_weeks_begin_on_monday_and_months_on_the_first(
    tmp_path: Path, at: str, interval_s: int, bucket: str
) -> None:
    at_s, bucket_s = (
        int((datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH).total_seconds())
        for text in (at, bucket)
    )
    lake_of_deals(tmp_path, [deal(1, at_s * 1_000_000 + 999_999, "5", "1")])
    connection = warehouse.connect(str(tmp_path))
    [bar] = market_data.kline(connection, 1, Span(at_s, at_s), interval_s)
    assert (bar.time, bar.volume) == (bucket_s, 1)


def test_totals_above_the_type_are_exact(tmp_path: Path) -> None:
    huge, dust = "999999999999999999.99999999", "0.00000000000000000001"
    deals = [deal(n, 61_000_000 * n, "1", huge) for n in (1, 2, 3)]
    deals.append(deal(4, 61_000_000 * 4, dust, "1"))
    lake_of_deals(tmp_path, deals, cuts=[2])
    connection = warehouse.connect(str(tmp_path))
    [bar] = market_data.kline(connection, 1, Span(0, 0), 3600)
    assert str(bar.volume) == "3000000000000000000.99999997"
    assert str(bar.amount) == "2999999999999999999.99999997000000000001"
    now = market_data.status(connection, 1, 3600, 3600)
    assert (now.volume, now.deal) == (bar.volume, bar.amount)
    # What does not fit is never rounded: the plain column is an error, loud and only if asked for.
    with pytest.raises(duckdb.Error, match=r"(?i)out of range|could not cast"):
        connection.execute("SELECT volume FROM kline(1, 0, 0, 3600)").fetchall()


def test_a_kline_of_too_many_rows_is_refused_before_it_is_made(tmp_path: Path) -> None:
    second = 1_000_000
    lake_of_deals(tmp_path, [deal(1, 30 * second, "1", "1"), deal(2, 99 * second, "1", "1")])
    connection = warehouse.connect(str(tmp_path))
    # Clipped to the first deal, in second 30: 30 to 39 are ten rows.
    assert len(market_data.kline(connection, 1, Span(0, 39), 1, rows_max=10)) == 10
    with pytest.raises(market_data.TooManyRows, match="11 rows, more than 10"):
        market_data.kline(connection, 1, Span(0, 40), 1, rows_max=10)
    assert market_data.kline(connection, 1, Span(0, 29), 1, rows_max=10) == []
    assert market_data.kline(connection, 3, Span(0, 10**9), 1, rows_max=10) == []
    year = Span(0, 365 * DAY_S - 1)
    months = market_data.kline(connection, 1, year, market_data.MONTH_S, rows_max=12)
    assert len(months) == 12
    with pytest.raises(market_data.TooManyRows, match="13 rows, more than 12"):
        market_data.kline(connection, 1, Span(0, 365 * DAY_S), market_data.MONTH_S, rows_max=12)


@pytest.mark.parametrize("interval_s", [-60, 0, 7, 61, 86_399, 172_800, 604_801])
def test_an_interval_that_fits_nothing_is_refused(tmp_path: Path, interval_s: int) -> None:
    connection = warehouse.connect(str(tmp_path / "none"))
    with pytest.raises(ValueError, match=f"interval {interval_s}"):
        market_data.kline(connection, 1, Span(0, 10), interval_s)
