"""A whole exchange in one event loop: real shells, desks and façade over a network in memory.

Separate because the tests of shells, façade and compactor all start from it.  Disks outlive the
shells; `kill` ends one as a crash does.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from excore_ray.actors.catalog import open_catalog
from excore_ray.actors.clock import SteadyClock
from excore_ray.actors.ledger import open_ledger
from excore_ray.actors.market import open_market
from excore_ray.actors.shell import Around, Shell, ShellSettings
from excore_ray.actors.wire import Endpoint, Handler, Limits, Link
from excore_ray.actors.wire_memory import MemoryNetwork
from excore_ray.actors.wire_server import Server
from excore_ray.actors.wiring import new_gateway_name
from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.custodian import CustodianLimits, market_name
from excore_ray.core.ledger import Ledger
from excore_ray.core.market import Market
from excore_ray.core.reasons import Refused
from excore_ray.core.registrar import RegistrarLimits
from excore_ray.core.routing import RouterLimits
from excore_ray.core.shardlink import SequencerLimits, shard_name
from excore_ray.errors import WireClosed
from excore_ray.exchange import Exchange, ExchangeSettings
from excore_ray.storage.journal import Journal
from excore_ray.storage.memory import MemoryDisk, open_memory

SECRET = b"the secret of the test cluster.."
SHARDS = 2
STOCK, MONEY = 1, 2
WIRE = Limits(handshake_timeout_ms=300, linger_timeout_ms=200, redial_max_ms=50)
SELL, BUY = 1, 2


class MemoryWiring:
    """Wiring over a network in memory and a table of who serves where."""

    def __init__(self, name: str, network: MemoryNetwork, endpoints: dict[str, Endpoint]) -> None:
        self.name = name
        self._network = network
        self._endpoints = endpoints

    def link(self, handler: Handler, peer: str) -> Link:
        async def resolve() -> Endpoint:
            if peer not in self._endpoints:
                raise WireClosed(f"{peer} serves nowhere")
            return self._endpoints[peer]

        return self._network.link(
            handler, name=self.name, peer=peer, secret=SECRET, resolve=resolve, limits=WIRE
        )

    async def serve(self, handler: Handler) -> Server:
        server = await self._network.serve(handler, name=self.name, secret=SECRET, limits=WIRE)
        self._endpoints[self.name] = server.endpoint
        return server


class Town:
    """The catalog, the shards, the markets the catalog starts, and one façade.

    ends: (actor, exit code) of every process that ended itself.  wrap: what stands between a
    shell and its journal, to break it on purpose.
    """

    def __init__(self, settings: ShellSettings | None = None) -> None:
        self.network = MemoryNetwork()
        self.endpoints: dict[str, Endpoint] = {}
        self.disks: dict[str, MemoryDisk] = {}
        self.shells: dict[str, Shell] = {}
        self.ends: list[tuple[str, int]] = []
        self.wrap: Callable[[str, Journal], Journal] = lambda name, journal: journal
        self.settings = settings or ShellSettings(idle_ms=50, busy_ms=5)
        self.sequencer = SequencerLimits(resend_us=50_000, heartbeat_us=100_000)
        self.exchange = self.new_exchange()
        self._numbers = iter(range(1, 1_000_000))

    def new_exchange(self) -> Exchange:
        wiring = MemoryWiring(new_gateway_name(), self.network, self.endpoints)
        limits = RouterLimits(deadline_us=5_000_000, resend_us=200_000)
        settings = ExchangeSettings(limits=limits, renew_us=30_000, tick_ms=10)
        return Exchange(wiring, SteadyClock(), settings)

    async def open(self, name: str, create: c.CreateMarket | None = None) -> Shell:
        """Start an actor on its disk."""
        disk = self.disks.setdefault(name, MemoryDisk(name))
        journal = self.wrap(name, open_memory(disk))
        wiring = MemoryWiring(name, self.network, self.endpoints)
        around = Around(wiring, SteadyClock(), functools.partial(self._end, name), self.settings)
        shell: Shell
        if name == "catalog":
            limits = RegistrarLimits(lease_us=100_000, slack_us=10_000)
            opening = c.CreateCatalog(SHARDS)
            shell = await open_catalog(opening, limits, journal, around, self._start_market)
        elif create is not None:
            shell = await open_market(create, self.sequencer, journal, around)
        else:
            shard = c.CreateShard(int(name.partition("-")[2]), SHARDS)
            shell = await open_ledger(shard, CustodianLimits(), journal, around)
        self.shells[name] = shell
        return shell

    async def open_all(self) -> None:
        await self.open("catalog")
        for shard in range(SHARDS):
            await self.open(shard_name(shard))
        self.exchange.start()

    async def close(self) -> None:
        """Close everything as an operator does, and check the books."""
        await self.exchange.close(1)
        for name in sorted(self.shells, key=lambda name: (not name.startswith("market"), name)):
            await self.shells[name].stop(1)
        self.check()

    def kill(self, name: str) -> None:
        """End an actor as a crash does: at once, and without a word."""
        shell = self.shells.pop(name)
        assert shell.task is not None
        shell.task.cancel()
        del self.endpoints[name]
        self.network.cut(server=name)
        self.network.cut(client=name)
        assert shell._server is not None
        shell._server.close()
        closing = asyncio.create_task(shell.hang_up())
        closing.add_done_callback(lambda done: done.result())

    async def restart(self, name: str) -> Shell:
        """Kill an actor, if it lives, and start its next incarnation."""
        create = None
        if name in self.shells:
            machine = self.shells[name].machine
            if isinstance(machine, Market):
                create = c.CreateMarket(machine.rules, machine.shards)
            self.kill(name)
        return await self.open(name, create)

    async def _start_market(self, create: c.CreateMarket) -> None:
        name = market_name(create.rules.market_no)
        if name not in self.shells:
            await self.open(name, create)

    def _end(self, name: str, code: int) -> None:
        self.ends.append((name, code))

    # What people ask of it.

    async def add_market(self) -> None:
        """Two assets and the market between them, whole numbers everywhere."""
        exchange = self.exchange
        for asset in ("STOCK", "MONEY"):
            ask = c.AddAsset(exchange.new_request_id(), 0, asset, 4, 4, "")
            expect_done(await exchange.ask_catalog(ask))
        market = ("S/M", "STOCK", 0, "MONEY", 0, 1, "")
        ask_market = c.AddMarket(exchange.new_request_id(), 0, *market)
        expect_done(await exchange.ask_catalog(ask_market))

    async def pay_in(self, users: Sequence[int], amount: int = 10**9) -> None:
        """Give each user of both assets; amount in whole units."""
        updates = [self.update(user, asset, amount) for user in users for asset in (STOCK, MONEY)]
        for answer in await asyncio.gather(
            *(self.exchange.ask_shard(update.user, update) for update in updates)
        ):
            expect_done(answer)

    def update(self, user: int, asset: int, amount: int) -> c.Update:
        request_id, number = self.exchange.new_request_id(), next(self._numbers)
        return c.Update(
            request_id, 0, user, asset, "deposit", number, amount * 10**4, "{}", False, 10**40
        )

    def put(self, user: int, side: int, amount: int, price: int) -> asyncio.Future[m.Answer]:
        put = c.PutLimit(
            self.exchange.new_request_id(), 0, user, side, amount, price, 10, 5, 0, 0, ""
        )
        return self.exchange.ask_market(1, put)

    def cancel_all(self, user: int) -> asyncio.Future[m.Answer]:
        cancel = c.Cancel(self.exchange.new_request_id(), 0, user, 0)
        return self.exchange.ask_market(1, cancel)

    def check(self) -> None:
        """Nothing was made and nothing was lost, as far as the shells that live can say."""
        machines = [shell.machine for shell in self.shells.values()]
        ledgers = [machine for machine in machines if isinstance(machine, Ledger)]
        received: dict[int, int] = {}
        for ledger in ledgers:
            sums: dict[int, int] = {}
            for accounts in ledger.accounts.values():
                for asset, account in accounts.items():
                    assert account.available >= 0
                    sums[asset] = sums.get(asset, 0) + account.available + account.frozen
            for asset, total in sums.items():
                came = ledger.updates.get(asset, 0) + ledger.received.get(asset, 0)
                assert total + ledger.fees.get(asset, 0) == came
                received[asset] = received.get(asset, 0) + ledger.received.get(asset, 0)
        if len(ledgers) == SHARDS and not self.ends:
            assert not any(received.values()), "assets were made or lost between the shards"


def expect_done(answer: m.Answer) -> None:
    assert type(answer) is m.Done, answer


def expect_placed(answer: m.Answer) -> m.Placed:
    assert type(answer) is m.Placed, answer
    return answer


def is_refused(answer: m.Answer) -> bool:
    return type(answer) is Refused


def play(scenario: Callable[[Town], Coroutine[Any, Any, None]], town: type[Town] = Town) -> None:
    """Run a scenario in a town of its own, and see that nothing is left behind."""

    async def main() -> None:
        seen: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
        await scenario(town())
        for _ in range(50):
            await asyncio.sleep(0.001)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left behind: {left}"
        assert not seen, seen

    asyncio.run(main())
