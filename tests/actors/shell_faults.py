"""Faults and listeners for the tests of shells: journals that fail on purpose, peers that hear all.

Separate so that the tests themselves stay readable in one sitting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from excore_ray.actors.shell import Shell, ShellSettings
from excore_ray.actors.wire import Connection
from excore_ray.core import messages as m
from excore_ray.storage.journal import Entry, Journal, JournalStatus
from excore_ray.storage.memory import MemoryJournal
from tests.actors.shell_world import MemoryWiring, Town
from tests.actors.wire_world import until


class FaultyJournal:
    """A journal that waits for `gate` and raises `fault` at its appends; it counts calls."""

    def __init__(self, journal: Journal) -> None:
        self.stream = journal.stream
        self.journal = journal
        self.gate = asyncio.Event()
        self.gate.set()
        self.fault: Exception | None = None
        self.find_fault: Exception | None = None
        self.appends: list[int] = []
        self.checks = 0

    async def append(
        self, seq: int, epoch: int, bodies: Sequence[bytes], keys: Sequence[bytes]
    ) -> None:
        self.appends.append(seq)
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        await self.journal.append(seq, epoch, bodies, keys)

    async def find_keys(self, keys: Sequence[bytes]) -> frozenset[bytes]:
        if self.find_fault is not None:
            raise self.find_fault
        return await self.journal.find_keys(keys)

    async def check_owner(self) -> None:
        self.checks += 1
        await self.journal.check_owner()

    def read(self, from_seq: int, bytes_max: int) -> list[Entry]:
        return self.journal.read(from_seq, bytes_max)

    def save_snapshot(self, seq: int, body: bytes) -> None:
        self.journal.save_snapshot(seq, body)

    def load_snapshot(self, seq_max: int | None = None) -> tuple[int, bytes] | None:
        return self.journal.load_snapshot(seq_max)

    def truncate(self, up_to: int) -> None:
        self.journal.truncate(up_to)

    def status(self) -> JournalStatus:
        return self.journal.status()

    def close(self) -> None:
        self.journal.close()


class FaultyTown(Town):
    """A town whose journals can be made to fail, by the name of their actor."""

    def __init__(self, settings: ShellSettings | None = None) -> None:
        super().__init__(settings)
        self.faulty: dict[str, FaultyJournal] = {}
        self.wrap = self._wrap

    def _wrap(self, name: str, journal: Journal) -> Journal:
        found = self.faulty[name] = FaultyJournal(journal)
        return found

    async def ready(self) -> None:
        await self.open_all()
        await self.add_market()
        await self.pay_in([1, 2])


class Peer:
    """Somebody on the wire who hears everything and says what the test says."""

    def __init__(self, town: Town, name: str, actor: str) -> None:
        self.heard: list[Any] = []
        self.connection: Connection | None = None
        self.link = MemoryWiring(name, town.network, town.endpoints).link(self, actor)
        self.link.start()

    def connected(self, connection: Connection) -> None:
        self.connection = connection

    def received(self, connection: Connection, request_id: int, body: bytes) -> None:
        self.heard.append(m.decode(body))

    def disconnected(self, connection: Connection, reason: str) -> None:
        self.connection = None

    async def say(self, *messages: m.WireMessage) -> None:
        await until(lambda: self.connection is not None)
        assert self.connection is not None
        for message in messages:
            self.connection.send(m.encode(message))

    def kinds(self) -> list[type]:
        return [type(message) for message in self.heard]

    def answers(self) -> list[m.Answer]:
        found = [message for message in self.heard if type(message) is m.Replies]
        return [answer for message in found for answer in message.answers]


def batch(town: Town, *asks: m.Ask, epoch: int = 1) -> m.Batch:
    """Requests with tokens of their own and a deadline far away."""
    now_us = next(iter(town.shells.values())).around.clock.now_us()
    tokens = list(range(1, len(asks) + 1))
    return m.Batch(epoch, tokens, [now_us + 10**8] * len(asks), list(asks))


def commands(shell: Shell, kind: Any) -> list[Any]:
    """The commands of the given record type that a shell has journaled, record by record."""
    journal = shell.journal
    journal = journal.journal if isinstance(journal, FaultyJournal) else journal
    assert isinstance(journal, MemoryJournal)
    decode = msgspec.json.Decoder(kind).decode
    return [decode(entry.body).commands for entry in journal.disk.entries]
