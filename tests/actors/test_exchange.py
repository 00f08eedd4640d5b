"""The façade over a whole exchange in memory: trading, restarts under way, and its promises."""

from __future__ import annotations

import asyncio
import random

import pytest

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.names import Names
from excore_ray.core.reasons import Reason, Refused
from tests.actors.shell_world import (
    BUY,
    MONEY,
    SELL,
    STOCK,
    Town,
    expect_done,
    expect_placed,
    play,
)
from tests.actors.wire_world import until


def test_a_whole_exchange_trades() -> None:
    async def scenario(town: Town) -> None:
        await town.open_all()
        await town.add_market()
        await town.pay_in([1, 2])
        names = await town.exchange.fresh_names()
        assert isinstance(names, Names)
        assert [listing.name for listing in names.markets] == ["S/M"]
        resting = expect_placed(await town.put(1, SELL, 5, 100))
        assert (resting.left, resting.deal_stock) == (5, 0)
        taken = expect_placed(await town.put(2, BUY, 3, 101))
        assert (taken.left, taken.deal_stock, taken.deal_money) == (0, 3, 300)
        answer = await town.exchange.ask_shard(1, m.AskAccounts(1, [STOCK, MONEY]))
        # Sold 3 of 5 that are held, and got 300 less the maker's fee of 5 in 10,000.
        assert answer == m.Accounts(
            [
                m.Account(STOCK, (10**9 - 5) * 10**4, 2 * 10**4),
                m.Account(MONEY, (10**9 + 300) * 10**4 - 1500, 0),
            ]
        )
        assert await town.exchange.ask_market(1, m.AskCounts()) == m.Counts(1, 0)
        expect_done(await town.cancel_all(1))
        totals = await town.exchange.ask_shards(m.AskAssets([]))
        assert [type(total) for total in totals] == [m.AssetTotals, m.AssetTotals]
        await town.close()
        assert town.ends == []

    play(scenario)


def test_refusals_and_repeats_are_answers_too() -> None:
    async def scenario(town: Town) -> None:
        await town.open_all()
        await town.add_market()
        poor = await town.put(7, SELL, 1, 1)
        assert type(poor) is Refused
        assert poor.reason == Reason.BALANCE_NOT_ENOUGH
        update = town.update(3, STOCK, 10)
        first, again = (town.exchange.ask_shard(3, update) for _ in range(2))
        expect_done(await first)
        expect_done(await again)
        other = c.Update(town.exchange.new_request_id(), *list_of(update)[1:])
        refused = await town.exchange.ask_shard(3, other)
        assert type(refused) is Refused
        assert refused.reason == Reason.REPEAT_UPDATE
        await town.close()

    play(scenario)


def list_of(command: c.Update) -> list[object]:
    return [getattr(command, field) for field in command.__struct_fields__]


@pytest.mark.parametrize("victim", ["market-1", "ledger-0", "ledger-1", "catalog"])
def test_trading_goes_on_over_the_death_of(victim: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)

    async def scenario(town: Town) -> None:
        await town.open_all()
        await town.add_market()
        users = list(range(1, 9))
        await town.pay_in(users)
        answers: list[m.Answer] = []

        async def trade(user: int) -> None:
            for _ in range(40):
                side, price = rng.choice((SELL, BUY)), rng.randint(95, 105)
                answers.append(await town.put(user, side, rng.randint(1, 9), price))

        trading = asyncio.gather(*(trade(user) for user in users))
        for _ in range(3):
            count = len(answers)
            await until(lambda count=count: len(answers) > count + 20 or trading.done())
            await town.restart(victim)
        await trading
        # A request that was on its way when the market died may be unknown, but never lost.
        placed = [answer for answer in answers if type(answer) is m.Placed]
        assert len(answers) == 40 * len(users)
        assert len(placed) > len(answers) // 2
        assert len({answer.order_id for answer in placed}) == len(placed)
        for user in users:
            expect_done(await town.cancel_all(user))
        assert await town.exchange.ask_market(1, m.AskCounts()) == m.Counts(0, 0)
        await until(lambda: not any(shell.desk.busy for shell in town.shells.values()))
        await town.close()
        assert town.ends == []

    play(scenario)


