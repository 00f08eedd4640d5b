"""Registrar: who holds which copy of the catalog until when, and who waits for a change.

Separate from `catalog.py` because everything here is forgotten when the actor dies.  A change is
answered when no gateway can be using an older copy: each has acknowledged the new one or its
lease has run out.  A fresh incarnation does not know the leases of the last one, which may give
them until the new epoch is durable, so it answers no change before all of them have run out.

Source: ARCHITECTURE.md, names and leases.
"""

from __future__ import annotations

import msgspec

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.catalog import Catalog
from excore_ray.core.desk import Desk
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.reception import Inflight
from excore_ray.core.results import Result
from excore_ray.core.turns import Send, Turn

CATALOG = "catalog"


class RegistrarLimits(msgspec.Struct, frozen=True):
    """lease_us: how long a copy may be used.  slack_us: what clocks may differ in that time."""

    lease_us: int = 1_000_000
    slack_us: int = 100_000


class Change:
    """A change, made or refused: told when `version` is everywhere and `markets` serve."""

    __slots__ = ("answer", "markets", "to", "version")

    def __init__(
        self,
        to: Inflight | tuple[str, int],
        answer: m.Answer,
        version: int,
        markets: frozenset[int],
    ) -> None:
        self.to = to
        self.answer = answer
        self.version = version
        self.markets = markets


class Registrar(Desk):
    """One incarnation of the catalog.  Feed `receive`, call `turn`, obey what it returns.

    unstarted: markets that exist and are not known to serve; the shell starts them and calls
    `started`.
    """

    def __init__(self, catalog: Catalog, limits: RegistrarLimits) -> None:
        super().__init__(catalog)
        self.catalog = catalog
        self.limits = limits
        self.unstarted: set[int] = set()
        self._leases: dict[str, dict[int, int]] = {}  # gateway -> version -> until
        self._unknown_until_us: int | None = None  # those of the last incarnation
        self._changes: list[Change] = []
        self._renewals: list[tuple[str, m.Renew]] = []
        self._pushed = 0

    def open(self, now_us: int, create: c.CreateCatalog | None) -> Turn:
        """The first turn of an incarnation: nothing may be received before it is durable.

        create: the number of shards, when the journal is empty.
        """
        self.now_us = now_us
        if create is not None:
            self.run(create)
        self.open_epoch()
        self._pushed = self.catalog.version
        self.unstarted = {market.market_no for market in self.catalog.markets}
        return self.close([])

    def started(self, market_no: int) -> None:
        """The market serves: a market.add that waited for it may be answered."""
        self.unstarted.discard(market_no)

    @property
    def busy(self) -> bool:
        """Whether a change waits until it is everywhere."""
        return bool(self._changes)

    def turn(self, now_us: int, checkpoint: bool = False) -> Turn:
        """Push what changed, renew leases, and answer the changes that are everywhere."""
        self.now_us = now_us
        if self._unknown_until_us is None:
            # Not in open(), which may take long to become durable.
            self._unknown_until_us = now_us + self.limits.lease_us + self.limits.slack_us
        if checkpoint:
            self.checkpoint()
        self.answer_reads()
        sends = self._push() + self._renew()
        self._settle_changes()
        return self.close(sends)

    def admit(self, inflight: Inflight) -> None:
        """Execute a change, or refuse it."""
        ask = inflight.ask
        if type(ask) in (c.PutLimit, c.PutMarket, c.Cancel, c.Update):
            self.refuse_foreign(inflight)
            return
        if type(ask) is c.RenameMarket:
            # In the record, so that a replay of an earlier one does as was done then.
            ask = msgspec.structs.replace(ask, kept_us=c.NAME_KEPT_US)
        answer = self.run(ask)
        if type(answer) is Refused:
            # What it speaks of may not be everywhere yet: a key that was revoked a moment ago.
            self._changes.append(Change(inflight, answer, self.catalog.version, frozenset()))
            return
        added = {len(self.catalog.markets)} if type(ask) is c.AddMarket else set()
        self.unstarted |= added
        self._changes.append(Change(inflight, answer, self.catalog.version, frozenset(added)))

    def repeat(self, inflight: Inflight, result: Result) -> None:
        """Answer a change that was executed before, when the newest version is everywhere."""
        markets = frozenset(self.unstarted)
        change = Change(
            (inflight.peer, inflight.token), result.answer, self.catalog.version, markets
        )
        self._changes.append(change)

    def hear(self, peer: str, message: m.WireMessage) -> None:
        """Take in a gateway's wish to renew its lease."""
        if type(message) is m.Renew:
            self._renewals.append((peer, message))

    def read(self, ask: m.Ask) -> m.Answer:
        """Answer a question about keys, or how the catalog is."""
        if type(ask) is m.AskKeys:
            return m.Keys(self.catalog.key_views())
        if type(ask) is m.AskStatus:
            return self._status()
        what = f"{type(ask).__name__} is not asked of this actor"
        return Refused(Reason.INVALID_ARGUMENT, what)

    # Parts of them.

    def _push(self) -> list[Send]:
        """Tell every holder of a lease what changed."""
        if self._pushed == self.catalog.version:
            return []
        self._pushed = self.catalog.version
        changed = m.Changed(self.catalog.copy())
        return [(gateway, changed) for gateway in self._leases]

    def _renew(self) -> list[Send]:
        sends: list[Send] = []
        version = self.catalog.version
        until_us = self.now_us + self.limits.lease_us + self.limits.slack_us
        for gateway, renew in self._renewals:
            leases = self._leases.get(gateway, {})
            # It uses renew.version or something newer, under whatever lease it was given last.
            kept = {v: until for v, until in leases.items() if v > renew.version}
            older = [until for v, until in leases.items() if v <= renew.version]
            if older:
                kept[renew.version] = max(older)
            kept[version] = until_us
            self._leases[gateway] = kept
            copy = self.catalog.copy() if renew.version != version else None
            lease = m.Lease(renew.sent_us, self.limits.lease_us, copy)
            sends.append((gateway, lease))
        self._renewals = []
        return sends

    def _settle_changes(self) -> None:
        if not self._changes:
            return
        for gateway, leases in list(self._leases.items()):
            live = {v: until for v, until in leases.items() if until > self.now_us}
            if live:
                self._leases[gateway] = live
            else:
                del self._leases[gateway]
        assert self._unknown_until_us is not None, "settled before the first turn"
        unknown = self.now_us < self._unknown_until_us
        oldest = min((v for leases in self._leases.values() for v in leases), default=-1)
        waiting: list[Change] = []
        for change in self._changes:
            if unknown or 0 <= oldest < change.version or change.markets & self.unstarted:
                waiting.append(change)
            elif type(change.to) is Inflight and type(change.answer) is Refused:
                self.refuse(change.to, change.answer)
            elif type(change.to) is Inflight:
                self.reception.answer(change.to, change.answer)
            elif type(change.to) is tuple:
                self.reception.reply(change.to[0], change.to[1], change.answer)
        self._changes = waiting

    def _status(self) -> m.Status:
        catalog = self.catalog
        facts = {
            "version": catalog.version,
            "assets": len(catalog.assets),
            "markets": len(catalog.markets),
            "keys": len(catalog.keys),
            "shards": catalog.shards,
            "leases": len(self._leases),
            "changes_waiting": len(self._changes),
            "time_us": catalog.time_us,
        }
        return self.status(CATALOG, facts)
