"""Archive answers: a gateway's question as one to the lake, and what comes back as an answer.

Separate from the service, which waits: this is a table from one language to the other.  It must
not know connections, journals or time.

Source: core/questions.py on one side, analytics/history.py and market_data.py on the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from analytics import history, market_data
from analytics.history_rows import BalanceChange, FinishedOrder, OwnDeal, Page, Span, plain_text
from analytics.live import Place
from analytics.warehouse import Scope
from excore_ray.core import questions as q
from excore_ray.core.orders import market_no_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_encode = msgspec.json.Encoder().encode


class Reading(NamedTuple):
    """How a question is answered.

    table: what is read.  parts: of these markets or shards; None for all there are.
    answer: made of a connection, a scope and the time in seconds; runs in a thread.
    wide: whether it may read many files, and so must not keep others waiting.
    """

    table: str
    parts: Sequence[int] | None
    answer: Callable[[duckdb.DuckDBPyConnection, Scope, int], q.HistoryAnswer]
    wide: bool = False

    def places(self, markets: Sequence[int]) -> list[Place]:
        """What must have been read to its end.  markets: all there are."""
        return [(self.table, part) for part in (markets if self.parts is None else self.parts)]


def reading_of(ask: q.HistoryQuestion, shard_of: Callable[[int], int]) -> Reading:
    """How `ask` is answered.  shard_of: the ledger shard that keeps a user."""
    found: Reading = _READINGS[type(ask)](ask, shard_of)
    return found


def is_history(ask: object) -> bool:
    """Whether the archive answers questions of this type."""
    return type(ask) in _READINGS


def plain(quantity: Decimal | None) -> str:
    """A quantity as plain text; "" for None."""
    return "" if quantity is None else plain_text(quantity)


def _us(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def _balance_history(ask: q.AskBalanceHistory, shard_of: Callable[[int], int]) -> Reading:
    def answer(connection: duckdb.DuckDBPyConnection, scope: Scope, now_s: int) -> q.Changes:
        rows = history.balance_history(
            connection,
            ask.user,
            asset=ask.asset or None,
            business=ask.business or None,
            span=Span(ask.start_s, ask.end_s),
            page=Page(ask.offset, ask.limit),
            scope=scope,
        )
        return q.Changes([_change(row) for row in rows])

    return Reading("balances", [shard_of(ask.user)], answer, _is_deep(ask.offset))


def _change(row: BalanceChange) -> q.Change:
    return q.Change(
        _us(row.time),
        row.asset,
        row.business,
        plain(row.change),
        plain(row.balance),
        row.business_id,
        row.detail,
        row.market or 0,
        row.order_id or 0,
        plain(row.price),
        plain(row.amount),
        plain(row.fee_rate),
    )


def _order_deals(ask: q.AskOrderDeals, _: Callable[[int], int]) -> Reading:
    def answer(connection: duckdb.DuckDBPyConnection, scope: Scope, now_s: int) -> q.OwnDeals:
        page = Page(ask.offset, ask.limit)
        return _own_deals(history.order_deals(connection, ask.order_id, page, scope))

    return Reading("deals", [market_no_of(ask.order_id)], answer)


def _user_deals(ask: q.AskUserDeals, _: Callable[[int], int]) -> Reading:
    def answer(connection: duckdb.DuckDBPyConnection, scope: Scope, now_s: int) -> q.OwnDeals:
        market, page = ask.market_no or None, Page(ask.offset, ask.limit)
        return _own_deals(history.user_deals(connection, ask.user, market, page, scope))

    return Reading("deals", [ask.market_no] if ask.market_no else None, answer, wide=True)


def _own_deals(rows: Sequence[OwnDeal]) -> q.OwnDeals:
    return q.OwnDeals(
        [
            q.OwnDeal(
                _us(row.time),
                row.user,
                row.deal_id,
                row.market,
                row.side,
                row.role,
                plain(row.price),
                plain(row.amount),
                plain(row.deal),
                plain(row.fee),
                row.deal_order_id,
            )
            for row in rows
        ]
    )


def _finished(ask: q.AskFinished, _: Callable[[int], int]) -> Reading:
    def answer(connection: duckdb.DuckDBPyConnection, scope: Scope, now_s: int) -> q.FinishedOrders:
        rows = history.finished(
            connection,
            ask.user,
            ask.market_no,
            side=ask.side or None,
            span=Span(ask.start_s, ask.end_s),
            page=Page(ask.offset, ask.limit),
            scope=scope,
        )
        return q.FinishedOrders([_finished_order(row) for row in rows])

    return Reading("orders", [ask.market_no], answer, _is_deep(ask.offset))


def _finished_detail(ask: q.AskFinishedDetail, _: Callable[[int], int]) -> Reading:
    def answer(connection: duckdb.DuckDBPyConnection, scope: Scope, now_s: int) -> q.FinishedOrders:
        row = history.finished_detail(connection, ask.order_id, scope)
        return q.FinishedOrders([] if row is None else [_finished_order(row)])

    return Reading("orders", [market_no_of(ask.order_id)], answer)


def _finished_order(row: FinishedOrder) -> q.FinishedOrder:
    return q.FinishedOrder(
        row.order_id,
        row.market,
        row.user,
        row.side,
        row.type,
        plain(row.price),
        plain(row.amount),
        plain(row.taker_fee),
        plain(row.maker_fee),
        row.ref_user,
        plain(row.ref_rate),
        row.source,
        _us(row.ctime),
        _us(row.ftime),
        plain(row.deal_stock),
        plain(row.deal_money),
        plain(row.deal_fee),
    )


def _deals(ask: q.AskDeals, _: Callable[[int], int]) -> Reading:
    def answer(connection: duckdb.DuckDBPyConnection, scope: Scope, now_s: int) -> q.PublicDeals:
        find = history.newest_deals if ask.newest else history.deals_after
        rows = find(connection, ask.market_no, ask.last_id, ask.limit, scope)
        return q.PublicDeals(
            [
                q.PublicDeal(
                    row.deal_id, _us(row.time), row.side, plain(row.price), plain(row.amount)
                )
                for row in rows
            ]
        )

    return Reading("deals", [ask.market_no], answer)


def _kline(ask: q.AskKline, _: Callable[[int], int]) -> Reading:
    def answer(connection: duckdb.DuckDBPyConnection, scope: Scope, now_s: int) -> q.Kline:
        span = Span(ask.start_s, min(ask.end_s, now_s))
        found = market_data.kline_texts(
            connection, ask.market_nos, span, ask.interval_s, q.KLINE_ROWS_MAX, scope
        )
        named = zip(ask.market_nos, ask.names, strict=True)
        rows = [_json_rows(found[market_no], name) for market_no, name in named]
        return q.Kline(msgspec.Raw(b"[%b]" % b",".join(filter(None, rows))))

    return Reading("deals", ask.market_nos, answer, len(ask.market_nos) > 1)


def _json_rows(bars: pa.Table, name: str) -> bytes:
    """The rows of a kline, with their market's name, as JSON without the list around them."""
    if not bars:
        return b""
    time, *quantities = bars.columns
    pieces: list[Any] = ["[", time.cast(pa.string()), ',"', quantities[0]]
    # They are digits and a point, so nothing is to be escaped.
    for texts in quantities[1:]:
        pieces += ['","', texts]
    pieces.append(f'",{_encode(name).decode()}]')
    rows = pc.binary_join_element_wise(*pieces, "").combine_chunks()
    all_rows = pa.ListArray.from_arrays(pa.array([0, len(rows)], pa.int32()), rows)
    return pc.binary_join(all_rows, ",")[0].as_buffer().to_pybytes()  # type: ignore[no-any-return]


