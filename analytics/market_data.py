"""What markets did: klines, the rolling status, the day so far and the last price.

Separate from history, whose answers are records of one user or order: these are sums over all
deals, taken from bars wherever a minute is whole.  It must not know names, nor who asks.

Every function takes a connection of the warehouse first and, as `scope`, which rows it looks at.
Quantities are Decimals, or plain text where a function says so; exact either way.

Source: the RPC reference, methods market.kline, market.status, market.status_today, market.last.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from analytics.history_rows import Bar, Span, Status, StatusToday, plain_text
from analytics.lake import LakeError
from analytics.lake_values import plain_texts
from analytics.warehouse import WHOLE, Scope, ask, ask_columns, newest_first

DAY_S = 86_400
WEEK_S = 604_800
# Stands for a calendar month, however long that is.
MONTH_S = 2_592_000
ROWS_MAX = 10_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Decimal's own context rounds at 28 digits; whole and fraction of a total have up to 58.
_EXACT = Context(prec=80)
_ZERO = Decimal(0)
# A third of a long kline's time goes into its digits, which Arrow writes without Python's lock.
_LONG_ROWS = 2_000
_HANDS = ThreadPoolExecutor(2, thread_name_prefix="digits of a kline")

# A Bar, column by column, with its quantities as plain text.
BAR_TEXTS = pa.schema(
    [("time", pa.int64()), *((name, pa.string()) for name in Bar._fields if name != "time")]
)


class TooManyRows(LakeError):
    """The answer would have more rows than the caller wants; the message has both numbers."""


@dataclass(frozen=True)
class Interval:
    """The buckets of a kline."""

    interval_s: int

    def bucket_of(self, at_s: int) -> int:
        """Where the bucket that holds a second begins."""
        if self.interval_s == MONTH_S:
            day = _EPOCH + timedelta(seconds=at_s)
            first = day.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
            return (first - _EPOCH) // timedelta(seconds=1)
        # The epoch was a Thursday; its first Monday came four days later.
        origin_s = 4 * DAY_S if self.interval_s == WEEK_S else 0
        return at_s - (at_s - origin_s) % self.interval_s

    def after(self, bucket_s: int) -> int:
        """Where the next bucket begins."""
        if self.interval_s == MONTH_S:
            return self.bucket_of(bucket_s + 31 * DAY_S)
        return bucket_s + self.interval_s

    def buckets(self, first_s: int, until_s: int) -> pa.Array:
        """Where each bucket begins, from one to another; the last is not included."""
        if self.interval_s != MONTH_S:
            return pa.arange(first_s, until_s, self.interval_s)
        found: list[int] = []
        while first_s < until_s:
            found.append(first_s)
            first_s = self.after(first_s)
        return pa.array(found, pa.int64())

    def count(self, first_s: int, last_s: int) -> int:
        """How many buckets there are from that of one second to that of another."""
        if self.interval_s == MONTH_S:
            first, last = (_EPOCH + timedelta(seconds=each) for each in (first_s, last_s))
            return max(0, 12 * (last.year - first.year) + last.month - first.month + 1)
        return max(0, (self.bucket_of(last_s) - self.bucket_of(first_s)) // self.interval_s + 1)


def interval_of(interval_s: int) -> Interval:
    """The buckets of so many seconds; ValueError when the kline knows none of that length.

    interval_s: divides a minute, an hour or a day; or WEEK_S from Monday, or MONTH_S for calendar
    months; all in UTC.
    """
    if interval_s not in (WEEK_S, MONTH_S):
        if not 0 < interval_s <= DAY_S:
            raise ValueError(f"interval {interval_s}: not 1 second to a day, a week or a month")
        if DAY_S % interval_s:
            raise ValueError(f"interval {interval_s}: divides neither a minute, an hour nor a day")
    return Interval(interval_s)


def kline(
    connection: duckdb.DuckDBPyConnection,
    market: int,
    span: Span,
    interval_s: int,
    rows_max: int = ROWS_MAX,
    scope: Scope = WHOLE,
) -> list[Bar]:
    """The market bucket by bucket, from the one with start_s to the last that begins by end_s.

    Here end_s is included and 0 means the epoch.  Each bucket is whole: the caller cuts end_s at
    now.  A bucket without a deal repeats the last close with volume 0; before the first deal ever
    there is none.  interval_s: see interval_of.  TooManyRows is raised before the work is done.
    """
    found = kline_texts(connection, [market], span, interval_s, rows_max, scope)
    columns = (column.to_pylist() for column in found[market].columns)
    return [Bar._make((row[0], *map(Decimal, row[1:]))) for row in zip(*columns, strict=True)]


def kline_texts(
    connection: duckdb.DuckDBPyConnection,
    markets: Sequence[int],
    span: Span,
    interval_s: int,
    rows_max: int = ROWS_MAX,
    scope: Scope = WHOLE,
) -> dict[int, pa.Table]:
    """The kline of each market, see `kline`, as tables of BAR_TEXTS.

    rows_max: of all markets together.
    """
    interval = interval_of(interval_s)
    start_s = interval.bucket_of(span.start_s)
    until_s = interval.after(interval.bucket_of(span.end_s))
    count = interval.count(span.start_s, span.end_s)
    if not markets or not count:
        return {market: BAR_TEXTS.empty_table() for market in markets}
    if count * len(markets) > rows_max:
        _refuse_too_many(connection, markets, span, interval, (rows_max, scope))
    found = _traded(connection, markets, (start_s, until_s), interval_s, scope)
    traded = _by_market(found, markets)
    quiet = [
        market for market, bars in traded.items() if not bars or bars["time"][0].as_py() != start_s
    ]
    before = price_before(connection, quiet, start_s, scope) if quiet else {}
    return {
        market: _filled(bars, before.get(market), (start_s, until_s), interval)
        for market, bars in traded.items()
    }


def price_before(
    connection: duckdb.DuckDBPyConnection,
    markets: Collection[int],
    at_s: int,
    scope: Scope = WHOLE,
) -> dict[int, str]:
    """The last price of each market before a second, as plain text; none, no entry."""
    found = _price_in_minute(connection, markets, at_s, scope) if at_s % 60 else {}
    missing = [market for market in markets if market not in found]
    minute_s = at_s - at_s % 60
    for window, tail in newest_first(scope, "bars", missing, (None, _date(at_s))):
        if not missing:
            break
        tables = scope.tables("bars", parts=missing, dates=window, tail=tail)
        question = f"{tables}SELECT market_no, plain(price) FROM close_before(?, {minute_s})"
        found |= dict(ask(connection, question, missing))
        missing = [market for market in missing if market not in found]
    return found


def _price_in_minute(
    connection: duckdb.DuckDBPyConnection, markets: Collection[int], at_s: int, scope: Scope
) -> dict[int, str]:
    """The last prices of the minute that a second cuts: only the deals know them."""
    date = _date(at_s - at_s % 60)
    tables = scope.tables("deals", parts=markets, dates=(date, date))
    question = f"{tables}SELECT market_no, plain(price) FROM price_within(?, {int(at_s)})"
    return dict(ask(connection, question, list(markets)))


def first_price(
    connection: duckdb.DuckDBPyConnection, market: int, scope: Scope = WHOLE
) -> str | None:
    """The price of the first deal of a market that is kept, as plain text."""
    rows = ask(
        connection,
        f"{_first_dates('bars', market, scope)}SELECT plain(arg_min(open, first_deal_id))"
        " FROM bars WHERE market_no = ?",
        market,
    )
    return None if rows[0][0] is None else str(rows[0][0])


def status(
    connection: duckdb.DuckDBPyConnection,
    market: int,
    period_s: int,
    now_s: int,
    scope: Scope = WHOLE,
) -> Status:
    """The market since now_s - period_s; `last` is the last price ever.

    Deals after now_s count too, for one who has an answer to an order finds its deals here.
    """
    dates = scope.dates("bars", [market])
    start = _date(now_s - period_s)
    window = None if dates is None else (start, max(dates[-1], start) if dates else start)
    tables = scope.tables("bars", "deals", parts=[market], dates=window)
    [row] = ask(
        connection,
        f"{tables}SELECT last, open, close, high, low, volume_whole, volume_fraction, deal_whole,"
        f" deal_fraction FROM status(?, {int(period_s)}, {int(now_s)})",
        market,
    )
    last = row[0]
    if last is None:
        # Not traded since: the last price lies in an older file.
        text = price_before(connection, [market], now_s - period_s, scope).get(market)
        last = None if text is None else Decimal(text)
    totals = _total(*row[5:7]), _total(*row[7:9])
    return Status._make((*map(_or_zero, (last, *row[1:5])), *totals))


def status_today(
    connection: duckdb.DuckDBPyConnection, market: int, now_s: int, scope: Scope = WHOLE
) -> StatusToday:
    """The market since 00:00 UTC of the day of now_s; without a deal all prices are the last."""
    found = status(connection, market, now_s % DAY_S, now_s, scope)
    if not found.close:
        return StatusToday(found.last, found.last, found.last, found.last, _ZERO, _ZERO)
    return StatusToday(found.open, found.last, found.high, found.low, found.volume, found.deal)


def _refuse_too_many(
    connection: duckdb.DuckDBPyConnection,
    markets: Sequence[int],
    span: Span,
    interval: Interval,
    bounds: tuple[int, Scope],
) -> None:
    """TooManyRows unless the klines have at most rows_max, begun with each market's first deal."""
    rows_max, scope = bounds
    count = 0
    for market in markets:
        first_us = _first_us(connection, market, scope)
        if first_us is not None:
            count += interval.count(max(first_us // 10**6, span.start_s), span.end_s)
    if count > rows_max:
        raise TooManyRows(f"the kline has {count} rows, more than {rows_max}")


def _first_us(connection: duckdb.DuckDBPyConnection, market: int, scope: Scope) -> int | None:
    """When the first deal of a market was, in microseconds.

    Only the minute of it when that deal is not kept any more: bars are kept longer than deals.
    """
    [(minute_us,)] = ask(
        connection,
        f"{_first_dates('bars', market, scope)}SELECT epoch_us(min(minute))"
        " FROM bars WHERE market_no = ?",
        market,
    )
    [(deal_us,)] = ask(
        connection,
        f"{_first_dates('deals', market, scope)}SELECT epoch_us(min(time))"
        " FROM deals WHERE market_no = ?",
        market,
    )
    if deal_us is not None and (minute_us is None or deal_us - minute_us < 60 * 10**6):
        return int(deal_us)
    return None if minute_us is None else int(minute_us)


def _first_dates(table: str, market: int, scope: Scope) -> str:
    """A table that holds the first rows of a market."""
    dates = scope.dates(table, [market])
    first = (dates[0], dates[0]) if dates else None
    return scope.tables(table, parts=[market], dates=first, tail=not dates)


def _traded(
    connection: duckdb.DuckDBPyConnection,
    markets: Sequence[int],
    bounds: tuple[int, int],
    interval_s: int,
    scope: Scope,
) -> pa.Table:
    """Market and columns of BAR_TEXTS of each bucket with a deal, by market and time."""
    table = "bars" if interval_s % 60 == 0 else "deals"
    source = "bar_buckets" if table == "bars" else "deal_buckets"
    start_s, until_s = bounds
    window = (_date(start_s), _date(until_s - 1))
    tables = scope.tables(table, parts=markets, dates=window)
    prices = "market_no, bucket_s AS time, open, close, high, low"
    found = f" FROM {source}(?, {start_s}, {until_s}, {interval_s}) ORDER BY market_no, bucket_s"
    try:
        question = f"{tables}SELECT {prices}, volume, amount{found}"
        rows = ask_columns(connection, question, list(markets))
        totals = _texts(rows, BAR_TEXTS.names[5:])
    except duckdb.OutOfRangeException:
        # A sum has reached 10**18: rare, and twice as dear.
        parts = "volume_whole, volume_fraction, amount_whole, amount_fraction"
        rows = ask_columns(connection, f"{tables}SELECT {prices}, {parts}{found}", list(markets))
        totals = [_total_texts(rows, name) for name in BAR_TEXTS.names[5:]]
    numbers = [rows[name].combine_chunks() for name in ("market_no", "time")]
    columns = [*numbers, *_texts(rows, BAR_TEXTS.names[1:5]), *totals]
    return pa.table(columns, names=["market_no", *BAR_TEXTS.names])


def _texts(rows: pa.Table, names: list[str]) -> list[pa.Array]:
    """These columns as plain text."""
    columns = [rows[name].combine_chunks() for name in names]
    if len(rows) < _LONG_ROWS:
        return [plain_texts(column) for column in columns]
    return list(_HANDS.map(plain_texts, columns))


def _total_texts(rows: pa.Table, name: str) -> pa.Array:
    """A total that was summed in two parts, as plain text."""
    parts = (rows[f"{name}_{part}"].to_pylist() for part in ("whole", "fraction"))
    return pa.array([plain_text(_total(*each)) for each in zip(*parts, strict=True)], pa.string())


def _by_market(traded: pa.Table, markets: Sequence[int]) -> dict[int, pa.Table]:
    """The rows of each market, without its number."""
    bars = traded.select(BAR_TEXTS.names)
    if len(markets) == 1:
        return {markets[0]: bars}
    of_market = traded["market_no"]
    return {market: bars.filter(pc.equal(of_market, market)) for market in markets}


def _filled(
    bars: pa.Table, before: str | None, bounds: tuple[int, int], interval: Interval
) -> pa.Table:
    """All buckets: the traded ones, and between them the last close."""
    start_s, until_s = bounds
    if before is None:
        if not bars:
            return bars
        start_s = bars["time"][0].as_py()
    time = interval.buckets(start_s, until_s)
    if len(time) == len(bars):
        return bars
    rows = bars.take(pc.index_in(time, bars["time"]))
    close = pc.fill_null_forward(rows["close"])
    if before is not None:
        close = pc.fill_null(close, before)
    prices = [pc.coalesce(rows[name], close) for name in BAR_TEXTS.names[1:5]]
    totals = [pc.fill_null(rows[name], "0") for name in BAR_TEXTS.names[5:]]
    return pa.table([time, *prices, *totals], schema=BAR_TEXTS)


def _date(at_s: int) -> str:
    """The UTC date of a second."""
    return (_EPOCH + timedelta(seconds=at_s)).date().isoformat()


def _total(whole: Decimal, fraction: Decimal) -> Decimal:
    """A total that was summed in two parts, exact."""
    return _EXACT.add(whole, fraction)


def _or_zero(price: Decimal | None) -> Decimal:
    """The price, 0 where there is none."""
    return _ZERO if price is None else price
