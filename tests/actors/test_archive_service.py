"""The archive on the wire: what was answered to anybody is in its answers, whatever goes on."""

from __future__ import annotations

import asyncio
import functools
import random
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from analytics import history, lake_compact
from excore_ray.actors import lakekeeper
from excore_ray.actors.lakekeeper import Lakekeeper
from excore_ray.actors.plan import ArchiveSettings, LakeSettings
from excore_ray.actors.wire import Connection
from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core import questions as q
from excore_ray.core.reasons import Reason, Refused
from tests.actors.archive_world import AT_ONCE, busy_life, reader_of, run
from tests.actors.service_world import (
    ALL,
    NEWEST,
    OLDEST,
    Ear,
    Gate,
    deal_count,
    expect_refused,
    serving,
)
from tests.actors.shell_world import (
    BUY,
    MONEY,
    SELL,
    STOCK,
    MemoryWiring,
    Town,
    expect_done,
    expect_placed,
    play,
)
from tests.actors.wire_world import until

EAGER = ArchiveSettings(poll_s=0.005, age_s=0, idle_s=0)
USERS = (1, 2, 3, 4)


class Truth:
    """What answers said of a town with two markets, and what that means for the past."""

    def __init__(self, town: Town, chance: random.Random) -> None:
        self.town = town
        self.chance = chance
        self.taken: dict[int, list[tuple[int, m.Placed]]] = {1: [], 2: []}
        self.paid: dict[int, int] = dict.fromkeys(USERS, 2)

    async def put(self) -> tuple[int, int, m.Placed]:
        """An order of somebody somewhere."""
        chance, exchange = self.chance, self.town.exchange
        user, market = chance.choice(USERS), chance.choice((1, 2))
        size = chance.randint(1, 6), chance.randint(97, 103)
        side = chance.choice((SELL, BUY))
        put = c.PutLimit(exchange.new_request_id(), 0, user, side, *size, 10, 5, 0, 0, "")
        placed = expect_placed(await exchange.ask_market(market, put))
        self.taken[market].append((user, placed))
        return user, market, placed

    async def pay_in(self) -> None:
        user = self.chance.choice(USERS)
        update = self.town.update(user, self.chance.choice((STOCK, MONEY)), 5)
        expect_done(await self.town.exchange.ask_shard(user, update))
        self.paid[user] += 1

    async def check(self, user: int, market: int, placed: m.Placed) -> None:
        """Everything that may be asked about an order that was just answered."""
        day_s = placed.ctime_us // 10**6 // 86_400 * 86_400
        kline = functools.partial(q.AskKline, [1, 2], ["one", "two"], day_s, 2 * day_s)
        asks: list[m.Ask] = [
            q.AskOrderDeals(placed.order_id, 0, ALL),
            q.AskFinishedDetail(placed.order_id),
            q.AskFinished(user, market, 0, 0, 0, 0, ALL),
            q.AskUserDeals(user, 0, 0, ALL),
            q.AskDeals(market, 0, ALL, self.chance.random() < 0.5),
            q.AskBalanceHistory(user, 0, "deposit", 0, 0, 0, ALL),
            kline(self.chance.choice((60, 3_600, 604_800))),
            q.AskPeriod(market, 604_800),
            q.AskPrice(market),
        ]
        self.chance.shuffle(asks)
        asked = await asyncio.gather(*map(self.town.exchange.ask_archive, asks))
        found: dict[type, Any] = {type(ask): each for ask, each in zip(asks, asked, strict=True)}
        assert not [each for each in asked if type(each) is Refused]
        self._check_order(user, market, placed, found)
        volume, money = self._sums(market)
        ids = sorted(deal.deal_id for deal in found[q.AskDeals].records)
        assert ids == list(range(1, len(ids) + 1))
        assert sum(Decimal(deal.amount) for deal in found[q.AskDeals].records) == volume
        period = found[q.AskPeriod]
        assert [Decimal(each) for each in (period.volume, period.deal)] == [volume, money]
        rows = msgspec.json.decode(found[q.AskKline].rows)
        for number, name in ((1, "one"), (2, "two")):
            sums = [sum(Decimal(r[at]) for r in rows if r[7] == name) for at in (5, 6)]
            assert sums == list(self._sums(number))
        newest = max(found[q.AskDeals].records, key=lambda deal: int(deal.deal_id), default=None)
        assert found[q.AskPrice].last == ("" if newest is None else newest.price)
        assert len(found[q.AskBalanceHistory].records) == self.paid[user]

    def _check_order(
        self, user: int, market: int, placed: m.Placed, found: dict[type, Any]
    ) -> None:
        deals = found[q.AskOrderDeals].records
        sums = [sum(Decimal(getattr(deal, name)) for deal in deals) for name in ("amount", "deal")]
        assert sums == [placed.deal_stock, placed.deal_money]
        done = found[q.AskFinishedDetail].records
        assert [order.order_id for order in done] == [placed.order_id] * (not placed.left)
        finished = [order.order_id for order in found[q.AskFinished].records]
        filled = {p.order_id for u, p in self.taken[market] if u == user and not p.left}
        assert len(set(finished)) == len(finished)
        assert filled <= set(finished)
        own = found[q.AskUserDeals].records
        keys = {(deal.market_no, deal.deal_id, deal.role) for deal in own}
        assert len(keys) == len(own)
        took = sum(Decimal(deal.amount) for deal in own if deal.role == 2)
        of_user = [p for taken in self.taken.values() for u, p in taken if u == user]
        assert took == sum(p.deal_stock for p in of_user)

    def _sums(self, market: int) -> tuple[int, int]:
        placed = [p for _, p in self.taken[market]]
        return sum(p.deal_stock for p in placed), sum(p.deal_money for p in placed)


