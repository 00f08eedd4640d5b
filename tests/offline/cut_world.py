"""The simulated exchange, copied at an instant in the middle of all its faults, and gone on with.

Separate from the tests because it is a scenario: what is copied is what take_cut() says, read
while the world goes on between one stream and the next; and what is made of the copy is a second
exchange, which must find its way, with faults and without, as after a loss of power.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from excore_ray.core.ledger import Ledger
from excore_ray.core.market import Market
from excore_ray.core.reasons import Refused
from excore_ray.core.sharding import shard_of
from excore_ray.core.shardlink import shard_name
from excore_ray.core.snapshot import state_hash
from excore_ray.errors import JournalFailed
from excore_ray.offline import across
from excore_ray.offline.cut import take_cut
from excore_ray.offline.cut_busy import Watch
from excore_ray.storage.memory import MemoryDisk
from tests.simulation.actors import replay
from tests.simulation.checks import check_at_rest
from tests.simulation.exchange import Exchange
from tests.simulation.funds import Funds
from tests.simulation.gateways import Operation, is_command
from tests.simulation.nemesis import Nemesis
from tests.simulation.scenario import Scenario
from tests.simulation.times import short_times
from tests.simulation.world import MS, Violation, World

Collect = Callable[[], Mapping[str, int]]
Disks = Mapping[str, MemoryDisk]
Take = Callable[[Collect, World, Disks], Mapping[str, int] | None]
BETWEEN_US = (50, 400, 3_000, 20_000)  # at most, between reading one stream and the next
LOOKS_US = (50, 400, 1_500)  # at most, for one look at a stream that is watched
ISSUED_AFTER = 25
_FRESH_IDS = 50_000  # of the operations of the second exchange


def honest(collect: Collect, world: World, disks: Disks) -> Mapping[str, int] | None:
    """The instant, as a backup takes it; None when there was none for long."""
    del disks
    try:
        return take_cut(collect, lambda: world.now_us / 1e6, patience_s=0.5).heads
    except JournalFailed:
        world.counts["no instant"] += 1
        return None


def quick(collect: Collect, world: World, disks: Disks) -> Mapping[str, int] | None:
    """The instant, as a backup takes it among hundreds of busy streams."""
    del collect
    look_us = world.random.choice(LOOKS_US)
    watch = Watch(lambda: list(disks), lambda name: Disk(disks[name], world, look_us))
    for _ in range(200):
        if watch.is_steady():
            return watch.seqs
    world.counts["no instant"] += 1
    return None


def careless(collect: Collect, world: World, disks: Disks) -> Mapping[str, int] | None:
    """A planted defect: each stream is watched, but nobody waits for a round without a change."""
    del collect
    return Watch(lambda: list(disks), lambda name: Disk(disks[name], world, 20_000)).seqs


class Disk:
    """A simulated stream to be watched, and the index of it; the world goes on at every look."""

    def __init__(self, disk: MemoryDisk, world: World, look_us: int) -> None:
        self._disk = disk
        self._world = world
        self._look_us = look_us
        self.seq = 0
        self.state = b""
        self.read()

    @property
    def index(self) -> Disk:
        return self

    def __getitem__(self, part: slice) -> bytes:
        self._world.run(self._world.random.randint(0, self._look_us))
        return b"%48d" % self._disk.next_seq

    def read(self) -> None:
        before = self[:48]
        self.seq = self._disk.next_seq - 1
        self.state = before if before == self[:48] else b""


def hasty(collect: Collect, world: World, disks: Disks) -> Mapping[str, int] | None:
    """A planted defect: stream after stream, once."""
    del world, disks
    return collect()


class Copied(Scenario):
    """A run in the middle of which the exchange is copied, now and then."""

    def __init__(self, seed: int, take: Take) -> None:
        super().__init__(seed)
        self.copies: list[dict[str, MemoryDisk]] = []
        self._take = take
        self._known: dict[int, Operation] = {}
        self._started_when_heard: dict[int, int] = {}

    def run_and_copy(self, steps: int, copies: int) -> None:
        """Set up, issue operations, copy some times meanwhile; each copy is checked at once."""
        world = self.world
        world.faults = False
        self._set_up()
        world.faults = True
        self._issuing = True
        self._issue(steps)
        while self._issuing and len(self.copies) < copies:
            world.run(world.random.randint(1, 60) * MS)
            self._copy()

    def _start(self, build: Any, stamped: bool) -> Operation:
        operation = super()._start(build, stamped)
        self._known[operation.number] = operation
        return operation

    def _heard(self, operation: Operation) -> None:
        super()._heard(operation)
        self._started_when_heard[operation.number] = self._number

    def _copy(self) -> None:
        world, disks = self.world, self.exchange.disks
        before = [one for one in self.exchange.client.closed if _was_done(one)]
        between_us = world.random.choice(BETWEEN_US)

        def collect() -> dict[str, int]:
            found: dict[str, int] = {}
            for stream in world.random.sample(sorted(disks), len(disks)):
                if disks[stream].next_seq > 1:
                    found[stream] = disks[stream].next_seq - 1
                world.run(world.random.randint(0, between_us))
            return found

        heads = self._take(collect, world, disks)
        if heads is None:
            return
        copied = {stream: _until(disks[stream], head) for stream, head in heads.items()}
        if not all(map(_is_usable, copied.values())):
            world.counts["moved on"] += 1  # where a backup begins again
            return
        machines = {s: replay(disk) for s, disk in copied.items()}
        _check_machines(machines)
        self._check_acknowledged(before, machines)
        self._check_order(machines)
        world.counts["copies"] += 1
        self.copies.append(copied)

    def _check_acknowledged(self, before: list[Operation], machines: dict[str, Any]) -> None:
        """Whatever was acknowledged before the backup began is in it."""
        for operation in before:
            if not _is_in(operation, machines):
                raise Violation(f"{operation.ask} was acknowledged before, and is not in the copy")

    def _check_order(self, machines: dict[str, Any]) -> None:
        """Nothing is in it that began when something was acknowledged that is not."""
        inside = [n for n, one in self._known.items() if _is_in(one, machines)]
        newest = max(inside, default=0)
        for number, started in self._started_when_heard.items():
            operation = self._known[number]
            if not _was_done(operation) or started >= newest:
                continue
            if not _is_in(operation, machines):
                raise Violation(f"{operation.ask} was acknowledged before another that is in it")


class Restored(Exchange):
    """An exchange that begins with what others have left."""

    def __init__(
        self, world: World, heard: Callable[[Operation], None], disks: dict[str, MemoryDisk]
    ) -> None:
        self._given = disks
        super().__init__(world, heard)

    def start(self, stream: str) -> None:
        """A new incarnation; with the first, all that was left is there."""
        for name, disk in self._given.items():
            if name not in self.disks:
                self.disks[name] = disk
                self.shadows[name] = replay(disk)
        super().start(stream)


class GoneOn(Scenario):
    """What becomes of a copy: it is started, traded on, and must come to rest."""

    def __init__(self, seed: int, disks: dict[str, MemoryDisk], first: Copied) -> None:
        super().__init__(seed)
        self.world = World(seed)
        self.world.now_us = first.world.now_us
        self.exchange = Restored(self.world, self._heard, disks)
        self.exchange.on_landed = self._watch
        self.funds = Funds(self.exchange)
        self.exchange.on_command = self.funds.executed
        self.exchange.on_sending = self._sending
        self.nemesis = Nemesis(self.exchange)
        self.placed = list(first.placed)
        self._number = self._business = _FRESH_IDS

    def run(self, steps: int) -> None:
        """Issue operations among faults, heal, and check."""
        self.world.faults = True
        self._issuing = True
        self._issue(steps)
        while self._issuing:
            self.world.run(50 * MS)
        self.exchange.heal()
        self._read_balances()
        check_at_rest(self.exchange)
        self._count()


def run_copies(seed: int, take: Take = honest, steps: int = 120, copies: int = 3) -> dict[str, int]:
    """One seed: its counts.  Raises Violation, AssertionError or KeyError when a promise broke."""
    with short_times():
        first = Copied(seed, take)
        first.run_and_copy(steps, copies)
        for number, disks in enumerate(first.copies):
            second = GoneOn(1_000 * seed + number, disks, first)
            second.run(ISSUED_AFTER)
            first.world.counts["gone on, answered"] += second.world.counts["answered"]
        return dict(first.world.counts)


def _was_done(operation: Operation) -> bool:
    answer = operation.answer
    return is_command(operation.ask) and answer is not None and type(answer) is not Refused


def _is_in(operation: Operation, machines: dict[str, Any]) -> bool:
    machine = machines.get(operation.actor)
    if machine is None or not is_command(operation.ask):
        return False
    return any(machine.results.get(each) is not None for each in operation.request_ids)


def _until(disk: MemoryDisk, head: int) -> MemoryDisk:
    """The disk as a backup copies it."""
    copy = MemoryDisk(disk.stream)
    copy.base_seq, copy.base_epoch = disk.base_seq, disk.base_epoch
    copy.entries = [entry for entry in disk.entries if entry.seq <= head]
    copy.keys = {key: seq for key, seq in disk.keys.items() if seq <= head}
    copy.snapshots = {seq: body for seq, body in disk.snapshots.items() if seq <= head}
    return copy


def _is_usable(disk: MemoryDisk) -> bool:
    return not disk.base_seq or any(seq >= disk.base_seq for seq in disk.snapshots)


def _check_machines(machines: dict[str, Any]) -> None:
    """What the deep audit would say across the streams."""
    for stream, machine in machines.items():
        found = list(across.alone(machine))
        if found:
            raise Violation(f"{stream}: {found}")
        state_hash(machine)
    markets = [m for m in machines.values() if type(m) is Market and m.shards]
    ledgers = [m for m in machines.values() if type(m) is Ledger]
    for market, ledger in itertools.product(markets, ledgers):
        found = list(across.between(market, ledger))
        if found:
            raise Violation(f"market {market.rules.market_no}, shard {ledger.shard}: {found}")
    for market in markets:
        for order in market.orders.values():
            if shard_name(shard_of(order.user, market.shards)) not in machines:
                raise Violation(f"order {order.order_id} has no shard")
