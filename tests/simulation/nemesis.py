"""Nemesis: the faults that strike from outside of what a process does: crashes, cuts, disks.

Separate because the exchange is what must survive, and this is what it must survive.  What
happens between two steps of one process (an append torn, sends half sent) is in `actors.py`.
"""

from __future__ import annotations

from tests.simulation.actors import Process, kind_of
from tests.simulation.exchange import GATEWAYS, SHARDS, Exchange
from tests.simulation.gateways import Gateway
from tests.simulation.world import MS

EVERY_US = 10 * MS


class Nemesis:
    """Strikes an exchange every 10 ms, while its world has faults."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.world = exchange.world
        self.truncates = self.world.random.random() < 0.3
        self.world.at(EVERY_US, self._tick)

    def _tick(self) -> None:
        self.exchange.pass_time()
        if self.world.faults:
            self._strike()
        self.world.at(EVERY_US, self._tick)

    def _strike(self) -> None:
        world, exchange = self.world, self.exchange
        for stream, process in list(exchange.live.items()):
            if not process.up:
                self._come_back(stream)
            elif world.random.random() < self._chance_of(stream):
                self._crash(stream, process)
        for number, gateway in enumerate(exchange.gateways[:GATEWAYS]):
            if world.strikes("crash of gateway", world.crash / 3):
                self._replace(number, gateway)
        if world.random.random() < 0.05:
            stream = world.random.choice(sorted(exchange.disks))
            exchange.compact(stream, truncates=self.truncates)
        if world.strikes("disk full", world.disk * 3):
            stream = world.random.choice(sorted(exchange.disks))
            exchange.full_until_us[stream] = world.now_us + world.between(20, 200) * MS
        if world.strikes("link cut", 0.03):
            self._cut()

    def _chance_of(self, stream: str) -> float:
        """Of a crash, each time."""
        often = self.world.restless and stream == "catalog"
        return 6 * self.world.crash if often else self.world.crash

    def _crash(self, stream: str, process: Process) -> None:
        world, exchange = self.world, self.exchange
        if world.strikes("zombie left behind", world.zombie):
            exchange.zombies.append(process)
            world.at(world.between(20, 400) * MS, process.kill)
            exchange.start(stream)
        else:
            world.counts[f"crash of {kind_of(stream)}"] += 1
            process.kill()

    def _come_back(self, stream: str) -> None:
        if self.world.random.random() >= 0.3:
            return
        if self.world.strikes("journal unreadable at a start", 0.1):
            return  # whoever supervises it tries again
        self.exchange.start(stream)

    def _replace(self, number: int, gateway: Gateway) -> None:
        world, exchange = self.world, self.exchange
        exchange.gateways[number] = exchange.new_gateway()
        if world.strikes("zombie gateway left behind", world.zombie):
            # Its clients talk to it until it ends, which they do not see coming.
            exchange.gateways.append(gateway)
            world.at(world.between(20, 300) * MS, lambda: exchange.end_gateway(gateway))
        else:
            gateway.up = False

    def _cut(self) -> None:
        """Cut one link, maybe that of a lease, and let both ends see it end and come back."""
        world, exchange = self.world, self.exchange
        duration_us = world.between(10, 250) * MS
        streams = sorted(exchange.live)
        markets = [stream for stream in streams if stream.startswith("market")]
        if markets and world.random.random() < 0.5:
            market = world.random.choice(markets)
            shard = world.between(0, SHARDS - 1)
            world.cut(market, f"ledger-{shard}", duration_us)
            world.at(duration_us, lambda: exchange.reconnect(market, shard))
            return
        gateway = world.random.choice(exchange.gateways)
        stream = "catalog" if world.random.random() < 0.5 else world.random.choice(streams)
        if stream == "catalog":
            world.counts["lease cut off"] += 1
        world.cut(gateway.name, stream, duration_us)
        gateway.router.disconnected(stream)
        world.at(duration_us, lambda: gateway.reconnected(stream))
