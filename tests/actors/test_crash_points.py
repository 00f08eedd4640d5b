"""Every crash point of the two-phase protocol, reached on purpose, one by one.

An order that takes another is on its way when the blow comes.  Whatever had happened by then, its
client gets one answer in the end, it was executed once, and the books balance.
"""

from __future__ import annotations

import asyncio

import pytest

from excore_ray.actors.shell import EXIT_FENCED
from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.names import Names
from excore_ray.core.orders import order_id_of
from excore_ray.errors import Fenced
from tests.actors.crash_world import (
    AMOUNT,
    BUYER,
    PRICE,
    SELLER,
    Point,
    StruckTown,
)
from tests.actors.shell_faults import Peer, commands
from tests.actors.shell_world import SELL, STOCK, expect_done, expect_placed, play
from tests.actors.wire_world import until

MARKET, OTHERS, OWN = "market-1", "ledger-1", "ledger-0"  # the seller's shard and the buyer's
ALL = (MARKET, OWN, OTHERS, "catalog")

POINTS = {
    "market before it reserves": Point(MARKET, None, False, (MARKET,)),
    "market after it has reserved": Point(OWN, c.Reserve, False, (MARKET,)),
    "market after the grant, before its record": Point(OWN, c.Reserve, True, (MARKET,)),
    "market with its record not landed": Point(MARKET, c.Place, False, (MARKET,)),
    "market after its record, before it settles": Point(MARKET, c.Place, True, (MARKET,)),
    "market after its own shard has settled": Point(OWN, c.Settle, True, (MARKET,)),
    "market after the other shard has settled": Point(OTHERS, c.Settle, True, (MARKET,)),
    "shard before its record of the hold": Point(OWN, c.Reserve, False, (OWN,)),
    "shard after its record of the hold": Point(OWN, c.Reserve, True, (OWN,)),
    "shard before its record of the settlement": Point(OWN, c.Settle, False, (OWN,)),
    "shard after its record of the settlement": Point(OWN, c.Settle, True, (OWN,)),
    "other shard before its record of the settlement": Point(OTHERS, c.Settle, False, (OTHERS,)),
    "other shard after its record of the settlement": Point(OTHERS, c.Settle, True, (OTHERS,)),
    "market and shard at once, hold not landed": Point(OWN, c.Reserve, False, (MARKET, OWN)),
    "market and shard at once, order executed": Point(MARKET, c.Place, True, (MARKET, OWN)),
    "market and shard at once, one shard settled": Point(OWN, c.Settle, True, (OWN, MARKET)),
    "power loss, order executed": Point(MARKET, c.Place, True, ALL),
    "power loss, order not landed": Point(MARKET, c.Place, False, ALL),
    "power loss, one shard settled": Point(OTHERS, c.Settle, True, ALL),
}


@pytest.mark.parametrize("point", POINTS.values(), ids=POINTS)
def test_killed(point: Point) -> None:
    async def scenario(town: StruckTown) -> None:
        await town.prepare()
        town.point = point
        put = town.purchase()
        asked = asyncio.create_task(town.insist(put))
        await town.revive()
        answer = expect_placed(await asked)
        assert answer == await town.insist(put), "asked again, another answer"
        await town.check_bought(put)
        assert town.ends == []

    play(scenario, StruckTown)


@pytest.mark.parametrize("lost", [False, True], ids=["reply on its way", "reply lost"])
def test_market_killed_after_all_have_settled_before_its_reply(lost: bool) -> None:
    async def scenario(town: StruckTown) -> None:
        await town.prepare()
        put = town.purchase()
        market = town.faulty[MARKET]
        asked = asyncio.create_task(town.insist(put))
        # Both shards are done, and nothing of that has left the market yet, or has arrived.
        await until(lambda: settled(town, OWN) > 1 and settled(town, OTHERS) > 1)
        if lost:
            town.network.cut(server=MARKET)
        else:
            town.kill(MARKET)
            await town.open(MARKET)
        assert market.appends
        expect_placed(await asked)
        await town.check_bought(put)

    play(scenario, StruckTown)


