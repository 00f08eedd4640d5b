"""The compactor: snapshots that restart what ran, and a loud end where a replay does not agree."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from excore_ray.actors.compactor import Compactor, CompactorSettings
from excore_ray.actors.replay import KINDS, Replay, kind_of, replay
from excore_ray.actors.shell import ShellSettings
from excore_ray.core import commands as c
from excore_ray.core.market import Market
from excore_ray.core.snapshot import dump, state_hash
from excore_ray.errors import JournalBroken, SnapshotFailed, StreamMissing, TruncateRefused
from excore_ray.storage.journal import Entry
from excore_ray.storage.memory import MemoryDisk, MemoryJournal
from tests.actors.shell_world import BUY, SELL, Town, expect_placed, play
from tests.core.machines import stray_levels

OFTEN = ShellSettings(idle_ms=50, busy_ms=5, checkpoint_records=7, checkpoint_spacing=0)
EAGER = CompactorSettings(compact_s=0.01, records_min=1, truncate=False)


def read_only(disk: MemoryDisk) -> MemoryJournal:
    """A reader of `disk`, which the owner does not feel."""
    owner = disk.owner
    journal = MemoryJournal(disk)
    disk.owner = owner
    return journal


def compactor_of(town: Town, settings: CompactorSettings = EAGER, **options: Any) -> Compactor:
    def reader(stream: str) -> MemoryJournal:
        return read_only(town.disks[stream])

    return Compactor(lambda: town.disks, reader, settings, **options)


def all_archived(town: Town) -> dict[str, int]:
    """The watermarks of an archive that does not lag."""
    return {stream: disk.next_seq - 1 for stream, disk in town.disks.items() if stream != "catalog"}


async def trade(town: Town, count: int) -> None:
    for n in range(count):
        expect_placed(await town.put(1 + n % 3, SELL if n % 2 else BUY, 1 + n % 4, 98 + n % 7))


async def busy_town(town: Town) -> None:
    town.settings = OFTEN
    await town.open_all()
    await town.add_market()
    await town.pay_in([1, 2, 3])
    await trade(town, 60)


def test_what_restarts_from_a_snapshot_is_what_ran() -> None:
    async def scenario(town: Town) -> None:
        await busy_town(town)
        compactor = compactor_of(town)
        await compactor.round()
        for stream in ("market-1", "ledger-0", "ledger-1"):
            disk, state = town.disks[stream], compactor.states[stream]
            assert list(disk.snapshots) == [state.snapshot_seq]
            assert state.stopped == ""
            decode = KINDS[kind_of(stream)].decode
            record = decode(disk.entries[state.snapshot_seq - 1].body)
            assert c.Checkpoint in {type(command) for command in record.commands}
            from_snapshot, seq = replay(read_only(disk), kind_of(stream))
            assert seq == disk.next_seq - 1
            whole = Replay(read_only(MemoryDiskWithout(disk)), kind_of(stream))
            while whole.advance():
                pass
            assert dump(from_snapshot) == dump(whole.machine)
        # The next incarnations start from the snapshots, and trading goes on.
        for name in ("market-1", "ledger-0", "ledger-1"):
            await town.restart(name)
        await trade(town, 30)
        await compactor.round()
        assert len(town.disks["market-1"].snapshots) == 2
        await town.close()
        assert town.ends == []

    play(scenario)


def test_nothing_stays_of_the_machines_it_rebuilds() -> None:
    async def scenario(town: Town) -> None:
        await busy_town(town)
        compactor = compactor_of(town)
        await compactor.round()
        market = town.shells["market-1"].machine
        assert isinstance(market, Market)
        before = stray_levels(market)
        for _ in range(3):
            newest = compactor.states["market-1"].snapshot_seq
            for price in (201, 202, 203):  # nobody pays so much
                expect_placed(await town.put(3, SELL, 1, price))
            await trade(town, 12)
            await compactor.round()
            assert compactor.states["market-1"].snapshot_seq > newest
        assert stray_levels(market) == before
        await town.close()

    play(scenario)


class MemoryDiskWithout(MemoryDisk):
    """A disk that has lost its snapshots."""

    def __init__(self, disk: MemoryDisk) -> None:
        super().__init__(disk.stream)
        self.entries = disk.entries


def test_it_goes_round_by_itself_and_keeps_two() -> None:
    async def scenario(town: Town) -> None:
        await busy_town(town)
        compactor = compactor_of(town)
        running = asyncio.create_task(compactor.run())
        seen: set[int] = set()
        for _ in range(5):
            await trade(town, 20)
            await asyncio.sleep(0.05)
            seen |= set(town.disks["market-1"].snapshots)
            assert len(town.disks["market-1"].snapshots) <= 2
        running.cancel()
        assert len(seen) > 2
        await town.close()

    play(scenario)


def test_few_records_are_not_worth_a_snapshot() -> None:
    async def scenario(town: Town) -> None:
        await busy_town(town)
        compactor = compactor_of(town, CompactorSettings(records_min=100_000, truncate=False))
        await compactor.round()
        assert not town.disks["market-1"].snapshots
        await town.close()

    play(scenario)


def altered(record: Any) -> Any:
    """`record` with the state_hash in it changed."""
    wrong = c.Checkpoint("0" * 64)
    commands = [wrong if type(one) is c.Checkpoint else one for one in record.commands]
    return msgspec.structs.replace(record, commands=commands)


def has_checkpoint(record: Any) -> bool:
    return any(type(command) is c.Checkpoint for command in record.commands)


def is_order(record: Any) -> bool:
    return any(type(command) is c.Place for command in record.commands)


def without_first(record: Any) -> Any:
    """`record` without its first order: what a bug or a hand would have left out."""
    first = next(one for one in record.commands if type(one) is c.Place)
    return msgspec.structs.replace(
        record, commands=[one for one in record.commands if one is not first]
    )


MISMATCHES: list[tuple[str, Callable[[Any], bool], Callable[[Any], Any], str]] = [
    ("a hash that does not come out", has_checkpoint, altered, "replay differs from what ran"),
    ("an order that is missing", is_order, without_first, "AssertionError"),
]


@pytest.mark.parametrize(
    ("choose", "change", "says"), [row[1:] for row in MISMATCHES], ids=[r[0] for r in MISMATCHES]
)
def test_a_mismatch_is_reported_and_stops_only_that_stream(
    choose: Callable[[Any], bool],
    change: Callable[[Any], Any],
    says: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(town: Town) -> None:
        await busy_town(town)
        disk = town.disks["market-1"]
        decode = KINDS["market"].decode
        at = next(n for n, e in enumerate(disk.entries) if choose(decode(e.body)))
        entry = disk.entries[at]
        body = msgspec.json.encode(change(decode(entry.body)))
        disk.entries[at] = Entry(entry.seq, entry.epoch, body)
        compactor = compactor_of(town)
        await compactor.round()
        stopped = compactor.states["market-1"].stopped
        assert says in stopped
        assert "stream market-1" in stopped
        assert "market-1 is NOT COMPACTED ANY MORE" in caplog.text
        assert not disk.snapshots
        assert town.disks["ledger-0"].snapshots
        # It is left alone from now on, while the others go on.
        caplog.clear()
        await trade(town, 20)
        await compactor.round()
        assert "market-1" not in caplog.text
        assert len(town.disks["ledger-0"].snapshots) == 2
        await town.close()

    play(scenario)


def test_what_is_no_record_is_broken() -> None:
    async def scenario(town: Town) -> None:
        await busy_town(town)
        disk = town.disks["ledger-0"]
        disk.entries[4] = Entry(5, 1, b'[1, ["no such command"]]')
        with pytest.raises(JournalBroken, match="entry 5 is no record"):
            replay(read_only(disk), "ledger")
        await town.exchange.close()
        await town.close()

    play(scenario)


def test_replay_to_an_entry_shows_the_state_at_that_entry() -> None:
    async def scenario(town: Town) -> None:
        await busy_town(town)
        disk = town.disks["market-1"]
        await compactor_of(town).round()
        seen: list[int] = []
        for seq in (1, 2, disk.next_seq // 2, disk.next_seq - 1):
            machine, reached = replay(read_only(disk), "market", seq, seen.append)
            assert reached == seq
            direct = KINDS["market"].make()
            for entry in disk.entries[:seq]:
                direct.apply(KINDS["market"].decode(entry.body), state_hash)
            assert state_hash(machine) == state_hash(direct)
        assert seen[-1] == disk.next_seq - 1
        await town.close()

    play(scenario)


def test_truncation_keeps_two_ways_to_restart() -> None:
    async def scenario(town: Town) -> None:
        await busy_town(town)
        asked: list[tuple[str, int]] = []

        async def truncate(stream: str, up_to: int) -> None:
            asked.append((stream, up_to))
            town.shells[stream].journal.truncate(up_to)

        settings = CompactorSettings(records_min=1, truncate=True)
        marks = functools.partial(all_archived, town)
        compactor = compactor_of(town, settings, truncate=truncate, watermarks=marks)
        for _ in range(3):
            await compactor.round()
            await trade(town, 30)
        disk = town.disks["market-1"]
        older, newer = sorted(disk.snapshots)
        assert ("market-1", older) in asked
        assert disk.base_seq == older < newer
        assert compactor.states["market-1"].stopped == ""
        await town.restart("market-1")
        await trade(town, 10)
        await town.close()

    play(scenario)


@pytest.mark.parametrize(
    "fault", [StreamMissing("not yet"), SnapshotFailed("no room"), OSError(28, "no room")]
)
def test_a_passing_trouble_passes(fault: Exception) -> None:
    async def scenario(town: Town) -> None:
        await busy_town(town)
        troubled = True

        def reader(stream: str) -> MemoryJournal:
            if troubled and stream == "market-1":
                raise fault
            return read_only(town.disks[stream])

        compactor = Compactor(lambda: town.disks, reader, EAGER)
        await compactor.round()
        assert compactor.states["market-1"].stopped == ""
        assert not town.disks["market-1"].snapshots
        assert town.disks["ledger-0"].snapshots
        troubled = False
        await compactor.round()
        assert town.disks["market-1"].snapshots
        await town.close()

    play(scenario)


def test_a_refused_truncation_is_a_bug_that_is_seen() -> None:
    async def scenario(town: Town) -> None:
        await busy_town(town)

        async def truncate(stream: str, up_to: int) -> None:
            raise TruncateRefused(f"{stream} up to {up_to}")

        settings = CompactorSettings(records_min=1, truncate=True)
        marks = functools.partial(all_archived, town)
        compactor = compactor_of(town, settings, truncate=truncate, watermarks=marks)
        for _ in range(2):
            await compactor.round()
            await trade(town, 20)
        assert "TruncateRefused" in compactor.states["market-1"].stopped
        await town.close()

    play(scenario)
