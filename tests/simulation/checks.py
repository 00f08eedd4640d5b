"""What must hold when everything has come to rest: design invariants over all streams."""

from __future__ import annotations

import itertools

from excore_ray.core.audit import check_conservation, check_holds
from excore_ray.core.ledger import Ledger
from excore_ray.core.market import Market
from excore_ray.core.reasons import Refused
from excore_ray.core.snapshot import state_hash
from tests.simulation.actors import replay
from tests.simulation.exchange import Exchange
from tests.simulation.gateways import Operation, is_command
from tests.simulation.world import Violation


def check_at_rest(exchange: Exchange) -> None:
    """Raises Violation or AssertionError when a promise does not hold at rest."""
    markets = [s for s in exchange.shadows.values() if type(s) is Market]
    ledgers = [s for s in exchange.shadows.values() if type(s) is Ledger]
    check_conservation(markets, ledgers)
    for market in markets:
        check_holds(market, ledgers)
    for market, ledger in itertools.product(markets, ledgers):
        link = ledger.links.get(market.rules.market_no)
        applied = link.applied if link is not None else 0
        if applied != market.outboxes[ledger.shard].out_seq:
            raise Violation(f"shard {ledger.shard} has not applied all of {market.rules}")
    for stream, shadow in exchange.shadows.items():
        exchange.check_fully(stream)
        disk = exchange.disks[stream]
        hashed = state_hash(shadow)
        # From where a start begins, and from as far back as can be, unless that is the same.
        begins = [None] if disk.snapshots else []
        for snapshot_seq_max in (*begins, min(disk.snapshots) if disk.base_seq else 0):
            if state_hash(replay(disk, snapshot_seq_max)) != hashed:
                raise Violation(f"replay of {stream} differs")
    for process in exchange.live.values():
        # The record that follows holds the live state_hash; the shadow compares it.
        process._turn(process.desk.turn(exchange.world.now_us, checkpoint=True))
    for operation in exchange.client.closed:
        _check_operation(exchange, operation)


def _check_operation(exchange: Exchange, operation: Operation) -> None:
    if not is_command(operation.ask):
        return
    done = [r for r in operation.request_ids if r in exchange.recorded]
    if len(done) > 1:
        raise Violation(f"{operation.ask} happened {len(done)} times")
    refused = operation.answer is None or type(operation.answer) is Refused
    if refused and done and not operation.unknown:
        raise Violation(f"{operation.ask} was refused {operation.answer} and happened")
    if not refused and not done:
        raise Violation(f"{operation.ask} was answered {operation.answer} and is lost")
