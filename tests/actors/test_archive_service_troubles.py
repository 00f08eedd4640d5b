"""The archive's answers in trouble: what cannot be known is refused, and the rest is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from analytics import history
from analytics.lake import Lake
from excore_ray.core import questions as q
from excore_ray.core.reasons import Reason
from tests.actors.archive_world import AT_ONCE, Clock, Life, archive_of, busy_life, run
from tests.actors.service_world import ALL, NEWEST, OLDEST, deal_count, expect_refused, serving

UNREADABLE = "the history cannot be read now"
DEALS_OF_ALL = q.AskUserDeals(1, 0, 0, ALL)


def changes(user: int) -> q.AskBalanceHistory:
    return q.AskBalanceHistory(user, 0, "", 0, 0, 0, ALL)


def change_count(answer: Any) -> int:
    assert type(answer) is q.Changes, answer
    return len(answer.records)


def garble(life: Life, stream: str, seq: int) -> None:
    """Make an entry one that is no record."""
    entries = life.disks[stream].entries
    entries[seq - 1] = msgspec.structs.replace(entries[seq - 1], body=b"[1,2")


def postings_of(life: Life, user: int) -> int:
    return sum(posting.user == user for posting in life.postings)


@pytest.mark.parametrize("damage", [b"", b"PAR1 this is no file PAR1", None])
def test_a_file_that_cannot_be_read(
    damage: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    life = busy_life()

    async def scenario() -> None:
        async with serving(life, tmp_path, AT_ONCE) as (service, archive):
            await archive.round()
            path = next(e.path for e in archive.manifest.files if e.table == "deals")
            if damage is None:
                (tmp_path / path).unlink()
            else:
                (tmp_path / path).write_bytes(damage)
            for ask in (NEWEST, OLDEST, DEALS_OF_ALL):
                expect_refused(await service.answer(ask), Reason.SERVICE_UNAVAILABLE, UNREADABLE)
            assert path in caplog.text
            assert change_count(await service.answer(changes(1))) == postings_of(life, 1)
            assert type(await service.answer(q.AskPrice(1))) is q.Price

    run(scenario())


def test_a_journal_that_cannot_be_read(tmp_path: Path) -> None:
    life = busy_life()

    async def scenario() -> None:
        async with serving(life, tmp_path) as (service, _):
            assert change_count(await service.answer(changes(2))) == postings_of(life, 2)
            life.pay_in(2, 1, 1)
            life.pay_in(1, 1, 1)
            garble(life, "ledger-0", life.disks["ledger-0"].next_seq - 1)
            for _ in range(2):
                answer = await service.answer(changes(2))
                expect_refused(answer, Reason.SERVICE_UNAVAILABLE, UNREADABLE)
            assert change_count(await service.answer(changes(1))) == postings_of(life, 1)
            assert deal_count(await service.answer(NEWEST)) == len(life.deals)
            assert "ledger" not in service._status().stream
            assert service._status().texts["trouble"]

    run(scenario())


def test_a_market_left_alone_while_others_are_read_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = busy_life()

    async def scenario() -> None:
        async with serving(life, tmp_path) as (service, archive):
            catch_up = archive.catch_up

            async def then_break(streams: Iterable[str]) -> None:
                await catch_up(streams)
                life.pay_in(1, 1, 1)
                life.disks["market-1"].land(life.disks["market-1"].next_seq, 99, [b"[1,2"], [])
                await archive.round()

            monkeypatch.setattr(archive, "catch_up", then_break)
            answer = await service.answer(DEALS_OF_ALL)
            expect_refused(answer, Reason.SERVICE_UNAVAILABLE, UNREADABLE)

    run(scenario())


def test_without_the_catalog_nobody_is_looked_for_in_the_wrong_shard(tmp_path: Path) -> None:
    life = busy_life()
    assert postings_of(life, 1)

    async def scenario() -> None:
        await archive_of(life, Lake(str(tmp_path)), Clock(), AT_ONCE).round()
        catalog = life.disks.pop("catalog")
        async with serving(life, tmp_path) as (service, _):
            answer = await service.answer(changes(1))
            expect_refused(answer, Reason.SERVICE_UNAVAILABLE, UNREADABLE)
            answer = await service.answer(DEALS_OF_ALL)
            assert type(answer) is q.OwnDeals
            life.disks["catalog"] = catalog
            assert change_count(await service.answer(changes(1))) == postings_of(life, 1)

    run(scenario())


def test_deals_of_a_market_are_waited_for_that_the_catalog_does_not_tell(tmp_path: Path) -> None:
    life = busy_life()

    async def scenario() -> None:
        catalog = life.disks.pop("catalog")
        async with serving(life, tmp_path) as (service, _):
            answer = await service.answer(DEALS_OF_ALL)
            expect_refused(answer, Reason.SERVICE_UNAVAILABLE, UNREADABLE)
            life.disks["catalog"] = catalog
            answer = await service.answer(DEALS_OF_ALL)
            assert type(answer) is q.OwnDeals
            users = [user for deal in life.deals for user in (deal.taker_user, deal.maker_user)]
            assert len(answer.records) == users.count(1)

    run(scenario())


def test_another_archive_writes_the_lake(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    life = busy_life()

    async def scenario() -> None:
        async with serving(life, tmp_path, AT_ONCE) as (service, archive):
            await archive_of(life, Lake(str(tmp_path)), Clock(), AT_ONCE).round()
            assert deal_count(await service.answer(NEWEST)) == len(life.deals)
            with pytest.raises(Exception, match="is stored, not"):
                await archive.round()
            answer = await service.answer(NEWEST)
            expect_refused(answer, Reason.SERVICE_UNAVAILABLE, UNREADABLE)
            assert "another archive writes this lake" in caplog.text

    run(scenario())


def test_questions_under_way_end_when_the_service_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(connection: Any, *args: Any) -> Any:
        return connection.execute("SELECT count(*) FROM range(1000000000000)").fetchall()

    monkeypatch.setattr(history, "newest_deals", endless)

    async def scenario() -> None:
        async with serving(busy_life(), tmp_path) as (service, _):
            asked = [asyncio.create_task(service.answer(NEWEST)) for _ in range(6)]
            await asyncio.sleep(0.1)
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    run(asyncio.wait_for(scenario(), 15))


def test_what_nobody_knows_is_empty(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(Life(), tmp_path) as (service, _):
            assert change_count(await service.answer(changes(77))) == 0
            assert await service.answer(q.AskUserDeals(77, 9, 0, 9)) == q.OwnDeals([])
            assert await service.answer(q.AskOrderDeals(2**52, 0, 9)) == q.OwnDeals([])
            assert await service.answer(q.AskFinishedDetail(4097)) == q.FinishedOrders([])
            assert await service.answer(q.AskPrice(1)) == q.Price("", "")
            assert await service.answer(q.AskPeriod(1, 0)) == q.Period(*"0000000")
            kline = q.AskKline([1, 2], ["a", "b"], 0, 2**33, 1)
            assert await service.answer(kline) == q.Kline(msgspec.Raw(b"[]"))
            await service.answer(changes(1))

    run(scenario())


def test_a_kline_that_is_too_long_is_refused(tmp_path: Path) -> None:
    life = busy_life()

    async def scenario() -> None:
        async with serving(life, tmp_path, AT_ONCE) as (service, archive):
            kline = q.AskKline([1], ["S/M"], 0, 2**33, 1)
            for _ in range(2):
                answer = await service.answer(kline)
                expect_refused(answer, Reason.LIMIT_TOO_BIG, "more than 10000")
                await archive.round()

    run(scenario())
