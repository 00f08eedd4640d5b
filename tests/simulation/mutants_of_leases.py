"""Planted defects of the catalog's leases: when a name may be used, and when a change is answered.

Separate from `mutants.py`, which plants the others, by the length of a file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.catalog import Catalog
from excore_ray.core.lease import CatalogLease
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.registrar import Registrar
from excore_ray.core.turns import Turn
from tests.simulation.mutants_of_shards import Undo, patch
from tests.simulation.world import MS


def lease_never_ends() -> Undo:
    """A gateway uses its copy of the catalog without a lease."""
    return patch(CatalogLease, "names", lambda lease, now_us: lease._names)


def lease_from_receipt() -> Undo:
    """A gateway counts its lease from later than when it asked."""
    original = CatalogLease.receive

    def receive(lease: CatalogLease, message: m.WireMessage) -> None:
        if type(message) is m.Lease:
            message = msgspec.structs.replace(message, sent_us=message.sent_us + 150 * MS)
        original(lease, message)

    return patch(CatalogLease, "receive", receive)


def change_answered_at_once() -> Undo:
    """A change is answered while gateways use older copies."""
    original = Registrar._settle_changes

    def settle(registrar: Registrar) -> None:
        registrar._leases, registrar._unknown_until_us = {}, 0
        original(registrar)

    return patch(Registrar, "_settle_changes", settle)


def leases_of_the_last_epoch_forgotten() -> Undo:
    """A new incarnation does not wait for the leases that the last one gave."""
    original = Registrar._settle_changes

    def settle(registrar: Registrar) -> None:
        registrar._unknown_until_us = 0
        original(registrar)

    return patch(Registrar, "_settle_changes", settle)


def leases_counted_from_before_the_opening() -> Undo:
    """A new incarnation counts the last one's leases from when it began to open its epoch."""
    original = Registrar.open

    def opened(registrar: Registrar, now_us: int, create: c.CreateCatalog | None) -> Turn:
        limits = registrar.limits
        registrar._unknown_until_us = now_us + limits.lease_us + limits.slack_us
        return original(registrar, now_us, create)

    return patch(Registrar, "open", opened)


def only_the_newest_lease_counts() -> Undo:
    """A lease of an older copy is dropped while it still covers a newer one."""
    original = Registrar._renew

    def renew(registrar: Registrar) -> Any:
        for gateway, _ in registrar._renewals:
            registrar._leases.pop(gateway, None)
        return original(registrar)

    return patch(Registrar, "_renew", renew)


def added_market_answered_at_once() -> Undo:
    """An added market is announced before it serves."""
    original = Registrar._settle_changes

    def settle(registrar: Registrar) -> None:
        unstarted, registrar.unstarted = registrar.unstarted, set()
        original(registrar)
        registrar.unstarted = unstarted

    return patch(Registrar, "_settle_changes", settle)


def freed_names_taken_at_once() -> Undo:
    """A market gets a name under which orders to another may still be sent again."""
    return patch(Catalog, "_taken", lambda catalog, name, market_no: _in_use(catalog, name))


def _in_use(catalog: Catalog, name: str) -> Refused | None:
    return Refused(Reason.EXISTS_YET) if catalog.market_named(name) is not None else None


PLANTS: tuple[Callable[[], Undo], ...] = (
    lease_never_ends,
    lease_from_receipt,
    change_answered_at_once,
    leases_of_the_last_epoch_forgotten,
    leases_counted_from_before_the_opening,
    only_the_newest_lease_counts,
    added_market_answered_at_once,
    freed_names_taken_at_once,
)
