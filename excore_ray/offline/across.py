"""Across: what must hold between the machines of one instant.

Separate from `core/audit.py`, which compares machines that are at rest or that lag: these stand at
one instant, at which shards may not have applied what their markets have emitted, and funds may
be frozen for orders that are not decided.  Findings are sentences.  It must not know journals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from excore_ray.core.audit import check_catalog, check_conservation, check_ledger, check_market
from excore_ray.core.catalog import Catalog
from excore_ray.core.custodian import market_name
from excore_ray.core.ledger import Ledger, MarketLink
from excore_ray.core.market import Market
from excore_ray.core.orders import order_id_of
from excore_ray.core.settlement import need_of
from excore_ray.core.sharding import shard_of
from excore_ray.core.shardlink import shard_name
from excore_ray.core.snapshot import AnyMachine

EXAMPLES_MAX = 5
_UNHEARD = MarketLink()


def alone(machine: AnyMachine) -> Iterator[str]:
    """What is wrong with one machine in itself."""
    if type(machine) is Market:
        yield from _said(lambda: check_market(machine))
    elif type(machine) is Catalog:
        yield from _said(lambda: check_catalog(machine))
    else:
        assert type(machine) is Ledger
        # Which accounts were forced below 0 only their updates tell.
        yield from _said(lambda: check_ledger(machine, forced=True))


def between(market: Market, ledger: Ledger) -> Iterator[str]:
    """What is wrong between a market and a shard at one instant.

    Cost: O(open orders and holds of the two, and entries that are under way).
    """
    market_no, shard = market.rules.market_no, ledger.shard
    box = market.outboxes[shard]
    link = ledger.links.get(market_no, _UNHEARD)
    if link.applied > box.out_seq:
        yield f"it has applied {link.applied} entries of {box.out_seq} that were emitted"
        return
    if link.applied < box.acked:
        yield f"it has applied {link.applied} entries, and those up to {box.acked} are forgotten"
        return
    yield from _said(lambda: check_conservation([market], [ledger]))
    if link.epoch > market.epoch:
        yield f"it knows epoch {link.epoch} of a market that is in epoch {market.epoch}"
    yield from _holds(market, ledger, settled=link.applied == box.out_seq)


def undecided(market: Market, ledger: Ledger) -> int:
    """Holds of orders that are not open: asked for, or given up, and not settled yet."""
    return sum(
        order_id not in market.orders for order_id in ledger.holds_of(market.rules.market_no)
    )


def definitions(catalog: Catalog, machines: Mapping[str, AnyMachine]) -> Iterator[str]:
    """What is wrong between the catalog and all others.

    machines: by stream, as far as they could be rebuilt.
    """
    for stream, machine in machines.items():
        if type(machine) is Catalog or not machine.shards:
            continue
        if machine.shards != catalog.shards:
            yield f"{stream}: it was made for {machine.shards} shards, of {catalog.shards}"
        if type(machine) is Market:
            known = [m.rules for m in catalog.markets if m.market_no == machine.rules.market_no]
            if known != [machine.rules]:
                yield f"{stream}: its rules are {machine.rules}, defined are {known}"
        elif type(machine) is Ledger:
            strange = sorted(machine.updates.keys() - {a.asset_id for a in catalog.assets})
            if strange:
                yield f"{stream}: it has assets that are not defined: {strange}"


def missing(machines: Mapping[str, AnyMachine], streams: Mapping[str, int]) -> Iterator[str]:
    """Streams that others speak of and that are not there."""
    wanted: dict[str, str] = {}
    for stream, machine in machines.items():
        if type(machine) is Ledger:
            wanted |= {market_name(n): stream for n, link in machine.links.items() if link.applied}
        elif type(machine) is Market and any(box.acked for box in machine.outboxes):
            wanted |= {shard_name(n): stream for n in range(machine.shards)}
    for name, by in sorted(wanted.items()):
        if name not in streams:
            yield f"{name}: there is no such journal, though {by} speaks of it"


def _holds(market: Market, ledger: Ledger, settled: bool) -> Iterator[str]:
    """Open orders whose funds are not frozen as they must be; settled: nothing is under way."""
    wrong: list[str] = []
    rules, held = market.rules, ledger.holds_of(market.rules.market_no)
    for order in market.orders.values():
        if shard_of(order.user, market.shards) != ledger.shard:
            continue
        hold, need = held.get(order.order_id), need_of(rules, order)
        remaining = hold.remaining if hold is not None else 0
        fits = hold is not None and hold.user == order.user
        if not fits or remaining < need or (settled and remaining != need):
            wrong.append(f"order {order.order_id} needs {need}, {remaining} is held")
    highest = order_id_of(market.ids_high, rules.market_no)
    wrong += [f"order {i} is held, ids go to {highest}" for i in held if i > highest]
    yield from wrong[:EXAMPLES_MAX]
    if len(wrong) > EXAMPLES_MAX:
        yield f"and {len(wrong) - EXAMPLES_MAX} more orders whose funds are not frozen as needed"


def _said(check: Callable[[], None]) -> Iterator[str]:
    """What a check asserts, as a finding."""
    try:
        check()
    except AssertionError as wrong:
        yield str(wrong)
