"""The archive: whatever ends it and whenever, each row is in the lake exactly once."""

from __future__ import annotations

import asyncio
import functools
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from analytics.lake import Lake, bars_of
from excore_ray.actors.archive import Archive
from excore_ray.actors.archive_follower import Follower
from excore_ray.actors.archive_rows import Scales
from excore_ray.actors.plan import ArchiveSettings
from excore_ray.core import commands as c
from excore_ray.core.ledger import Ledger
from excore_ray.core.orders import Side
from excore_ray.storage.journal import Entry
from tests.actors.archive_world import (
    AT_ONCE,
    NEVER,
    TABLES,
    Clock,
    FragileLake,
    Killed,
    Life,
    archive_of,
    busy_life,
    check,
    check_files,
    deal_ids,
    ends,
    live,
    live_rows,
    reader_of,
    run,
    tail_rows,
)
from tests.actors.shell_world import BUY, MONEY, SELL, STOCK, Town, expect_placed, play
from tests.core import machines
from tests.core.machines import put_limit, request_id


@pytest.mark.parametrize("seed", range(12))
def test_a_dropped_archive_repeats_nothing_and_misses_nothing(seed: int, tmp_path: Path) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    life, clock = Life(), Clock()

    def begin() -> Archive:
        lake = FragileLake(str(tmp_path))
        lake.faults = {chance.randint(1, 40): Killed("here")}
        settings = ArchiveSettings(rows_max=chance.choice((5, 60, 50_000)), age_s=2, idle_s=5)
        return archive_of(life, lake, clock, settings)

    async def scenario() -> None:
        archive, kills, turns = begin(), 0, 0
        while turns < 40 or not kills:
            turns += 1
            live(life, chance, chance.randint(0, 12))
            clock.now_s += chance.choice((0, 0.5, 3, 6))
            if chance.random() < 0.2:
                life.snapshot(chance.choice(("market-1", "ledger-0", "ledger-1")))
            try:
                if chance.random() < 0.5:
                    await archive.round()
                else:
                    await archive.catch_up(ends(life))
                    check(life, tmp_path, archive)
            except Killed:
                archive, kills = begin(), kills + 1
            if chance.random() < 0.1:
                archive = begin()
        last = archive_of(life, Lake(str(tmp_path)), clock, AT_ONCE)
        await last.round()
        assert last.manifest.watermarks == ends(life)
        check(life, tmp_path, last)
        check_files(life, tmp_path)
        assert not any(tail_rows(last, table, 2, {}) for table in TABLES)

    run(scenario())


# Five tables are written, the balances of two shards among them.
STEPS = {1: "before a write", 2: "after a write", 11: "before the commit", 12: "after it"}


@pytest.mark.parametrize("step", range(1, 13), ids=lambda step: STEPS.get(step, str(step)))
def test_killed_at_any_step_of_a_flush(step: int, tmp_path: Path) -> None:
    life = busy_life()

    async def scenario() -> None:
        lake = FragileLake(str(tmp_path))
        lake.faults = {step: Killed("here")}
        dead = archive_of(life, lake, Clock(), AT_ONCE)
        with pytest.raises(Killed):
            await dead.round()
        assert bool(Lake(str(tmp_path)).manifest().version) == (step == 12)
        again = archive_of(life, Lake(str(tmp_path)), Clock(), AT_ONCE)
        await again.round()
        check_files(life, tmp_path)

    run(scenario())


def test_it_needs_nothing_before_its_watermark(tmp_path: Path) -> None:
    life = busy_life()

    async def scenario() -> None:
        lake = Lake(str(tmp_path))
        await archive_of(life, lake, Clock(), AT_ONCE).round()
        marks = ends(life)
        live(life, random.Random(2), 50)
        for stream in ("market-1", "ledger-0", "ledger-1"):
            life.disks[stream].forget(marks[stream])
            assert not life.disks[stream].snapshots
        archive = archive_of(life, lake, Clock(), AT_ONCE)
        assert archive.behind_us() == []
        archive.look()
        # Of the entry it has come to, nobody can tell the time any more.
        assert archive.behind_us() == [0, 0, 0]
        await archive.round()
        check_files(life, tmp_path)

    run(scenario())