@pytest.mark.parametrize("taken", [False, True], ids=["before the put", "after the put"])
def test_gateway_killed(taken: bool) -> None:
    async def scenario(town: StruckTown) -> None:
        await town.prepare()
        put, market = town.purchase(), town.faulty[MARKET]
        dying = town.new_exchange()
        dying.start()
        await dying.fresh_names()
        name = dying._wiring.name
        if taken:
            market.gate.clear()
        else:
            town.network.refuse(client=name)
            town.network.cut(client=name)
        asked = dying.ask_market(1, put)
        if taken:
            begun = len(market.appends)
            await until(lambda: len(market.appends) > begun)
            town.network.cut(client=name)
        asked.cancel()
        await dying.close(0)
        market.gate.set()
        # The client, who has heard nothing, sends the same bytes to another gateway.
        await town.check_bought(put)

    play(scenario, StruckTown)


@pytest.mark.parametrize("stream", [MARKET, OWN, OTHERS])
def test_an_append_that_lands_late_is_fenced_off(stream: str) -> None:
    kind = c.Place if stream == MARKET else c.Settle

    async def scenario(town: StruckTown) -> None:
        await town.prepare()
        town.point = Point(stream, kind, False, (stream,))
        put = town.purchase()
        asked = asyncio.create_task(town.insist(put))
        await town.revive()
        assert town.in_flight is not None
        name, *append = town.in_flight
        # The next incarnation has written its epoch: what its predecessor had under way is void.
        with pytest.raises(Fenced):
            town.disks[name].land(*append)
        expect_placed(await asked)
        await town.check_bought(put)

    play(scenario, StruckTown)


@pytest.mark.parametrize("stream", [MARKET, OWN, OTHERS])
def test_an_append_that_lands_before_the_successor_reads_counts(stream: str) -> None:
    kind = c.Place if stream == MARKET else c.Settle

    async def scenario(town: StruckTown) -> None:
        await town.prepare()
        town.point = Point(stream, kind, False, (stream,))
        put = town.purchase()
        asked = asyncio.create_task(town.insist(put))
        await until(lambda: town.in_flight is not None)
        assert town.in_flight is not None
        name, *append = town.in_flight
        town.disks[name].land(*append)
        await town.revive()
        expect_placed(await asked)
        await town.check_bought(put)

    play(scenario, StruckTown)


@pytest.mark.parametrize("stream", [MARKET, OWN, OTHERS])
def test_a_zombie_says_nothing_more(stream: str) -> None:
    async def scenario(town: StruckTown) -> None:
        await town.prepare()
        zombie = town.shells[stream]
        # It lives on while its successor works; who was connected to it still is.
        await town.outlive(stream)
        put = town.purchase()
        answer = expect_placed(await town.insist(put))
        await until(lambda: town.ends)
        assert set(town.ends) == {(stream, EXIT_FENCED)}
        assert town.shells[stream].machine.epoch == zombie.machine.epoch + 1
        assert answer == await town.insist(put)
        town.ends.clear()
        await town.check_bought(put)

    play(scenario, StruckTown)


def settled(town: StruckTown, stream: str) -> int:
    """How many records with entries of the market a shard has journaled."""
    records = commands(town.shells[stream], c.LedgerRecord)
    return sum(any(type(one) is c.Settle for one in record) for record in records)


def spoken(
    reserves: list[c.Hold], aborts: list[int], entries: list[c.Entry], first: int
) -> m.ToShard:
    """What a market of epoch 1 with nothing decided says to a shard."""
    return m.ToShard(1, 1, 0, reserves, aborts, [], first, entries, (0, 0))


