"""The archive in trouble: what fails is told, harms nothing else, and is tried again."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from analytics.lake import Lake, LakeError, StaleManifest
from excore_ray.actors.plan import ArchiveSettings
from excore_ray.core import commands as c
from excore_ray.errors import JournalBroken, JournalFailed
from excore_ray.storage.journal import Entry
from tests.actors.archive_world import (
    AT_ONCE,
    Clock,
    FragileLake,
    Life,
    archive_of,
    busy_life,
    check,
    check_files,
    ends,
    expect_each_once,
    live,
    live_rows,
    run,
)
from tests.core import machines
from tests.core.machines import request_id


@pytest.mark.parametrize("fault", [OSError("no room"), LakeError("no answer")], ids=repr)
@pytest.mark.parametrize("step", range(1, 13))
def test_a_store_that_fails_is_tried_again(step: int, fault: Exception, tmp_path: Path) -> None:
    life = busy_life()

    async def scenario() -> None:
        lake, clock = FragileLake(str(tmp_path)), Clock()
        lake.faults = {step: fault}
        archive = archive_of(life, lake, clock, AT_ONCE)
        await archive.round()
        assert str(fault) in archive.trouble
        check(life, tmp_path, archive)
        if step == 12:
            # The commit had taken effect when the store failed: only a new archive can know.
            with pytest.raises(StaleManifest):
                await archive.round()
            archive = archive_of(life, lake, clock, AT_ONCE)
        await archive.round()
        assert archive.trouble == ""
        check_files(life, tmp_path)

    run(scenario())


def test_what_cannot_be_written_is_not_read_on(tmp_path: Path) -> None:
    life = busy_life(steps=3_000)

    async def scenario() -> None:
        lake = FragileLake(str(tmp_path))
        lake.faults = {step: OSError("no room") for step in range(1, 1_000)}
        archive = archive_of(life, lake, Clock(), ArchiveSettings(rows_max=200))
        for _ in range(5):
            await archive.round()
        held = {stream: int(state.get("rows", 0)) for stream, state in archive.status().items()}
        assert 200 <= max(held.values()) < len(life.postings) // 2
        with pytest.raises(LakeError, match=r"cannot be written: .*no room"):
            await archive.catch_up(ends(life))
        lake.faults.clear()
        await archive.catch_up(ends(life))
        check(life, tmp_path, archive)

    run(scenario())


def test_a_journal_cut_off_beyond_the_watermark_is_told_not_skipped(tmp_path: Path) -> None:
    life = busy_life()

    async def scenario() -> None:
        lake = Lake(str(tmp_path))
        await archive_of(life, lake, Clock(), AT_ONCE).round()
        live(life, random.Random(2), 50)
        life.snapshot("market-1")
        life.disks["market-1"].forget(ends(life)["market-1"])
        archive = archive_of(life, lake, Clock(), AT_ONCE)
        before = archive.manifest.watermarks["market-1"]
        await archive.round()
        assert "truncated" in str(archive.status()["market-1"]["stopped"])
        assert archive.manifest.watermarks["market-1"] == before

    run(scenario())


def test_a_journal_that_ends_before_the_watermark_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        lake = Lake(str(tmp_path))
        await archive_of(busy_life(), lake, Clock(), AT_ONCE).round()
        archive = archive_of(Life(), lake, Clock(), AT_ONCE)
        await archive.round()
        assert "ends with entry 3" in str(archive.status()["market-1"]["stopped"])

    run(scenario())


def silent(disk_entry: Entry) -> Entry:
    """An entry that does not say what came of it."""
    record = msgspec.json.decode(disk_entry.body)
    return msgspec.structs.replace(disk_entry, body=msgspec.json.encode(record[:2]))


def garbled(disk_entry: Entry) -> Entry:
    """An entry that is no record."""
    return msgspec.structs.replace(disk_entry, body=b"[1,2")


@pytest.mark.parametrize("break_it", [silent, garbled])
def test_a_broken_stream_is_left_alone_and_the_others_go_on(
    break_it: Callable[[Entry], Entry], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    life = busy_life()
    settled = ends(life)

    async def scenario() -> None:
        archive = archive_of(life, Lake(str(tmp_path)), Clock(), AT_ONCE)
        await archive.round()
        live(life, random.Random(5), 60)
        entries = life.disks["market-1"].entries
        entries[settled["market-1"] + 3] = break_it(entries[settled["market-1"] + 3])
        await archive.round()
        await archive.round()
        assert [record.levelname for record in caplog.records] == ["CRITICAL"]
        assert "market-1 is NOT ARCHIVED ANY MORE" in caplog.text
        assert archive.status()["market-1"]["stopped"]
        expected = {**ends(life), "market-1": settled["market-1"]}
        assert archive.manifest.watermarks == expected
        expect_each_once("balances", live_rows(tmp_path, "balances"), life)
        assert len(archive.tail("deals", 1)) == 0
        await archive.catch_up(["ledger-0", "ledger-1"])
        with pytest.raises(JournalBroken, match="not archived any more"):
            await archive.catch_up(["market-1"])

    run(scenario())


def test_a_watermark_never_passes_rows_that_wait(tmp_path: Path) -> None:
    life, clock = busy_life(), Clock()

    async def scenario() -> None:
        archive = archive_of(life, Lake(str(tmp_path)), clock, ArchiveSettings())
        await archive.round()
        catalog = life.disks["catalog"]
        life.define(c.AddAsset(request_id(), 0, "ETH", 8, 8, ""))
        late = catalog.entries.pop()
        life.update(machines.update(1, 3, 1))
        await archive.round()
        clock.now_s += 60
        await archive.round()
        waiting = [name for name, state in archive.status().items() if state["trouble"]]
        assert len(waiting) == 1
        assert waiting[0] not in archive.manifest.watermarks
        catalog.entries.append(late)
        await archive.round()
        await archive.round()
        assert archive.manifest.watermarks == ends(life)
        rows = live_rows(tmp_path, "balances")
        assert [row["asset"] for row in rows].count(3) == 1
        assert len(rows) == len(life.postings)

    run(scenario())


def test_a_broken_catalog_is_told_once_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    life = busy_life()

    async def scenario() -> None:
        archive = archive_of(life, Lake(str(tmp_path)), Clock(), AT_ONCE)
        await archive.round()
        life.define(c.AddAsset(request_id(), 0, "ETH", 8, 8, ""))
        entries = life.disks["catalog"].entries
        entries[-1] = garbled(entries[-1])
        for _ in range(3):
            live(life, random.Random(8), 20)
            await archive.round()
        assert [record.levelname for record in caplog.records] == ["CRITICAL"]
        assert archive.status()["catalog"]["stopped"]
        assert len(archive.manifest.assets) == 2
        check_files(life, tmp_path)

    run(scenario())


def test_rows_wait_for_the_catalog_that_defines_them(tmp_path: Path) -> None:
    life = busy_life()
    catalog = life.disks.pop("catalog")

    async def scenario() -> None:
        archive = archive_of(life, Lake(str(tmp_path)), Clock(), AT_ONCE)
        await archive.round()
        assert "knows no" in str(archive.status()["ledger-0"]["trouble"])
        assert archive.manifest.version == 0
        with pytest.raises(JournalFailed, match="knows no"):
            await archive.catch_up(["ledger-0"])
        life.disks["catalog"] = catalog
        await archive.round()
        assert not any(state["trouble"] for state in archive.status().values())
        check_files(life, tmp_path)

    run(scenario())


def test_a_question_that_is_given_up_does_not_break_a_commit(tmp_path: Path) -> None:
    life = busy_life()
    reached, go_on = threading.Event(), threading.Event()

    class Slow(FragileLake):
        def commit(self, *args: Any, **change: Any) -> Any:
            reached.set()
            assert go_on.wait(10)
            return super().commit(*args, **change)

    async def scenario() -> None:
        archive = archive_of(life, Slow(str(tmp_path)), Clock(), ArchiveSettings(rows_max=1))
        await archive.catch_up(ends(life))
        live(life, random.Random(7), 30)
        asking = asyncio.create_task(archive.catch_up(ends(life)))
        assert await asyncio.to_thread(reached.wait, 10)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert archive.manifest.version == 0
        go_on.set()
        await archive.round()
        check(life, tmp_path, archive)
        await archive.close()

    run(scenario())


def test_of_two_archives_the_older_ends(tmp_path: Path) -> None:
    life = busy_life()

    async def scenario() -> None:
        older = archive_of(life, Lake(str(tmp_path)), Clock(), AT_ONCE)
        await archive_of(life, Lake(str(tmp_path)), Clock(), AT_ONCE).round()
        for _ in range(2):
            with pytest.raises(StaleManifest):
                await older.round()
        with pytest.raises(StaleManifest):
            await older.catch_up(["market-1"])
        check_files(life, tmp_path)

    run(scenario())
