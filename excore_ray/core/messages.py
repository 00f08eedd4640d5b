"""Messages: what actors and gateways say to each other, frozen; one encoded batch is one frame.

Separate from commands because nothing here is journaled: a message may be lost, doubled or late
at any time, and every receiver must bear that.

Source: ARCHITECTURE.md, the two-phase reservation protocol.
"""

from __future__ import annotations

import msgspec

from excore_ray.core import commands as c
from excore_ray.core.questions import HistoryAnswer, HistoryQuestion
from excore_ray.core.reasons import Refused
from excore_ray.core.specs import Asset, Market


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all messages: an array of tag and fields."""


# Questions of gateways, answered from memory.


class AskBook(Message, frozen=True, tag="qb"):
    """One side of a book, best first then oldest."""

    side: int
    offset: int
    limit: int


class AskDepth(Message, frozen=True, tag="qd"):
    """Merged levels of both sides.  interval at money_prec, 0 for no merging."""

    limit: int
    interval: int


class AskPending(Message, frozen=True, tag="qp"):
    """A user's open orders in this market, newest first."""

    user: int
    offset: int
    limit: int


class AskOrder(Message, frozen=True, tag="qo"):
    """One open order."""

    order_id: int


class AskCounts(Message, frozen=True, tag="qc"):
    """How many orders rest on each side."""


class AskHolds(Message, frozen=True, tag="qh"):
    """For the audit: what every open order needs frozen at `shard` (asked of a market), or what
    is frozen for market `market_no` (asked of a shard); the other field is 0.
    """

    shard: int
    market_no: int


class AskAccounts(Message, frozen=True, tag="qa"):
    """Accounts of a user; `assets` empty for all the shard knows of the user."""

    user: int
    assets: list[int]


class AskAssets(Message, frozen=True, tag="qs"):
    """Totals and counts of this shard per asset; empty for all."""

    assets: list[int]


class AskPendingList(Message, frozen=True, tag="ql"):
    """In which markets a user has open orders, and how many."""

    user: int


class AskStatus(Message, frozen=True, tag="qt"):
    """How the actor is."""


class AskKeys(Message, frozen=True, tag="qk"):
    """The API credentials, without their secrets."""


# Answers.


class Placed(Message, frozen=True, tag="pd"):
    """An executed order as it stood when it was committed; scales as in `orders.Order`."""

    order_id: int
    ctime_us: int
    mtime_us: int
    left: int
    deal_stock: int = 0
    deal_money: int = 0
    deal_fee: int = 0


class Done(Message, frozen=True, tag="ok"):
    """A command without a result of its own succeeded."""


class OrderView(Message, frozen=True, tag="ov"):
    """An open order (always a limit order); scales as in `orders.Order`."""

    order_id: int
    user: int
    side: int
    price: int
    amount: int
    left: int
    taker_fee: int
    maker_fee: int
    ref_user: int
    ref_rate: int
    source: str
    ctime_us: int
    mtime_us: int
    deal_stock: int
    deal_money: int
    deal_fee: int


class Orders(Message, frozen=True, tag="os"):
    """A page of open orders and how many there are in all."""

    total: int
    orders: list[OrderView]


class Depth(Message, frozen=True, tag="de"):
    """Flat pairs price (money_prec), amount (stock_prec) of each side, best first."""

    asks: list[int]
    bids: list[int]


class Counts(Message, frozen=True, tag="co"):
    """Open orders on each side."""

    asks: int
    bids: int


class MarketHolds(Message, frozen=True, tag="mh"):
    """What a market needs frozen at one shard, at one moment.

    low: ids below it are decided.  out_seq: newest entry for the shard.  undecided: ids asked of
    the shard whose fate is open or whose abort is not confirmed.  holds: flat pairs order_id,
    remaining (prec_save).  emitted: per shard (stock, money) moved there since the beginning.
    """

    low: int
    out_seq: int
    undecided: list[int]
    holds: list[int]
    emitted: list[tuple[int, int]]


class ShardHolds(Message, frozen=True, tag="sh"):
    """What a shard holds for one market.  applied: newest entry of the market it has applied.

    received: (stock, money) received from the market since the beginning.
    """

    applied: int
    holds: list[int]
    received: tuple[int, int]


class Account(Message, frozen=True, tag="ac"):
    """available and frozen of one asset, at prec_save."""

    asset: int
    available: int
    frozen: int


class Accounts(Message, frozen=True, tag="as"):
    """Accounts of one user."""

    accounts: list[Account]


class AssetTotal(Message, frozen=True, tag="at"):
    """One asset at one shard, at one moment, at prec_save.

    Always available + frozen + fees == updates + received, counts are users with a nonzero part.
    """

    asset: int
    available: int
    available_count: int
    frozen: int
    frozen_count: int
    fees: int
    updates: int
    received: int


