"""Planted defects: each switches one rule of the protocol off, and the simulation must notice.

A mutant patches the real classes and returns how to undo it.  None of them exists outside
this file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.custodian import Custodian
from excore_ray.core.ledger import Ledger
from excore_ray.core.market import Market
from excore_ray.core.outbox import Outbox
from excore_ray.core.reception import Reception
from excore_ray.core.sequencer import Sequencer
from excore_ray.core.shardlink import ShardLink
from excore_ray.storage.journal import Entry
from excore_ray.storage.memory import MemoryDisk
from tests.simulation.exchange import Exchange

Undo = Callable[[], None]


def _patch(owner: type, name: str, replacement: Any) -> Undo:
    original = owner.__dict__.get(name)
    inherited = name not in owner.__dict__
    setattr(owner, name, replacement)
    if inherited:
        return lambda: delattr(owner, name)
    return lambda: setattr(owner, name, original)


def no_compare_and_append() -> Undo:
    """An append lands wherever the stream ends, whoever wrote it."""

    def land(disk: MemoryDisk, seq: int, epoch: int, bodies: Any, keys: Any) -> None:
        disk.entries += (Entry(disk.next_seq, epoch, bytes(body)) for body in bodies)
        disk.keys.update((bytes(key), seq) for key in keys)

    return _patch(MemoryDisk, "land", land)


def market_sends_early() -> Undo:
    """A market's messages leave before its record is durable."""
    return _patch(Exchange, "sends_early", lambda exchange, stream: stream.startswith("market"))


def ledger_sends_early() -> Undo:
    """A shard's messages leave before its record is durable."""
    return _patch(Exchange, "sends_early", lambda exchange, stream: stream.startswith("ledger"))


def ids_reused() -> Undo:
    """A new epoch goes on right after the last executed order, not after the reserved block."""
    original = Market._open_epoch

    def open_epoch(market: Market, command: c.OpenEpoch) -> m.Done:
        market.ids_high = market.last_order_id // 4096
        return original(market, command)

    def rebind(market: Market) -> None:
        init(market)
        market.handlers[c.OpenEpoch] = lambda command: open_epoch(market, command)

    init = Market.__init__
    return _patch(Market, "__init__", rebind)


def orphans_not_voided() -> Undo:
    """A market's new epoch voids nothing."""
    original = Ledger._open_orders

    def open_orders(ledger: Ledger, link: Any, market_no: int, opened: c.OpenOrders) -> None:
        original(ledger, link, market_no, c.OpenOrders(opened.epoch, 0, opened.holds))

    return _patch(Ledger, "_open_orders", open_orders)


def no_out_seq_check() -> Undo:
    """A shard applies whatever entries come, seen or not."""

    def settle(custodian: Custodian, message: m.ToShard, applied: int) -> None:
        if message.entries:
            custodian.run(
                c.Settle(
                    message.market_no,
                    message.epoch,
                    message.low,
                    applied + 1,
                    message.entries,
                    message.emitted,
                )
            )

    return _patch(Custodian, "_settle", settle)


def outbox_pruned_on_send() -> Undo:
    """What was sent is forgotten, arrived or not."""
    original = ShardLink.gather

    def gather(link: ShardLink, *arguments: Any) -> m.ToShard | None:
        message = original(link, *arguments)
        box: Outbox = arguments[1]
        if message is not None and message.entries:
            box.forget(message.first_out_seq + len(message.entries) - 1)
        return message

    return _patch(ShardLink, "gather", gather)


def no_wait_before_reply() -> Undo:
    """An order is answered before its shard has settled it."""
    original = Sequencer._commit

    def commit(sequencer: Sequencer, waiting: Any) -> None:
        original(sequencer, waiting)
        for link in sequencer.links:
            for _, owed in link.owed:
                sequencer._pay(owed)

    return _patch(Sequencer, "_commit", commit)


def no_sticky_refusals() -> Undo:
    """A refusal is forgotten as soon as it is said."""
    return _patch(Reception, "_remember", lambda *arguments, **named: None)


def no_inquiry() -> Undo:
    """A shard never asks about a hold it has heard nothing of."""
    return _patch(Custodian, "_inquire", lambda custodian: None)


MUTANTS: dict[str, Callable[[], Undo]] = {
    plant.__name__: plant
    for plant in (
        no_compare_and_append,
        market_sends_early,
        ledger_sends_early,
        ids_reused,
        orphans_not_voided,
        no_out_seq_check,
        outbox_pruned_on_send,
        no_wait_before_reply,
        no_sticky_refusals,
        no_inquiry,
    )
}
