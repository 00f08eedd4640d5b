"""The past as anybody would look it up: lists of everything, gone through from end to end.

Separate from the fake exchange, which keeps the lists, because this only reads them.  It answers
in texts, as the archive does, and shares no arithmetic with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from excore_ray.core import messages as m
from excore_ray.core import questions as q
from excore_ray.core.reasons import Reason, Refused
from tests.api.naive_market import ZERO, Cause, NaiveDeal, NaiveMarket, NaiveOrder

SECOND = 1_000_000
DAY_S = 86_400


def text(number: Decimal | None) -> str:
    """A number without an exponent and without zeros at its end; "" for None."""
    if number is None:
        return ""
    digits = f"{number:f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def bucket_of(at_s: int, interval_s: int) -> int:
    """Where the bucket of a second begins, in UTC."""
    if interval_s == q.MONTH_S:
        day = datetime.fromtimestamp(at_s, UTC)
        return int(datetime(day.year, day.month, 1, tzinfo=UTC).timestamp())
    if interval_s == q.WEEK_S:
        midnight = at_s - at_s % DAY_S
        return midnight - DAY_S * datetime.fromtimestamp(midnight, UTC).weekday()
    return at_s // interval_s * interval_s


def bucket_after(bucket_s: int, interval_s: int) -> int:
    """Where the bucket after one begins."""
    length_s = 31 * DAY_S if interval_s == q.MONTH_S else interval_s
    return bucket_of(bucket_s + length_s, interval_s)


class NaiveArchive:
    """changes: every change of every account, with its user, in the order they were made.

    rows_max: of a kline.
    """

    def __init__(self, books: dict[int, NaiveMarket]) -> None:
        self.books = books
        self.changes: list[tuple[int, q.Change]] = []
        self.rows_max = q.KLINE_ROWS_MAX

    def book(self, user: int, asset: int, change: Decimal, balance: Decimal, why: Cause) -> None:
        """Keep a change that was made.  balance: available and frozen after it."""
        row = q.Change(
            why.time_us,
            asset,
            why.business,
            text(change),
            text(balance),
            why.business_id,
            why.detail,
            why.market_no,
            why.order_id,
            *map(text, (why.price, why.amount, why.rate)),
        )
        self.changes.append((user, row))

    def answer(self, ask: Any, now_us: int) -> m.Answer:
        """The answer to any question that an archive is asked."""
        now_s = now_us // SECOND
        if isinstance(ask, q.AskBalanceHistory):
            return q.Changes(_page(self._changes(ask), ask))
        if isinstance(ask, q.AskOrderDeals):
            sides = [side for side, order_id in self._sides() if order_id == ask.order_id]
            return q.OwnDeals(_page(sorted(sides, key=lambda d: -d.deal_id), ask))
        if isinstance(ask, q.AskUserDeals):
            return q.OwnDeals(_page(self._user_deals(ask), ask))
        if isinstance(ask, q.AskFinished):
            return q.FinishedOrders(_page(self._finished(ask), ask))
        if isinstance(ask, q.AskFinishedDetail):
            found = [o for _, orders in self._all_finished() for o in orders]
            return q.FinishedOrders([o for o in found if o.order_id == ask.order_id])
        if isinstance(ask, q.AskDeals):
            return q.PublicDeals(self._public(ask))
        if isinstance(ask, q.AskKline):
            return self._kline(ask, now_s)
        if isinstance(ask, q.AskPrice):
            return self._price(ask.market_no, now_s)
        if isinstance(ask, q.AskPeriod):
            return self._period(ask, now_s)
        assert isinstance(ask, m.AskStatus)
        return m.Status(q.ARCHIVE, 0, 0, {"rows": len(self.changes)})

    def _deals(self, market_no: int) -> list[NaiveDeal]:
        return self.books[market_no].deals if market_no in self.books else []

    # Accounts and orders

    def _changes(self, ask: q.AskBalanceHistory) -> list[q.Change]:
        return [
            change
            for user, change in reversed(self.changes)
            if user == ask.user
            and ask.asset in (0, change.asset)
            and ask.business in ("", change.business)
            and _within(change.time_us, ask.start_s, ask.end_s)
        ]

    def _sides(self) -> list[tuple[q.OwnDeal, int]]:
        """Both sides of every deal, each with the order whose side it is."""
        return [
            (_side(market_no, deal, role), (deal.maker, deal.taker)[role - 1].order_id)
            for market_no, book in self.books.items()
            for deal in book.deals
            for role in (1, 2)
        ]

    def _user_deals(self, ask: q.AskUserDeals) -> list[q.OwnDeal]:
        sides = [
            side
            for side, _ in self._sides()
            if side.user == ask.user and ask.market_no in (0, side.market_no)
        ]
        return sorted(sides, key=lambda d: (-d.time_us, d.market_no, -d.deal_id, d.role))

    def _all_finished(self) -> list[tuple[int, list[q.FinishedOrder]]]:
        return [
            (market_no, [_finished_order(market_no, order) for order in book.finished])
            for market_no, book in self.books.items()
        ]

    def _finished(self, ask: q.AskFinished) -> list[q.FinishedOrder]:
        orders = [
            order
            for market_no, found in self._all_finished()
            for order in found
            if market_no == ask.market_no
            and order.user == ask.user
            and ask.side in (0, order.side)
            and _within(order.ctime_us, ask.start_s, ask.end_s)
        ]
        return sorted(orders, key=lambda o: (-o.ctime_us, -o.order_id))

    # Markets

    def _public(self, ask: q.AskDeals) -> list[q.PublicDeal]:
        deals = [
            q.PublicDeal(d.deal_id, d.time_us, d.taker.side, text(d.price), text(d.amount))
            for d in self._deals(ask.market_no)
            if d.deal_id > ask.last_id
        ]
        return (deals[::-1] if ask.newest else deals)[: ask.limit]

    def _price(self, market_no: int, now_s: int) -> q.Price:
        deals = self._deals(market_no)
        if not deals:
            return q.Price("", "")
        day_ago_us = (now_s - DAY_S) * SECOND
        past = [d for d in deals if d.time_us < day_ago_us][-1:] or deals[:1]
        return q.Price(text(deals[-1].price), text(past[0].price))

    def _period(self, ask: q.AskPeriod, now_s: int) -> q.Period:
        deals = self._deals(ask.market_no)
        last = text(deals[-1].price) if deals else "0"
        start_s = now_s - (ask.period_s or now_s % DAY_S)
        inside = [d for d in deals if d.time_us >= start_s * SECOND]
        if not inside:
            shown = "0" if ask.period_s else last
            return q.Period(last, shown, shown, shown, shown, "0", "0")
        return q.Period(last, *_bar(inside))

    def _kline(self, ask: q.AskKline, now_s: int) -> q.Kline | Refused:
        rows = [
            [*row, name]
            for market_no, name in zip(ask.market_nos, ask.names, strict=True)
            for row in self._buckets(market_no, ask, now_s)
        ]
        if len(rows) > self.rows_max:
            detail = f"the kline has {len(rows)} rows, more than {self.rows_max}"
            return Refused(Reason.LIMIT_TOO_BIG, detail)
        return q.Kline(msgspec.Raw(json.dumps(rows).encode()))

    def _buckets(self, market_no: int, ask: q.AskKline, now_s: int) -> Iterable[list[Any]]:
        deals = self._deals(market_no)
        if not deals:
            return
        first_s = max(ask.start_s, deals[0].time_us // SECOND)
        bucket_s = bucket_of(first_s, ask.interval_s)
        while bucket_s <= min(ask.end_s, now_s):
            next_s = bucket_after(bucket_s, ask.interval_s)
            until = [d for d in deals if d.time_us < next_s * SECOND]
            inside = [d for d in until if d.time_us >= bucket_s * SECOND]
            close = text(until[-1].price)
            yield [bucket_s, *(_bar(inside) if inside else [close] * 4 + ["0", "0"])]
            bucket_s = next_s


def _page(rows: list[Any], ask: Any) -> list[Any]:
    return rows[ask.offset : ask.offset + ask.limit]


def _within(time_us: int, start_s: int, end_s: int) -> bool:
    return time_us >= start_s * SECOND and (not end_s or time_us < end_s * SECOND)


def _bar(deals: Sequence[NaiveDeal]) -> list[str]:
    """Open, close, highest and lowest price, the stock and the money that changed hands."""
    prices = [deal.price for deal in deals]
    volume = sum((deal.amount for deal in deals), ZERO)
    amount = sum((deal.amount * deal.price for deal in deals), ZERO)
    return [*map(text, (prices[0], prices[-1], max(prices), min(prices), volume, amount))]


def _side(market_no: int, deal: NaiveDeal, role: int) -> q.OwnDeal:
    own, other = (deal.taker, deal.maker) if role == 2 else (deal.maker, deal.taker)
    return q.OwnDeal(
        deal.time_us,
        own.user,
        deal.deal_id,
        market_no,
        own.side,
        role,
        text(deal.price),
        text(deal.amount),
        text(deal.price * deal.amount),
        text(deal.taker_fee if role == 2 else deal.maker_fee),
        other.order_id,
    )


def _finished_order(market_no: int, order: NaiveOrder) -> q.FinishedOrder:
    return q.FinishedOrder(
        order.order_id,
        market_no,
        order.user,
        order.side,
        1 if order.price else 2,
        text(order.price),
        text(order.amount),
        text(order.taker_fee),
        text(order.maker_fee),
        order.ref_user,
        text(order.ref_rate),
        order.source,
        order.ctime_us,
        order.ftime_us,
        *map(text, (order.deal_stock, order.deal_money, order.deal_fee)),
    )
