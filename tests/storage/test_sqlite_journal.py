"""What only the SQLite journal promises: files, one owner, checkpoints, room that runs out."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from excore_ray.errors import (
    Fenced,
    JournalFailed,
    JournalForeign,
    JournalFull,
    StorageError,
    StreamBusy,
    StreamMissing,
)
from excore_ray.storage import sqlite
from excore_ray.storage.ownership import Ownership
from excore_ray.storage.sqlite import SqliteJournal, open_sqlite, read_sqlite
from tests.storage.places import ALL, OWNER, STREAM, bodies, edit, filled, put, run, use


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "some" / "data"


@pytest.fixture
def journal(place: Path) -> Iterator[SqliteJournal]:
    found = open_sqlite(place, STREAM, owner=OWNER)
    yield found
    found.close()


def test_files_are_for_this_user_alone(place: Path, journal: SqliteJournal) -> None:
    put(journal, b"a")
    journal.save_snapshot(1, b"s")
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()}
    names = [".00000000000000000001.snapshot", ".db", ".db-shm", ".db-wal", ".head", ".lock"]
    assert found == {STREAM + name: 0o600 for name in names}
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", ".a", "a b", "a\0", "é", "a" * 101])
def test_a_stream_name_cannot_lead_elsewhere(place: Path, name: str) -> None:
    with pytest.raises(AssertionError):
        open_sqlite(place, name, owner=OWNER)
    with pytest.raises(AssertionError):
        read_sqlite(place, name)


def test_streams_of_one_directory_do_not_meet(place: Path) -> None:
    names = ["a", "a.db", "a.lock", "a.00000000000000000001", "a-wal"]
    journals = [open_sqlite(place, name, owner=Ownership(name)) for name in names]
    for name, journal in zip(names, journals, strict=True):
        put(journal, name.encode())
        journal.save_snapshot(1, name.encode())
    for name, journal in zip(names, journals, strict=True):
        assert bodies(journal) == [name.encode()]
        assert journal.load_snapshot() == (1, name.encode())
        journal.close()


def test_every_commit_is_synced_and_only_asked_for_checkpoints_run(journal: SqliteJournal) -> None:
    pragmas = {"journal_mode": "wal", "synchronous": 2, "wal_autocheckpoint": 0, "cache_spill": 0}
    for pragma, expected in pragmas.items():
        assert journal._db.execute(f"PRAGMA {pragma}").fetchone() == (expected,)


def test_a_reader_cannot_write_and_leaves_the_log_where_it_is(place: Path) -> None:
    with pytest.raises(StreamMissing, match=STREAM):
        read_sqlite(place, STREAM)
    journal = open_sqlite(place, STREAM, owner=OWNER)
    put(journal, b"a")
    log = place / f"{STREAM}.db-wal"
    size = log.stat().st_size
    reader = read_sqlite(place, STREAM)
    for statement in ("DELETE FROM journal", "PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM"):
        with pytest.raises(sqlite3.OperationalError):
            reader._db.execute(statement)
    reader.close()
    assert log.stat().st_size == size
    assert bodies(journal) == [b"a"]
    journal.close()


def test_a_stream_that_is_being_made_is_missing_to_a_reader(place: Path) -> None:
    place.mkdir(parents=True)
    (place / f"{STREAM}.db").touch()
    with pytest.raises(StreamMissing):
        read_sqlite(place, STREAM)
    use(place)
    read_sqlite(place, STREAM).close()


def test_readers_see_whole_appends_while_the_owner_writes(place: Path) -> None:
    journal = open_sqlite(place, STREAM, owner=OWNER)
    stop = threading.Event()
    seen: list[int] = []
    faults: list[StorageError] = []

    def follow() -> None:
        try:
            with closing(read_sqlite(place, STREAM)) as reader:
                at = 1
                while not stop.is_set():
                    found = reader.read(at, 100_000)
                    at += len(found)
                    seen.append(reader.read(1, ALL)[-1].seq if at > 1 else 0)
        except StorageError as fault:
            faults.append(fault)

    thread = threading.Thread(target=follow)
    thread.start()
    for n in range(1, 601, 3):
        run(journal.append(n, 1, [b"x" * 5000] * 3, [b"%d" % n]))
    stop.set()
    thread.join()
    journal.close()
    assert faults == []
    assert seen == sorted(seen)
    assert all(last % 3 == 0 for last in seen)
    assert len(set(seen)) > 3


def test_two_owners_at_once_are_impossible(place: Path, journal: SqliteJournal) -> None:
    put(journal, b"a")
    with pytest.raises(StreamBusy, match=STREAM):
        open_sqlite(place, STREAM, owner=Ownership(STREAM, kill_after_s=0.05))
    run(journal.check_owner())
    put(journal, b"b")


def test_an_owner_whose_lock_file_was_replaced_writes_nothing_more(place: Path) -> None:
    first = open_sqlite(place, STREAM, owner=OWNER)
    put(first, b"a")
    (place / f"{STREAM}.lock").unlink()
    second = open_sqlite(place, STREAM, owner=OWNER)
    with pytest.raises(Fenced):
        run(first.append(2, 1, [b"zombie"], []))
    with pytest.raises(Fenced):
        run(first.check_owner())
    put(second, b"b", epoch=2)
    first.close()
    assert bodies(second) == [b"a", b"b"]
    second.close()


def test_an_entry_from_a_stranger_fences_the_owner(place: Path, journal: SqliteJournal) -> None:
    put(journal, b"a")
    edit(place, "INSERT INTO journal SELECT 2, epoch, crc, chain, body FROM journal")
    with pytest.raises(Fenced):
        run(journal.append(2, 1, [b"b"], []))


def test_a_stranger_at_the_head_fences_the_owner(place: Path, journal: SqliteJournal) -> None:
    put(journal, b"a")
    edit(place, "UPDATE journal SET chain = zeroblob(32)")
    with pytest.raises(Fenced):
        run(journal.append(2, 1, [b"b"], []))


def test_no_room_harms_nothing_and_passes(journal: SqliteJournal) -> None:
    put(journal, b"a", keys=(b"k1",))
    [(pages,)] = journal._db.execute("PRAGMA page_count")
    # The limit of pages is SQLite's own way to run out of room: the same error as a full disk.
    journal._db.execute(f"PRAGMA max_page_count = {pages + 4}")
    for _ in range(3):
        with pytest.raises(JournalFull, match="nothing was written"):
            run(journal.append(2, 1, [b"x" * 50_000, b"y"], [b"k2"]))
    run(journal.append(2, 1, [b"small"], [b"k3"]))
    assert bodies(journal) == [b"a", b"small"]
    assert run(journal.find_keys([b"k1", b"k2", b"k3"])) == {b"k1", b"k3"}
    run(journal.check_owner())
    journal._db.execute("PRAGMA max_page_count = 1000000")
    run(journal.append(3, 1, [b"x" * 50_000], [b"k2"]))
    assert bodies(journal) == [b"a", b"small", b"x" * 50_000]


def test_what_does_not_fit_the_file_fails_for_good(place: Path, journal: SqliteJournal) -> None:
    put(journal, b"a")
    journal._db.execute("PRAGMA query_only = ON")
    with pytest.raises(JournalFailed) as caught:
        run(journal.append(2, 1, [b"b"], []))
    assert not isinstance(caught.value, JournalFull)
    journal._db.execute("PRAGMA query_only = OFF")
    with pytest.raises(JournalFailed):
        run(journal.append(2, 1, [b"b"], []))
    journal.close()
    with closing(open_sqlite(place, STREAM, owner=OWNER)) as again:
        assert bodies(again) == [b"a"]


def test_a_checkpoint_runs_in_a_turn_of_its_own(place: Path, journal: SqliteJournal) -> None:
    log = place / f"{STREAM}.db-wal"
    path = place / f"{STREAM}.db"

    async def appends(first: int, count: int, turns: int) -> None:
        for seq in range(first, first + count):
            await journal.append(seq, 1, [b"x" * 20_000], [])
            for _ in range(turns):
                await asyncio.sleep(0)

    before = path.stat().st_size
    run(appends(1, 400, 1))
    assert path.stat().st_size > before + 350 * 20_000
    assert log.stat().st_size < 2_000_000
    # A caller that never lets the loop turn must not grow the log without bound either.
    run(appends(401, 1000, 0))
    assert log.stat().st_size < 2 * sqlite.CHECKPOINT_PAGES_MAX * 4200


def test_a_checkpoint_that_fails_ends_the_journal_but_loses_nothing(place: Path) -> None:
    journal = open_sqlite(place, STREAM, owner=OWNER)
    put(journal, b"a" * 600_000)
    journal._db.execute("BEGIN")
    journal._db.execute("SELECT * FROM journal").fetchone()
    journal._pages = sqlite.CHECKPOINT_PAGES
    journal._checkpoint_if_due()
    with pytest.raises(JournalFailed, match="checkpoint"):
        journal.status()
    journal.close()
    with closing(open_sqlite(place, STREAM, owner=OWNER)) as again:
        assert bodies(again) == [b"a" * 600_000]


def test_a_truncation_in_a_thread_lets_appends_through(place: Path) -> None:
    journal = open_sqlite(place, STREAM, owner=OWNER)
    count = sqlite.TRUNCATE_SLICE * 6
    put(journal, *[b"x" * 3000] * count)
    for seq in (count - 10, count):
        journal.save_snapshot(seq, b"s")

    async def both() -> int:
        truncation = asyncio.create_task(asyncio.to_thread(journal.truncate, count - 10))
        seq = count + 1
        while not truncation.done():
            await journal.append(seq, 1, [b"%d" % seq], [])
            seq += 1
            await asyncio.sleep(0.001)
        await truncation
        return seq

    after = run(both())
    journal.close()
    with closing(open_sqlite(place, STREAM, owner=OWNER)) as again:
        assert again.status().oldest_seq == count - 9
        assert [entry.seq for entry in again.read(count - 9, ALL)] == [*range(count - 9, after)]


def test_truncated_room_is_used_again(place: Path, journal: SqliteJournal) -> None:
    sizes = []
    for part in range(6):
        for _ in range(50):
            put(journal, b"x" * 10_000)
        seq = journal.status().next_seq - 1
        journal.save_snapshot(seq - 1, b"s")
        journal.save_snapshot(seq, b"s")
        journal.truncate(seq - 1)
        sizes.append(journal.status().bytes)
        assert part < 2 or sizes[-1] <= sizes[1] * 1.2


def test_an_unusable_directory_is_a_failed_journal(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalFailed):
        open_sqlite(tmp_path / "file" / "data", STREAM, owner=OWNER)


def test_a_failed_opening_holds_nothing(place: Path) -> None:
    filled(place, 3)
    edit(place, "UPDATE meta SET value = value + 1 WHERE name = 'schema'")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(JournalForeign):
            open_sqlite(place, STREAM, owner=OWNER)
    assert len(os.listdir("/proc/self/fd")) == before
    edit(place, "UPDATE meta SET value = value - 1 WHERE name = 'schema'")
    use(place)
