"""Questions about the past: what gateways ask the archive, and what it answers, frozen.

Separate from messages because none of it concerns a market or a shard: the archive knows what
their journals told.  Users, markets, assets and orders are numbers here, whatever their names are
today.

Quantities and prices of answers are plain decimal text, exact: they come from tables whose digits
the asker need not know.  Times are microseconds since the epoch.
Source: balance.history, order.deals, order.finished and market.* of the RPC reference.
"""

from __future__ import annotations

import msgspec

ARCHIVE = "archive"  # the name of the actor
DAY_S, WEEK_S = 86_400, 604_800
MONTH_S = 2_592_000  # stands for a calendar month, however long that is
KLINE_ROWS_MAX = 10_000


class Question(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of questions, answers and their records: an array of fields, some after a tag."""


# Questions.


class AskBalanceHistory(Question, frozen=True, tag="hb"):
    """Changes of a user's accounts, newest first.

    asset: 0 for all.  business: "" for all.  start_s <= time < end_s, 0 leaves a side open.
    """

    user: int
    asset: int
    business: str
    start_s: int
    end_s: int
    offset: int
    limit: int


class AskOrderDeals(Question, frozen=True, tag="hd"):
    """The deals of one order, newest first."""

    order_id: int
    offset: int
    limit: int


class AskFinished(Question, frozen=True, tag="hf"):
    """A user's orders in a market that are done, newest first by when they were put.

    side: 0 for both.  start_s <= ctime < end_s, 0 leaves a side open.
    """

    user: int
    market_no: int
    side: int
    start_s: int
    end_s: int
    offset: int
    limit: int


class AskFinishedDetail(Question, frozen=True, tag="hg"):
    """One order that is done."""

    order_id: int


class AskUserDeals(Question, frozen=True, tag="hu"):
    """A user's sides of deals, newest first.  market_no: 0 for all."""

    user: int
    market_no: int
    offset: int
    limit: int


class AskDeals(Question, frozen=True, tag="hp"):
    """Deals of a market beyond `last_id`: the newest, newest first, or the oldest, oldest first."""

    market_no: int
    last_id: int
    limit: int
    newest: bool


class AskKline(Question, frozen=True, tag="hk"):
    """Buckets of markets, one market after the other.

    names: what stands in the last column of each market's rows.  From the bucket with start_s to
    the last that begins by end_s and has begun.
    """

    market_nos: list[int]
    names: list[str]
    start_s: int
    end_s: int
    interval_s: int


class AskPrice(Question, frozen=True, tag="hl"):
    """The last price of a market, and what it is compared with."""

    market_no: int


class AskPeriod(Question, frozen=True, tag="hs"):
    """A market during the last period_s seconds; 0 for the UTC day so far."""

    market_no: int
    period_s: int


# Answers.


class Change(Question, frozen=True):
    """One change of one account; market_no 0 for an update; fee_rate "" unless it is a fee.

    detail: the JSON text given with an update.  price, amount: "" where there is no deal's.
    """

    time_us: int
    asset: int
    business: str
    change: str
    balance: str
    business_id: int
    detail: str
    market_no: int
    order_id: int
    price: str
    amount: str
    fee_rate: str


class Changes(Question, frozen=True, tag="cs"):
    """A page of changes."""

    records: list[Change]


class OwnDeal(Question, frozen=True):
    """One side of a deal, as its owner sees it: own side, role and fee."""

    time_us: int
    user: int
    deal_id: int
    market_no: int
    side: int
    role: int
    price: str
    amount: str
    deal: str
    fee: str
    deal_order_id: int


class OwnDeals(Question, frozen=True, tag="ol"):
    """A page of sides of deals."""

    records: list[OwnDeal]


class FinishedOrder(Question, frozen=True):
    """An order that is done."""

    order_id: int
    market_no: int
    user: int
    side: int
    type: int
    price: str
    amount: str
    taker_fee: str
    maker_fee: str
    ref_user: int
    ref_rate: str
    source: str
    ctime_us: int
    ftime_us: int
    deal_stock: str
    deal_money: str
    deal_fee: str


class FinishedOrders(Question, frozen=True, tag="fl"):
    """A page of orders that are done; of AskFinishedDetail one, or none when it is not done."""

    records: list[FinishedOrder]


class PublicDeal(Question, frozen=True):
    """A deal as everyone may see it; side is the taker's."""

    deal_id: int
    time_us: int
    side: int
    price: str
    amount: str


class PublicDeals(Question, frozen=True, tag="ph"):
    """Deals in the order that was asked for."""

    records: list[PublicDeal]


class Kline(Question, frozen=True, tag="kl"):
    """rows: JSON of an array of [time, open, close, high, low, volume, amount, name].

    Encoded already, for up to 10,000 rows pass through a gateway unread.
    """

    rows: msgspec.Raw


class Price(Question, frozen=True, tag="pr"):
    """last: the newest price, "" before the first deal.

    past: the price a day ago, or the first ever when that is younger.
    """

    last: str
    past: str


class Period(Question, frozen=True, tag="pe"):
    """A market during a period; all "0" but `last` when there was no deal in it."""

    last: str
    open: str
    close: str
    high: str
    low: str
    volume: str
    deal: str


HistoryQuestion = (AskBalanceHistory | AskOrderDeals | AskFinished | AskFinishedDetail) | (
    AskUserDeals | AskDeals | AskKline | AskPrice | AskPeriod
)
HistoryAnswer = Changes | OwnDeals | FinishedOrders | PublicDeals | Kline | Price | Period
