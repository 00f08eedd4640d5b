"""Journals: what the streams of an exchange say was executed, when, and what it led to.

Separate from the checker because replaying is one thing and comparing another.  Everything comes
from the machines that ran, fed with the journals alone: what they tell is what any restart would
believe.  It must not know what clients were told.

Journals must reach back to their first entry: a drill serves without truncation.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from excore_ray.actors.replay import KINDS, SLICE_BYTES, kind_of
from excore_ray.core import commands as c
from excore_ray.core.catalog import Catalog
from excore_ray.core.events import Deal, OrderFinished, events_of
from excore_ray.core.ledger import Ledger
from excore_ray.core.market import Market
from excore_ray.core.names import Names
from excore_ray.core.orders import Role
from excore_ray.core.snapshot import state_hash
from excore_ray.errors import JournalBroken
from excore_ray.storage.journal import Entry, JournalReader
from excore_ray.storage.sqlite import read_sqlite


class Executed(NamedTuple):
    """A command of a client that was executed.  place: among all commands of its stream."""

    place: int
    seq: int
    epoch: int
    time_us: int
    command: Any
    answer: Any


class Moments:
    """What something was, over the entries of a stream: from each entry on, a value."""

    __slots__ = ("seqs", "times_us", "values")

    def __init__(self) -> None:
        self.seqs: list[int] = []
        self.times_us: list[int] = []
        self.values: list[Any] = []

    def add(self, seq: int, time_us: int, value: Any) -> None:
        """After entry `seq` it is `value`."""
        self.seqs.append(seq)
        self.times_us.append(time_us)
        self.values.append(value)

    def between(self, seq: int, since_us: int, until_us: int, first: Any) -> list[Any]:
        """What it may have been for who asked after entry `seq` and after `since_us`.

        until_us: when the answer was there.  first: what it was before its first entry.
        """
        low = max(bisect_right(self.seqs, seq), bisect_right(self.times_us, since_us)) - 1
        high = bisect_right(self.times_us, until_us)
        found = self.values[max(low, 0) : max(high, low + 1)]
        return [first, *found] if low < 0 else found


class MarketFacts:
    """One market.  pending: of each watched user, its open orders as pairs of id and left.

    deals: in their order.  finished: orders that are done.
    """

    def __init__(self, watched: Collection[int]) -> None:
        self.machine = Market()
        self.executed: list[Executed] = []
        self.deals: list[Deal] = []
        self.deal_seqs: list[int] = []
        self.finished: list[OrderFinished] = []
        self.pending: dict[int, Moments] = {user: Moments() for user in watched}

    def apply(self, entry: Entry, record: c.MarketRecord) -> None:
        """The next entry."""
        machine = self.machine
        first = len(self.executed)
        with _Listening(machine, (c.Place, c.Cancel), entry, self.executed):
            machine.apply(record, state_hash)
        touched = set()
        for executed in self.executed[first:]:
            command = executed.command
            put = command.put if type(command) is c.Place else command
            touched.add(put.user)
        for event in events_of(record):
            if type(event) is Deal:
                self.deals.append(event)
                self.deal_seqs.append(entry.seq)
                touched.add(event.maker_user)
            else:
                assert type(event) is OrderFinished
                self.finished.append(event)
        for user in touched & self.pending.keys():
            mine = tuple((order.order_id, order.left) for order in machine.open_orders_of(user))
            self.pending[user].add(entry.seq, record.time_us, mine)


class LedgerFacts:
    """One shard.  accounts: of each watched user, by asset (available, frozen).

    held: the epoch in which each order's funds were frozen.  settled: of each order, the newest
    entry that it caused here as it was put.  released: of each order, the newest entry that gave
    back what was frozen for it.
    """

    def __init__(self, watched: Collection[int]) -> None:
        self.machine = Ledger()
        self.executed: list[Executed] = []
        self.accounts: dict[int, Moments] = {user: Moments() for user in watched}
        self.held: dict[int, int] = {}
        self.settled: dict[int, int] = {}
        self.released: dict[int, int] = {}

    def apply(self, entry: Entry, record: c.LedgerRecord) -> None:
        """The next entry."""
        machine = self.machine
        touched = set()
        for command in record.commands:
            touched |= self._touched(entry, command)
        with _Listening(machine, (c.Update,), entry, self.executed):
            machine.apply(record, state_hash)
        for user in touched & self.accounts.keys():
            accounts = machine.accounts.get(user, {})
            value = {asset: (each.available, each.frozen) for asset, each in accounts.items()}
            self.accounts[user].add(entry.seq, record.time_us, value)

    def _touched(self, entry: Entry, command: Any) -> set[int]:
        """The users whose accounts a command may change, asked before it is applied."""
        if type(command) is c.Reserve:
            for hold in command.holds:
                self.held[hold.order_id] = entry.epoch
                self.settled[hold.order_id] = entry.seq
            return {hold.user for hold in command.holds}
        if type(command) is c.Update:
            return {command.user}
        if type(command) is c.Void:
            return set(self.accounts)
        touched: set[int] = set()
        for each in command.entries if type(command) is c.Settle else ():
            if isinstance(each, c.OpenOrders):
                return set(self.accounts)
            if isinstance(each, c.Release):
                self.released[each.order_id] = entry.seq
                held = self.machine.hold_of(each.order_id)
                # It may have been frozen in this very entry, and is touched then.
                touched |= {held.user} if held is not None else set()
                continue
            touched.add(each.user)
            if isinstance(each, c.Leg) and each.role == Role.TAKER:
                self.settled[each.order_id] = entry.seq
        return touched


class CatalogFacts:
    """The catalog.  names: of every asset, over its entries."""

    def __init__(self) -> None:
        self.machine = Catalog()
        self.executed: list[Executed] = []
        self.names = Moments()

    def apply(self, entry: Entry, record: c.CatalogRecord) -> None:
        """The next entry."""
        before = self.machine.version
        kinds = (c.AddAsset, c.RenameAsset, c.AddMarket, c.RenameMarket)
        with _Listening(self.machine, kinds, entry, self.executed):
            self.machine.apply(record, state_hash)
        if self.machine.version != before:
            value = [asset.name for asset in self.machine.assets]
            self.names.add(entry.seq, record.time_us, value)


class Journals:
    """All streams of one exchange, replayed from their first entries."""

    def __init__(
        self,
        catalog: CatalogFacts,
        ledgers: dict[int, LedgerFacts],
        markets: dict[int, MarketFacts],
    ) -> None:
        self.catalog = catalog
        self.ledgers = ledgers
        self.markets = markets
        self.names = Names(catalog.machine.copy())


Progress = Callable[[str, int, int], None]


def replayed(
    readers: Iterable[JournalReader], watched: Collection[int], progress: Progress | None = None
) -> Journals:
    """The facts of these streams.  watched: the users whose accounts and orders matter.

    Raises JournalBroken when a stream does not begin with its first entry, and what reading and
    replaying raise, an AssertionError included.
    """
    catalog = CatalogFacts()
    ledgers: dict[int, LedgerFacts] = {}
    markets: dict[int, MarketFacts] = {}
    for reader in readers:
        kind, part = kind_of(reader.stream), int(reader.stream.partition("-")[2] or 0)
        facts: Any = catalog
        if kind == "market":
            facts = markets[part] = MarketFacts(watched)
        elif kind == "ledger":
            facts = ledgers[part] = LedgerFacts(watched)
        _replay(reader, kind, facts, progress)
    return Journals(catalog, ledgers, markets)


def read_all(
    directory: Path, watched: Collection[int], progress: Progress | None = None
) -> Journals:
    """The facts of all streams of a directory; see replayed()."""
    readers = [read_sqlite(directory, path.stem) for path in sorted(directory.glob("*.db"))]
    try:
        return replayed(readers, watched, progress)
    finally:
        for reader in readers:
            reader.close()


def _replay(reader: JournalReader, kind: str, facts: Any, progress: Progress | None) -> None:
    status = reader.status()
    if status.oldest_seq > 1:
        raise JournalBroken(
            f"stream {reader.stream} begins with entry {status.oldest_seq}: a drill needs all of"
            " them. Serve with truncate = false under [compactor]."
        )
    decode, seq = KINDS[kind].decode, 0
    while entries := reader.read(seq + 1, SLICE_BYTES):
        for entry in entries:
            try:
                facts.apply(entry, decode(entry.body))
            except (AssertionError, msgspec.MsgspecError) as wrong:
                wrong.add_note(f"in entry {entry.seq} of stream {reader.stream}")
                raise
            assert facts.machine.epoch == entry.epoch, "an entry of another epoch"
        seq = entries[-1].seq
        if progress is not None:
            progress(reader.stream, seq, status.next_seq - 1)


class _Listening:
    """While it is entered, what a machine executes of some kinds is noted."""

    def __init__(
        self, machine: Any, kinds: tuple[type, ...], entry: Entry, into: list[Executed]
    ) -> None:
        self._machine = machine
        self._kinds = kinds
        self._entry = entry
        self._into = into
        self._before: dict[type, Any] = {}

    def __enter__(self) -> None:
        for kind in self._kinds:
            self._before[kind] = self._machine.handlers[kind]
            self._machine.handlers[kind] = self._note

    def __exit__(self, *failure: object) -> None:
        self._machine.handlers |= self._before

    def _note(self, command: Any) -> Any:
        answer = self._before[type(command)](command)
        machine, into = self._machine, self._into
        where = (len(into), self._entry.seq, self._entry.epoch, machine.time_us)
        into.append(Executed(*where, command, answer))
        return answer
