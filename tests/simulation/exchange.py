"""The simulated exchange: disks, incarnations, gateways, and what must hold at every moment.

Beside every disk runs a shadow, the machine that the durable records describe.  It applies each
record the moment it lands, so a record that no honest incarnation could have written fails at
once, and every answer is compared with what was durable when it was given.  What a record has
touched is checked when it lands, all of the machine after every few records and at rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from excore_ray.core import messages as m
from excore_ray.core.audit import check_catalog, check_ledger, check_market
from excore_ray.core.catalog import Catalog
from excore_ray.core.commands import AddMarket, OpenOrders, Place, Reserve, Settle, Update, Void
from excore_ray.core.custodian import key_of
from excore_ray.core.ledger import Ledger
from excore_ray.core.market import Market
from excore_ray.core.names import Names
from excore_ray.core.reasons import Refused
from excore_ray.core.results import Result
from excore_ray.core.sequencer import Sequencer
from excore_ray.core.settlement import need_of
from excore_ray.core.sharding import shard_of
from excore_ray.core.snapshot import dump, state_hash
from excore_ray.core.specs import MarketRules
from excore_ray.storage.memory import MemoryDisk, read_memory
from tests.simulation.actors import DECODERS, EMPTY, Hooks, Process, kind_of, replay
from tests.simulation.gateways import Client, Gateway, Operation, is_command
from tests.simulation.told import check_told
from tests.simulation.world import MS, Violation, World

SHARDS = 3
GATEWAYS = 3
FULL_CHECK_EVERY = 8  # records of a stream
IDLE_TICKS = 8
LATEST_US = 350 * MS  # a message is under way for 300 ms at most, but for copies of long ago
CHECKS: dict[str, Callable[[Any], Any]] = {
    "market": check_market,
    "ledger": lambda ledger: check_ledger(ledger, forced=True),
    "catalog": check_catalog,
}


class Exchange(Hooks):
    """Everything that runs in one world."""

    shards = SHARDS

    def __init__(self, world: World, heard: Callable[[Operation], None]) -> None:
        super().__init__()
        self.world = world
        self._heard = heard
        self.on_landed: Callable[[str], None] = lambda stream: None
        self.on_command: Callable[[str], None] = lambda stream: None
        self.on_sending: Callable[[Operation], None] = lambda operation: None
        self.disks: dict[str, MemoryDisk] = {}
        self.full_until_us: dict[str, int] = {}
        self.shadows: dict[str, Any] = {}
        self.live: dict[str, Process] = {}
        self.zombies: list[Process] = []
        self.gateways: list[Gateway] = []
        self._gateway_of: dict[str, Gateway] = {}  # all there ever were, by name
        self.gateway_number = 0
        self.recorded: dict[bytes, Result] = {}  # whatever was executed, and never forgotten
        self.version_of: dict[bytes, int] = {}  # catalog changes: request -> version
        self.version_promised = 0
        self.results_max = 40 if world.random.random() < 0.1 else 3_000_000
        self.decided: set[int] = set()  # orders that were executed or voided
        self._bases: dict[tuple[int, int], int] = {}  # shard, market -> id_base it has applied
        self._landings = 0
        self._ticks = 0
        self._used_keys: set[bytes] = set()
        for stream in ("catalog", *(f"ledger-{shard}" for shard in range(SHARDS))):
            self.start(stream)
        for _ in range(GATEWAYS):
            self.gateways.append(self.new_gateway())
        self.client = Client(world, self)

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

    def is_full(self, stream: str) -> bool:
        """Whether the disk of a stream has no room now."""
        return self.world.faults and self.full_until_us.get(stream, 0) > self.world.now_us

    def send(self, source: str, target: str, message: m.WireMessage) -> None:
        """Give a message to the network."""
        self.world.send(source, target, message, self.deliver)

    def deliver(self, source: str, target: str, body: bytes) -> None:
        """A message comes out of the network, maybe at a zombie."""
        gateway = self._gateway_of.get(target)
        if gateway is not None:
            gateway.deliver(source, body)
            return
        live = self.live.get(target)
        found = [live] if live is not None and live.up and live.ready else []
        if self.zombies:
            found += [p for p in self.zombies if p.stream == target and p.up and p.ready]
        if len(found) > 1:
            self._guard(self.world.random.choice(found), source, body)
        elif found:
            self._guard(found[0], source, body)

    def _guard(self, process: Process, source: str | None, body: bytes) -> None:
        """A zombie of a shard may stumble over messages of its successor's time, and ends.  One of
        a market must not: it ends in good order as soon as a shard shows it a newer epoch.
        """
        try:
            if source is None:
                process.take_turn()
            else:
                process.deliver(source, body)
        except (AssertionError, KeyError):
            if process.next_seq == process.disk.next_seq or type(process.machine) is Market:
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
        stream = disk.stream
        self.world.say(f"{stream} journaled", body)
        shadow = self.shadows[stream]
        record = DECODERS[kind_of(stream)](body)
        deals_before = shadow.last_deal_id if type(shadow) is Market else 0
        shadow.begin(record.time_us)
        for command in record.commands:
            # A denial may rest on the state between two commands of a record.
            shadow.repeat(command, state_hash)
            self.on_command(stream)
        check_told(shadow, record, deals_before)
        for command in record.commands:
            self._executed(shadow, command.put if type(command) is Place else command)
        if type(shadow) is Market:
            placed = [found.order_id for found in record.commands if type(found) is Place]
            self.decided.update(placed)
            self._holds_exist(shadow, placed)
        elif type(shadow) is Ledger:
            self._nothing_early(shadow)
            self._ledger_changes(shadow, record.commands)
        self._landings += 1
        if self._landings % FULL_CHECK_EVERY == 0:
            self.check_fully(stream)
        self.on_landed(stream)

    def check_fully(self, stream: str) -> None:
        """Check a whole shadow, and the market's open orders against the shards."""
        shadow = self.shadows[stream]
        CHECKS[kind_of(stream)](shadow)
        if type(shadow) is Market:
            self._holds_exist(shadow, list(shadow.orders))

    def _executed(self, shadow: Any, command: Any) -> None:
        """Invariant 5: a request is executed once, and its result is recorded with it."""
        request_id = getattr(command, "request_id", None)
        if request_id is None:
            return
        if request_id in self.recorded:
            raise Violation(f"{command} was executed twice")
        result = shadow.results.get(request_id)
        if result is None:
            raise Violation(f"{command} was executed and has no recorded result")
        self.recorded[request_id] = result
        if type(shadow) is Catalog:
            self.version_of[request_id] = shadow.version
        elif type(command) is Update:
            key = key_of(command)
            if key in self._used_keys:
                raise Violation(f"{command} used its key again")
            self._used_keys.add(key)

    def _holds_exist(self, market: Market, order_ids: list[int]) -> None:
        """Invariant 2, as far as it holds at every moment: no open order without its funds."""
        for order_id in order_ids:
            order = market.orders.get(order_id)
            if order is None:
                continue
            shard: Ledger = self.shadows[f"ledger-{shard_of(order.user, SHARDS)}"]
            hold = shard.hold_of(order_id)
            if hold is None or hold.remaining < need_of(market.rules, order):
                raise Violation(f"open order {order_id} is not backed: {hold}")

    def _nothing_early(self, ledger: Ledger) -> None:
        """Invariant 4: a shard has applied only what is durable at the market."""
        for market_no, link in ledger.links.items():
            market: Market = self.shadows[f"market-{market_no}"]
            written = market.outboxes[ledger.shard].out_seq if market.outboxes else 0
            if link.applied > written:
                raise Violation(f"shard applied {link.applied} of {written} of market {market_no}")

    def _ledger_changes(self, ledger: Ledger, commands: list[Any]) -> None:
        """No hold of an open order is voided; after a market's new epoch nothing older is held
        but for the orders it listed.
        """
        for command in commands:
            if type(command) is Void:
                market: Market = self.shadows[f"market-{command.market_no}"]
                self._holds_exist(market, command.order_ids)
                self.decided.update(command.order_ids)
            elif type(command) is Reserve:
                self._reserved(ledger.shard, command)
            for entry in command.entries if type(command) is Settle else ():
                if type(entry) is not OpenOrders:
                    continue
                assert type(command) is Settle
                self._bases[ledger.shard, command.market_no] = entry.id_base
                if ledger.links[command.market_no].low < entry.id_base:
                    raise Violation(f"ids below {entry.id_base} are older, and not all decided")
                listed = set(entry.holds[::2])
                for order_id in ledger.holds[command.market_no]:
                    if order_id < entry.id_base and order_id not in listed:
                        raise Violation(f"orphan {order_id} is still held")

    def _reserved(self, shard: int, command: Reserve) -> None:
        """Nothing is reserved for an order that was executed or voided, nor, once the shard has
        heard of a newer epoch, for one of an older epoch.
        """
        market: Market = self.shadows[f"market-{command.market_no}"]
        base = self._bases.get((shard, command.market_no), 0)
        if command.epoch == market.epoch:
            base = market.id_base
        for hold in command.holds:
            if hold.order_id < base:
                raise Violation(f"order {hold.order_id} of an older epoch was reserved for")
            if hold.order_id in self.decided:
                raise Violation(f"order {hold.order_id} was decided, and reserved for again")

    # What clients are told.

    def usable(self, names: Names) -> None:
        """A gateway uses its copy: no answered change may be missing from it."""
        if names.version < self.version_promised:
            raise Violation(f"catalog {names.version} in use, {self.version_promised} was promised")

    def sending(self, operation: Operation) -> None:
        """An operation is about to be sent."""
        self.on_sending(operation)

    def unavailable(self, operation: Operation) -> None:
        """Code 3 was said: no attempt so far was executed, nor will one be."""
        if operation.unknown:
            return
        done = [i for i in operation.request_ids if i in self.recorded]
        if done:
            raise Violation(f"{operation.ask} was answered unavailable and happened: {done}")

    def answered(self, operation: Operation) -> None:
        """An operation is answered: it must be durable, and settled at the caller's shard."""
        self._heard(operation)
        answer = operation.answer
        if answer is None or type(answer) is Refused or not is_command(operation.ask):
            return
        shadow = self.shadows[operation.actor]
        result = self.recorded.get(operation.request_id)
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
            if type(operation.ask) is AddMarket and not self.world.faults:
                market = self.live.get(f"market-{len(shadow.markets)}")
                if market is None or not market.ready:
                    raise Violation(f"{operation.ask} was answered before the market serves")

    # What the nemesis needs.

    def pass_time(self) -> None:
        """A tick: who is busy takes a turn, the others one now and then, as shells do."""
        self._ticks += 1
        idle = self._ticks % IDLE_TICKS == 0
        if self.zombies:
            self.zombies = [zombie for zombie in self.zombies if zombie.up]
        for process in [*self.live.values(), *self.zombies]:
            due = process.up and process.ready and not process.waiting
            if due and (idle or process.desk.busy):
                self._guard(process, None, b"")

    def new_gateway(self) -> Gateway:
        """One more gateway; its name is never used again."""
        self.gateway_number += 1
        gateway = Gateway(self.world, f"gateway-{self.gateway_number}", self.send)
        self._gateway_of[gateway.name] = gateway
        return gateway

    def end_gateway(self, gateway: Gateway) -> None:
        """A gateway that was replaced ends at last."""
        gateway.up = False
        self.gateways.remove(gateway)

    def reconnect(self, market: str, shard: int) -> None:
        """A market has a new connection to a shard."""
        process = self.live[market]
        if process.up and process.ready and not process.waiting:
            assert type(process.desk) is Sequencer
            process.desk.connected(shard)
            self._guard(process, None, b"")

    def compact(self, stream: str, truncates: bool) -> None:
        """Save a snapshot, and maybe forget what two of them make needless."""
        disk = self.disks[stream]
        if disk.next_seq == 1:
            return
        machine = replay(disk)
        if state_hash(machine) != state_hash(self.shadows[stream]):
            raise Violation(f"replay of {stream} differs from its shadow")
        journal = read_memory(disk)
        journal.save_snapshot(disk.next_seq - 1, dump(machine))
        self.world.counts["snapshot"] += 1
        if truncates and len(disk.snapshots) == 2:
            self.truncate(disk)
            self.world.counts["truncation"] += 1

    def truncate(self, disk: MemoryDisk) -> None:
        """Forget the entries that the older of two snapshots makes needless."""
        disk.forget(min(disk.snapshots))

    # The end.

    def heal(self) -> None:
        """No more faults: everybody comes back, and everything must come to rest.

        It must stay so until the last that was under way among faults has come and had its effect.
        """
        latest_us = self.world.now_us + (LATEST_US if self.world.faults else 0)
        self.world.faults = False
        for zombie in self.zombies:
            zombie.kill()
        for _ in range(400):
            self.world.run(50 * MS)
            for stream, process in list(self.live.items()):
                if not process.up:
                    self.start(stream)
            if self._quiet():
                self.world.run(max(0, latest_us - self.world.now_us))
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
            if process.desk.busy:
                return False
        return True
