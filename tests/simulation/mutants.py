"""Planted defects: each switches one rule of the protocol off, and the simulation must notice.

A mutant patches the real classes and returns how to undo it.  None of them exists outside
this file and those whose names begin alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core import reception, results
from excore_ray.core.desk import Desk
from excore_ray.core.market import Market
from excore_ray.core.outbox import Outbox
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.reception import Inflight, Reception
from excore_ray.core.results import Results
from excore_ray.core.routing import Router
from excore_ray.core.sequencer import Sequencer
from excore_ray.core.shardlink import ShardLink
from excore_ray.core.snapshot import dump
from excore_ray.core.turns import Turn
from excore_ray.storage.journal import Entry
from excore_ray.storage.memory import MemoryDisk, read_memory
from tests.simulation.actors import Process, replay
from tests.simulation.exchange import Exchange
from tests.simulation.gateways import Client, Operation
from tests.simulation.mutants_of_leases import PLANTS as OF_LEASES
from tests.simulation.mutants_of_shards import (
    COVERED,
    Undo,
    fenced_by_gateways_ignored,
    patch,
    together,
    zombie_market_heard,
)
from tests.simulation.mutants_of_shards import PLANTS as OF_SHARDS
from tests.simulation.mutants_of_telling import PLANTS as OF_TELLING
from tests.simulation.world import MS

# The journal.


def no_compare_and_append() -> Undo:
    """An append lands wherever the stream ends, whoever wrote it."""

    def land(disk: MemoryDisk, seq: int, epoch: int, bodies: Any, keys: Any) -> None:
        disk.entries += (Entry(disk.next_seq, epoch, bytes(body)) for body in bodies)
        disk.keys.update((bytes(key), seq) for key in keys)

    return patch(MemoryDisk, "land", land)


def market_sends_early() -> Undo:
    """A market's messages leave before its record is durable."""
    return patch(Exchange, "sends_early", lambda exchange, stream: stream.startswith("market"))


def ledger_sends_early() -> Undo:
    """A shard's messages leave before its record is durable."""
    return patch(Exchange, "sends_early", lambda exchange, stream: stream.startswith("ledger"))


def catalog_sends_early() -> Undo:
    """The catalog's messages leave before its record is durable."""
    return patch(Exchange, "sends_early", lambda exchange, stream: stream == "catalog")


def snapshot_mislabelled() -> Undo:
    """A snapshot is said to be of the entry before the one it holds."""

    def compact(exchange: Exchange, stream: str, truncates: bool) -> None:
        disk = exchange.disks[stream]
        if disk.next_seq > disk.base_seq + 2:
            read_memory(disk).save_snapshot(disk.next_seq - 2, dump(replay(disk)))

    return patch(Exchange, "compact", compact)


def truncated_beyond_older_snapshot() -> Undo:
    """Entries are forgotten up to the newest snapshot, so that the older is of no use."""

    def truncate(exchange: Exchange, disk: MemoryDisk) -> None:
        disk.forget(max(disk.snapshots))

    return patch(Exchange, "truncate", truncate)


def no_owner_check() -> Undo:
    """What rests on no new record leaves without asking whether the journal is still owned."""

    def confirm(process: Process, turn: Turn) -> None:
        if process.up:
            process._done(turn)

    return patch(Process, "_confirm", confirm)


def zombies_speak_and_are_heard() -> Undo:
    """No owner check, and whoever hears an old incarnation takes it for the new one."""
    return together(no_owner_check(), zombie_market_heard(), fenced_by_gateways_ignored())


def record_time_goes_back() -> Undo:
    """A record's time is the clock's, whatever was recorded before."""
    return patch(Desk, "_begin", lambda desk: desk._machine.begin(desk.now_us))


# Epochs.


def no_new_epoch() -> Undo:
    """A new incarnation goes on in the epoch of the last one."""

    def open_epoch(desk: Desk) -> None:
        if not desk._machine.epoch:
            original(desk)
        desk.reception.epoch = desk._machine.epoch

    original = Desk.open_epoch
    return patch(Desk, "open_epoch", open_epoch)


def requests_of_any_epoch() -> Undo:
    """A request addressed to an older epoch is executed."""
    original = Reception.admit
    return patch(Reception, "admit", lambda r, i, epoch, now: original(r, i, r.epoch, now))


