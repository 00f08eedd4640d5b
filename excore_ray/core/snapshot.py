"""State <-> bytes, and its hash, for the three machines.

Separate because what is kept of a machine, and in which order, is a format with a version of
its own.  A market's waiting entries are kept beside its state and outside its hash: the live
machine forgets them on a shard's word, a replay only by its journal.

A snapshot is JSON: [format, kind, state, waiting].  Dictionaries are written in the order they
grew, which a replay repeats, so equal histories give equal bytes.
"""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

import msgspec

from excore_ray.core.catalog import Catalog, Key
from excore_ray.core.commands import Entry
from excore_ray.core.ledger import Account, HeldFunds, Ledger, MarketLink
from excore_ray.core.machine import Machine
from excore_ray.core.market import Market
from excore_ray.core.orders import Order, OrderType
from excore_ray.core.results import Group
from excore_ray.core.specs import Asset, MarketRules
from excore_ray.core.specs import Market as MarketSpec

FORMAT = 2

OrderState = tuple[
    int, int, int, int, int, int, int, int, int, int, str, int, int, int, int, int
]  # fmt: skip


class MarketState(msgspec.Struct, array_like=True):
    """Everything of a market that its journal determines."""

    rules: MarketRules
    shards: int
    epoch: int
    time_us: int
    ids_high: int
    id_base: int
    last_order_id: int
    last_deal_id: int
    outboxes: list[tuple[int, int, int]]
    orders: list[OrderState]
    results: list[list[Group]]


class LedgerState(msgspec.Struct, array_like=True):
    """Everything of a shard that its journal determines."""

    shard: int
    shards: int
    epoch: int
    time_us: int
    accounts: dict[int, dict[int, Account]]
    holds: dict[int, dict[int, HeldFunds]]
    links: dict[int, MarketLink]
    fees: dict[int, int]
    updates: dict[int, int]
    received: dict[int, int]
    results: list[list[Group]]


class CatalogState(msgspec.Struct, array_like=True):
    """Everything of the catalog that its journal determines."""

    shards: int
    epoch: int
    time_us: int
    version: int
    assets: list[Asset]
    markets: list[MarketSpec]
    keys: dict[str, Key]
    results: list[list[Group]]


class RenamedState(CatalogState, array_like=True):
    """A catalog with names that were freed moments ago; written while there are any."""

    freed: dict[str, tuple[int, int]] = {}


class Waiting(msgspec.Struct, array_like=True):
    """The entries a shard has not durably acknowledged, as far as the journal tells."""

    acked: int
    entries: list[Entry]


State = TypeVar("State")
AnyMachine = Market | Ledger | Catalog

_encoder = msgspec.json.Encoder()


def state_hash(machine: Machine) -> str:
    """SHA-256 over the machine's state, in hex: equal for equal histories."""
    return hashlib.sha256(_encoder.encode(_state_of(machine))).hexdigest()


def dump(machine: Machine) -> bytes:
    """A snapshot of the machine."""
    waiting: list[Waiting] = []
    if type(machine) is Market:
        waiting = [Waiting(box.acked, box.dump()) for box in machine.outboxes]
    kind = type(machine).__name__.lower()
    return _encoder.encode([FORMAT, kind, _state_of(machine), waiting])


def load_market(snapshot: bytes) -> Market:
    """The market a snapshot was made of.  Raises ValueError when it is none of this format."""
    state, waiting = _parts(snapshot, "market", MarketState)
    market = Market()
    for field in MarketState.__struct_fields__[:8]:
        setattr(market, field, getattr(state, field))
    market.restore_outboxes(state.outboxes, [(box.acked, box.entries) for box in waiting])
    for values in state.orders:
        market.restore_order(_order_from(values))
    market.results.load(state.results)
    return market


def load_ledger(snapshot: bytes) -> Ledger:
    """The shard a snapshot was made of.  Raises ValueError when it is none of this format."""
    state, _ = _parts(snapshot, "ledger", LedgerState)
    ledger = Ledger()
    for field in LedgerState.__struct_fields__[:-1]:
        setattr(ledger, field, getattr(state, field))
    ledger.results.load(state.results)
    ledger.restore_resting()
    return ledger


def load_catalog(snapshot: bytes) -> Catalog:
    """The catalog a snapshot was made of.  Raises ValueError when it is none of this format."""
    state, _ = _parts(snapshot, "catalog", RenamedState)
    catalog = Catalog()
    for field in (*CatalogState.__struct_fields__[:-1], "freed"):
        setattr(catalog, field, getattr(state, field))
    catalog.results.load(state.results)
    return catalog


def _parts(snapshot: bytes, kind: str, state: type[State]) -> tuple[State, list[Waiting]]:
    found: Any = msgspec.json.decode(snapshot, type=tuple[int, str, msgspec.Raw, list[Waiting]])
    if found[:2] != (FORMAT, kind):
        raise ValueError(f"a snapshot of {found[1]!r} in format {found[0]}, not of {kind!r}")
    return msgspec.json.decode(found[2], type=state), found[3]


def _state_of(machine: Machine) -> MarketState | LedgerState | CatalogState:
    if type(machine) is Market:
        return _market_state(machine)
    state: type[Any] = LedgerState if type(machine) is Ledger else CatalogState
    values = [getattr(machine, field) for field in state.__struct_fields__[:-1]]
    values.append(machine.results.dump())
    if type(machine) is Catalog and machine.freed:
        state = RenamedState
        values.append(machine.freed)
    made: LedgerState | CatalogState = state(*values)
    return made


def _market_state(market: Market) -> MarketState:
    return MarketState(
        market.rules,
        market.shards,
        market.epoch,
        market.time_us,
        market.ids_high,
        market.id_base,
        market.last_order_id,
        market.last_deal_id,
        [(box.out_seq, box.stock, box.money) for box in market.outboxes],
        [_order_values(order) for order in market.orders.values()],
        market.results.dump(),
    )


def _order_values(order: Order) -> OrderState:
    return (
        order.order_id,
        order.user,
        order.side,
        order.price,
        order.amount,
        order.left,
        order.taker_fee,
        order.maker_fee,
        order.ref_user,
        order.ref_rate,
        order.source,
        order.ctime_us,
        order.mtime_us,
        order.deal_stock,
        order.deal_money,
        order.deal_fee,
    )


def _order_from(values: OrderState) -> Order:
    order_id, user, side, *rest = values
    fields: list[Any] = [order_id, user, side, OrderType.LIMIT, *rest]
    return Order(*fields)
