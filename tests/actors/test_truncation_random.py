"""Truncation while everything else happens too: whatever is forgotten, nothing is missed by anyone.

Separate from the rules of the compactor, which have tables: here they meet an archive that lags
and dies, owners that come and go, and a snapshot that is lost now and then.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from analytics.lake import Lake
from excore_ray.actors.archive import Archive
from excore_ray.actors.compactor import Compactor, CompactorSettings
from excore_ray.actors.plan import ArchiveSettings
from excore_ray.actors.replay import kind_of, replay
from excore_ray.core.ledger import Ledger
from excore_ray.core.market import Market
from excore_ray.core.snapshot import state_hash
from excore_ray.errors import WireClosed
from excore_ray.storage.memory import MemoryDisk, open_memory, read_memory
from tests.actors.archive_world import (
    AT_ONCE,
    TABLES,
    Clock,
    FragileLake,
    Killed,
    Life,
    archive_of,
    check,
    check_files,
    ends,
    live,
    run,
    tail_rows,
)

STREAMS = ("ledger-0", "ledger-1", "market-1")


class TwinLife(Life):
    """A life whose journals are written twice: what is truncated on `disks` stays on `twins`."""

    def __init__(self) -> None:
        self.twins: dict[str, MemoryDisk] = {}
        super().__init__()

    def restart(self, stream: str) -> None:
        """The owner ends, and the next one is what its truncated journal tells."""
        kind = kind_of(stream)
        live_one: Market | Ledger = self.market
        if kind == "ledger":
            live_one = self.ledgers[int(stream[-1])]
        machine, seq = replay(read_memory(self.disks[stream]), kind)
        twin, twin_seq = replay(read_memory(self.twins[stream]), kind)
        assert seq == twin_seq
        assert state_hash(machine) == state_hash(twin)
        # Time has gone on for the live one with every refusal, which no journal knows of.
        machine.begin(live_one.time_us)
        assert state_hash(machine) == state_hash(live_one)
        assert isinstance(machine, Market | Ledger)
        if isinstance(machine, Market):
            self.market = machine
        else:
            self.ledgers[machine.shard] = machine

    def _land(self, stream: str, epoch: int, record: Any) -> None:
        super()._land(stream, epoch, record)
        twin = self.twins.setdefault(stream, MemoryDisk(stream))
        entry = self.disks[stream].entries[-1]
        twin.land(entry.seq, entry.epoch, [entry.body], [])


class Weather:
    """One run of everything at once, drawn by a seed; what happened is counted in `counts`."""

    def __init__(self, seed: int, root: Path) -> None:
        self.chance = random.Random(seed)
        self.root = root
        self.life, self.clock = TwinLife(), Clock()
        self.counts = dict.fromkeys(("kills", "restarts", "losses", "truncations"), 0)
        self.archive = self.new_archive()
        self.compactor = self.new_compactor()

    def new_archive(self) -> Archive:
        lake = FragileLake(str(self.root))
        lake.faults = {self.chance.randint(1, 60): Killed("here")}
        rows_max = self.chance.choice((5, 60, 50_000))
        settings = ArchiveSettings(rows_max=rows_max, age_s=2, idle_s=5)
        return archive_of(self.life, lake, self.clock, settings)

    def new_compactor(self) -> Compactor:
        settings = CompactorSettings(records_min=self.chance.choice((3, 10, 25)), truncate=True)
        names = tuple(self.life.disks)
        reader = self.life.reader
        return Compactor(lambda: names, reader, settings, self.truncate, self.watermarks)

    def watermarks(self) -> Mapping[str, int]:
        if self.chance.random() < 0.1:
            raise OSError("the lake does not answer")
        return Lake(str(self.root)).manifest().watermarks

    async def truncate(self, stream: str, up_to: int) -> None:
        if self.chance.random() < 0.2:
            raise WireClosed(f"{stream} does not serve yet")
        await asyncio.sleep(0)
        open_memory(self.life.disks[stream]).truncate(up_to)
        self.counts["truncations"] += 1

    async def turn(self) -> None:
        """Something happens, in the exchange, to the archive, to a file."""
        chance, life = self.chance, self.life
        live(life, chance, chance.randint(0, 15))
        self.clock.now_s += chance.choice((0, 0.5, 3, 6))
        jobs = [self.follow(chance.random() < 0.7)] if chance.random() < 0.6 else []
        if chance.random() < 0.5:
            jobs.append(self.compactor.round())
        await asyncio.gather(*jobs)
        assert not any(state.stopped for state in self.compactor.states.values())
        self.check_ways()
        if chance.random() < 0.3:
            life.restart(chance.choice(STREAMS))
            self.counts["restarts"] += 1
        if chance.random() < 0.2:
            self.archive = self.new_archive()
        if chance.random() < 0.2:
            self.compactor = self.new_compactor()
        disk = life.disks[chance.choice(STREAMS)]
        if chance.random() < 0.1 and len(disk.snapshots) == 2:
            # One of the two may turn out damaged.
            del disk.snapshots[chance.choice(sorted(disk.snapshots))]
            self.counts["losses"] += 1

    async def follow(self, whole: bool) -> None:
        try:
            if whole:
                await self.archive.round()
            else:
                await self.archive.catch_up(ends(self.life))
            assert not any(state["stopped"] for state in self.archive.status().values())
        except Killed:
            self.archive = self.new_archive()
            self.counts["kills"] += 1

    def check_ways(self) -> None:
        """An owner may begin with any kept snapshot, and the archive finds what it lacks."""
        marks = Lake(str(self.root)).manifest().watermarks
        for stream in STREAMS:
            disk, mark = self.life.disks[stream], marks.get(stream, 0)
            assert not disk.base_seq or disk.snapshots
            assert all(disk.base_seq <= seq for seq in disk.snapshots)
            assert disk.base_seq <= mark


@pytest.mark.parametrize("seed", range(12))
def test_each_row_is_in_the_lake_once_and_each_owner_comes_back(seed: int, tmp_path: Path) -> None:
    print(f"seed {seed}")
    weather = Weather(seed, tmp_path)

    async def scenario() -> None:
        turns = 0
        while turns < 100 or not all(weather.counts.values()):
            await weather.turn()
            turns += 1
        life = weather.life
        last = archive_of(life, Lake(str(tmp_path)), weather.clock, AT_ONCE)
        await last.round()
        assert last.manifest.watermarks == ends(life)
        check(life, tmp_path, last)
        check_files(life, tmp_path)
        assert not any(tail_rows(last, table, 2, {}) for table in TABLES)
        for stream in STREAMS:
            life.restart(stream)
            assert life.disks[stream].base_seq > 0

    run(scenario())