def test_a_renamed_asset_is_never_known_by_its_old_name_after_the_answer() -> None:
    async def scenario(town: Town) -> None:
        await town.open_all()
        await town.add_market()
        second = town.new_exchange()
        second.start()
        assert isinstance(await second.fresh_names(), Names)
        rename = c.RenameAsset(town.exchange.new_request_id(), 0, "STOCK", "SHARE")
        expect_done(await town.exchange.ask_catalog(rename))
        for exchange in (town.exchange, second):
            names = exchange.names or await exchange.fresh_names()
            assert isinstance(names, Names)
            assert "SHARE" in names.asset_by_name
            assert "STOCK" not in names.asset_by_name
        await second.close()
        await town.close()

    play(scenario)


def test_without_a_catalog_names_run_out_and_asking_is_refused() -> None:
    async def scenario(town: Town) -> None:
        exchange = town.new_exchange()
        exchange.start()
        assert exchange.names is None
        refused = await exchange.ask_shard(1, m.AskAccounts(1, []))
        assert type(refused) is Refused
        assert refused.reason == Reason.SERVICE_UNAVAILABLE
        assert await exchange.ask_shards(m.AskStatus()) == []
        waiting = asyncio.create_task(exchange.fresh_names())
        await town.open_all()
        assert isinstance(await waiting, Names)
        town.kill("catalog")
        await until(lambda: exchange.names is None)
        await town.open("catalog")
        assert isinstance(await exchange.fresh_names(), Names)
        await exchange.close()
        await town.close()

    play(scenario)


def test_asks_of_one_turn_leave_as_one_batch_and_in_order() -> None:
    async def scenario(town: Town) -> None:
        await town.open_all()
        await town.add_market()
        await town.pay_in([1])
        before = town.shells["market-1"].next_seq
        placed = [
            expect_placed(answer)
            for answer in await asyncio.gather(*(town.put(1, SELL, 1, 100) for _ in range(200)))
        ]
        ids = [answer.order_id for answer in placed]
        assert ids == sorted(ids)
        # Far fewer records than orders: they were taken in together.
        assert town.shells["market-1"].next_seq - before < 20
        await town.close()

    play(scenario)


def test_a_caller_that_gave_up_breaks_nothing() -> None:
    async def scenario(town: Town) -> None:
        await town.open_all()
        await town.add_market()
        await town.pay_in([1])
        futures = [town.put(1, SELL, 1, 100) for _ in range(10)]
        for future in futures[::2]:
            future.cancel()
        for future in futures[1::2]:
            expect_placed(await future)
        # Cancelled futures withdraw nothing: the orders are there.
        await until(lambda: len(town.shells["market-1"].machine.orders) == 10)
        await town.close()

    play(scenario)


def test_close_waits_for_what_is_unanswered_and_gives_up_the_rest() -> None:
    async def scenario(town: Town) -> None:
        await town.open_all()
        await town.add_market()
        await town.pay_in([1])
        other = town.new_exchange()
        other.start()
        assert isinstance(await other.fresh_names(), Names)
        slow = other.ask_catalog(m.AskKeys())
        await other.close()
        assert slow.result() == m.Keys([])
        town.kill("market-1")
        sent = town.put(1, SELL, 1, 100)
        await town.exchange.close(0.05)
        answer = sent.result()
        assert type(answer) is Refused
        assert answer.reason in (Reason.SERVICE_UNAVAILABLE, Reason.SERVICE_TIMEOUT)
        await town.close()

    play(scenario)


def test_request_ids_are_sixteen_bytes_and_never_the_same() -> None:
    async def scenario(town: Town) -> None:
        other = town.new_exchange()
        ids = [x.new_request_id() for _ in range(1000) for x in (town.exchange, other)]
        assert {len(one) for one in ids} == {16}
        assert len(set(ids)) == len(ids)

    play(scenario)
