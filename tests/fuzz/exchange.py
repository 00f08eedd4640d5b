"""A whole exchange in one process: the real façade, desks, machines and journals, without sockets.

Separate because what a refused request must not change can only be seen where everything is at
hand.  Every message is encoded and decoded as on the wire and every record as in a journal, so
what cannot be written down fails here as it would there.  Only the archive is a stand-in: it
knows the journals' beginning, when nothing had happened yet.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any, cast

import msgspec

from excore_ray.actors.clock import SteadyClock
from excore_ray.actors.wire import Handler, Link
from excore_ray.actors.wire_server import Server
from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core import questions as q
from excore_ray.core.audit import (
    check_catalog,
    check_conservation,
    check_holds,
    check_ledger,
    check_market,
)
from excore_ray.core.catalog import Catalog
from excore_ray.core.custodian import Custodian, CustodianLimits, keys_of, market_name
from excore_ray.core.ledger import Ledger
from excore_ray.core.machine import Machine
from excore_ray.core.market import Market
from excore_ray.core.registrar import CATALOG, Registrar, RegistrarLimits
from excore_ray.core.routing import RouterLimits
from excore_ray.core.sequencer import Sequencer
from excore_ray.core.shardlink import SequencerLimits, shard_name
from excore_ray.core.snapshot import state_hash
from excore_ray.core.turns import Turn
from excore_ray.exchange import Exchange, ExchangeSettings
from excore_ray.storage.memory import MemoryDisk

SHARDS = 2
GATEWAY = "gateway-fuzz"
OPENED_US = 10_000_000  # so long ago that no lease of an earlier catalog can be left

_ENCODE = msgspec.json.Encoder().encode
_RECORDS: dict[type[Machine], Any] = {
    Market: c.MarketRecord,
    Ledger: c.LedgerRecord,
    Catalog: c.CatalogRecord,
}
# A request that nobody answers is known within a second, and no case may take that long.
_SETTINGS = ExchangeSettings(RouterLimits(deadline_us=1_000_000))
_NOTHING_YET: dict[type, m.Answer] = {
    q.AskBalanceHistory: q.Changes([]),
    q.AskOrderDeals: q.OwnDeals([]),
    q.AskFinished: q.FinishedOrders([]),
    q.AskFinishedDetail: q.FinishedOrders([]),
    q.AskUserDeals: q.OwnDeals([]),
    q.AskDeals: q.PublicDeals([]),
    q.AskKline: q.Kline(msgspec.Raw(b"[]")),
    q.AskPrice: q.Price("", ""),
    q.AskPeriod: q.Period(*["0"] * 7),
    m.AskStatus: m.Status(q.ARCHIVE, 0, 0, {}),
}


class Actor:
    """One actor: its desk, and the disk that its records land on."""

    def __init__(self, stream: str, desk: Sequencer | Custodian | Registrar, turn: Turn) -> None:
        self.disk = MemoryDisk(stream)
        self.desk = desk
        self.machine: Machine = desk._machine
        self.inbox: list[tuple[str, bytes]] = []
        self._seen: tuple[int, bytes] = (0, b"")
        self.first = self._obey(turn)

    def take_turn(self, now_us: int) -> list[tuple[str, m.WireMessage]]:
        """Take in what has arrived, decide, append, and return what may leave."""
        desk = self.desk
        inbox, self.inbox = self.inbox, []
        for peer, body in inbox:
            message = m.decode(body)
            if type(desk) is Custodian:
                desk.known = frozenset(k for k in keys_of(message) if k in self.disk.keys)
            desk.receive(peer, message, now_us)
        return self._obey(desk.turn(now_us))

    def _obey(self, turn: Turn) -> list[tuple[str, m.WireMessage]]:
        assert not turn.fenced, turn.fenced
        if turn.record is not None:
            disk = self.disk
            disk.land(disk.next_seq, self.machine.epoch, [_ENCODE(turn.record)], turn.keys)
        return turn.sends

    def visible(self) -> bytes:
        """What a client could see of this actor, and nothing of how it came about.

        Ids and links that a reservation has used up are not in it.  Made anew only when the
        journal has grown: replayed() proves that nothing moves without it.
        """
        seq, machine = self.disk.next_seq, self.machine
        if self._seen[0] != seq:
            parts: Any
            if type(machine) is Ledger:
                parts = [machine.accounts, machine.holds, machine.fees, machine.updates]
            elif type(machine) is Market:
                orders = machine.orders.values()
                fixed = [(o.order_id, o.user, o.side, o.price, o.amount, o.left) for o in orders]
                parts = [machine.last_deal_id, fixed]
            else:
                assert type(machine) is Catalog
                parts = [machine.version, machine.assets, machine.markets, machine.keys]
            self._seen = (seq, _ENCODE(parts))
        return self._seen[1]

    def replayed(self) -> None:
        """Assert that the journal alone leads to this very state."""
        decode = msgspec.json.Decoder(_RECORDS[type(self.machine)]).decode
        twin = type(self.machine)()
        for entry in self.disk.entries:
            twin.apply(decode(entry.body), state_hash)
        # Time has gone on with every refusal, of which no journal knows.
        twin.begin(self.machine.time_us)
        assert state_hash(twin) == state_hash(self.machine), f"{self.disk.stream}: replay differs"


class _Line:
    """The gateway's connection to one actor; also the link that made it."""

    id = 1
    writable = True

    def __init__(self, town: Town, handler: Handler, name: str) -> None:
        self.name = name
        self.handler = handler
        self._town = town

    def start(self) -> None:
        asyncio.get_running_loop().call_soon(self.handler.connected, self)

    def send(self, body: bytes, request_id: int = 0) -> None:
        self._town.post(GATEWAY, self.name, body)

    def pause_reading(self) -> None:
        raise NotImplementedError

    def resume_reading(self) -> None:
        raise NotImplementedError

    def close(self, reason: str = "") -> Any:
        """A connection is closed only over what is no message; a link is awaited for its end."""
        assert not reason, reason
        return asyncio.sleep(0)


