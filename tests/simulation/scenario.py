"""One seeded run from an empty exchange to rest, and what its clients wish for."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.names import Names
from excore_ray.core.orders import market_no_of
from excore_ray.core.reasons import Refused
from excore_ray.core.sharding import shard_of
from excore_ray.core.shardlink import shard_name
from tests.simulation.checks import check_at_rest
from tests.simulation.exchange import SHARDS, Exchange
from tests.simulation.funds import Funds
from tests.simulation.gateways import Operation
from tests.simulation.nemesis import Nemesis
from tests.simulation.world import MS, Violation, World

USERS = 8
PREC = 6
NET_MAX = 10**18 * 10**PREC // SHARDS
Build = Callable[[Names, bytes], tuple[str, m.Ask] | None]


class Scenario:
    """A world, an exchange, and clients who trade, move money, rename and look."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        self.exchange = Exchange(self.world, self._heard)
        self._seen: dict[bytes, list[tuple[int, int]]] = {}  # what a read may answer
        self._reads: dict[bytes, tuple[str, int, int]] = {}  # reads under way
        self.exchange.on_landed = self._watch
        self.funds = Funds(self.exchange)
        self.exchange.on_command = self.funds.executed
        self.exchange.on_sending = self._sending
        self.nemesis = Nemesis(self.exchange)
        self.placed: list[tuple[int, int, int]] = []  # user, market_no, order_id
        self._number = 0
        self._business = 0
        self._keys: list[tuple[int, int, str]] = []  # user, asset, business
        self._issuing = False
        self._label = 0
        self._former: dict[int, str] = {}  # what a market was called, by its number
        self._spent = 0
        # Poor users are refused for want of funds, and soon after have them.
        self._wealth = self.world.random.choice((50, 150, 3_000)) * 10**PREC

    def run(self, steps: int) -> None:
        """Set up without faults, issue `steps` operations among faults, heal, and check."""
        world = self.world
        self._set_up()
        world.faults = True
        self._issuing = True
        self._issue(steps)
        while self._issuing:
            world.run(50 * MS)
        self.exchange.heal()
        if world.ancient:
            for _ in range(10):
                # Only records forget results, and there are none where nobody wishes for anything.
                self._start(self._wish(world.random), stamped=False)
                world.run(250 * MS)
            self.exchange.heal()
        self._read_balances()
        check_at_rest(self.exchange)
        world.run(100 * MS)
        self._count()

    def _set_up(self) -> None:
        for build in self._definitions():
            self._start(build, stamped=True)
            self._wait()
        for build in self._deposits():
            self._start(build, stamped=True)
        self._wait()

    def _definitions(self) -> Iterator[Build]:
        for name in ("GOLD", "SILVER", "COIN"):
            yield lambda n, i, a=name: ("catalog", c.AddAsset(i, 0, a, PREC, PREC, ""))
        for stock in ("GOLD", "SILVER"):
            yield lambda n, i, s=stock: (
                "catalog",
                c.AddMarket(i, 0, f"{s}_COIN", s, 1, "COIN", 1, 2, ""),
            )

    def _deposits(self) -> Iterator[Build]:
        for user in range(1, USERS + 1):
            for asset in (1, 2, 3):
                yield self._update(user, asset, self._wealth, force=False)

    def _wait(self) -> None:
        for _ in range(2_000):
            if not self.exchange.client.open:
                return
            self.world.run(MS)
        raise Violation("the exchange does not come up")

    def _start(self, build: Build, stamped: bool) -> Operation:
        self._number += 1
        operation = Operation(self._number, stamped, build)
        self.exchange.client.start(operation)
        return operation

    def _issue(self, left: int) -> None:
        if not left:
            self._issuing = False
            return
        chance = self.world.random
        for _ in range(chance.choice((1, 1, 1, 4))):
            build = self._wish(chance)
            self._start(build, stamped=chance.random() < 0.5)
        self.world.at(chance.randint(MS // 2, 8 * MS), lambda: self._issue(left - 1))

    def _wish(self, chance: random.Random) -> Build:
        user = chance.randint(1, USERS)
        market_no = chance.randint(1, 2)
        draw = chance.random()
        if draw > 0.85 and self.world.restless:
            return self._rename(market_no, market=chance.random() < 0.5)
        if draw < 0.12:
            big = chance.random() < 0.2
            change = chance.randint(-4_000 if big else -50, 200) * 10**PREC
            return self._update(user, chance.randint(1, 3), change, chance.random() < 0.2)
        if draw < 0.20:
            return self._cancel_all(user, market_no)
        if draw < 0.34 and self.placed:
            return self._cancel(*chance.choice(self.placed))
        if draw < 0.36:
            return self._rename(market_no, market=chance.random() < 0.5)
        if draw < 0.42:
            return self._look(user, chance.randint(1, 3))
        if draw < 0.52:
            return self._put_market(user, market_no, chance)
        return self._put_limit(user, market_no, chance)

    def _put_limit(self, user: int, market_no: int, chance: random.Random) -> Build:
        side, price = chance.randint(1, 2), chance.randint(95, 105)
        amount = chance.choice((1, 2, 10, 37, 55, 500_000))
        referrer = chance.choice((0, 0, chance.randint(1, USERS)))
        rate = chance.choice((0, 3_333, 10_000)) if referrer else 0
        fees = chance.choice(((0, 0), (20, 10), (1_333, 777)))

        def build(names: Names, request_id: bytes) -> tuple[str, m.Ask] | None:
            put = c.PutLimit(request_id, 0, user, side, amount, price, *fees, referrer, rate, "sim")
            return f"market-{market_no}", put

        return build

    def _put_market(self, user: int, market_no: int, chance: random.Random) -> Build:
        side = chance.randint(1, 2)
        # Each amount is used once, so that the hold of such an order can be told by it.
        self._spent += 1
        amount = self._spent * (100 if side == 2 else 1) + (self._spent % 7) * 1_000 * (side == 2)

        def build(names: Names, request_id: bytes) -> tuple[str, m.Ask] | None:
            put = c.PutMarket(request_id, 0, user, side, amount, 20, "sim")
            return f"market-{market_no}", put

        return build

    def _cancel(self, user: int, market_no: int, order_id: int) -> Build:
        return lambda n, i: (f"market-{market_no}", c.Cancel(i, 0, user, order_id))

    def _cancel_all(self, user: int, market_no: int) -> Build:
        return lambda n, i: (f"market-{market_no}", c.Cancel(i, 0, user, 0))

    def _update(self, user: int, asset: int, change: int, force: bool) -> Build:
        self._business += 1
        business = f"b{self._business}"
        # Now and then a key is used again, which must be refused for ever.
        if len(self._keys) > 30 and self.world.random.random() < 0.2:
            self.world.counts["dedupe key used again"] += 1
            user, asset, business = self.world.random.choice(self._keys)
        self._keys.append((user, asset, business))
        actor = shard_name(shard_of(user, SHARDS))

        def build(names: Names, request_id: bytes) -> tuple[str, m.Ask] | None:
            update = c.Update(request_id, 0, user, asset, business, 1, change, "{}", force, NET_MAX)
            return actor, update

        return build

    def _rename(self, number: int, market: bool) -> Build:
        self._label += 1
        label = f"L{self._label}"
        swaps = market and self.world.restless and self.world.random.random() < 0.5

        def build(names: Names, request_id: bytes) -> tuple[str, m.Ask] | None:
            if market:
                old = names.market_by_no[number].name
                self._former[number] = old
                # Maybe what the other market was called a moment ago.
                new = self._former.get(3 - number, label) if swaps else label
                return "catalog", c.RenameMarket(request_id, 0, old, new)
            old = names.asset_by_id[number].name
            return "catalog", c.RenameAsset(request_id, 0, old, label)

        return build

    def _look(self, user: int, asset: int) -> Build:
        actor = shard_name(shard_of(user, SHARDS))

        def build(names: Names, request_id: bytes) -> tuple[str, m.Ask] | None:
            self._seen[request_id] = [self._durable(actor, user, asset)]
            self._reads[request_id] = (actor, user, asset)
            return actor, m.AskAccounts(user, [asset])

        return build

    def _durable(self, actor: str, user: int, asset: int) -> tuple[int, int]:
        account = self.exchange.shadows[actor].accounts.get(user, {}).get(asset)
        return (account.available, account.frozen) if account is not None else (0, 0)

    def _heard(self, operation: Operation) -> None:
        """Remember orders to cancel; hold a balance against what was durable all the while."""
        ask, answer = operation.ask, operation.answer
        if type(answer) is m.Placed:
            assert type(ask) is c.PutLimit or type(ask) is c.PutMarket
            market_no = market_no_of(answer.order_id)
            self.placed.append((ask.user, market_no, answer.order_id))
        self.funds.end(operation, answer.reason if type(answer) is Refused else None)
        if type(ask) is not m.AskAccounts or type(answer) is not m.Accounts:
            return
        del self._reads[operation.request_id]
        seen = self._seen.pop(operation.request_id)
        told = [(account.available, account.frozen) for account in answer.accounts] or [(0, 0)]
        if told[0] not in seen:
            raise Violation(f"{ask} was answered {told}, durable was {seen}")

    def _sending(self, operation: Operation) -> None:
        ask = operation.ask
        if type(ask) is c.PutLimit or type(ask) is c.PutMarket:
            self.funds.begin(operation, ask, int(operation.actor.partition("-")[2]))

    def _watch(self, stream: str) -> None:
        """A record landed: reads under way may answer the state before it or after it."""
        for request_id, (actor, user, asset) in self._reads.items():
            if actor == stream:
                self._seen[request_id].append(self._durable(actor, user, asset))

    def _read_balances(self) -> None:
        """At rest, every balance told must be the durable one."""
        for user in range(1, USERS + 1):
            self._start(self._look(user, 1), stamped=False)
        self.exchange.heal()

    def _count(self) -> None:
        counts = self.world.counts
        for operation in self.exchange.client.closed:
            refused = type(operation.answer) is Refused
            counts["refused" if refused else "answered"] += 1
        for stream, shadow in self.exchange.shadows.items():
            if stream.startswith("market"):
                counts["deals"] += shadow.last_deal_id
