"""What happened, as the RPC asks for it: typed rows out of the lake.

Separate because it alone knows the order, the page and the exact types of each answer; the
questions themselves are SQL in sql/.  It must not know names, for a caller has the newest ones:
users, markets, assets and orders are given and returned as numbers.

Every function takes a connection of the warehouse first and, as `scope`, which rows it looks at:
by default what the views of the connection show.  What is asked newest first is looked for in the
newest files first, and in older ones only as far as the page reaches.  Quantities are Decimals,
exact; times are datetimes in UTC.  LakeError names a file that is missing or cannot be read.

Source: the RPC reference, methods balance.history, order.deals, order.finished, market.deals.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import duckdb

from analytics.history_rows import (
    ALWAYS,
    FIRST_PAGE,
    BalanceChange,
    FinishedOrder,
    OwnDeal,
    Page,
    PublicDeal,
    Span,
)
from analytics.warehouse import WHOLE, Dates, Scope, ask, newest_first

OFFSET_READ_MAX = 500  # beyond it, what is passed over is not read but for what orders it
OFFSET_MERGED_MAX = 10_000  # beyond it, an answer is not put together window by window
ORDER_ID_STRIDE = 4_096  # the rest of an order id is its market

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_CHANGE = (
    "epoch_us(time), seq, step, asset_id, business, change, balance, business_id, detail,"
    " market_no, order_id, deal_id, price, amount, fee_rate"
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
_PUBLIC = "epoch_us(time), deal_id, side, price, amount"
# The first columns of them, as far as they say which row is newer.
_CHANGE_ORDER = "epoch_us(time), seq, step"
_OWN_DEAL_ORDER = 'epoch_us(time), "user", deal_id, market_no, side, role'


def balance_history(
    connection: duckdb.DuckDBPyConnection,
    user: int,
    *,
    asset: int | None = None,
    business: str | None = None,
    span: Span = ALWAYS,
    page: Page = FIRST_PAGE,
    scope: Scope = WHOLE,
) -> list[BalanceChange]:
    """Changes of the user's accounts, newest first; asset, business: None for all.

    Newest by the ledger's journal, not by the clock, so that each balance follows from the next.
    """
    where, values = _within("time", span)
    if asset is not None:
        where, values = [*where, "asset_id = ?"], [*values, asset]
    if business is not None:
        where, values = [*where, "business = ?"], [*values, business]
    rows = _newest(
        _Asked(connection, scope, "balances", scope.shards_of(user), _dates(span)),
        _Rows("balance_history(?)", [user], where, values, "seq DESC, step DESC"),
        (_CHANGE_ORDER, _CHANGE),
        page,
        lambda row: (-row[1], -row[2]),
    )
    return [BalanceChange(_time(row[0]), *row[3:]) for row in rows]


def order_deals(
    connection: duckdb.DuckDBPyConnection,
    order_id: int,
    page: Page = FIRST_PAGE,
    scope: Scope = WHOLE,
) -> list[OwnDeal]:
    """The order's side of its deals, newest first."""
    tables = scope.tables("deals", parts=[order_id % ORDER_ID_STRIDE])
    rows = ask(
        connection,
        f"{tables}SELECT {_OWN_DEAL} FROM order_deals(?)"
        " ORDER BY deal_id DESC, role LIMIT ? OFFSET ?",
        *[order_id, page.limit, page.offset],
    )
    return [OwnDeal(_time(row[0]), *row[1:]) for row in rows]


def user_deals(
    connection: duckdb.DuckDBPyConnection,
    user: int,
    market: int | None = None,
    page: Page = FIRST_PAGE,
    scope: Scope = WHOLE,
) -> list[OwnDeal]:
    """The user's sides of deals, newest first; market: None for all.

    A deal with oneself gives two rows, the maker's before the taker's, whose part came first.
    """
    parts, where = ([], []) if market is None else ([market], [f"market_no = {int(market)}"])
    rows = _newest(
        _Asked(connection, scope, "deals", parts, (None, None)),
        _Rows("user_deals(?)", [user], where, [], "time DESC, market_no, deal_id DESC, role"),
        (_OWN_DEAL_ORDER, _OWN_DEAL),
        page,
        lambda row: (-row[0], row[3], -row[2], row[5]),
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
    scope: Scope = WHOLE,
) -> list[FinishedOrder]:
    """The user's orders in a market that are done, newest first by when they were put.

    Filled limit orders, every market order, cancelled orders with a deal.  span: of ctime.
    side: None for both, 1 sell, 2 buy.
    """
    where, values = _within("ctime", span)
    if side is not None:
        where, values = [*where, "side = ?"], [*values, side]
    rows = _newest(
        # An order is put before it is done, so nothing older than its ctime can have it.
        _Asked(connection, scope, "orders", [market], (_dates(span)[0], None)),
        _Rows("finished(?, ?)", [user, market], where, values, "ctime DESC, order_id DESC"),
        ("", f"epoch_us(ctime), {_FINISHED}"),
        page,
        lambda row: (-row[0], -row[1]),
    )
    return [_finished_order(row[1:]) for row in rows]


def finished_detail(
    connection: duckdb.DuckDBPyConnection, order_id: int, scope: Scope = WHOLE
) -> FinishedOrder | None:
    """The order, when it is done and one that `finished` lists."""
    tables = scope.tables("orders", parts=[order_id % ORDER_ID_STRIDE])
    rows = ask(connection, f"{tables}SELECT {_FINISHED} FROM finished_detail(?)", order_id)
    return _finished_order(rows[0]) if rows else None


