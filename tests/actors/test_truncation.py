"""Truncation: what a round of the compactor forgets and keeps, and what can be rebuilt then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from excore_ray.actors.archive_follower import Follower
from excore_ray.actors.compactor import Compactor, CompactorSettings, StreamState
from excore_ray.actors.replay import KINDS, Replay, replay
from excore_ray.core import commands as c
from excore_ray.core.ledger import Ledger
from excore_ray.core.snapshot import state_hash
from excore_ray.errors import (
    Fenced,
    JournalForgotten,
    SnapshotBroken,
    WireClosed,
)
from excore_ray.storage.memory import open_memory
from tests.actors.archive_world import (
    BTC,
    Life,
    run,
)
from tests.core import machines
from tests.core.machines import START_US

LEDGER = "ledger-0"
STREAMS = ("ledger-0", "ledger-1", "market-1")
TEN = CompactorSettings(records_min=10, truncate=True)


def grown(entries: int, snapshots: tuple[int, ...] = (), base: int = 0) -> Life:
    """An exchange of one shard, whose journal has so many entries, each with its state_hash."""
    life = Life(1)
    disk = life.disks[LEDGER]
    while disk.next_seq <= entries:
        life.update(machines.update(1, BTC, 1))
        if disk.next_seq - 1 in snapshots:
            life.snapshot(LEDGER)
    disk.forget(base)
    return life


def compactor_of(
    life: Life, marks: Mapping[str, int] | None, stream: str = LEDGER, **options: Any
) -> Compactor:
    """A compactor of one stream.  marks: of its archive, None for none."""

    async def truncate(stream: str, up_to: int) -> None:
        open_memory(life.disks[stream]).truncate(up_to)

    options.setdefault("settings", TEN)
    options.setdefault("truncate", truncate)
    if marks is not None:
        options.setdefault("watermarks", lambda: marks)
    return Compactor(lambda: [stream], life.reader, **options)


class Row(NamedTuple):
    """A stream of 30 entries before a round, and what is to be after it.

    kept: its snapshots.  base: truncated up to there.  mark: its watermark, None without archive.
    """

    kept: tuple[int, ...]
    base: int
    mark: int | None
    kept_after: tuple[int, ...]
    base_after: int
    waits: str


RULES = {
    "nothing is truncated without an archive": Row((10, 20), 0, None, (20, 30), 0, ""),
    "snapshots wait for nobody": Row((), 0, 0, (30,), 0, ""),
    "the archive has nothing yet": Row((10,), 0, 0, (10, 30), 0, "the archive at 0"),
    "the archive has too little": Row((10,), 0, 9, (10, 30), 0, "the archive at 9"),
    "what is in the lake": Row((10,), 0, 10, (10, 30), 10, ""),
    "up to the older only": Row((10,), 0, 25, (10, 30), 10, ""),
    "an archive that does not lag": Row((10, 20), 10, 30, (20, 30), 20, ""),
    "what was not truncated then is now": Row((10, 25), 0, 30, (10, 25), 10, ""),
    "once is enough": Row((10, 25), 10, 30, (10, 25), 10, ""),
    "as far as the archive is": Row((20,), 0, 15, (20, 30), 15, "the archive at 15"),
    "and not for a few": Row((20,), 10, 15, (20, 30), 10, "the archive at 15"),
    "all before an archive began": Row((20, 25), 0, 3, (20, 25), 0, "the archive at 3"),
    "from either": Row((25,), 0, 30, (25,), 0, ""),
    "but what may go goes": Row((22, 25), 0, 30, (22, 25), 22, ""),
}


@pytest.mark.parametrize("row", RULES.values(), ids=RULES)
def test_what_a_round_does(row: Row) -> None:
    life = grown(30, row.kept, row.base)
    disk = life.disks[LEDGER]

    async def scenario() -> None:
        marks = None if row.mark is None else {LEDGER: row.mark}
        compactor = compactor_of(life, marks)
        await compactor.round()
        state = compactor.states[LEDGER]
        assert (state.stopped, state.waits.removeprefix("it waits for ")) == ("", row.waits)
        # Another round has nothing left to do, nor has a compactor that begins anew.
        for again in (compactor, compactor_of(life, marks)):
            assert (tuple(sorted(disk.snapshots)), disk.base_seq) == (
                row.kept_after,
                row.base_after,
            )
            await again.round()
            assert again.states[LEDGER].stopped == ""

    run(scenario())


def test_a_stream_that_no_archive_has_named_yet_is_waited_for() -> None:
    life = grown(30, (10,))
    disk = life.disks[LEDGER]

    async def scenario() -> None:
        compactor = compactor_of(life, {})
        await compactor.round()
        assert compactor.states[LEDGER].waits == "it waits for the archive at 0"
        assert (sorted(disk.snapshots), disk.base_seq) == ([10, 30], 0)

    run(scenario())


def test_the_catalog_waits_for_nobody_and_keeps_its_history() -> None:
    life = Life(1)
    disk = life.disks["catalog"]

    async def scenario() -> None:
        compactor = compactor_of(life, {}, "catalog")
        for _ in range(4):
            for _ in range(10):
                checkpoint = c.Checkpoint(state_hash(life.catalog))
                life._land("catalog", 1, c.CatalogRecord(START_US, [checkpoint]))
            await compactor.round()
            assert compactor.states["catalog"] == StreamState(
                snapshot_seq=disk.next_seq - 1,
                older_seq=max(0, disk.next_seq - 11) if len(disk.snapshots) == 2 else 0,
                snapshot_bytes=len(disk.snapshots[disk.next_seq - 1]),
            )
        assert len(disk.snapshots) == 2
        assert disk.base_seq == 0

    run(scenario())


def test_watermarks_that_cannot_be_read_are_asked_for_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    life = grown(30, (10, 15))
    disk = life.disks[LEDGER]
    troubled = True

    def watermarks() -> dict[str, int]:
        if troubled:
            raise RuntimeError("the lake does not answer")
        return {LEDGER: 30}

    async def scenario() -> None:
        nonlocal troubled
        compactor = compactor_of(life, {}, watermarks=watermarks)
        await compactor.round()
        state = compactor.states[LEDGER]
        assert "cannot be read" in state.waits
        assert "the lake does not answer" in caplog.text
        assert (sorted(disk.snapshots), disk.base_seq) == ([15, 30], 0)
        troubled = False
        await compactor.round()
        assert (state.waits, state.stopped) == ("", "")
        assert (sorted(disk.snapshots), disk.base_seq) == ([15, 30], 15)

    run(scenario())


@pytest.mark.parametrize("fault", [WireClosed("it starts"), Fenced("it ends"), OSError("slow")])
def test_an_owner_that_is_away_truncates_later(fault: Exception) -> None:
    life = grown(30, (10, 20))
    disk = life.disks[LEDGER]
    troubled = True

    async def truncate(stream: str, up_to: int) -> None:
        if troubled:
            raise fault
        open_memory(life.disks[stream]).truncate(up_to)

    async def scenario() -> None:
        nonlocal troubled
        compactor = compactor_of(life, {LEDGER: 30}, truncate=truncate)
        await compactor.round()
        state = compactor.states[LEDGER]
        assert str(fault) in state.waits
        assert (sorted(disk.snapshots), disk.base_seq) == ([20, 30], 0)
        troubled = False
        await compactor.round()
        assert (state.waits, state.stopped, disk.base_seq) == ("", "", 20)

    run(scenario())


MEANWHILE: dict[str, tuple[set[int], tuple[int, int], list[int]]] = {
    "the older is lost": ({20}, (20, 0), []),
    "both are lost": (set(), (0, 0), []),
    "another one comes": ({20, 28}, (28, 20), [12]),
}


@pytest.mark.parametrize(("kept", "found", "truncated"), MEANWHILE.values(), ids=MEANWHILE)
def test_the_snapshots_are_looked_at_again_before_anything_is_forgotten(
    kept: set[int], found: tuple[int, int], truncated: list[int]
) -> None:
    life = grown(30, (10, 20))
    disk, marks = life.disks[LEDGER], {LEDGER: 9}
    asked: list[int] = []

    async def truncate(stream: str, up_to: int) -> None:
        asked.append(up_to)

    async def scenario() -> None:
        settings = CompactorSettings(records_min=15, truncate=True)
        compactor = compactor_of(life, marks, settings=settings, truncate=truncate)
        await compactor.round()
        state = compactor.states[LEDGER]
        assert (state.snapshot_seq, state.older_seq, asked) == (20, 10, [])
        disk.snapshots = dict.fromkeys(kept, b"a snapshot")
        marks[LEDGER] = 12
        await compactor.round()
        assert (state.snapshot_seq, state.older_seq, state.stopped) == (*found, "")
        assert asked == truncated

    run(scenario())


def test_a_damaged_older_snapshot_of_a_truncated_stream_is_replaced() -> None:
    life = grown(30, (10, 20), 10)
    disk = life.disks[LEDGER]
    del disk.snapshots[10]

    async def scenario() -> None:
        compactor = compactor_of(life, {LEDGER: 30})
        await compactor.round()
        assert (sorted(disk.snapshots), disk.base_seq) == ([20, 30], 20)
        assert compactor.states[LEDGER].stopped == ""

    run(scenario())


def test_a_journal_that_lacks_what_the_archive_has_is_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    life = grown(30, (10, 20))
    disk = life.disks[LEDGER]

    async def scenario() -> None:
        compactor = compactor_of(life, {LEDGER: 31})
        await compactor.round()
        assert "JournalBroken" in compactor.states[LEDGER].stopped
        assert "NOT COMPACTED ANY MORE" in caplog.text
        assert (sorted(disk.snapshots), disk.base_seq) == ([10, 20], 0)

    run(scenario())


# Snapshots of 10 and 20, truncated up to 10: where a replay begins, None when there is no way.
WAYS = [(5, None), (9, None), (10, 10), (15, 10), (19, 10), (20, 20), (30, 20)]


@pytest.mark.parametrize(("to_seq", "begin"), WAYS)
def test_a_replay_begins_with_the_newest_snapshot_on_its_way(
    to_seq: int, begin: int | None
) -> None:
    life = grown(30, (10, 20))
    ledger = Ledger()
    for entry in life.disks[LEDGER].entries[:to_seq]:
        ledger.apply(KINDS["ledger"].decode(entry.body), state_hash)
    life.disks[LEDGER].forget(10)
    reader = life.reader(LEDGER)
    if begin is None:
        forgotten = rf"after entry {to_seq} cannot be rebuilt .* oldest .* is the one after 10\."
        with pytest.raises(JournalForgotten, match=forgotten):
            replay(reader, "ledger", to_seq)
        with pytest.raises(JournalForgotten, match=f"entry {to_seq + 1} was truncated"):
            Follower(reader, to_seq, 0.0)
        return
    assert Replay(reader, "ledger", to_seq).seq == begin
    assert Follower(reader, to_seq, 0.0).seq == to_seq
    machine, reached = replay(reader, "ledger", to_seq)
    assert reached == to_seq
    assert state_hash(machine) == state_hash(ledger)


def test_a_replay_without_any_snapshot_that_could_be_used_says_so() -> None:
    life = grown(30, (), 10)
    for to_seq in (5, 15, None):
        with pytest.raises(SnapshotBroken, match="1 to 10 were truncated"):
            replay(life.reader(LEDGER), "ledger", to_seq)
