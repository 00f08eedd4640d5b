"""Gateways and clients: real routing and leases, and callers who remember what they were told.

A client gives a request an id when it is stamped, and may send it again through any gateway; an
unstamped one is sent once.  Every answer is held against the shadow of what is durable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.lease import CatalogLease
from excore_ray.core.names import Names
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.routing import Router, RouterLimits
from tests.simulation.world import MS, Violation, World

ROUTER_LIMITS = RouterLimits(deadline_us=600 * MS, resend_us=60 * MS, batch_max=8)
CLIENT_PATIENCE_US = 700 * MS
RETRY_US = 60 * MS
TICK_US = 20 * MS

Send = Callable[[str, str, m.WireMessage], None]


class Gateway:
    """One incarnation of a gateway: its name is never used again."""

    def __init__(self, world: World, name: str, send: Send) -> None:
        self.world = world
        self.name = name
        self.up = True
        self.router = Router(ROUTER_LIMITS)
        self.lease = CatalogLease(every_us=40 * MS)
        self._send = send
        self._offset_us = world.offset_us()
        self.tick()

    @property
    def now_us(self) -> int:
        """The time by the clock of this process."""
        return self.world.now_us + self._offset_us

    def names(self) -> Names | None:
        """The copy of the catalog, when it may be used."""
        return self.lease.names(self.now_us)

    def ask(self, actor: str, ask: m.Ask, deliver: Callable[[m.Answer], None]) -> None:
        """Route one request."""
        self.router.route(actor).connected = not self.world.is_cut(self.name, actor)
        self.router.ask(actor, ask, lambda _, answer: deliver(answer), 0, self.now_us)
        # Not sent at once: requests of one moment gather.
        self.world.at(MS // 10, self.flush)

    def deliver(self, peer: str, body: bytes) -> None:
        """A message arrives."""
        if not self.up:
            return
        message = m.decode(body)
        if peer == "catalog":
            self.lease.receive(message)
        self.router.receive(peer, message)
        self.flush()

    def flush(self) -> None:
        """Send what may be sent."""
        if not self.up:
            return
        now_us = self.world.now_us + self._offset_us
        for actor, message in self.router.flush(now_us):
            self._send(self.name, actor, message)
        renewal = self.lease.renewal(now_us)
        if renewal is not None:
            self._send(self.name, "catalog", renewal)

    def reconnected(self, actor: str) -> None:
        """A cut link is whole again."""
        self.router.connected(actor)
        self.flush()

    def tick(self) -> None:
        """Time passes."""
        if self.up:
            self.router.tick(self.now_us)
            self.flush()
            self.world.at(TICK_US, self.tick)


class Operation:
    """One wish of a client until it is answered for good.

    build: the command for a request id, its actor included, or None when names are not known.
    market: the name of its market, by which the request finds one each time it is sent.
    unknown: whether any attempt was lost, so that it may have happened whatever else is said.
    """

    def __init__(
        self,
        number: int,
        stamped: bool,
        build: Callable[[Names, bytes], tuple[str, m.Ask] | None],
    ) -> None:
        self.number = number
        self.stamped = stamped
        self.build = build
        self.tries = 0
        self.attempt = 0
        self.request_id = b""
        self.request_ids: list[bytes] = []
        self.ask: m.Ask | None = None
        self.actor = ""
        self.market = ""
        self.answer: m.Answer | None = None
        self.unknown = False


class Judge(Protocol):
    """Who is told what clients see, and knows what is durable."""

    gateways: list[Gateway]

    def usable(self, names: Names) -> None:
        """A gateway uses this copy of the catalog."""

    def sending(self, operation: Operation) -> None:
        """An attempt is about to be sent."""

    def unavailable(self, operation: Operation) -> None:
        """An attempt was answered with code 3."""

    def answered(self, operation: Operation) -> None:
        """An operation is closed."""


class Client:
    """Issues operations through any gateway, and sends again what may be sent again."""

    def __init__(self, world: World, judge: Judge) -> None:
        self.world = world
        self.open: dict[int, Operation] = {}
        self.closed: list[Operation] = []
        self._judge = judge
        self._offset_us = world.between(-world.skew_us, world.skew_us)

    def start(self, operation: Operation) -> None:
        """Begin an operation."""
        self.open[operation.number] = operation
        self.attempt(operation)

    def attempt(self, operation: Operation) -> None:
        """Send the operation through some gateway."""
        if operation.number not in self.open:
            return
        world = self.world
        gateway = world.random.choice(self._judge.gateways)
        names = gateway.names() if gateway.up else None
        if names is None:
            world.at(RETRY_US, lambda: self.attempt(operation))
            return
        self._judge.usable(names)
        if operation.ask is None or not operation.stamped or not is_command(operation.ask):
            operation.tries += 1
            operation.request_id = b"%08d%08d" % (operation.number, operation.tries)
            operation.request_ids.append(operation.request_id)
            built = operation.build(names, operation.request_id)
            if built is None:
                self._close(operation)
                return
            operation.actor, operation.ask = built
            if operation.stamped and is_command(operation.ask):
                stamp_ms = (world.now_us + self._offset_us) // 1000
                operation.ask = msgspec.structs.replace(operation.ask, stamp_ms=stamp_ms)
            operation.market = _name_of(names, operation.actor)
        else:
            actor = _actor_now(names, operation)
            if actor is None:
                world.counts["market renamed before a resend"] += 1
                operation.answer = Refused(Reason.ORDER_MARKET_NOT_FOUND)
                self._close(operation)
                return
            operation.actor = actor
        self._judge.sending(operation)
        operation.attempt += 1
        attempt = operation.attempt
        patience_us = CLIENT_PATIENCE_US
        if operation.stamped and world.strikes("client impatient", 0.15):
            patience_us = world.between(10, 200) * MS
        world.at(patience_us, lambda: self._lost(operation, attempt))
        gateway.ask(operation.actor, operation.ask, lambda a: self._hear(operation, attempt, a))

    def _hear(self, operation: Operation, attempt: int, answer: m.Answer) -> None:
        if operation.number not in self.open or operation.attempt != attempt:
            return
        reason = answer.reason if type(answer) is Refused else None
        if reason == Reason.SERVICE_TIMEOUT:
            self._lost(operation, attempt)
        elif reason == Reason.SERVICE_UNAVAILABLE:
            self.world.counts["answered unavailable"] += 1
            self._judge.unavailable(operation)
            operation.attempt += 1
            self.world.at(RETRY_US, lambda: self.attempt(operation))
        else:
            operation.answer = answer
            self._close(operation)

    def _lost(self, operation: Operation, attempt: int) -> None:
        """No answer, or one that does not know: only a stamped request may be sent again."""
        if operation.number not in self.open or operation.attempt != attempt:
            return
        self.world.counts["answer lost or unknown"] += 1
        operation.unknown = True
        operation.attempt += 1
        if operation.stamped:
            self.attempt(operation)
        else:
            self._close(operation)

    def _close(self, operation: Operation) -> None:
        del self.open[operation.number]
        self.closed.append(operation)
        self._judge.answered(operation)
        executed = operation.answer is not None and type(operation.answer) is not Refused
        if not (executed and operation.stamped and is_command(operation.ask)):
            return
        if self.world.strikes("stamped request replayed", 0.1):
            self.world.at(self.world.between(1, 2_500) * MS, lambda: self._replay(operation))

    def _replay(self, operation: Operation) -> None:
        """Somebody sends the very request once more: it is told what was told, or refused."""
        gateway = self.world.random.choice(self._judge.gateways)
        ask = operation.ask
        names = gateway.names() if gateway.up else None
        actor = _actor_now(names, operation) if names is not None else None
        if actor is None:
            return
        assert ask is not None

        def heard(answer: m.Answer) -> None:
            if type(answer) is not Refused and answer != operation.answer:
                raise Violation(f"{ask} was told {operation.answer}, and then {answer}")

        gateway.ask(actor, ask, heard)


def _actor_now(names: Names, operation: Operation) -> str | None:
    """To whom a request goes that was sent before: a market is found by its name, or not."""
    if not operation.market:
        return operation.actor
    listing = names.market_by_name.get(operation.market)
    return f"market-{listing.market_no}" if listing is not None else None


def _name_of(names: Names, actor: str) -> str:
    """What the market of this actor is called, "" for another actor."""
    kind, _, number = actor.partition("-")
    return names.market_by_no[int(number)].name if kind == "market" else ""


def is_command(ask: m.Ask | None) -> bool:
    """Whether an operation changes something."""
    return ask is not None and isinstance(ask, c.Command)