@pytest.mark.parametrize(
    ("seed", "orders"), [(1, 20), *(pytest.param(n, 300, marks=pytest.mark.slow) for n in (2, 3))]
)
def test_what_was_answered_is_in_the_past_at_once(
    seed: int, orders: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"seed {seed}")
    for pace in ("_CALM", "_BUSY"):
        monkeypatch.setattr(lakekeeper, pace, lake_compact.Settings(factor=2))

    async def scenario(town: Town) -> None:
        await town.open_all()
        await town.add_market()
        again = c.AddMarket(town.exchange.new_request_id(), 0, "M/S", "MONEY", 0, "STOCK", 0, 1, "")
        expect_done(await town.exchange.ask_catalog(again))
        await town.pay_in(USERS)
        settings = LakeSettings(url=str(tmp_path), upkeep_s=0.02, flush=EAGER)
        reader = functools.partial(reader_of, town.disks)
        keeper = Lakekeeper(lambda: tuple(town.disks), reader, settings)
        await keeper.open(MemoryWiring("archive", town.network, town.endpoints))
        truth = Truth(town, random.Random(seed))
        for n in range(orders):
            await truth.check(*await truth.put())
            await truth.pay_in()
            if n % 10 == 9:
                names = f"name {n - 10}" if n > 10 else "S/M", f"name {n}"
                rename = c.RenameMarket(town.exchange.new_request_id(), 0, *names)
                expect_done(await town.exchange.ask_catalog(rename))
        status = await town.exchange.ask_archive(m.AskStatus())
        assert type(status) is m.Status
        assert status.texts["trouble"] == ""
        assert any("-c" in entry.path for entry in keeper.archive.manifest.files)
        assert not any(task.done() for task in keeper.tasks)
        await town.close()
        await keeper.stop()

    play(scenario)


def test_a_batch_that_is_sent_again_is_answered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, life, ear = Gate(monkeypatch, "newest_deals"), busy_life(), Ear()

    async def scenario() -> None:
        async with serving(life, tmp_path) as (service, _):
            for _ in range(3):
                ear.say(service, NEWEST, OLDEST)
            await until(lambda: gate.begun and len(ear.replies) == 1)
            ear.say(service, NEWEST)
            gate.open.set()
            await until(lambda: len(ear.replies) == 2)
            await asyncio.sleep(0.05)
        assert (gate.begun, ear.taken) == (1, 4)
        assert sorted(token for token, _ in ear.replies) == [1, 2]
        assert {deal_count(answer) for _, answer in ear.replies} == {len(life.deals)}

    run(scenario())


