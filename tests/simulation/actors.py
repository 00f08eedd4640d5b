"""Incarnations of markets, shards and the catalog: real desks over a simulated disk.

An incarnation takes turns as the real shells do: drain, decide, append, and only then send.  An
append takes time; the process may die meanwhile, and the append may then be absent or land late,
even after a successor has read the journal.  An old incarnation may live on as a zombie.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core import snapshot
from excore_ray.core.catalog import Catalog
from excore_ray.core.custodian import Custodian, CustodianLimits, keys_of
from excore_ray.core.ledger import Ledger
from excore_ray.core.market import Market
from excore_ray.core.registrar import Registrar, RegistrarLimits
from excore_ray.core.sequencer import Sequencer
from excore_ray.core.shardlink import SequencerLimits
from excore_ray.core.specs import MarketRules
from excore_ray.core.turns import Turn
from excore_ray.errors import Fenced
from excore_ray.storage.memory import MemoryDisk
from tests.simulation.world import MS, World

MARKET_LIMITS = SequencerLimits(
    reserve_timeout_us=80 * MS,
    others_wait_us=30 * MS,
    resend_us=40 * MS,
    heartbeat_us=100 * MS,
    late_us=100 * MS,
    user_orders_max=8,
    orders_max=60,
    entries_per_send_max=8,
    forget_every=20,
    commits_max=3,
)
SHARD_LIMITS = CustodianLimits(inquire_us=100 * MS, inquiries_max=20)
CATALOG_LIMITS = RegistrarLimits(lease_us=100 * MS, slack_us=10 * MS)

Desks = Sequencer | Custodian | Registrar
RECORDS: dict[str, Any] = {
    "market": c.MarketRecord,
    "ledger": c.LedgerRecord,
    "catalog": c.CatalogRecord,
}
LOADERS: dict[str, Callable[[bytes], Any]] = {
    "market": snapshot.load_market,
    "ledger": snapshot.load_ledger,
    "catalog": snapshot.load_catalog,
}
EMPTY: dict[str, Callable[[], Any]] = {"market": Market, "ledger": Ledger, "catalog": Catalog}
ENCODER = msgspec.json.Encoder()
DECODERS = {kind: msgspec.json.Decoder(record) for kind, record in RECORDS.items()}


def kind_of(stream: str) -> str:
    """market, ledger or catalog."""
    return stream.partition("-")[0]


def replay(disk: MemoryDisk, from_snapshot: bool) -> Any:
    """The machine a disk describes; a truncated one can only be read from a snapshot."""
    kind = kind_of(disk.stream)
    machine, seq = EMPTY[kind](), 0
    if disk.base_seq or (from_snapshot and disk.snapshots):
        seq = max(disk.snapshots)
        machine = LOADERS[kind](disk.snapshots[seq])
    for entry in disk.entries[seq - disk.base_seq :]:
        machine.apply(DECODERS[kind].decode(entry.body), snapshot.state_hash)
    return machine


class Process:
    """One incarnation of one actor."""

    def __init__(self, world: World, disk: MemoryDisk, hooks: Hooks) -> None:
        self.world = world
        self.disk = disk
        self.hooks = hooks
        self.stream = disk.stream
        self.up = True
        self.ready = False
        self.waiting = False  # for an append or for the owner check
        self.inbox: list[tuple[str, bytes]] = []
        self.next_seq = disk.next_seq
        machine = replay(disk, world.random.random() < 0.7)
        assert self.next_seq == disk.next_seq
        self.desk = self._desk(machine)
        self.machine = machine
        self._turn(self._open())

    def _desk(self, machine: Any) -> Desks:
        if type(machine) is Market:
            return Sequencer(machine, MARKET_LIMITS)
        if type(machine) is Ledger:
            return Custodian(machine, SHARD_LIMITS)
        return Registrar(machine, CATALOG_LIMITS)

    def _open(self) -> Turn:
        now = self.world.now_us
        desk = self.desk
        first = self.next_seq == 1
        if type(desk) is Sequencer:
            rules = self.hooks.rules_of(self.stream) if first else None
            shards = self.hooks.shards
            turn = desk.open(now, c.CreateMarket(rules, shards) if rules is not None else None)
        elif type(desk) is Custodian:
            number = int(self.stream.partition("-")[2])
            create = c.CreateShard(number, self.hooks.shards) if first else None
            turn = desk.open(now, create)
        else:
            assert type(desk) is Registrar
            turn = desk.open(now, c.CreateCatalog(self.hooks.shards) if first else None)
        return turn

    def kill(self) -> None:
        """The process is gone at once; what it was appending may still land."""
        self.up = False

    def deliver(self, peer: str, body: bytes) -> None:
        """A message arrives."""
        if self.up and self.ready:
            self.inbox.append((peer, body))
            if not self.waiting:
                self.take_turn()

    def take_turn(self) -> None:
        """Drain, decide, append, send: as actors/shell.py does."""
        if not self.up or not self.ready or self.waiting:
            return
        now = self.world.now_us
        inbox, self.inbox = self.inbox, []
        desk = self.desk
        for peer, body in inbox:
            message = m.decode(body)
            if type(desk) is Custodian:
                desk.known = frozenset(k for k in keys_of(message) if k in self.disk.keys)
            desk.receive(peer, message, now)
        turn = desk.turn(now, checkpoint=self.world.random.random() < 0.03)
        self._turn(turn)
        if self.up and type(desk) is Registrar:
            for market_no in sorted(desk.unstarted):
                if self.hooks.start_market(market_no):
                    desk.started(market_no)

    def _turn(self, turn: Turn) -> None:
        if turn.fenced:
            self.world.counts["fenced by a peer"] += 1
            self.world.say(f"{self.stream} ends: {turn.fenced}")
            self.kill()
            return
        delay = self.world.random.randint(MS // 10, self.world.append_us)
        if turn.record is not None:
            self.waiting = True
            body = ENCODER.encode(turn.record)
            if self.hooks.sends_early(self.stream):
                self._send(turn.sends)
                turn = Turn(turn.record, turn.keys, [])
            seq, epoch = self.next_seq, self.machine.epoch
            self.world.at(delay, lambda: self._land((seq, epoch), body, turn))
        elif turn.sends:
            self.waiting = True
            self.world.at(delay // 4, lambda: self._confirm(turn))

    def _land(self, place: tuple[int, int], body: bytes, turn: Turn) -> None:
        world = self.world
        if not self.up:
            if world.random.random() < 0.6:
                world.counts["append lost with its process"] += 1
                return
            world.counts["append landed after its process died"] += 1
        try:
            self.hooks.land(self.disk, place, body, turn.keys)
        except Fenced:
            world.counts["append fenced"] += 1
            world.say(f"{self.stream} ends: fenced")
            self.kill()
            return
        world.say(f"{self.stream} journaled {place[0]} {body.decode()[:600]}")
        if self.up:
            self.next_seq = place[0] + 1
            self._done(turn)

    def _confirm(self, turn: Turn) -> None:
        if not self.up:
            return
        if self.disk.next_seq != self.next_seq:
            self.world.counts["owner check failed"] += 1
            self.kill()
            return
        self._done(turn)

    def _done(self, turn: Turn) -> None:
        self.ready = True
        self.waiting = False
        self._send(turn.sends)
        if self.inbox or self.desk.pressing:
            self.take_turn()

    def _send(self, sends: list[tuple[str, m.WireMessage]]) -> None:
        for peer, message in sends:
            self.hooks.send(self.stream, peer, message)


class Hooks:
    """What a process needs of its surroundings; `exchange.Exchange` fills it in."""

    shards = 3

    def rules_of(self, stream: str) -> MarketRules:
        """The definition of a market that starts for the first time."""
        raise NotImplementedError

    def start_market(self, market_no: int) -> bool:
        """Whether the market serves now."""
        raise NotImplementedError

    def send(self, source: str, target: str, message: m.WireMessage) -> None:
        """Give a message to the network."""
        raise NotImplementedError

    def land(
        self, disk: MemoryDisk, place: tuple[int, int], body: bytes, keys: list[bytes]
    ) -> None:
        """Append to a disk, and check what has become durable."""
        raise NotImplementedError

    def sends_early(self, stream: str) -> bool:
        """A planted defect: whether this stream's messages leave before its records."""
        return False
