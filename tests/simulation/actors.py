"""Incarnations of markets, shards and the catalog: real desks over a simulated disk.

An incarnation takes turns as the real shells do: drain, decide, append, and only then send.  It
may die at every point of that.  An append takes time; the process may die meanwhile, and the
append may then be absent or land late, even after a successor has read the journal.  While its
disk is full it tries the same append again, and does nothing else, as a shell does.  An old
incarnation may live on as a zombie.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from excore_ray.actors.replay import KINDS, Replay, kind_of
from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.custodian import Custodian, CustodianLimits, keys_of
from excore_ray.core.ledger import Ledger
from excore_ray.core.market import Market
from excore_ray.core.registrar import Registrar, RegistrarLimits
from excore_ray.core.sequencer import Sequencer
from excore_ray.core.shardlink import SequencerLimits
from excore_ray.core.specs import MarketRules
from excore_ray.core.turns import Turn
from excore_ray.errors import Fenced
from excore_ray.storage.memory import MemoryDisk, read_memory
from tests.simulation.world import MS, World

MARKET_LIMITS = SequencerLimits(
    reserve_timeout_us=80 * MS,
    others_wait_us=30 * MS,
    resend_us=40 * MS,
    heartbeat_us=140 * MS,
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
FULL_RETRY_US = 15 * MS
CHECKPOINT_RECORDS = 25
ENCODER = msgspec.json.Encoder()
EMPTY = {name: kind.make for name, kind in KINDS.items()}
DECODERS = {name: kind.decode for name, kind in KINDS.items()}
NONE: frozenset[bytes] = frozenset()
_ALL_BYTES = 1 << 40


def replay(disk: MemoryDisk, snapshot_seq_max: int | None = None) -> Any:
    """The machine a disk describes, by the real replay.

    snapshot_seq_max: the newest snapshot to begin with, 0 for none.  Raises what Replay raises.
    """
    running = Replay(read_memory(disk), kind_of(disk.stream), None, snapshot_seq_max)
    while running.advance(_ALL_BYTES):
        pass
    return running.machine


def read_at_start(world: World, disk: MemoryDisk) -> Any:
    """The machine of a new incarnation; its newest snapshot may be missing or damaged."""
    newest = max(disk.snapshots, default=0)
    if newest and world.strikes("newest snapshot damaged", 0.15):
        return replay(disk, newest - 1)
    if not disk.base_seq and world.random.random() < 0.3:
        return replay(disk, 0)
    return replay(disk)


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
        self.unchecked = 0  # records since the last checkpoint
        self.inbox: list[tuple[str, bytes]] = []
        self.next_seq = disk.next_seq
        self.offset_us = world.offset_us(hooks.offsets_us.get(self.stream, 0))
        hooks.offsets_us[self.stream] = self.offset_us
        machine = read_at_start(world, disk)
        self.desk = self._desk(machine)
        self.machine = machine
        self._turn(self._open())

    def _desk(self, machine: Any) -> Desks:
        if type(machine) is Market:
            limits = msgspec.structs.replace(MARKET_LIMITS, results_max=self.hooks.results_max)
            return Sequencer(machine, limits)
        if type(machine) is Ledger:
            bound = msgspec.structs.replace(SHARD_LIMITS, results_max=self.hooks.results_max)
            return Custodian(machine, bound)
        return Registrar(machine, CATALOG_LIMITS)

    @property
    def now_us(self) -> int:
        """The time by the clock of this process."""
        return self.world.now_us + self.offset_us

    def _open(self) -> Turn:
        now = self.now_us
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
        now = self.world.now_us + self.offset_us
        inbox, desk = self.inbox, self.desk
        if inbox:
            self.inbox = []
        for peer, body in inbox:
            message = m.decode(body)
            if type(desk) is Custodian:
                keys = keys_of(message)
                desk.known = frozenset(filter(self.disk.keys.__contains__, keys)) if keys else NONE
            desk.receive(peer, message, now)
        # As a shell does: nothing but records brings a checkpoint about.
        checkpoint = self.unchecked >= CHECKPOINT_RECORDS and not inbox
        self.unchecked = 0 if checkpoint else self.unchecked
        turn = desk.turn(now, checkpoint)
        self._turn(turn)
        if self.up and type(desk) is Registrar:
            for market_no in sorted(desk.unstarted):
                if self.hooks.start_market(market_no):
                    desk.started(market_no)

    def _turn(self, turn: Turn) -> None:
        world = self.world
        if turn.fenced:
            world.counts["fenced by a peer"] += 1
            world.say(self.stream, f"ends: {turn.fenced}")
            self.kill()
            return
        delay = world.between(MS // 10, world.append_us)
        if turn.record is None:
            if turn.sends:
                self.waiting = True
                world.at(delay // 4, partial(self._confirm, turn))
            return
        if world.strikes("crash before an append", world.crash / 8):
            self.kill()
            return
        self.waiting = True
        if not self.ready and world.strikes("slow start", 0.3):
            delay += world.between(50, 250) * MS  # while a zombie may be at work
        body = ENCODER.encode(turn.record)
        if self.hooks.sends_early(self.stream):
            self._send(turn.sends)
            turn = Turn(turn.record, turn.keys, [])
        place = (self.next_seq, self.machine.epoch)
        world.at(delay, partial(self._land, place, body, turn))
        if world.strikes("crash during an append", world.crash / 8):
            world.at(world.between(0, delay), self.kill)

    def _land(self, place: tuple[int, int], body: bytes, turn: Turn) -> None:
        world = self.world
        if not self.up:
            fate = world.random.random()
            if fate < 0.6:
                torn = fate < 0.3
                world.counts["append torn" if torn else "append lost with its process"] += 1
                return
            world.counts["append landed after its process died"] += 1
        elif self.hooks.is_full(self.stream):
            world.counts["append met a full disk"] += 1
            world.at(FULL_RETRY_US, partial(self._land, place, body, turn))
            return
        elif world.strikes("fsync failed", world.disk):
            # The process does not know whether the entry is durable, and nobody does before
            # the journal is read again; it may even become so later.
            self.kill()
            world.at(world.between(0, 40 * MS), partial(self._land, place, body, turn))
            return
        try:
            self.hooks.land(self.disk, place, body, turn.keys)
        except Fenced:
            world.counts["append fenced"] += 1
            world.say(self.stream, "ends: fenced")
            self.kill()
            return
        if not self.up:
            return
        if world.strikes("crash after an append, before its sends", world.crash / 8):
            self.kill()
            return
        self.next_seq = place[0] + 1
        self.unchecked += 1
        self._done(turn)

    def _confirm(self, turn: Turn) -> None:
        if not self.up:
            return
        if self.world.strikes("owner check unanswered", self.world.disk / 8):
            self.kill()
            return
        if self.disk.next_seq != self.next_seq:
            self.world.counts["owner check failed"] += 1
            self.kill()
            return
        self._done(turn)

    def _done(self, turn: Turn) -> None:
        self.ready = True
        self.waiting = False
        sends = turn.sends
        if len(sends) > 1 and self.world.strikes("crash amid its sends", self.world.crash / 16):
            self._send(sends[: self.world.between(0, len(sends) - 1)])
            self.kill()
            return
        self._send(sends)
        if self.inbox or self.desk.pressing:
            self.take_turn()

    def _send(self, sends: list[tuple[str, m.WireMessage]]) -> None:
        send, stream = self.hooks.send, self.stream
        for peer, message in sends:
            send(stream, peer, message)


class Hooks:
    """What a process needs of its surroundings; `exchange.Exchange` fills it in."""

    shards = 3
    results_max = 3_000_000

    def __init__(self) -> None:
        self.offsets_us: dict[str, int] = {}  # of the clock of a stream's newest process

    def is_full(self, stream: str) -> bool:
        """Whether the disk of a stream has no room now."""
        raise NotImplementedError

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
