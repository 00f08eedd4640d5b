"""A small drill without faults: a whole exchange in one event loop, asked through the real API.

Separate because every test of the checker begins with a history in which nothing is wrong, and
plants one thing.  What the archive would answer is made from the journals.
"""

from __future__ import annotations

import asyncio
import copy
import time
from hashlib import sha256
from typing import Any

import msgspec

from api.allowance import Allowance, Purse
from api.auth import ALL_SCOPES
from api.calls import Caller
from api.rpc import Envelope, respond
from excore_ray.actors.clock import SteadyClock
from excore_ray.actors.plan import RequestLimits
from excore_ray.core.commands import REQUEST_ID_BYTES
from excore_ray.drill.check_reads import watched
from excore_ray.drill.clients import BUSINESS
from excore_ray.drill.history import DONE, REFUSED, History, Operation
from excore_ray.drill.journals import Journals, replayed
from excore_ray.drill.run import compare
from excore_ray.drill.verdict import Violation
from excore_ray.storage.memory import MemoryDisk, open_memory
from tests.actors.shell_world import Town

SELLER, BUYER, REFERRER = 1, 2, 3
MARKET = "AAA_USD"
SELL, BUY = 1, 2


class Story:
    """What one client did, in its order.  disks: the journals it led to."""

    def __init__(self, town: Town) -> None:
        self.history = History()
        self._town = town
        self._clock = SteadyClock()
        self._purse = Purse(Allowance(RequestLimits(), time.monotonic_ns), "")

    async def ask(
        self, method: str, *params: Any, stamped: bool = True, number: int = 0
    ) -> Operation:
        """One request through the API, on top of the real machines."""
        number = number or self.history.number()
        body = msgspec.json.encode(Envelope(number, method, list(params)))
        caller = Caller(ALL_SCOPES)
        operation = Operation(number, 0, method, list(params), self._clock.now_us(), sends=1)
        if stamped:
            origin = b"story\n%d\n" % number
            caller = Caller(ALL_SCOPES, origin, time.time_ns() // 1_000_000)
            request_id = sha256(origin + b"0").digest()[:REQUEST_ID_BYTES]
            operation.request_id = request_id.hex()
        _, answer = await respond(self._town.exchange, caller, self._purse, body)
        reply = msgspec.json.decode(answer)
        if reply["error"] is None:
            operation.outcome, operation.result = DONE, reply["result"]
        else:
            operation.outcome, operation.code = REFUSED, reply["error"]["code"]
        operation.ended_us = self._clock.now_us()
        self.history.add(operation)
        return operation

    async def put(self, user: int, side: int, amount: str, price: str, **how: Any) -> Operation:
        """A limit order; every seller names a referrer."""
        number = self.history.number()
        referral = (REFERRER, "0.3") if side == SELL else (None, None)
        order = (user, MARKET, side, amount, price, "0.002", "0.001", *referral)
        return await self.ask("order.put_limit", *order, f"drill-{number}", number=number, **how)

    async def update(self, user: int, asset: str, change: str, **how: Any) -> Operation:
        """A change of a balance."""
        number = self.history.number()
        params = (user, asset, BUSINESS, number, change, {})
        return await self.ask("balance.update", *params, number=number, **how)


async def _tell(story: Story) -> None:
    for asset in ("AAA", "USD", "N0"):
        await story.ask("asset.add", asset, 12, 12, "")
    await story.ask("market.add", MARKET, "AAA", 4, "USD", 4, "0.5", "")
    await story.ask("balance.query", SELLER)
    for user in (SELLER, BUYER):
        for asset in ("AAA", "USD"):
            await story.update(user, asset, "1000", stamped=user == SELLER)
    await story.ask("balance.query", SELLER)
    for price in ("10", "11", "12"):
        await story.put(SELLER, SELL, "2", price)
    await story.put(BUYER, BUY, "3", "11")
    await story.put(BUYER, BUY, "1", "9.5", stamped=False)
    number = story.history.number()
    spent = (BUYER, MARKET, BUY, "6", "0.002", f"drill-{number}")
    await story.ask("order.put_market", *spent, number=number)
    await story.put(BUYER, BUY, "100000", "1000")  # more than there is
    for user in (SELLER, BUYER):
        await story.ask("balance.query", user)
        await story.ask("order.pending", user, MARKET, 0, 100)
    await story.ask("order.depth", MARKET, 10, "0")
    await story.ask("asset.rename", "N0", "N0_1")
    await story.ask("asset.list", 0, 1000)
    pending = await story.ask("order.pending", BUYER, MARKET, 0, 100)
    order_id = pending.result["records"][0]["id"]
    await story.ask("order.cancel", BUYER, MARKET, order_id, stamped=False)
    await story.ask("order.cancel", BUYER, MARKET, order_id)
    await story.ask("order.cancel", SELLER, MARKET)
    for user in (SELLER, BUYER):
        await story.ask("balance.query", user)
        await story.ask("order.pending", user, MARKET, 0, 100)


def told() -> tuple[list[Operation], dict[str, MemoryDisk]]:
    """The operations of a story and the disks of its exchange, at rest."""
    found: list[Any] = []

    async def scene() -> None:
        town = Town()
        await town.open_all()
        story = Story(town)
        await _tell(story)
        await town.close()
        found.extend((story.history.operations, town.disks))

    asyncio.run(scene())
    operations, disks = found
    return operations, disks


class Scene:
    """A history and its journals, to plant something in: both are the test's own."""

    def __init__(self, operations: list[Operation], disks: dict[str, MemoryDisk]) -> None:
        self.operations = copy.deepcopy(operations)
        readers = [open_memory(disk) for disk in disks.values()]
        self.journals: Journals = replayed(readers, watched(operations))

    def of(self, method: str, outcome: str = DONE) -> list[Operation]:
        """The operations of one method with one outcome, in their order."""
        return [o for o in self.operations if (o.method, o.outcome) == (method, outcome)]

    def add(self, like: Operation, method: str, params: list[Any], result: Any) -> Operation:
        """One more read, after everything else."""
        number = max(o.number for o in self.operations) + 1
        last_us = max(o.ended_us for o in self.operations)
        span = (last_us + 1_000_000, last_us + 1_001_000)
        added = Operation(number, like.client, method, params, *span, DONE, 0, result)
        self.operations.append(added)
        return added

    def deals(self, first: int, count: int) -> list[dict[str, Any]]:
        """Deals as market.deal_history tells them."""
        market = self.journals.markets[1]
        return [
            {
                "time": deal.time_us / 1e6,
                "id": deal.deal_id,
                "side": deal.side,
                "price": str(deal.price / 10**4),
                "amount": str(deal.amount / 10**4),
                "market": MARKET,
            }
            for deal in market.deals[first : first + count]
        ]

    def violations(self) -> list[Violation]:
        """What the checker says."""
        return compare(self.operations, self.journals).violations

    def promises(self) -> set[str]:
        """Which promises the checker says are broken."""
        return {violation.promise for violation in self.violations()}