def test_an_idle_stream_moves_its_watermark_without_files(tmp_path: Path) -> None:
    life, clock = Life(), Clock()
    life.pay_in(1, 10, 0)

    async def scenario() -> None:
        archive = archive_of(life, Lake(str(tmp_path)), clock, ArchiveSettings())
        clock.now_s += 10
        await archive.round()
        clock.now_s += 3
        await archive.round()
        assert archive.manifest.watermarks == ends(life)
        files, version = archive.manifest.files, archive.manifest.version
        life.put(put_limit(1, Side.SELL, 1, 10_000))
        clock.now_s += 1.9
        await archive.round()
        assert archive.manifest.version == version
        clock.now_s += 3.2
        await archive.round()
        assert archive.manifest.watermarks == ends(life)
        assert (archive.manifest.files, archive.manifest.version) == (files, version + 1)
        clock.now_s += 60
        await archive.round()
        assert archive.manifest.version == version + 1

    run(scenario())


def test_rows_are_written_when_they_are_old_or_many(tmp_path: Path) -> None:
    life, clock = busy_life(), Clock()

    async def scenario() -> None:
        lake = Lake(str(tmp_path))
        archive = archive_of(life, lake, clock, ArchiveSettings())
        await archive.round()
        assert not archive.manifest.files
        clock.now_s += 1.9
        await archive.round()
        assert not archive.manifest.files
        clock.now_s += 0.2
        await archive.round()
        check_files(life, tmp_path)
        written = len(archive.manifest.files)
        live(life, random.Random(3), 100)
        many = archive_of(life, lake, clock, ArchiveSettings(rows_max=3, age_s=1e9))
        await many.round()
        assert len(many.manifest.files) > written
        check(life, tmp_path, many)

    run(scenario())


def test_what_lags_is_read_only_as_fast_as_it_is_written(tmp_path: Path) -> None:
    life = busy_life(steps=3_000)

    class Watching(FragileLake):
        def commit(self, *args: Any, **change: Any) -> Any:
            held.append(max(int(state.get("rows", 0)) for state in archive.status().values()))
            return super().commit(*args, **change)

    async def scenario() -> None:
        await archive.catch_up(ends(life))
        check(life, tmp_path, archive)

    held: list[int] = []
    settings = ArchiveSettings(rows_max=200, age_s=1e9)
    archive = archive_of(life, Watching(str(tmp_path)), Clock(), settings)
    run(scenario())
    assert len(held) > 2
    assert max(held) < len(life.postings) // 2


def test_rows_that_could_not_be_written_keep_their_order() -> None:
    life = busy_life(steps=400)
    follower = Follower(life.reader("market-1"), 0, 0.0)
    every = [deal.deal_id for deal in life.deals]
    scales = Scales(life.catalog.assets, life.catalog.markets)
    follower.read(40_000)
    follower.convert(scales, 0.0)
    taken = follower.take()
    assert (taken.first_seq, taken.last_seq) == (1, follower.seq)
    assert 0 < len(taken.tables["deals"]) < len(every)
    follower.read()
    follower.convert(scales, 0.0)
    assert deal_ids(follower.tail("deals")) == every
    follower.put_back()
    assert deal_ids(follower.tail("deals")) == every
    assert deal_ids(follower.take().tables["deals"]) == every


def test_what_is_defined_while_a_stream_is_read_is_known_in_time(tmp_path: Path) -> None:
    life = busy_life()

    class Defining:
        """A reader during whose first read an asset is defined and paid in."""

        def __init__(self, stream: str) -> None:
            self._reader: Any = life.reader(stream)
            self._defined = stream == "catalog"

        def __getattr__(self, name: str) -> Any:
            return getattr(self._reader, name)

        def read(self, from_seq: int, bytes_max: int) -> list[Entry]:
            if not self._defined:
                self._defined = True
                number = len(life.catalog.assets) + 1
                life.define(c.AddAsset(request_id(), 0, f"A{number}", 3, 3, ""))
                life.update(machines.update(1, number, 1_500))
            return list(self._reader.read(from_seq, bytes_max))

    async def scenario() -> None:
        names = tuple(life.disks)
        archive = Archive(lambda: names, Defining, Lake(str(tmp_path)), AT_ONCE, Clock())
        await archive.round()
        assert not any(state["trouble"] for state in archive.status().values())
        await archive.round()
        rows = [row for row in live_rows(tmp_path, "balances") if row["asset"] > 2]
        assert {str(row["change"].normalize()) for row in rows} == {"1.5"}
        assert {row["asset"] for row in rows} == {3, 4, 5}

    run(scenario())


