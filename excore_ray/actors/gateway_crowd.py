"""Crowd: all HTTP connections of one gateway, and which of them goes when there are too many.

Separate because it is one for all connections and needs no socket: who came when, from where,
and how much memory the unfinished parts of requests and replies take.  It must not know HTTP.

A stranger is a connection that owes a request and whose caller has never shown who he is.  When
the house is full the stranger who came first goes: an honest client shows himself at once, so
that however many are slow on purpose, they crowd out only each other.
Source: ngx_drain_connections of nginx, for connections that can be had back.
"""

from __future__ import annotations

from typing import Protocol

from excore_ray.actors.plan import HttpLimits

LARGE_BYTES = 4_096  # of an unfinished body: below it there is nothing to be had back


class Guest(Protocol):
    """One connection."""

    def throw_out(self) -> None:
        """End it now.  It may call leave() at once or later."""
        ...


class Crowd:
    """body_bytes: of unfinished bodies.  unsent_bytes: of replies that are not taken off us."""

    def __init__(self, limits: HttpLimits) -> None:
        self.limits = limits
        self.body_bytes = 0
        self.unsent_bytes = 0
        self._guests: dict[Guest, str] = {}  # address
        self._count_of: dict[str, int] = {}  # by address
        self._strangers: dict[Guest, None] = {}  # oldest first
        self._loaded: dict[Guest, None] = {}  # strangers with a large unfinished body

    def __len__(self) -> int:
        return len(self._guests)

    def enter(self, guest: Guest, address: str) -> bool:
        """Let a new connection in, a stranger, or say that there is no room for it."""
        limits = self.limits
        if self._count_of.get(address, 0) >= limits.address_connections_max:
            return False
        if len(self._guests) >= limits.connections_max and not self._make_room(self._strangers):
            return False
        self._guests[guest] = address
        self._count_of[address] = self._count_of.get(address, 0) + 1
        self._strangers[guest] = None
        return True

    def leave(self, guest: Guest) -> None:
        """It is gone.  May be told twice, and of one that was never let in."""
        address = self._guests.pop(guest, None)
        if address is None:
            return
        self.clear(guest)
        count = self._count_of.pop(address) - 1
        if count:
            self._count_of[address] = count

    def clear(self, guest: Guest) -> None:
        """It is no stranger now: it has asked something, or has shown who it is."""
        self._strangers.pop(guest, None)
        self._loaded.pop(guest, None)

    def doubt(self, guest: Guest) -> None:
        """It is a stranger again: it was answered, and nobody knows yet who it is."""
        if guest in self._guests:
            self._strangers[guest] = None

    def hold(self, guest: Guest, added_bytes: int, in_all_bytes: int) -> bool:
        """Keep a further part of its unfinished body, or say that there is no room for it."""
        self.body_bytes += added_bytes
        if in_all_bytes < LARGE_BYTES:
            return True
        if guest in self._strangers:
            self._loaded[guest] = None
        while self.body_bytes > self.limits.bodies_bytes_max:
            if not self._make_room(self._loaded):
                return False
            if guest not in self._guests:
                return False
        return True

    def _make_room(self, these: dict[Guest, None]) -> bool:
        """Throw out the first of `these`; False when there is none."""
        first = next(iter(these), None)
        if first is None:
            return False
        first.throw_out()
        self.leave(first)
        return True