class Town:
    """All actors, and the gateway's way to them.  A `Wiring`.

    cpu_s: what actors have used so far, that a gateway does not: they are other processes.
    sent_max: bytes of the longest message a gateway has sent since this was set to 0.
    death: why an actor has ended, which none may whatever is asked; None while all live.
    """

    name = GATEWAY

    def __init__(self) -> None:
        self.clock = SteadyClock()
        self.cpu_s = 0.0
        self.sent_max = 0
        self.death: Exception | None = None
        self.actors: dict[str, Actor] = {}
        self.exchange = Exchange(self, self.clock, _SETTINGS)
        self._lines: dict[str, _Line] = {}
        self._posted: deque[tuple[str, str, bytes]] = deque()
        self._due = False
        opened_us = self.clock.now_us() - OPENED_US
        catalog = Registrar(Catalog(), RegistrarLimits())
        self._open(CATALOG, catalog, catalog.open(opened_us, c.CreateCatalog(SHARDS)))
        for shard in range(SHARDS):
            desk = Custodian(Ledger(), CustodianLimits())
            self._open(shard_name(shard), desk, desk.open(opened_us, c.CreateShard(shard, SHARDS)))

    # The wiring.

    def link(self, handler: Handler, peer: str) -> Link:
        line = self._lines[peer] = _Line(self, handler, peer)
        return cast(Link, line)

    async def serve(self, handler: Handler) -> Server:
        raise NotImplementedError

    def post(self, source: str, target: str, body: bytes) -> None:
        """Have a message delivered in the next turn of the loop."""
        self._posted.append((source, target, body))
        if source == GATEWAY and len(body) > self.sent_max:
            self.sent_max = len(body)
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._deliver)

    def _deliver(self) -> None:
        self._due = False
        began_s = time.process_time()
        told: list[tuple[_Line, bytes]] = []
        while self._posted:
            busy: dict[str, None] = {}
            for source, target, body in self._posted:
                if target == GATEWAY:
                    told.append((self._lines[source], body))
                elif target == q.ARCHIVE:
                    told.append((self._lines[target], _archive(body)))
                else:
                    self.actors[target].inbox.append((source, body))
                    busy[target] = None
            self._posted.clear()
            for stream in busy:
                try:
                    self._turn(stream)
                except Exception as death:
                    self.death = death
                    raise
        self.cpu_s += time.process_time() - began_s
        for line, body in told:
            line.handler.received(cast(Any, line), 0, body)

    def _turn(self, stream: str) -> None:
        actor = self.actors[stream]
        pressing = True
        while pressing:
            self._send(stream, actor.take_turn(self.clock.now_us()))
            pressing = actor.desk.pressing
        desk = actor.desk
        if type(desk) is Registrar and desk.unstarted:
            for market_no in sorted(desk.unstarted):
                self._start_market(desk, market_no)
            self._send(stream, actor.take_turn(self.clock.now_us()))

    def _start_market(self, desk: Registrar, market_no: int) -> None:
        name, rules = market_name(market_no), desk.catalog.markets[market_no - 1].rules
        sequencer = Sequencer(Market(), SequencerLimits())
        create = c.CreateMarket(rules, SHARDS)
        self._open(name, sequencer, sequencer.open(self.clock.now_us(), create))
        desk.started(market_no)

    def _open(self, name: str, desk: Sequencer | Custodian | Registrar, turn: Turn) -> None:
        actor = self.actors[name] = Actor(name, desk, turn)
        self._send(name, actor.first)

    def _send(self, source: str, sends: list[tuple[str, m.WireMessage]]) -> None:
        for target, message in sends:
            self._posted.append((source, target, m.encode(message)))

    # What must hold.

    def seqs(self) -> list[int]:
        """How long every journal is."""
        return [actor.disk.next_seq for actor in self.actors.values()]

    def visible(self) -> list[bytes]:
        """What clients could see of all actors."""
        return [actor.visible() for actor in self.actors.values()]

    def check(self) -> None:
        """Assert the invariants of the whole, and that the journals lead to it."""
        machines = [actor.machine for actor in self.actors.values()]
        markets = [one for one in machines if type(one) is Market]
        ledgers = [one for one in machines if type(one) is Ledger]
        for market in markets:
            check_market(market)
            check_holds(market, ledgers)
        for ledger in ledgers:
            check_ledger(ledger, forced=True)
        for one in machines:
            if type(one) is Catalog:
                check_catalog(one)
        check_conservation(markets, ledgers)
        for actor in self.actors.values():
            actor.replayed()


def _archive(body: bytes) -> bytes:
    batch = m.decode(body)
    assert type(batch) is m.Batch
    answers = [_NOTHING_YET[type(ask)] for ask in batch.asks]
    return m.encode(m.Replies(0, batch.tokens, answers, 1))