def test_names_follow_the_catalog(tmp_path: Path) -> None:
    life = busy_life()

    async def scenario() -> None:
        archive = archive_of(life, Lake(str(tmp_path)), Clock(), NEVER)
        await archive.round()
        assert [asset["name"] for asset in archive.manifest.assets] == ["BTC", "USDT"]
        life.define(c.RenameAsset(request_id(), 0, "BTC", "XBT"))
        life.define(c.RenameMarket(request_id(), 0, "BTC/USDT", "XBT-USDT"))
        await archive.round()
        version = archive.manifest.version
        await archive.round()
        manifest = Lake(str(tmp_path)).manifest()
        assert manifest.version == version == 2
        assert manifest.assets == (
            {"asset_id": 1, "name": "XBT", "prec_save": 8, "prec_show": 8},
            {"asset_id": 2, "name": "USDT", "prec_save": 6, "prec_show": 6},
        )
        market = {"market": 1, "name": "XBT-USDT", "stock": 1, "money": 2}
        assert manifest.markets == ({**market, "stock_prec": 4, "money_prec": 2},)

    run(scenario())


def test_the_tail_is_what_a_manifest_lacks_whichever_is_newer(tmp_path: Path) -> None:
    life, clock = busy_life(), Clock()

    async def scenario() -> None:
        archive = archive_of(life, Lake(str(tmp_path)), clock, ArchiveSettings())
        await archive.catch_up(ends(life))
        every = [deal.deal_id for deal in life.deals]
        assert deal_ids(archive.tail("deals", 1)) == every
        assert archive.tail("bars", 1).equals(bars_of(archive.tail("deals", 1)))
        middle = life.disks["market-1"].next_seq // 2
        later = archive.tail("deals", 1, middle)
        assert 0 < len(later) < len(every)
        assert deal_ids(later) == every[-len(later) :]
        assert min(later["seq"].to_pylist()) > middle
        assert len(archive.tail("deals", 2)) == len(archive.tail("balances", 9)) == 0
        await archive.catch_up(["market-77", "catalog"])

    run(scenario())


def test_files_are_replaced_between_flushes(tmp_path: Path) -> None:
    life = busy_life()

    async def scenario() -> None:
        lake = Lake(str(tmp_path))
        archive = archive_of(life, lake, Clock(), AT_ONCE)
        await archive.round()
        live(life, random.Random(6), 60)
        old = next(entry for entry in archive.manifest.files if entry.table == "deals")
        version = archive.manifest.version
        new = lake.write("deals", 1, old.first_seq, old.last_seq, lake.read(old), compacted=version)
        replacing = archive.replace([old], new)
        replaced, _ = await asyncio.gather(replacing, archive.round())
        assert old not in replaced.files
        check_files(life, tmp_path)

    run(scenario())


def test_it_follows_a_whole_exchange_while_that_trades(tmp_path: Path) -> None:
    async def scenario(town: Town) -> None:
        await town.open_all()
        await town.add_market()
        await town.pay_in([1, 2, 3])

        lake = Lake(str(tmp_path))
        settings = ArchiveSettings(poll_s=0.01, age_s=0.05, idle_s=0.1)
        reader = functools.partial(reader_of, town.disks)
        archive = Archive(lambda: tuple(town.disks), reader, lake, settings)
        running = asyncio.create_task(archive.run())
        for n in range(200):
            side = SELL if n % 2 else BUY
            placed = expect_placed(await town.put(1 + n % 3, side, 1 + n % 4, 98 + n % 7))
            if n % 20 == 0:
                await archive.catch_up(["market-1"])
                manifest = archive.manifest
                tail = archive.tail("deals", 1)
                files = [e for e in manifest.files if e.table == "deals"]
                found = [i for e in files for i in deal_ids(lake.read(e))] + deal_ids(tail)
                assert sorted(found) == list(range(1, len(found) + 1))
                if placed.deal_stock:
                    newest = pa.concat_tables([*(lake.read(e) for e in files), tail])
                    assert placed.order_id in newest["taker_order_id"].to_pylist()
        for _ in range(100):
            await asyncio.sleep(0.02)
            marks = {n: d.next_seq - 1 for n, d in town.disks.items() if n != "catalog"}
            if archive.manifest.watermarks == marks:
                break
        running.cancel()
        await archive.close()
        await town.close()
        rows = live_rows(tmp_path, "balances")
        assert len({(row["part"], row["seq"], row["step"]) for row in rows}) == len(rows)
        ledgers = [shell.machine for shell in town.shells.values()]
        for asset in (STOCK, MONEY):
            held = sum(
                accounts[asset].available + accounts[asset].frozen
                for ledger in ledgers
                if isinstance(ledger, Ledger)
                for accounts in ledger.accounts.values()
                if asset in accounts
            )
            assert sum(row["change"] for row in rows if row["asset"] == asset).scaleb(4) == held

    play(scenario)