def deals_after(
    connection: duckdb.DuckDBPyConnection,
    market: int,
    last_id: int,
    limit: int,
    scope: Scope = WHOLE,
) -> list[PublicDeal]:
    """The first deals whose deal_id is above last_id, oldest first (market.deal_history)."""
    tables = scope.tables("deals", parts=[market])
    rows = ask(
        connection,
        f"{tables}SELECT {_PUBLIC} FROM deals_after(?, ?) ORDER BY deal_id LIMIT ?",
        *[market, last_id, limit],
    )
    return [_public(row) for row in rows]


def newest_deals(
    connection: duckdb.DuckDBPyConnection,
    market: int,
    last_id: int,
    limit: int,
    scope: Scope = WHOLE,
) -> list[PublicDeal]:
    """The last deals whose deal_id is above last_id, newest first (market.deals)."""
    rows = _newest(
        _Asked(connection, scope, "deals", [market], (None, None)),
        _Rows("deals_after(?, ?)", [market, last_id], [], [], "deal_id DESC"),
        ("", _PUBLIC),
        Page(0, limit),
        lambda row: -row[1],
    )
    return [_public(row) for row in rows]


class _Asked(NamedTuple):
    """Of what something is asked.  between: the first and the last date it can have, or None."""

    connection: duckdb.DuckDBPyConnection
    scope: Scope
    table: str
    parts: Collection[int]
    between: tuple[str | None, str | None]


class _Rows(NamedTuple):
    """Rows in SQL.  source: a macro and its arguments.  where: what they must be, and of what."""

    source: str
    arguments: list[object]
    where: list[str]
    values: list[object]
    order_by: str

    def ask(self, asked: _Asked, tables: str, columns: str, page: Page) -> list[tuple[Any, ...]]:
        """A page of them."""
        question = f"SELECT {columns} FROM {self.source}{_all_of(self.where)}"
        ordered = f"{tables}{question} ORDER BY {self.order_by} LIMIT ? OFFSET ?"
        values = (*self.arguments, *self.values, page.limit, page.offset)
        return ask(asked.connection, ordered, *values)


def _newest(
    asked: _Asked,
    rows: _Rows,
    columns: tuple[str, str],
    page: Page,
    order: Callable[[tuple[Any, ...]], Any],
) -> list[tuple[Any, ...]]:
    """A page of rows.

    columns: those that order needs, "" when they are not to be read alone, and all; the first is
    a time in microseconds.  order: the key of a row, no other's, in the order of the rows, in
    which times fall.  Files of older dates are opened only while the page may have rows of them.
    """
    narrow, wide = columns
    if page.offset > OFFSET_MERGED_MAX:
        tables = asked.scope.tables(asked.table, parts=asked.parts)
        return rows.ask(asked, tables, wide, page)
    if page.offset <= OFFSET_READ_MAX or not narrow:
        return _merged(asked, rows, wide, page, order)
    keys = _merged(asked, rows, narrow, page, order)
    if not keys:
        return []
    newest_us, oldest_us = keys[0][0], keys[-1][0]
    where = [*rows.where, "time >= make_timestamptz(?)", "time <= make_timestamptz(?)"]
    within = rows._replace(where=where, values=[*rows.values, oldest_us, newest_us])
    dates = (_time(oldest_us).date().isoformat(), _time(newest_us).date().isoformat())
    tables = asked.scope.tables(asked.table, parts=asked.parts, dates=dates)
    wanted = set(map(order, keys))
    found = within.ask(asked, tables, wide, Page(0, sys.maxsize))
    return [row for row in found if order(row) in wanted]


def _merged(
    asked: _Asked,
    rows: _Rows,
    columns: str,
    page: Page,
    order: Callable[[tuple[Any, ...]], Any],
) -> list[tuple[Any, ...]]:
    """A page of rows, put together window by window."""
    _, scope, table, parts, between = asked
    wanted = page.offset + page.limit
    found: list[tuple[Any, ...]] = []

    def more(dates: int) -> int:
        # As many as it takes when the others have as many rows each, and some; or all at once.
        missing = 5 * dates * (wanted - len(found)) // (4 * len(found)) if found else sys.maxsize
        return max(dates, missing) + 1

    for window, tail in newest_first(scope, table, parts, between, more):
        tables = scope.tables(table, parts=parts, dates=window, tail=tail)
        found += rows.ask(asked, tables, columns, Page(0, wanted))
        found.sort(key=order)
        # Older files have nothing as new as the first moment of this window.
        if len(found) >= wanted and found[wanted - 1][0] >= _first_us(window):
            break
    return found[page.offset : wanted]


def _first_us(window: Dates) -> int:
    """The first moment of a window of dates, microseconds of the epoch."""
    if window is None or not window[0]:
        return 0
    return (datetime.fromisoformat(window[0]).replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


def _dates(span: Span) -> tuple[str | None, str | None]:
    """The first and the last UTC date of a span, None where it is open."""
    first, last = span.start_s, span.end_s
    return (_date(first) if first else None, _date(last) if last else None)


def _date(at_s: int) -> str | None:
    """The UTC date of a second, None where the calendar has none."""
    try:
        return (_EPOCH + timedelta(seconds=at_s)).date().isoformat()
    except OverflowError:
        return None


def _public(row: tuple[Any, ...]) -> PublicDeal:
    """A row of _PUBLIC with its time."""
    return PublicDeal(row[1], _time(row[0]), *row[2:])


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
