"""The simulated exchange: disks, incarnations, gateways, the nemesis, and what must hold.

Beside every disk runs a shadow, the machine that the durable records describe.  It applies each
record the moment it lands, so a record that no honest incarnation could have written fails at
once, and every answer is compared with what was durable when it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from excore_ray.core import messages as m
from excore_ray.core.audit import check_catalog, check_ledger, check_market
from excore_ray.core.catalog import Catalog
from excore_ray.core.commands import LedgerRecord, OpenOrders, Settle
from excore_ray.core.ledger import Ledger
from excore_ray.core.market import Market
from excore_ray.core.names import Names
from excore_ray.core.reasons import Refused
from excore_ray.core.settlement import need_of
from excore_ray.core.sharding import shard_of
from excore_ray.core.snapshot import dump, state_hash
from excore_ray.core.specs import MarketRules
from excore_ray.storage.memory import MemoryDisk, MemoryJournal
from tests.simulation.actors import DECODERS, EMPTY, Hooks, Process, kind_of, replay
from tests.simulation.gateways import Client, Gateway, Operation, is_command
from tests.simulation.world import MS, Violation, World

SHARDS = 3
GATEWAYS = 3
CHECKS: dict[str, Callable[[Any], Any]] = {
    "market": check_market,
    "ledger": lambda ledger: check_ledger(ledger, forced=True),
    "catalog": check_catalog,
}


class Exchange(Hooks):
    """Everything that runs in one world."""

    shards = SHARDS

    def __init__(self, world: World, heard: Callable[[Operation], None]) -> None:
        self.world = world
        self._heard = heard
        self.on_landed: Callable[[str], None] = lambda stream: None
        self.disks: dict[str, MemoryDisk] = {}
        self.shadows: dict[str, Any] = {}
        self.live: dict[str, Process] = {}
        self.zombies: list[Process] = []
        self.gateways: list[Gateway] = []
        self.gateway_number = 0
        self.version_of: dict[bytes, int] = {}  # catalog changes: request -> version
        self.version_promised = 0
        self.truncates = world.random.random() < 0.3
        for stream in ("catalog", *(f"ledger-{shard}" for shard in range(SHARDS))):
            self.start(stream)
        for _ in range(GATEWAYS):
            self.gateways.append(self._gateway())
        self.client = Client(world, self.gateways, self.answered, self.usable)
        world.at(10 * MS, self.tick)

    # What processes need.

    def rules_of(self, stream: str) -> MarketRules:
        """The definition of a market, from what the catalog has durably."""
        catalog: Catalog = self.shadows["catalog"]
        return catalog.markets[int(stream.partition("-")[2]) - 1].rules

    def start_market(self, market_no: int) -> bool:
        """Start a market's first incarnation if its definition is durable."""
        stream = f"market-{market_no}"
        catalog: Catalog = self.shadows["catalog"]
        if stream not in self.live and market_no <= len(catalog.markets):
            self.start(stream)
        process = self.live.get(stream)
        return process is not None and process.up and process.ready

    def send(self, source: str, target: str, message: m.WireMessage) -> None:
        """Give a message to the network."""
        self.world.send(source, target, message, lambda body: self.deliver(source, target, body))

    def deliver(self, source: str, target: str, body: bytes) -> None:
        """A message comes out of the network, maybe at a zombie."""
        if target.startswith("gateway"):
            for gateway in self.gateways:
                if gateway.name == target:
                    gateway.deliver(source, body)
            return
        processes = [p for p in (self.live.get(target), *self.zombies) if p is not None]
        found = [p for p in processes if p.stream == target and p.up and p.ready]
        if found:
            self._guard(self.world.random.choice(found), source, body)

    def _guard(self, process: Process, source: str | None, body: bytes) -> None:
        """A zombie may stumble over messages of its successor's time; it ends, and that is all."""
        try:
            if source is None:
                process.take_turn()
            else:
                process.deliver(source, body)
        except (AssertionError, KeyError):
            if process.next_seq == process.disk.next_seq:
                raise
            self.world.counts["zombie stumbled"] += 1
            process.kill()

    def start(self, stream: str) -> None:
        """A new incarnation."""
        disk = self.disks.get(stream)
        if disk is None:
            disk = self.disks[stream] = MemoryDisk(stream)
            self.shadows[stream] = EMPTY[kind_of(stream)]()
        self.live[stream] = Process(self.world, disk, self)

    def land(
        self, disk: MemoryDisk, place: tuple[int, int], body: bytes, keys: list[bytes]
    ) -> None:
        """Append to the disk; then the shadow applies it, and its invariants are checked."""
        disk.land(place[0], place[1], [body], keys)
        self.landed(disk, body)

    def landed(self, disk: MemoryDisk, body: bytes) -> None:
        """A record is durable: apply it to the shadow and check what must hold."""
        shadow = self.shadows[disk.stream]
        record = DECODERS[kind_of(disk.stream)].decode(body)
        shadow.apply(record, state_hash)
        CHECKS[kind_of(disk.stream)](shadow)
        if type(shadow) is Market:
            self._holds_exist(shadow)
        elif type(shadow) is Ledger:
            self._nothing_early(shadow)
            self._no_orphans(shadow, record)
        else:
            for command in record.commands:
                request_id = getattr(command, "request_id", None)
                if request_id is not None:
                    self.version_of[request_id] = shadow.version
        self.on_landed(disk.stream)

    def _holds_exist(self, market: Market) -> None:
        """Invariant 2, as far as it holds at every moment: no open order without its funds."""
        for order in market.orders.values():
            shard: Ledger = self.shadows[f"ledger-{shard_of(order.user, SHARDS)}"]
            hold = shard.hold_of(order.order_id)
            if hold is None or hold.remaining < need_of(market.rules, order):
                raise Violation(f"open order {order.order_id} is not backed: {hold}")

    def _nothing_early(self, ledger: Ledger) -> None:
        """Invariant 4: a shard has applied only what is durable at the market."""
        for market_no, link in ledger.links.items():
            market: Market = self.shadows[f"market-{market_no}"]
            written = market.outboxes[ledger.shard].out_seq if market.outboxes else 0
            if link.applied > written:
                raise Violation(f"shard applied {link.applied} of {written} of market {market_no}")

    def _no_orphans(self, ledger: Ledger, record: LedgerRecord) -> None:
        """After a market's new epoch, nothing older is held but for the orders it listed."""
        for command in record.commands:
            for entry in command.entries if type(command) is Settle else ():
                if type(entry) is not OpenOrders:
                    continue
                assert type(command) is Settle
                listed = set(entry.holds[::2])
                for order_id in ledger.holds[command.market_no]:
                    if order_id < entry.id_base and order_id not in listed:
                        raise Violation(f"orphan {order_id} is still held")

    # What clients are told.

    def usable(self, names: Names) -> None:
        """A gateway uses its copy: no answered change may be missing from it."""
        if names.version < self.version_promised:
            raise Violation(f"catalog {names.version} in use, {self.version_promised} was promised")

    def answered(self, operation: Operation) -> None:
        """An operation is answered: it must be durable, and settled at the caller's shard."""
        self._heard(operation)
        answer = operation.answer
        if answer is None or type(answer) is Refused or not is_command(operation.ask):
            return
        shadow = self.shadows[operation.actor]
        result = shadow.results.get(operation.request_id)
        if result is None:
            raise Violation(f"{operation.ask} was answered and is not durable")
        if result.answer != answer:
            raise Violation(f"{operation.ask} was answered {answer}, recorded {result.answer}")
        if type(shadow) is Market:
            shard: Ledger = self.shadows[f"ledger-{result.shard}"]
            link = shard.links.get(shadow.rules.market_no)
            if result.out_seq > (link.applied if link is not None else 0):
                raise Violation(f"{operation.ask} was answered before its shard settled it")
        elif type(shadow) is Catalog:
            version = self.version_of[operation.request_id]
            self.version_promised = max(self.version_promised, version)

    # Nemesis.

    def tick(self) -> None:
        """Time passes for every process, and faults happen."""
        for process in [*self.live.values(), *self.zombies]:
            if process.up and process.ready and not process.waiting:
                self._guard(process, None, b"")
        if self.world.faults:
            self._strike()
        self.world.at(10 * MS, self.tick)

    def _strike(self) -> None:
        world, chance = self.world, self.world.random
        for stream, process in list(self.live.items()):
            if not process.up:
                self._later(stream)
            elif chance.random() < world.crash:
                if chance.random() < world.zombie:
                    world.counts["zombie left behind"] += 1
                    self.zombies.append(process)
                    world.at(chance.randint(20, 400) * MS, process.kill)
                    self.start(stream)
                else:
                    world.counts[f"crash of {kind_of(stream)}"] += 1
                    process.kill()
        for number, gateway in enumerate(self.gateways):
            if chance.random() < world.crash / 3:
                world.counts["crash of gateway"] += 1
                gateway.up = False
                self.gateways[number] = self._gateway()
        if chance.random() < 0.05:
            self._compact(chance.choice(sorted(self.disks)))

    def _later(self, stream: str) -> None:
        if self.world.random.random() < 0.3:
            self.start(stream)

    def _gateway(self) -> Gateway:
        self.gateway_number += 1
        return Gateway(self.world, f"gateway-{self.gateway_number}", self.send)

    def _compact(self, stream: str) -> None:
        disk = self.disks[stream]
        if disk.next_seq == 1:
            return
        machine = replay(disk, from_snapshot=True)
        if state_hash(machine) != state_hash(self.shadows[stream]):
            raise Violation(f"replay of {stream} differs from its shadow")
        journal = MemoryJournal(disk)
        journal.save_snapshot(disk.next_seq - 1, dump(machine))
        self.world.counts["snapshot"] += 1
        if self.truncates and len(disk.snapshots) == 2:
            journal.truncate(min(disk.snapshots))
            self.world.counts["truncation"] += 1

    # The end.

    def heal(self) -> None:
        """No more faults: everybody comes back, and everything must come to rest."""
        self.world.faults = False
        for zombie in self.zombies:
            zombie.kill()
        for _ in range(400):
            self.world.run(50 * MS)
            for stream, process in list(self.live.items()):
                if not process.up:
                    self.start(stream)
            if self._quiet():
                self.world.run(500 * MS)
                if self._quiet():
                    return
        open_now = [(o.ask, o.actor) for o in self.client.open.values()]
        raise Violation(f"no convergence: {open_now[:3]}")

    def _quiet(self) -> bool:
        if self.client.open:
            return False
        for process in self.live.values():
            if not process.up or not process.ready or process.inbox:
                return False
            if getattr(process.desk, "busy", False):
                return False
        return True