def refusals_of_any_epoch() -> Undo:
    """A gateway believes a refusal from an older epoch than it has tried."""
    original = Router.receive

    def receive(router: Router, actor: str, message: m.WireMessage) -> None:
        if type(message) is m.Replies:
            for pending in router.route(actor).unanswered.values():
                pending.tried = min(pending.tried, 0)
        original(router, actor, message)

    return patch(Router, "receive", receive)


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
    return patch(Market, "__init__", rebind)


def ids_beyond_the_block() -> Undo:
    """Order ids are given out though their block was not reserved durably."""
    original = Sequencer._reserve

    def reserve(sequencer: Sequencer, waiting: Any, put: Any) -> None:
        market, high = sequencer.market, sequencer.market.ids_high
        market.ids_high = 1 << 40
        original(sequencer, waiting, put)
        market.ids_high = high

    return patch(Sequencer, "_reserve", reserve)


# What a market owes its shards.


def outbox_pruned_on_send() -> Undo:
    """What was sent is forgotten, arrived or not."""
    original = ShardLink.gather

    def gather(link: ShardLink, *arguments: Any) -> m.ToShard | None:
        message = original(link, *arguments)
        box: Outbox = arguments[1]
        if message is not None and message.entries:
            box.forget(message.first_out_seq + len(message.entries) - 1)
        return message

    return patch(ShardLink, "gather", gather)


def no_wait_before_reply() -> Undo:
    """An order is answered before its shard has settled it."""
    original = Sequencer._commit

    def commit(sequencer: Sequencer, waiting: Any) -> None:
        original(sequencer, waiting)
        for link in sequencer.links:
            for _, owed in link.owed:
                sequencer._pay(owed)

    return patch(Sequencer, "_commit", commit)


def no_wait_before_repeated_reply() -> Undo:
    """A recorded result is told again before its shard has settled it."""
    return patch(Sequencer, "repeat", Desk.repeat)


def low_too_high() -> Undo:
    """A market calls orders decided that are not."""

    def low(sequencer: Sequencer) -> int:
        return (sequencer._next_number << 12) + sequencer.market.rules.market_no

    return patch(Sequencer, "low", low)


def nothing_asked_again() -> Undo:
    """A reservation that was lost is never asked for again, nor given up."""
    return together(
        patch(Sequencer, "_ask_again", lambda sequencer, link: None),
        patch(Sequencer, "_give_up", lambda sequencer: None),
    )


def nothing_said_again() -> Undo:
    """Entries and aborts that were lost are never sent again."""
    return patch(ShardLink, "restart", lambda link: None)


def given_up_and_not_aborted() -> Undo:
    """A hold for an order that does not exist any more is confirmed instead of aborted."""

    def abort(sequencer: Sequencer, link: ShardLink, order_id: int, reply: Any) -> None:
        link.confirms.append(order_id)
        if reply is not None:
            sequencer.refuse(*reply)

    return patch(Sequencer, "_abort", abort)


def refused_before_aborted() -> Undo:
    """An order that was refused after its grant is answered while its funds are still held."""
    original = Sequencer._abort

    def abort(sequencer: Sequencer, link: ShardLink, order_id: int, reply: Any) -> None:
        if reply is not None:
            sequencer.refuse(*reply)
        original(sequencer, link, order_id, None)

    return patch(Sequencer, "_abort", abort)


def executed_out_of_order() -> Undo:
    """An order that is granted overtakes one that arrived before it."""
    original = Sequencer._advance

    def advance(sequencer: Sequencer) -> None:
        waiting = sorted(sequencer._queue, key=lambda found: not found.ready)
        sequencer._queue.clear()
        sequencer._queue.extend(waiting)
        original(sequencer)

    return patch(Sequencer, "_advance", advance)


def forgotten_unacknowledged() -> Undo:
    """Entries are forgotten durably before the shard has them."""

    def forget(sequencer: Sequencer) -> None:
        for shard, box in enumerate(sequencer.market.outboxes):
            if box.out_seq - sequencer._forgotten[shard] >= sequencer.limits.forget_every:
                sequencer._forgotten[shard] = box.out_seq
                sequencer.run(c.Forget(shard, box.out_seq))

    return patch(Sequencer, "_forget", forget)