class AssetTotals(Message, frozen=True, tag="ts"):
    """Totals of one shard."""

    totals: list[AssetTotal]


class PendingCounts(Message, frozen=True, tag="pc"):
    """Flat pairs market_no, count."""

    counts: list[int]


class Status(Message, frozen=True, tag="st"):
    """How an actor is: `facts` are its own figures by name, in integers."""

    stream: str
    epoch: int
    next_seq: int
    facts: dict[str, int]
    texts: dict[str, str] = {}


class KeyView(Message, frozen=True, tag="kv"):
    """An API credential without its secret."""

    key: str
    scopes: int
    notes: str
    revoked: bool


class Keys(Message, frozen=True, tag="ks"):
    """All API credentials."""

    keys: list[KeyView]


Query = (
    AskBook | AskDepth | AskPending | AskOrder | AskCounts | AskHolds | AskAccounts | AskAssets
) | (AskPendingList | AskStatus | AskKeys | HistoryQuestion)
Ask = (
    (c.PutLimit | c.PutMarket | c.Cancel | c.Update)
    | (c.AddAsset | c.RenameAsset | c.AddMarket | c.RenameMarket | c.AddKey | c.RevokeKey)
) | Query
Answer = (
    Refused | Placed | Done | OrderView | Orders | Depth | Counts | MarketHolds | ShardHolds
) | (Accounts | AssetTotals | PendingCounts | Status | Keys | HistoryAnswer)


class Batch(Message, frozen=True, tag="ba"):
    """Requests of one gateway in their order, addressed to one epoch (0 when none is known).

    tokens: the gateway's number for this attempt at each.  deadlines_us: for each, the wall clock
    after which the gateway has given up and nothing may start any more.
    """

    epoch: int
    tokens: list[int]
    deadlines_us: list[int]
    asks: list[Ask]


class Replies(Message, frozen=True, tag="rp"):
    """Answers of one epoch to one gateway, each with the token of its request.

    taken: so many more of the gateway's batches have been taken in.
    """

    epoch: int
    tokens: list[int]
    answers: list[Answer]
    taken: int = 0


class Stale(Message, frozen=True, tag="sl"):
    """These requests were addressed to another epoch than `epoch`, and were not looked at."""

    epoch: int
    tokens: list[int]


class ToShard(Message, frozen=True, tag="to"):
    """All a market has for one shard in one turn.

    low: the smallest undecided order id.  reserves: holds wanted.  aborts: flat pairs order_id,
    after_out_seq.  confirms: ids whose hold is backed by an open order.  entries from
    first_out_seq on, with the cumulative `emitted` after the last one.
    """

    market_no: int
    epoch: int
    low: int
    reserves: list[c.Hold]
    aborts: list[int]
    confirms: list[int]
    first_out_seq: int
    entries: list[c.Entry]
    emitted: tuple[int, int]


class ToMarket(Message, frozen=True, tag="tm"):
    """All a shard has for one market in one turn.

    applied: newest entry that is durable here.  epoch: newest epoch of the market known here.
    inquiries: holds nothing has been heard of for a while.
    """

    shard: int
    applied: int
    epoch: int
    granted: list[int]
    denied: list[int]
    aborted: list[int]
    inquiries: list[int]


class Renew(Message, frozen=True, tag="rn"):
    """A gateway asks to use its copy `version` (-1 for none) of the catalog for another lease.

    sent_us: the gateway's own clock at sending, returned in the answer.
    """

    version: int
    sent_us: int


class Credential(Message, frozen=True, tag="cr"):
    """An API credential as gateways need it."""

    key: str
    secret: str
    scopes: int


class CatalogCopy(Message, frozen=True, tag="cc"):
    """The catalog at one version.  assets and markets in order of creation, live keys only."""

    version: int
    shards: int
    assets: list[Asset]
    markets: list[Market]
    credentials: list[Credential]


class Lease(Message, frozen=True, tag="ls"):
    """The catalog may be used until lease_us after `sent_us`.  copy: when it is news."""

    sent_us: int
    lease_us: int
    copy: CatalogCopy | None


class Changed(Message, frozen=True, tag="ch"):
    """The catalog is now this; acknowledge with a `Renew` of its version."""

    copy: CatalogCopy


WireMessage = Batch | Replies | Stale | ToShard | ToMarket | Renew | Lease | Changed

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[WireMessage] = msgspec.json.Decoder(WireMessage)


def encode(message: WireMessage) -> bytes:
    """One message as the body of a frame."""
    return _encoder.encode(message)


def decode(body: bytes) -> WireMessage:
    """The message in a frame's body.  Raises msgspec.MsgspecError when it is none."""
    return _decoder.decode(body)
