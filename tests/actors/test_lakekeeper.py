"""The lakekeeper: what begins and ends when, and what upkeep does to the files."""

from __future__ import annotations

import asyncio
import math
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from analytics.lake import FileEntry, Lake, StaleManifest
from excore_ray.actors.lakekeeper import Lakekeeper
from excore_ray.actors.plan import ArchiveSettings, LakeSettings
from excore_ray.actors.wire_memory import MemoryNetwork
from excore_ray.core import messages as m
from tests.actors.archive_world import (
    AT_ONCE,
    NEVER,
    TABLES,
    Clock,
    Life,
    archive_of,
    busy_life,
    check_files,
    ends,
    expect_each_once,
    live_rows,
    run,
)
from tests.actors.shell_world import MemoryWiring
from tests.actors.wire_world import Recorder, until

DAY_US = 86_400 * 10**6


def keeper_of(
    life: Life,
    root: Path,
    flush: ArchiveSettings = AT_ONCE,
    keep_days: int = 0,
    busy_rows_s: float = math.inf,
) -> Lakekeeper:
    settings = LakeSettings(
        str(root), keep_days, upkeep_s=0.01, busy_rows_s=busy_rows_s, grace_s=5, flush=flush
    )
    return Lakekeeper(lambda: tuple(life.disks), life.reader, settings)


def new_wiring() -> MemoryWiring:
    return MemoryWiring("archive", MemoryNetwork(), {})


async def flushed(life: Life, keeper: Lakekeeper, times: int) -> None:
    """So many flushes of each stream on the same day."""
    for n in range(times):
        life.pay_in(1 + n % 2, 1, 1)
        life.pay_in(2 - n % 2, 1, 1)
        life.settle_all()
        await keeper.archive.round()


def grow_old(root: Path, seconds: float) -> None:
    """Let the store's time pass."""
    then = time.time() - seconds
    for path in root.rglob("*.parquet*"):
        os.utime(path, (then, then))


def balances(keeper: Lakekeeper, shard: int) -> list[FileEntry]:
    files = keeper.archive.manifest.files
    return [entry for entry in files if (entry.table, entry.part) == ("balances", shard)]


def test_it_reads_all_before_it_serves_and_writes_all_before_it_ends(tmp_path: Path) -> None:
    life = busy_life()

    async def scenario() -> None:
        wiring = new_wiring()
        keeper = keeper_of(life, tmp_path, NEVER)
        await keeper.open(wiring)
        read = {
            stream: state["seq"]
            for stream, state in keeper.archive.status().items()
            if stream != "catalog"
        }
        assert read == ends(life)
        assert keeper.archive.manifest.version == 1  # the names alone
        asker = Recorder()
        link = MemoryWiring("gateway-1", wiring._network, wiring._endpoints).link(asker, "archive")
        link.start()
        await until(lambda: asker.live)
        batch = m.Batch(0, [1], [2**60], [m.AskStatus()])
        asker.only.send(m.encode(batch))
        await until(lambda: len(asker.frames) == 2)
        life.pay_in(1, 1, 1)
        await keeper.stop()
        await until(lambda: not asker.live)
        await link.close()
        assert all(task.cancelled() for task in keeper.tasks)
        assert keeper.archive.manifest.watermarks == ends(life)
        check_files(life, tmp_path)

    run(scenario())


def test_it_can_be_stopped_before_it_was_opened(tmp_path: Path) -> None:
    run(keeper_of(busy_life(), tmp_path).stop())


def test_small_files_become_one_and_what_they_were_is_swept(tmp_path: Path) -> None:
    life = Life()

    async def scenario() -> None:
        keeper = keeper_of(life, tmp_path)
        await flushed(life, keeper, 9)
        many = balances(keeper, 0)
        assert len(many) >= 8
        await keeper.keep()
        await keeper.keep()
        assert len(balances(keeper, 0)) < len(many)
        expect_each_once("balances", live_rows(tmp_path, "balances"), life)
        gone = [e for e in many if e not in balances(keeper, 0)]
        # What is no longer live is removed once its grace is over, and not at every look.
        keeper._swept_s -= 3
        await keeper.keep()
        assert all((tmp_path / entry.path).exists() for entry in gone)
        grow_old(tmp_path, 6)
        await keeper.keep()
        assert all((tmp_path / entry.path).exists() for entry in gone)
        keeper._swept_s -= 3
        await keeper.keep()
        assert not any((tmp_path / entry.path).exists() for entry in gone)
        expect_each_once("balances", live_rows(tmp_path, "balances"), life)
        await keeper.stop()

    run(scenario())