def full_market_stays_full() -> Undo:
    """Nothing is journaled while everything is refused, so no result is ever forgotten."""
    return patch(Results, "due", lambda found, time_us: False)


# What is promised to gateways.


def no_sticky_refusals() -> Undo:
    """A refusal is forgotten as soon as it is said."""
    return patch(Reception, "_remember", lambda *arguments, **named: None)


def no_joining() -> Undo:
    """A request that is being executed is executed once more when it is sent again."""

    def admit(desk: Reception, inflight: Inflight, epoch: int, now_us: int) -> Any:
        found = desk.inflight.pop(inflight.ask.request_id, None)
        answer = original(desk, inflight, epoch, now_us)
        if found is not None:
            desk.inflight.setdefault(inflight.ask.request_id, found)
        return answer

    original = Reception.admit
    return patch(Reception, "admit", admit)


def results_not_recorded() -> Undo:
    """A request that was executed leaves no result."""
    return patch(Results, "get", lambda found, request_id: None)


def results_forgotten_early() -> Undo:
    """A stamped request's result is forgotten while the request may be sent again."""
    return patch(results, "RESULT_KEPT_STAMPED_US", 50 * MS)


def plain_results_forgotten_early() -> Undo:
    """Another request's result is forgotten while its gateway may send it again."""
    return patch(results, "RESULT_KEPT_US", 50 * MS)


def stamps_of_any_age() -> Undo:
    """A request is executed however old its stamp is."""
    return patch(reception.c, "STAMP_AGE_MAX_US", 10**18)


def late_requests_executed() -> Undo:
    """A request is executed though its deadline has passed, at the desk and in its queue."""
    original = Reception.admit

    def admit(desk: Reception, inflight: Inflight, epoch: int, now_us: int) -> Any:
        inflight.deadline_us = now_us + 10**12
        return original(desk, inflight, epoch, now_us)

    return patch(Reception, "admit", admit)


def unknown_is_told_as_unavailable() -> Undo:
    """A gateway that heard nothing says that nothing was done."""
    original = Router._deliver

    def deliver(router: Router, route: Any, pending: Any, answer: Any) -> None:
        if type(answer) is Refused and answer.reason == Reason.SERVICE_TIMEOUT:
            answer = Refused(Reason.SERVICE_UNAVAILABLE, answer.detail)
        original(router, route, pending, answer)

    return patch(Router, "_deliver", deliver)


def unstamped_sent_again() -> Undo:
    """A client sends an unstamped request again though its fate is unknown."""

    def lost(client: Client, operation: Operation, attempt: int) -> None:
        if operation.number in client.open and operation.attempt == attempt:
            operation.unknown = True
            operation.attempt += 1
            client.attempt(operation)

    return patch(Client, "_lost", lost)


_OWN: tuple[Callable[[], Undo], ...] = (
    no_compare_and_append,
    market_sends_early,
    ledger_sends_early,
    catalog_sends_early,
    snapshot_mislabelled,
    truncated_beyond_older_snapshot,
    no_owner_check,
    zombies_speak_and_are_heard,
    record_time_goes_back,
    no_new_epoch,
    requests_of_any_epoch,
    refusals_of_any_epoch,
    ids_reused,
    ids_beyond_the_block,
    outbox_pruned_on_send,
    no_wait_before_reply,
    no_wait_before_repeated_reply,
    low_too_high,
    nothing_asked_again,
    nothing_said_again,
    given_up_and_not_aborted,
    refused_before_aborted,
    executed_out_of_order,
    forgotten_unacknowledged,
    full_market_stays_full,
    no_sticky_refusals,
    no_joining,
    results_not_recorded,
    results_forgotten_early,
    plain_results_forgotten_early,
    stamps_of_any_age,
    late_requests_executed,
    unknown_is_told_as_unavailable,
    unstamped_sent_again,
)
_ALL = (*_OWN, *OF_SHARDS, *OF_LEASES, *OF_TELLING)
assert COVERED.keys() < {plant.__name__ for plant in _ALL}, "no such defect"
MUTANTS: dict[str, Callable[[], Undo]] = {plant.__name__: plant for plant in _ALL}
