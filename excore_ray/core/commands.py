"""Commands: every input a machine may apply, frozen.

Separate because the journal, the wire and the tests speak in them.  A command carries all that
its effect depends on, the time included (in its `Record`); it must not depend on names, on a
clock or on anything looked up later.

All are arrays on the wire and in the journal; a field is only ever added at the end, with a
default, and a tag is never used twice.  Quantities are integers of any size.
Source: the RPC reference for the fields; ARCHITECTURE.md for the protocol.
"""

from __future__ import annotations

import msgspec

from excore_ray.core.specs import MarketRules

REQUEST_ID_BYTES = 16
RESULT_KEPT_STAMPED_US = 120_000_000
RESULT_KEPT_US = 20_000_000
STAMP_AGE_MAX_US = 60_000_000
STAMP_AHEAD_MAX_US = RESULT_KEPT_STAMPED_US - STAMP_AGE_MAX_US
# So much longer, for an order may have been under way and clocks differ.
NAME_KEPT_US = RESULT_KEPT_STAMPED_US + 60_000_000


class Command(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all commands: an array of tag and fields."""


# What clients ask of a market.


class PutLimit(Command, frozen=True, tag="pl"):
    """Place a limit order.  amount at stock_prec, price at money_prec, rates in 1/10,000.

    stamp_ms: the request's TIMESTAMP, 0 when it had none; a stamped request's result is
    remembered for 120 s of record time, another's for 20 s.
    """

    request_id: bytes
    stamp_ms: int
    user: int
    side: int
    amount: int
    price: int
    taker_fee: int
    maker_fee: int
    ref_user: int
    ref_rate: int
    source: str


class PutMarket(Command, frozen=True, tag="pm"):
    """Place a market order.

    amount: stock to sell at stock_prec, or money to spend at stock_prec + money_prec.
    """

    request_id: bytes
    stamp_ms: int
    user: int
    side: int
    amount: int
    taker_fee: int
    source: str


class Cancel(Command, frozen=True, tag="cx"):
    """Cancel one open order of `user`, or all of them in this market when order_id is 0."""

    request_id: bytes
    stamp_ms: int
    user: int
    order_id: int


# What a market journals besides.


class CreateMarket(Command, frozen=True, tag="mk"):
    """The first command of a market's journal."""

    rules: MarketRules
    shards: int


class OpenEpoch(Command, frozen=True, tag="ep"):
    """A new incarnation owns the stream.  In a market it starts a new block of order ids."""

    epoch: int


class ReserveIds(Command, frozen=True, tag="id"):
    """Order numbers up to `high` may be handed out once this is durable."""

    high: int


class Place(Command, frozen=True, tag="po"):
    """Execute a granted order under its id: the commit point of the order and all its deals."""

    order_id: int
    put: PutLimit | PutMarket


class Forget(Command, frozen=True, tag="fo"):
    """Entries up to `out_seq` are durable at `shard`; replay need not offer them again."""

    shard: int
    out_seq: int


class Checkpoint(Command, frozen=True, tag="ck"):
    """The state_hash before this command; every replay must reproduce it."""

    state_hash: str


# What a ledger shard journals.


class CreateShard(Command, frozen=True, tag="sh"):
    """The first command of a shard's journal."""

    shard: int
    shards: int


class Hold(Command, frozen=True, tag="ho"):
    """One reservation: `amount` of the user's asset (prec_save) frozen for `order_id`.

    resting: whether the order may come to rest in the book (a limit order).
    """

    order_id: int
    user: int
    asset: int
    amount: int
    resting: bool


class Reserve(Command, frozen=True, tag="re"):
    """Freeze all `holds`, which were found affordable one after the other."""

    market_no: int
    epoch: int
    holds: list[Hold]


class Void(Command, frozen=True, tag="vo"):
    """Give back what is left of these holds and never grant these ids again."""

    market_no: int
    order_ids: list[int]


class Leg(Command, frozen=True, tag="le"):
    """One side of one deal.  price at money_prec, amount at stock_prec, fee_rate in 1/10,000.

    Of the order's hold `debit` is spent; `credit` arrives, of which `fee` is kept and
    `referral` leaves for the referrer's shard (all at prec_save of their asset).
    """

    order_id: int
    user: int
    side: int
    role: int
    deal_id: int
    price: int
    amount: int
    fee_rate: int
    debit: int
    credit_asset: int
    credit: int
    fee: int
    referral: int


class Referral(Command, frozen=True, tag="rf"):
    """A referrer's share of one side's fee, in the fee's asset at prec_save.

    is_stock: whether the fee's asset is the market's stock, or its money.
    """

    user: int
    asset: int
    amount: int
    order_id: int
    deal_id: int
    is_stock: bool


class Release(Command, frozen=True, tag="rl"):
    """Give back part of a hold: price improvement, or what an ended order did not use."""

    order_id: int
    amount: int


class OpenOrders(Command, frozen=True, tag="oo"):
    """A market's new epoch: holds below id_base that are not in `holds` are orphans.

    holds: flat pairs order_id, remaining.  Each listed hold must exist with exactly that amount.
    """

    epoch: int
    id_base: int
    holds: list[int]


Entry = Leg | Referral | Release | OpenOrders


class Settle(Command, frozen=True, tag="se"):
    """Apply a market's entries first_out_seq, first_out_seq + 1, ... to this shard.

    emitted: what the market has moved into this shard since its beginning, after the last entry,
    as (stock, money) at prec_save; the shard asserts that it has received exactly that.
    """

    market_no: int
    epoch: int
    low: int
    first_out_seq: int
    entries: list[Entry]
    emitted: tuple[int, int]


class Update(Command, frozen=True, tag="up"):
    """balance.update: add `change` (prec_save) to a user's asset under a key used once for ever.

    detail: the caller's object as JSON text.  net_max: bound on this shard's net updates of the
    asset.  repeat: whether the journal knows the key already (asked by the shell).
    """

    request_id: bytes
    stamp_ms: int
    user: int
    asset: int
    business: str
    business_id: int
    change: int
    detail: str
    force: bool
    net_max: int
    repeat: bool = False


# What the catalog journals.


class CreateCatalog(Command, frozen=True, tag="ca"):
    """The first command of the catalog's journal: the number of ledger shards, for ever."""

    shards: int


class AddAsset(Command, frozen=True, tag="aa"):
    """asset.add."""

    request_id: bytes
    stamp_ms: int
    name: str
    prec_save: int
    prec_show: int
    notes: str


class RenameAsset(Command, frozen=True, tag="ra"):
    """asset.rename."""

    request_id: bytes
    stamp_ms: int
    old_name: str
    new_name: str


class AddMarket(Command, frozen=True, tag="am"):
    """market.add.  min_amount at stock_prec."""

    request_id: bytes
    stamp_ms: int
    name: str
    stock: str
    stock_prec: int
    money: str
    money_prec: int
    min_amount: int
    notes: str


class RenameMarket(Command, frozen=True, tag="rm"):
    """market.rename.  kept_us: for how long no other market gets the old name; the catalog's."""

    request_id: bytes
    stamp_ms: int
    old_name: str
    new_name: str
    kept_us: int = 0


class AddKey(Command, frozen=True, tag="ak"):
    """Create an API credential.  scopes: bits of `catalog.Scope`."""

    request_id: bytes
    stamp_ms: int
    key: str
    secret: str
    scopes: int
    notes: str


class RevokeKey(Command, frozen=True, tag="rk"):
    """Make an API credential useless for ever."""

    request_id: bytes
    stamp_ms: int
    key: str


# Journals.

MarketCommand = CreateMarket | OpenEpoch | ReserveIds | Place | Cancel | Forget | Checkpoint
LedgerCommand = CreateShard | OpenEpoch | Reserve | Void | Settle | Update | Checkpoint
CatalogCommand = (CreateCatalog | OpenEpoch | AddAsset | RenameAsset | AddMarket | RenameMarket) | (
    AddKey | RevokeKey | Checkpoint
)


class MarketRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One turn of a market, as journaled: applied in order at time_us, which never goes back.

    told: every deal, and every order that has left with a trace, as it happened: the kind and the
    fields of each, one after the other, for a list of integers is the cheapest to make and to
    write.  `events.events_of` makes events of it.
    """

    time_us: int
    commands: list[MarketCommand]
    told: list[int | str]


class LedgerRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One turn of a ledger shard, as journaled.

    told: available + frozen (prec_save) after each change of an account, in the order of the
    changes; of a leg, which makes two, the asset that was paid, and what was left of it and of
    the other.  `postings.postings_of` puts it together with the commands.
    """

    time_us: int
    commands: list[LedgerCommand]
    told: list[int]


class CatalogRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One turn of the catalog, as journaled."""

    time_us: int
    commands: list[CatalogCommand]


Record = MarketRecord | LedgerRecord | CatalogRecord
