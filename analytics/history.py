"""What happened, as the RPC asks for it: typed rows out of the lake.

Separate because it alone knows the order, the page and the exact types of each answer; the
questions themselves are SQL in sql/.  It must not know names, for a caller has the newest ones:
users, markets, assets and orders are given and returned as numbers.

Every function takes a connection of `warehouse.connect` first and sees the lake as that last
refreshed.  Quantities are Decimals, exact; times are datetimes in UTC.  LakeError names a file
that is missing or cannot be read.

Source: the RPC reference, methods balance.history, order.deals, order.finished, market.*.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

import duckdb

from analytics.history_rows import (
    ALWAYS,
    FIRST_PAGE,
    BalanceChange,
    Bar,
    FinishedOrder,
    OwnDeal,
    Page,
    PublicDeal,
    Span,
    Status,
    StatusToday,
)
from analytics.lake import LakeError
from analytics.warehouse import ask

WEEK_S = 604_800
# Stands for a calendar month, however long that is.
MONTH_S = 2_592_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Decimal's own context rounds at 28 digits; whole and fraction of a total have up to 58.
_EXACT = Context(prec=80)


class TooManyRows(LakeError):
    """The answer would have more rows than the caller wants; the message has both numbers."""


_CHANGE = (
    "epoch_us(time), asset_id, business, change, balance, business_id, detail, market_no, order_id,"
    " deal_id, price, amount, fee_rate"
)
_OWN_DEAL = (
    'epoch_us(time), "user", deal_id, market_no, side, role, price, amount, deal, fee, order_id,'
    " deal_order_id"
)
_FINISHED = (
    'order_id, market_no, "user", side, type, price, amount, "left", taker_fee, maker_fee,'
    " ref_user, ref_rate, source, epoch_us(ctime), epoch_us(ftime), deal_stock, deal_money,"
    " deal_fee"
)


def balance_history(
    connection: duckdb.DuckDBPyConnection,
    user: int,
    *,
    asset: int | None = None,
    business: str | None = None,
    span: Span = ALWAYS,
    page: Page = FIRST_PAGE,
) -> list[BalanceChange]:
    """Changes of the user's accounts, newest first; asset, business: None for all.

    Newest by the ledger's journal, not by the clock, so that each balance follows from the next.
    """
    where, values = _within("time", span)
    if asset is not None:
        where, values = [*where, "asset_id = ?"], [*values, asset]
    if business is not None:
        where, values = [*where, "business = ?"], [*values, business]
    rows = ask(
        connection,
        f"SELECT {_CHANGE} FROM balance_history(?){_all_of(where)}"
        " ORDER BY seq DESC, step DESC LIMIT ? OFFSET ?",
        *[user, *values, page.limit, page.offset],
    )
    return [BalanceChange(_time(row[0]), *row[1:]) for row in rows]


def order_deals(
    connection: duckdb.DuckDBPyConnection, order_id: int, page: Page = FIRST_PAGE
) -> list[OwnDeal]:
    """The order's side of its deals, newest first."""
    rows = ask(
        connection,
        f"SELECT {_OWN_DEAL} FROM order_deals(?) ORDER BY deal_id DESC LIMIT ? OFFSET ?",
        *[order_id, page.limit, page.offset],
    )
    return [OwnDeal(_time(row[0]), *row[1:]) for row in rows]


def user_deals(
    connection: duckdb.DuckDBPyConnection,
    user: int,
    market: int | None = None,
    page: Page = FIRST_PAGE,
) -> list[OwnDeal]:
    """The user's sides of deals, newest first; market: None for all.

    A deal with oneself gives two rows, the maker's before the taker's, whose part came first.
    """
    where, values = ([], []) if market is None else (["market_no = ?"], [market])
    rows = ask(
        connection,
        f"SELECT {_OWN_DEAL} FROM user_deals(?){_all_of(where)}"
        " ORDER BY time DESC, market_no, deal_id DESC, role LIMIT ? OFFSET ?",
        *[user, *values, page.limit, page.offset],
    )
    return [OwnDeal(_time(row[0]), *row[1:]) for row in rows]


def finished(
    connection: duckdb.DuckDBPyConnection,
    user: int,
    market: int,
    *,
    side: int | None = None,
    span: Span = ALWAYS,
    page: Page = FIRST_PAGE,
) -> list[FinishedOrder]:
    """The user's orders in a market that are done, newest first by when they were put.

    Filled limit orders, every market order, cancelled orders with a deal.  span: of ctime.
    side: None for both, 1 sell, 2 buy.
    """
    where, values = _within("ctime", span)
    if side is not None:
        where, values = [*where, "side = ?"], [*values, side]
    rows = ask(
        connection,
        f"SELECT {_FINISHED} FROM finished(?, ?){_all_of(where)}"
        " ORDER BY ctime DESC, order_id DESC LIMIT ? OFFSET ?",
        *[user, market, *values, page.limit, page.offset],
    )
    return [_finished_order(row) for row in rows]


def finished_detail(connection: duckdb.DuckDBPyConnection, order_id: int) -> FinishedOrder | None:
    """The order, when it is done and one that `finished` lists."""
    rows = ask(connection, f"SELECT {_FINISHED} FROM finished_detail(?)", order_id)
    return _finished_order(rows[0]) if rows else None


def deals_after(
    connection: duckdb.DuckDBPyConnection, market: int, last_id: int, limit: int
) -> list[PublicDeal]:
    """The first deals whose deal_id is above last_id, oldest first (market.deal_history)."""
    return _public_deals(connection, "ASC", market, last_id, limit)


