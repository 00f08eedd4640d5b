"""The write-ahead log: what a crash leaves is taken as it is, what damage leaves is found."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from excore_ray.errors import JournalBroken
from excore_ray.storage.sqlite import open_sqlite
from excore_ray.storage.sqlite_wal import count_committed, find_lost_commit, sync_log
from tests.storage.places import OWNER, STREAM, bodies, put

COMMITS = 12
PAGE_BYTES = 4096
HEADER_BYTES, FRAME_BYTES = 32, 24 + PAGE_BYTES


class Crashed:
    """A journal whose owner was killed with COMMITS appends in the log, as files to play with."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / f"{STREAM}.db-wal"
        self.ends: list[int] = []  # size of the log after each append

    def frame_of(self, append: int) -> int:
        """Where the last frame of an append, from 1, begins in the log."""
        return self.ends[append - 1] - FRAME_BYTES

    def flip(self, at: int) -> None:
        data = bytearray(self.log.read_bytes())
        data[at] ^= 0x10
        self.log.write_bytes(data)

    def cut(self, at: int) -> None:
        self.log.write_bytes(self.log.read_bytes()[:at])

    def recovered(self) -> list[bytes]:
        with closing(open_sqlite(self.directory, STREAM, owner=OWNER)) as journal:
            return bodies(journal)


@pytest.fixture
def crashed(tmp_path: Path) -> Crashed:
    live = tmp_path / "live"
    found = Crashed(tmp_path / "crashed")
    with closing(open_sqlite(live, STREAM, owner=OWNER)) as journal:
        put(journal, b"in the database")
        journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for n in range(1, COMMITS + 1):
            put(journal, b"%d" % n * 5000)
            found.ends.append((live / f"{STREAM}.db-wal").stat().st_size)
        found.directory.mkdir()
        # Without the shared memory, as after a power failure: the log must be recovered.
        for name in (f"{STREAM}.db", f"{STREAM}.db-wal"):
            shutil.copy(live / name, found.directory / name)
    return found


def expected(appends: int) -> list[bytes]:
    return [b"in the database", *(b"%d" % n * 5000 for n in range(1, appends + 1))]


def test_an_undamaged_log_is_recovered_whole(crashed: Crashed) -> None:
    assert crashed.recovered() == expected(COMMITS)


@pytest.mark.parametrize("back", [1, 100, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 5])
def test_a_torn_last_append_is_absent_and_the_others_are_there(crashed: Crashed, back: int) -> None:
    crashed.cut(crashed.ends[-1] - back)
    assert crashed.recovered() == expected(COMMITS - 1)
    with closing(open_sqlite(crashed.directory, STREAM, owner=OWNER)) as journal:
        put(journal, b"next", epoch=2)
    assert crashed.recovered() == [*expected(COMMITS - 1), b"next"]


def test_a_torn_append_whose_end_came_first_to_the_disk_is_absent(crashed: Crashed) -> None:
    crashed.flip(crashed.ends[-2] + 30)
    assert crashed.recovered() == expected(COMMITS - 1)


def test_frames_of_an_earlier_torn_append_are_no_lost_commit(crashed: Crashed) -> None:
    # A long append was torn and partly overwritten by shorter ones: what is left of it carries
    # the salts of the log, and ends in a commit that never was one.
    log = crashed.log.read_bytes()
    end = log[crashed.frame_of(4) : crashed.ends[3]]
    crashed.log.write_bytes(log[: crashed.ends[3]] + end + log[crashed.ends[-2] :])
    assert crashed.recovered() == expected(4)


@pytest.mark.parametrize("append", [1, 2, COMMITS - 2, COMMITS - 1])
@pytest.mark.parametrize(
    "offset", [1, 5, 9, 17, 30, 4000], ids="page size salt sum data end".split()
)
def test_damage_before_the_last_append_is_found(crashed: Crashed, append: int, offset: int) -> None:
    crashed.flip(crashed.frame_of(append) + offset)
    before = crashed.log.read_bytes()
    with pytest.raises(JournalBroken, match=f"stream {STREAM}: .* are lost.*restore"):
        crashed.recovered()
    # The evidence stays, however often the actor is started.
    with pytest.raises(JournalBroken, match=rf"after {append} are lost"):
        crashed.recovered()
    assert crashed.log.read_bytes() == before


@pytest.mark.parametrize("at", [3, 9, 13, 17, 22, 25, 30])
def test_a_damaged_header_is_found(crashed: Crashed, at: int) -> None:
    crashed.flip(at)
    with pytest.raises(JournalBroken, match="are lost"):
        crashed.recovered()


def test_a_log_of_zeros_or_a_beginning_of_one_holds_nothing(crashed: Crashed) -> None:
    size = crashed.ends[-1]
    for content in (b"", b"\0" * 10, b"\0" * size, crashed.log.read_bytes()[:HEADER_BYTES]):
        crashed.log.write_bytes(content)
        assert find_lost_commit(crashed.log, PAGE_BYTES, 0) is None


def test_frames_of_the_log_before_are_no_loss(crashed: Crashed) -> None:
    with closing(open_sqlite(crashed.directory, STREAM, owner=OWNER)) as journal:
        # Everything was checkpointed, so this begins the log anew, over the old frames.
        put(journal, b"x")
        assert crashed.log.stat().st_size == crashed.ends[-1]
        for name in (f"{STREAM}.db", f"{STREAM}.db-wal"):
            shutil.copy(crashed.directory / name, crashed.directory / f"copy-{name}")
    for name in (f"{STREAM}.db", f"{STREAM}.db-wal"):
        (crashed.directory / f"copy-{name}").rename(crashed.directory / name)
    assert crashed.recovered() == [*expected(COMMITS), b"x"]


def test_the_committed_frames_are_counted_as_sqlite_does(crashed: Crashed) -> None:
    log = crashed.log.read_bytes()
    frame_of = [0, *((end - HEADER_BYTES) // FRAME_BYTES for end in crashed.ends)]
    for append, size in enumerate([HEADER_BYTES, *crashed.ends]):
        crashed.log.write_bytes(log[:size])
        assert count_committed(crashed.log, PAGE_BYTES) == frame_of[append]
        crashed.log.write_bytes(log[: size - 1])
        assert count_committed(crashed.log, PAGE_BYTES) == frame_of[max(append - 1, 0)]
    crashed.log.write_bytes(log)
    crashed.flip(crashed.frame_of(7) + 100)
    assert count_committed(crashed.log, PAGE_BYTES) == frame_of[6]
    crashed.flip(20)
    assert count_committed(crashed.log, PAGE_BYTES) == 0


def test_no_log_is_no_error(tmp_path: Path) -> None:
    assert count_committed(tmp_path / "none", PAGE_BYTES) == 0
    sync_log(tmp_path / "none")
    assert find_lost_commit(tmp_path / "none", PAGE_BYTES, 0) is None


def test_other_sizes_of_page_are_understood(tmp_path: Path) -> None:
    for page_bytes in (512, 1024, 65536):
        path, log = tmp_path / f"{page_bytes}", tmp_path / f"{page_bytes}-wal"
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute(f"PRAGMA page_size = {page_bytes}")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("CREATE TABLE t (x)")
            for n in range(5):
                db.execute("INSERT INTO t VALUES (zeroblob(3000 + ?))", (n,))
            frames = (log.stat().st_size - HEADER_BYTES) // (24 + page_bytes)
            assert find_lost_commit(log, page_bytes, frames) is None
            assert find_lost_commit(log, page_bytes, 0) is not None
