"""A town that is struck at one exact point of the protocol, and what must be true of it afterwards.

Separate because the points are a table: each names a record, and whether it has landed when the
blow comes.  The blow comes from inside the journal, where the process stands at that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from excore_ray.actors.shell import Shell
from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.audit import check_conservation, check_holds, check_ledger, check_market
from excore_ray.core.ledger import Ledger
from excore_ray.core.market import Market
from excore_ray.core.reasons import Reason, Refused
from excore_ray.storage.journal import Journal
from tests.actors.shell_faults import FaultyJournal, FaultyTown, commands
from tests.actors.shell_world import BUY, MONEY, SELL, STOCK, expect_placed
from tests.actors.wire_world import until

SELLER, BUYER = 1, 2  # one at each shard
RICH = 10**9
AMOUNT, PRICE = 3, 100
DECODE = {
    "market": msgspec.json.Decoder(c.MarketRecord).decode,
    "ledger": msgspec.json.Decoder(c.LedgerRecord).decode,
    "catalog": msgspec.json.Decoder(c.CatalogRecord).decode,
}


class Point(NamedTuple):
    """Where the blow comes: at the append of a stream's first record with such a command.

    kind: of the command; None for the first time anything leaves without a record.
    landed: whether the record is durable by then.  victims: who is killed.
    """

    stream: str
    kind: type | None
    landed: bool
    victims: tuple[str, ...]


class StruckJournal(FaultyJournal):
    """The journal of an actor in a struck town."""

    def __init__(self, town: StruckTown, name: str, journal: Journal) -> None:
        super().__init__(journal)
        self._town = town
        self._decode = DECODE[name.partition("-")[0]]

    async def append(
        self, seq: int, epoch: int, bodies: Sequence[bytes], keys: Sequence[bytes]
    ) -> None:
        point = self._town.point
        hit = (
            point is not None and point.stream == self.stream and point.kind in self._kinds(bodies)
        )
        if hit and point is not None and not point.landed:
            self._town.in_flight = (self.stream, seq, epoch, list(bodies), list(keys))
            await self._town.strike(self.stream)
        await super().append(seq, epoch, bodies, keys)
        if hit and point is not None and point.landed:
            await self._town.strike(self.stream)

    async def check_owner(self) -> None:
        point = self._town.point
        if point is not None and (point.stream, point.kind) == (self.stream, None):
            await self._town.strike(self.stream)
        await super().check_owner()

    def _kinds(self, bodies: Sequence[bytes]) -> set[type]:
        return {type(command) for body in bodies for command in self._decode(body).commands}


class StruckTown(FaultyTown):
    """A town with one market, a seller's order in its book, and a point that is armed.

    in_flight: the append that had not landed when the blow came.  zombie: an incarnation that
    lives on beside its successor, until it ends itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.point: Point | None = None
        self.struck: Point | None = None
        self.in_flight: tuple[str, int, int, list[bytes], list[bytes]] | None = None
        self.zombie: Shell | None = None
        self._creates: dict[str, c.CreateMarket] = {}

    def _wrap(self, name: str, journal: Journal) -> Journal:
        found = self.faulty[name] = StruckJournal(self, name, journal)
        return found

    async def open(self, name: str, create: c.CreateMarket | None = None) -> Shell:
        if create is not None:
            self._creates[name] = create
        return await super().open(name, self._creates.get(name))

    async def outlive(self, name: str) -> None:
        """Start the next incarnation of an actor that does not end for it."""
        self.zombie = self.shells[name]
        await self.open(name)

    def _end(self, name: str, code: int) -> None:
        """A process has ended itself: with it go its connections."""
        super()._end(name, code)
        if self.zombie is not None:
            self.network.cut(server=name)
            burial = asyncio.get_running_loop().create_task(_bury(self.zombie))
            burial.add_done_callback(lambda done: done.result())
            self.zombie = None

    async def strike(self, stream: str) -> None:
        """Kill the victims; whoever stands in this journal and is one of them never returns."""
        point, self.point = self.point, None
        assert point is not None
        self.struck = point
        for victim in point.victims:
            self.kill(victim)
        if stream in point.victims:
            await asyncio.Event().wait()

    async def prepare(self) -> None:
        """Open everything, and rest the seller's order."""
        await self.ready()
        expect_placed(await self.put(SELLER, SELL, AMOUNT, PRICE))
        await self.rest()

    async def rest(self) -> None:
        """Return when nothing is under way."""
        await until(lambda: not any(shell.desk.busy for shell in self.shells.values()))

    async def revive(self) -> None:
        """Start the next incarnations of all victims, once the blow has come."""
        await until(lambda: self.struck is not None)
        assert self.struck is not None
        for victim in self.struck.victims:
            await self.open(victim)

    def purchase(self) -> c.PutLimit:
        """An order that takes the seller's whole, as a client with TIMESTAMP would send it."""
        request_id = self.exchange.new_request_id()
        now_ms = self.shells["catalog"].around.clock.now_us() // 1000
        return c.PutLimit(request_id, now_ms, BUYER, BUY, AMOUNT, PRICE + 1, 0, 0, 0, 0, "purchase")

    async def insist(self, ask: m.Ask) -> m.Answer:
        """Ask until nobody says any more that nothing was done, or that nobody knows."""
        while True:
            answer = await self.exchange.ask_market(1, ask)
            unsure = (Reason.SERVICE_UNAVAILABLE, Reason.SERVICE_TIMEOUT)
            if type(answer) is not Refused or answer.reason not in unsure:
                return answer

    async def check_bought(self, put: c.PutLimit) -> None:
        """The purchase has happened exactly once, everywhere, and is answered as it was."""
        placed = expect_placed(await self.insist(put))
        assert (placed.left, placed.deal_stock, placed.deal_money) == (0, AMOUNT, AMOUNT * PRICE)
        await self.rest()
        places = [
            command
            for record in commands(self.shells["market-1"], c.MarketRecord)
            for command in record
            if type(command) is c.Place and command.put.request_id == put.request_id
        ]
        assert [place.order_id for place in places] == [placed.order_id]
        fee = AMOUNT * PRICE * 10**4 * 5 // 10_000  # the seller's, as maker
        assert await self._accounts(SELLER) == (
            (RICH - AMOUNT) * 10**4,
            (RICH + AMOUNT * PRICE) * 10**4 - fee,
        )
        assert await self._accounts(BUYER) == (
            (RICH + AMOUNT) * 10**4,
            (RICH - AMOUNT * PRICE) * 10**4,
        )
        await self.settle()

    async def settle(self) -> None:
        """Close everything; the books balance, and every hold is an open order's."""
        await self.close()
        machines: list[Any] = [shell.machine for shell in self.shells.values()]
        markets = [machine for machine in machines if isinstance(machine, Market)]
        ledgers = [machine for machine in machines if isinstance(machine, Ledger)]
        for market in markets:
            check_market(market)
            check_holds(market, ledgers)
        for ledger in ledgers:
            check_ledger(ledger)
        check_conservation(markets, ledgers)

    async def _accounts(self, user: int) -> tuple[int, int]:
        """What a user has of stock and money; nothing of it is frozen."""
        answer = await self.exchange.ask_shard(user, m.AskAccounts(user, [STOCK, MONEY]))
        assert type(answer) is m.Accounts
        assert [account.frozen for account in answer.accounts] == [0, 0]
        stock, money = (account.available for account in answer.accounts)
        return stock, money


async def _bury(shell: Shell) -> None:
    await shell.hang_up()
    assert shell._server is not None
    shell._server.close()
    await shell._server.wait_closed()