def test_while_many_rows_come_a_merge_waits_for_more_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Life()

    async def scenario() -> None:
        keeper = keeper_of(life, tmp_path, busy_rows_s=1e-3)
        await flushed(life, keeper, 20)
        many = balances(keeper, 0)
        assert 20 <= len(many) < 32
        # A date that is over is merged whole all the same.
        monkeypatch.setattr(keeper, "_today", lambda: many[0].date)
        await keeper.keep()
        assert balances(keeper, 0) == many
        # Nothing came since: now there is time.
        await keeper.keep()
        assert len(balances(keeper, 0)) < len(many)
        await flushed(life, keeper, 40)
        before = balances(keeper, 0)
        await keeper.keep()
        assert len(balances(keeper, 0)) < len(before)
        expect_each_once("balances", live_rows(tmp_path, "balances"), life)
        await keeper.stop()

    run(scenario())


def test_what_is_older_than_it_is_kept_is_let_go_of_but_for_the_bars(tmp_path: Path) -> None:
    life = busy_life()

    async def scenario() -> None:
        keeper = keeper_of(life, tmp_path, keep_days=1)
        await keeper.archive.round()
        bars = [entry for entry in keeper.archive.manifest.files if entry.table == "bars"]
        assert {entry.table for entry in keeper.archive.manifest.files} == {*TABLES, "bars"}
        yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
        assert bars[-1].date < yesterday
        await keeper.keep()
        left = keeper.archive.manifest.files
        assert {entry.table for entry in left} == {"bars"}
        assert sum(entry.rows for entry in left) <= sum(entry.rows for entry in bars)
        assert keeper.archive.manifest.watermarks == ends(life)
        await keeper.stop()

    run(scenario())


def test_a_date_is_not_over_while_a_stream_is_behind(tmp_path: Path) -> None:
    life = busy_life()

    async def scenario() -> None:
        keeper = keeper_of(life, tmp_path)
        assert keeper._today() == datetime.now(UTC).date().isoformat()
        await keeper.archive.round()
        at_us = life.market.time_us
        life.pay_in(1, 1, 1)
        date = datetime.fromtimestamp(at_us / 1e6, UTC).date().isoformat()
        assert keeper._today() <= date
        await keeper.archive.round()
        assert keeper._today() == datetime.now(UTC).date().isoformat()
        await keeper.stop()

    run(scenario())


def test_a_spoilt_file_is_left_alone_and_its_neighbours_are_merged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    life = Life()

    async def scenario() -> None:
        keeper = keeper_of(life, tmp_path)
        await flushed(life, keeper, 9)
        first = balances(keeper, 0)
        spoilt = first[2]
        (tmp_path / spoilt.path).write_bytes(b"PAR1")
        for _ in range(3):
            await keeper.keep()
        assert first == balances(keeper, 0)
        assert caplog.text.count(spoilt.path) == 1
        assert len(balances(keeper, 1)) < 9
        await flushed(life, keeper, 9)
        await keeper.keep()
        assert spoilt in balances(keeper, 0)
        assert len(balances(keeper, 0)) < len(first) + 9
        assert caplog.text.count(spoilt.path) == 1
        await keeper.stop()

    run(scenario())


def test_a_merge_that_found_no_room_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    life = Life()

    def full(*args: object) -> None:
        raise OSError("no room")

    async def scenario() -> None:
        keeper = keeper_of(life, tmp_path)
        await flushed(life, keeper, 9)
        before = balances(keeper, 0)
        with monkeypatch.context() as broken:
            broken.setattr(Lake, "write_merged", full)
            await keeper.keep()
        assert before == balances(keeper, 0)
        assert "no room" in caplog.text
        await keeper.keep()
        assert len(balances(keeper, 0)) < len(before)
        expect_each_once("balances", live_rows(tmp_path, "balances"), life)
        await keeper.stop()

    run(scenario())


def test_both_tasks_end_when_another_archive_writes_the_lake(tmp_path: Path) -> None:
    life = busy_life()

    async def scenario() -> None:
        keeper = keeper_of(life, tmp_path)
        await keeper.open(new_wiring())
        await archive_of(life, Lake(str(tmp_path)), Clock(), AT_ONCE).round()
        other = archive_of(life, Lake(str(tmp_path)), Clock(), AT_ONCE)
        life.pay_in(1, 1, 1)
        await other.round()
        done, _ = await asyncio.wait(keeper.tasks, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert any(isinstance(task.exception(), StaleManifest) for task in done)
        with pytest.raises(StaleManifest):
            await keeper.stop()
        assert not keeper.archive._streams.followers
        assert keeper.lake.manifest().watermarks == ends(life)

    run(scenario())