def test_a_question_past_its_deadline_is_not_started(tmp_path: Path) -> None:
    ear = Ear()

    async def scenario() -> None:
        async with serving(busy_life(), tmp_path) as (service, _):
            ear.say(service, NEWEST, m.AskStatus(), deadline_us=service._now_us())
            await asyncio.sleep(0.02)
            assert (ear.replies, ear.taken) == ([], 1)

    run(scenario())


def test_what_is_no_question_is_refused_and_what_is_no_message_hung_up_on(tmp_path: Path) -> None:
    ear = Ear()

    async def scenario() -> None:
        async with serving(busy_life(), tmp_path) as (service, _):
            ear.say(service, m.AskKeys())
            await until(lambda: ear.replies)
            expect_refused(ear.replies[0][1], Reason.INVALID_ARGUMENT, "AskKeys")
            service.received(cast(Connection, ear), 0, b"[1,2")
            assert ear.reasons == ["this is no message"]

    run(scenario())


def test_too_many_questions_are_refused_and_the_others_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, ear = Gate(monkeypatch, "newest_deals"), Ear()

    async def scenario() -> None:
        async with serving(busy_life(), tmp_path, asks_max=2) as (service, _):
            ear.say(service, *[NEWEST] * 4, m.AskStatus())
            await until(lambda: len(ear.replies) == 3)
            told = dict(ear.replies)
            for token in (3, 4):
                expect_refused(told[token], Reason.SERVICE_UNAVAILABLE, "too many questions")
            assert type(told[5]) is m.Status
            gate.open.set()
            await until(lambda: len(ear.replies) == 5)
            assert all(deal_count(dict(ear.replies)[token]) for token in (1, 2))

    run(scenario())


def test_a_slow_question_delays_neither_others_nor_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life, gate = busy_life(), Gate(monkeypatch, "user_deals")
    everything, wide = q.AskUserDeals(1, 0, 0, ALL), q.AskUserDeals(2, 0, 0, ALL)

    async def scenario() -> None:
        async with serving(life, tmp_path, AT_ONCE, wide_threads=1) as (service, archive):
            slow = [asyncio.create_task(service.answer(ask)) for ask in (everything, wide)]
            await until(lambda: gate.begun)
            before = archive.manifest.version
            for _ in range(3):
                life.pay_in(1, 1, 1)
                await archive.round()
                assert deal_count(await service.answer(OLDEST)) == len(life.deals)
            assert archive.manifest.version > before
            # What is in files since is still in the tail for those who ask about an older moment.
            await asyncio.sleep(0.6)
            assert not any(task.done() for task in slow)
            gate.open.set()
            sides = [(deal.taker_user, deal.maker_user).count for deal in life.deals]
            for user, answer in zip((1, 2), await asyncio.gather(*slow), strict=True):
                assert type(answer) is q.OwnDeals
                assert len(answer.records) == sum(count(user) for count in sides)
            await until(lambda: not service._live.places())

    run(scenario())


def test_a_question_that_takes_too_long_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(connection: Any, *args: Any) -> Any:
        return connection.execute("SELECT count(*) FROM range(1000000000000)").fetchall()

    monkeypatch.setattr(history, "newest_deals", endless)
    life = busy_life()

    async def scenario() -> None:
        async with serving(life, tmp_path, question_s=0.3, threads=1) as (service, _):
            answer = await service.answer(NEWEST)
            expect_refused(answer, Reason.SERVICE_TIMEOUT, "took too long")
            assert deal_count(await service.answer(OLDEST)) == len(life.deals)
            assert not service._moments

    run(scenario())


def test_a_bug_in_a_reading_is_told_by_a_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("the secret is 42")

    monkeypatch.setattr(history, "newest_deals", broken)

    async def scenario() -> None:
        async with serving(busy_life(), tmp_path) as (service, _):
            answer = await service.answer(NEWEST)
            expect_refused(answer, Reason.INTERNAL_ERROR, "reference ")
            assert isinstance(answer, Refused)
            reference = answer.detail.removeprefix("reference ")
            assert len(bytes.fromhex(reference)) == 4
            assert f"internal error {reference}" in caplog.text
            assert "the secret is 42" in caplog.text
            assert deal_count(await service.answer(OLDEST))

    run(scenario())
