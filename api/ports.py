"""Ports: what the RPC layer needs of the exchange behind it and of its settings.

Separate so that handlers are written, and tested, against these shapes alone.  It must not know
who implements them.

Source: ARCHITECTURE.md, gateways.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from excore_ray.core.messages import Answer, Ask
from excore_ray.core.names import Names
from excore_ray.core.reasons import Refused


class Exchange(Protocol):
    """The exchange, as a gateway asks it.

    A future always resolves with an answer or a refusal (SERVICE_UNAVAILABLE: nothing was done
    and nothing will be; SERVICE_TIMEOUT: unknown) and never raises.  Asks made of one market
    without an await between them reach it in that order.
    """

    @property
    def names(self) -> Names | None:
        """A copy of the catalog that is valid now, or None when its lease has run out."""
        ...

    async def fresh_names(self) -> Names | Refused:
        """A valid copy of the catalog, waiting for the lease to be renewed when it must."""
        ...

    def ask_market(self, market_no: int, ask: Ask) -> asyncio.Future[Answer]:
        """Ask one market."""
        ...

    def ask_markets(self, asks: Sequence[tuple[int, Ask]]) -> asyncio.Future[list[Answer]]:
        """Ask markets, each by its number; at least one ask; the answers in their order."""
        ...

    def ask_shard(self, user: int, ask: Ask) -> asyncio.Future[Answer]:
        """Ask the ledger shard that keeps `user`."""
        ...

    async def ask_shards(self, ask: Ask) -> list[Answer]:
        """Ask every ledger shard; answers in the order of the shards."""
        ...

    def ask_archive(self, ask: Ask) -> asyncio.Future[Answer]:
        """Ask what happened in the past, up to all that was answered before."""
        ...

    def ask_catalog(self, ask: Ask) -> asyncio.Future[Answer]:
        """Ask the catalog."""
        ...

    def new_request_id(self) -> bytes:
        """16 bytes that no other request has or will have."""
        ...


class Rate(Protocol):
    """A token bucket."""

    @property
    def per_s(self) -> float:
        """Tokens it gains a second, above 0."""
        ...

    @property
    def burst(self) -> int:
        """The most tokens it holds, at least 1."""
        ...


class Limits(Protocol):
    """How many requests are taken."""

    @property
    def key(self) -> Rate:
        """Of one API key, cancels excepted."""
        ...

    @property
    def key_cancels(self) -> Rate:
        """Cancels of one API key."""
        ...

    @property
    def user(self) -> Rate:
        """For one user whom they act for, cancels excepted."""
        ...

    @property
    def user_cancels(self) -> Rate:
        """Cancels for one user."""
        ...


class Settings(Protocol):
    """What the RPC layer must be told."""

    @property
    def auth(self) -> bool:
        """Whether requests must be signed; without, everybody has all scopes."""
        ...

    @property
    def limits(self) -> Limits:
        """How many requests are taken of each key and user."""
        ...