def newest_deals(
    connection: duckdb.DuckDBPyConnection, market: int, last_id: int, limit: int
) -> list[PublicDeal]:
    """The last deals whose deal_id is above last_id, newest first (market.deals)."""
    [(newest,)] = ask(connection, "SELECT deal_id FROM newest_deal(?)", market)
    # Deal ids have no gaps: so only the row groups that hold the answer are read.
    return _public_deals(connection, "DESC", market, max(last_id, (newest or 0) - limit), limit)


def kline(
    connection: duckdb.DuckDBPyConnection,
    market: int,
    span: Span,
    interval_s: int,
    rows_max: int = 10_000,
) -> list[Bar]:
    """The market bucket by bucket, from the one with start_s to the last that begins by end_s.

    Here end_s is included and 0 means the epoch.  Each bucket is whole: the caller cuts end_s at
    now.  A bucket without a deal repeats the last close with volume 0; before the first deal ever
    there is none.  interval_s: seconds that divide a minute, an hour or a day, WEEK_S from
    Monday, or MONTH_S for calendar months, all in UTC; else ValueError.  TooManyRows is raised
    before the work is done.
    """
    if interval_s not in (WEEK_S, MONTH_S) and not 0 < interval_s <= 86_400:
        raise ValueError(f"interval {interval_s}: not from 1 second to a day, a week or a month")
    if interval_s not in (WEEK_S, MONTH_S) and 86_400 % interval_s:
        raise ValueError(f"interval {interval_s}: divides neither a minute, an hour nor a day")
    # A bucket is never shorter than this, so the count is never too small.
    shortest_s = 28 * 86_400 if interval_s == MONTH_S else interval_s
    if (span.end_s - span.start_s) // shortest_s + 2 > rows_max:
        count = _bucket_count(connection, market, span, interval_s)
        if count > rows_max:
            raise TooManyRows(f"the kline has {count} rows, more than {rows_max}")
    rows = ask(
        connection,
        "SELECT time, open, close, high, low, volume_whole, volume_fraction, amount_whole,"
        " amount_fraction FROM kline(?, ?, ?, ?) ORDER BY time",
        *[market, span.start_s, span.end_s, interval_s],
    )
    return [Bar._make((*row[:5], _total(*row[5:7]), _total(*row[7:9]))) for row in rows]


def status(connection: duckdb.DuckDBPyConnection, market: int, period_s: int, now_s: int) -> Status:
    """The market since now_s - period_s; `last` is the last price ever."""
    [row] = ask(
        connection,
        "SELECT last, open, close, high, low, volume_whole, volume_fraction, deal_whole,"
        " deal_fraction FROM status(?, ?, ?)",
        *[market, period_s, now_s],
    )
    return Status._make((*map(_or_zero, row[:5]), _total(*row[5:7]), _total(*row[7:9])))


def status_today(connection: duckdb.DuckDBPyConnection, market: int, now_s: int) -> StatusToday:
    """The market since 00:00 UTC of the day of now_s; without a deal all prices are the last."""
    [row] = ask(
        connection,
        "SELECT open, last, high, low, volume_whole, volume_fraction, deal_whole, deal_fraction"
        " FROM status_today(?, ?)",
        *[market, now_s],
    )
    return StatusToday._make((*map(_or_zero, row[:4]), _total(*row[4:6]), _total(*row[6:8])))


def _bucket_count(
    connection: duckdb.DuckDBPyConnection, market: int, span: Span, interval_s: int
) -> int:
    """How many buckets the kline has, its start clipped to the first deal ever."""
    [(first_s,)] = ask(connection, "SELECT epoch_us(time) // 1000000 FROM first_deal(?)", market)
    if first_s is None:
        return 0
    first_s = max(first_s, span.start_s)
    return max(0, _index(span.end_s, interval_s) - _index(first_s, interval_s) + 1)


def _index(at_s: int, interval_s: int) -> int:
    """The number of the bucket that holds the second, so that neighbours differ by 1."""
    if interval_s == MONTH_S:
        day = _EPOCH + timedelta(seconds=at_s)
        return day.year * 12 + day.month
    # The epoch was a Thursday; its first Monday came four days later.
    return (at_s - (4 * 86_400 if interval_s == WEEK_S else 0)) // interval_s


def _public_deals(
    connection: duckdb.DuckDBPyConnection, order: str, market: int, last_id: int, limit: int
) -> list[PublicDeal]:
    """Deals above last_id, in the given order of deal_id."""
    rows = ask(
        connection,
        "SELECT deal_id, epoch_us(time), side, price, amount FROM deals_after(?, ?)"
        f" ORDER BY deal_id {order} LIMIT ?",
        *[market, last_id, limit],
    )
    return [PublicDeal(row[0], _time(row[1]), *row[2:]) for row in rows]


def _within(column: str, span: Span) -> tuple[list[str], list[object]]:
    """The conditions that keep `column` in the span, and their values."""
    bounds = [(f"{column} >= time_at(?)", span.start_s), (f"{column} < time_at(?)", span.end_s)]
    kept = [(text, value) for text, value in bounds if value]
    return [text for text, _ in kept], [value for _, value in kept]


def _all_of(conditions: list[str]) -> str:
    """A WHERE clause, or nothing."""
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _time(at_us: int) -> datetime:
    """Microseconds of the epoch as a datetime in UTC; read so, the rows need no zone database."""
    return _EPOCH + timedelta(microseconds=at_us)


def _finished_order(row: tuple[Any, ...]) -> FinishedOrder:
    """A row of _FINISHED with its two times."""
    return FinishedOrder._make((*row[:13], _time(row[13]), _time(row[14]), *row[15:]))


def _total(whole: Decimal, fraction: Decimal) -> Decimal:
    """A total that was summed in two parts, exact."""
    return _EXACT.add(whole, fraction)


def _or_zero(price: Decimal | None) -> Decimal:
    """The price, 0 where there is none."""
    return Decimal(0) if price is None else price
