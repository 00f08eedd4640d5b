"""Lease: a gateway's copy of the catalog and how long it may be used.

Separate because a name may be trusted only while the catalog waits for this copy: the lease
counts from when the renewal was sent, on the gateway's own clock.

Source: ARCHITECTURE.md, names and leases.
"""

from __future__ import annotations

from excore_ray.core.messages import CatalogCopy, Changed, Lease, Renew, WireMessage
from excore_ray.core.names import Names

NO_VERSION = -1  # no copy is held yet


class CatalogLease:
    """The newest copy heard of, usable until `until_us`.  Times in microseconds."""

    def __init__(self, every_us: int = 300_000) -> None:
        self.until_us = 0
        self._every_us = every_us
        self._names: Names | None = None
        self._asked_us = -every_us
        self._acknowledge = False

    def names(self, now_us: int) -> Names | None:
        """The copy, or None when it must not be used now."""
        return self._names if now_us < self.until_us else None

    def renewal(self, now_us: int) -> Renew | None:
        """What to send to the catalog now, or None."""
        if not self._acknowledge and now_us - self._asked_us < self._every_us:
            return None
        self._asked_us = now_us
        self._acknowledge = False
        return Renew(self._names.version if self._names is not None else NO_VERSION, now_us)

    def receive(self, message: WireMessage) -> None:
        """Take in what the catalog says."""
        if type(message) is Changed:
            self._install(message.copy)
            self._acknowledge = True
        elif type(message) is Lease:
            if message.copy is not None:
                self._install(message.copy)
                self._acknowledge = True
            # Even one of an older version: the catalog counts it for whatever is used here now.
            self.until_us = max(self.until_us, message.sent_us + message.lease_us)

    def _install(self, copy: CatalogCopy) -> None:
        if self._names is None or copy.version >= self._names.version:
            self._names = Names(copy)