def _price(ask: q.AskPrice, _: Callable[[int], int]) -> Reading:
    def answer(connection: duckdb.DuckDBPyConnection, scope: Scope, now_s: int) -> q.Price:
        market_no = ask.market_no
        # After all there is, and where a minute begins: no deal need be looked at alone.
        soon_s = now_s - now_s % 60 + 60
        last = market_data.price_before(connection, [market_no], soon_s, scope).get(market_no)
        if last is None:
            return q.Price("", "")
        day_ago_s = now_s - q.DAY_S
        past = market_data.price_before(connection, [market_no], day_ago_s, scope).get(market_no)
        if past is None:
            past = market_data.first_price(connection, market_no, scope)
        return q.Price(last, past or last)

    return Reading("deals", [ask.market_no], answer)


def _period(ask: q.AskPeriod, _: Callable[[int], int]) -> Reading:
    def answer(connection: duckdb.DuckDBPyConnection, scope: Scope, now_s: int) -> q.Period:
        if ask.period_s:
            found = market_data.status(connection, ask.market_no, ask.period_s, now_s, scope)
            return q.Period(*map(plain, found))
        today = market_data.status_today(connection, ask.market_no, now_s, scope)
        last, high, low = plain(today.last), plain(today.high), plain(today.low)
        totals = plain(today.volume), plain(today.deal)
        return q.Period(last, plain(today.open), last, high, low, *totals)

    return Reading("deals", [ask.market_no], answer)


def _is_deep(offset: int) -> bool:
    """Whether a page lies so far back that all files must be read for it."""
    return offset > history.OFFSET_MERGED_MAX


_READINGS: dict[type, Callable[[Any, Callable[[int], int]], Reading]] = {
    q.AskBalanceHistory: _balance_history,
    q.AskOrderDeals: _order_deals,
    q.AskFinished: _finished,
    q.AskFinishedDetail: _finished_detail,
    q.AskUserDeals: _user_deals,
    q.AskDeals: _deals,
    q.AskKline: _kline,
    q.AskPrice: _price,
    q.AskPeriod: _period,
}