def test_an_abort_does_not_overtake_a_settlement() -> None:
    async def scenario(town: StruckTown) -> None:
        await town.open_all()
        await town.exchange.fresh_names()
        await town.pay_in([BUYER])
        ledger = town.shells[OWN].machine
        market = Peer(town, MARKET, OWN)
        order_id = order_id_of(1, 1)
        hold = c.Hold(order_id, BUYER, STOCK, 50, True)
        await market.say(spoken([hold], [], [c.OpenOrders(1, order_id, [])], 1))
        await until(lambda: any(order_id in heard.granted for heard in market.heard))
        # Entry 2 releases a part of it.  The abort that follows it arrives first.
        late = spoken([], [order_id, 2], [], 2)
        await market.say(late)
        await until(lambda: len(market.heard) > 1)
        assert not any(order_id in heard.aborted for heard in market.heard)
        assert ledger.hold_of(order_id).remaining == 50
        await market.say(spoken([], [], [c.Release(order_id, 20)], 2), late)
        await until(lambda: any(order_id in heard.aborted for heard in market.heard))
        assert ledger.hold_of(order_id) is None
        assert ledger.available(BUYER, STOCK) == 10**9 * 10**4
        await market.link.close()
        await town.close()

    play(scenario, StruckTown)


def test_a_late_duplicate_of_a_reservation_freezes_nothing() -> None:
    async def scenario(town: StruckTown) -> None:
        await town.open_all()
        await town.exchange.fresh_names()
        await town.pay_in([BUYER])
        ledger = town.shells[OWN].machine
        market = Peer(town, MARKET, OWN)
        order_id = order_id_of(1, 1)
        reserve = spoken([c.Hold(order_id, BUYER, STOCK, 50, True)], [], [], 1)
        await market.say(reserve, reserve)
        await until(lambda: sum(heard.granted.count(order_id) for heard in market.heard) >= 2)
        assert ledger.account(BUYER, STOCK).frozen == 50
        await market.say(spoken([], [order_id, 0], [], 1))
        await until(lambda: any(order_id in heard.aborted for heard in market.heard))
        await market.say(reserve)
        await until(lambda: any(order_id in heard.denied for heard in market.heard))
        assert ledger.account(BUYER, STOCK).frozen == 0
        await market.link.close()
        await town.close()

    play(scenario, StruckTown)


@pytest.mark.parametrize("landed", [False, True], ids=["before its record", "after its record"])
def test_catalog_killed_half_way_through_a_rename(landed: bool) -> None:
    async def scenario(town: StruckTown) -> None:
        await town.prepare()
        town.point = Point("catalog", c.RenameAsset, landed, ("catalog",))
        rename = c.RenameAsset(town.exchange.new_request_id(), 0, "STOCK", "SHARE")
        asked = town.exchange.ask_catalog(rename)
        await town.revive()
        expect_done(await asked)
        names = await town.exchange.fresh_names()
        assert isinstance(names, Names)
        assert [asset.name for asset in names.assets] == ["SHARE", "MONEY"]
        renames = [
            command
            for record in commands(town.shells["catalog"], c.CatalogRecord)
            for command in record
            if type(command) is c.RenameAsset
        ]
        assert renames == [rename]
        await town.settle()

    play(scenario, StruckTown)


@pytest.mark.parametrize("landed", [False, True], ids=["before its record", "after its record"])
def test_market_killed_at_a_cancel(landed: bool) -> None:
    async def scenario(town: StruckTown) -> None:
        await town.prepare()
        town.point = Point(MARKET, c.Cancel, landed, (MARKET,))
        asked = town.cancel_all(SELLER)
        await town.revive()
        expect_done(await asked)
        assert await town.exchange.ask_market(1, m.AskCounts()) == m.Counts(0, 0)
        expect_placed(await town.put(SELLER, SELL, AMOUNT, PRICE))
        await town.settle()

    play(scenario, StruckTown)


@pytest.mark.parametrize("landed", [False, True], ids=["before its record", "after its record"])
def test_shard_killed_at_an_update(landed: bool) -> None:
    async def scenario(town: StruckTown) -> None:
        await town.prepare()
        town.point = Point(OWN, c.Update, landed, (OWN,))
        asked = town.exchange.ask_shard(BUYER, town.update(BUYER, STOCK, 7))
        await town.revive()
        expect_done(await asked)
        answer = await town.exchange.ask_shard(BUYER, m.AskAccounts(BUYER, [STOCK]))
        assert answer == m.Accounts([m.Account(STOCK, (10**9 + 7) * 10**4, 0)])
        await town.settle()

    play(scenario, StruckTown)
