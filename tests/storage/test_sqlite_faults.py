"""A disk that is full, or fails, or takes half of a write: nothing acknowledged is lost by it."""

from __future__ import annotations

import errno
import random
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from excore_ray.errors import JournalFailed, JournalFull, SnapshotFailed
from excore_ray.storage.journal import Entry
from excore_ray.storage.sqlite import open_sqlite, read_sqlite
from tests.storage.child import body_of, end, key_of, line_of, spawn
from tests.storage.failing_calls import can_fail
from tests.storage.places import ALL, OWNER, STREAM, bodies, put, run


def lines_of(directory: Path, what: str, *more: object) -> list[str]:
    child = spawn(what, directory, *map(str, more))
    lines = []
    while line := line_of(child):
        lines.append(line)
    end(child)
    return lines


def check_appends_of_the_child(directory: Path, acknowledged: int) -> list[Entry]:
    """Whole appends of two, the acknowledged ones and at most the one that was under way.

    And the stream goes on.
    """
    with closing(open_sqlite(directory, STREAM, owner=OWNER)) as journal:
        found = journal.read(1, ALL)
        assert [entry.seq for entry in found] == [*range(1, len(found) + 1)]
        assert all(entry.body == body_of(entry.seq) for entry in found)
        assert len(found) in (acknowledged, acknowledged + 2)
        keys = [key_of(seq) for seq in range(1, len(found) + 4)]
        assert run(journal.find_keys(keys)) == {key_of(seq) for seq in range(1, len(found), 2)}
        put(journal, b"next", keys=(b"another",))
        assert bodies(journal)[-1] == b"next"
    return found


def test_a_write_that_stops_half_way_ends_the_journal_and_loses_nothing(tmp_path: Path) -> None:
    # Beyond the limit the kernel takes the part of a write that still fits, and then none.
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for number in range(6):
        directory = tmp_path / str(number)
        lines = lines_of(directory, "starve", chance.randint(60_000, 300_000))
        assert lines[-2:] == ["JournalFailed", "JournalFailed"]
        check_appends_of_the_child(directory, int(lines[-3]))


FAULTS = [
    ("fdatasync fsync", errno.EIO, "JournalFailed"),
    ("fdatasync fsync", errno.ENOSPC, "JournalFailed"),
    ("pwrite64", errno.EIO, "JournalFailed"),
    ("pwrite64", errno.ENOSPC, "JournalFull"),
    ("pwrite64", errno.EDQUOT, "JournalFailed"),
    ("pwrite64", 0, "JournalFull"),
]


@pytest.mark.skipif(not can_fail(), reason="system calls can be made to fail on Linux only")
@pytest.mark.parametrize(
    ("calls", "number", "outcome"),
    FAULTS,
    ids=lambda value: errno.errorcode.get(value, "") if isinstance(value, int) else None,
)
def test_a_call_that_fails_is_a_failed_append(
    tmp_path: Path, calls: str, number: int, outcome: str
) -> None:
    lines = lines_of(tmp_path, "fail", number, *calls.split())
    assert lines == ["2", "4", "6", "8", "10", *[outcome] * 4]
    found = check_appends_of_the_child(tmp_path, 10)
    # What was said not to be written is not there.  After a failed sync nobody knows.
    assert outcome == "JournalFailed" or len(found) == 10


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of its own, of `size`; skips the test where none may be mounted."""
    place.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    command = [mount or "false", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if not umount or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        yield place
    finally:
        subprocess.run([umount, str(place)], check=True)


def test_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with small_disk(tmp_path / "small", "2m") as place:
        ballast = place / "ballast"
        ballast.write_bytes(bytes(1_000_000))
        acknowledged: list[bytes] = []
        full = 0
        with closing(open_sqlite(place, STREAM, owner=OWNER)) as journal:
            while full < 12:
                body = chance.randbytes(chance.randint(1, 60_000))
                key = b"key %d" % len(acknowledged)
                try:
                    put(journal, body, keys=(key,))
                except JournalFull:
                    full += 1
                    assert bodies(journal) == acknowledged
                    assert run(journal.find_keys([key])) == frozenset()
                    with closing(read_sqlite(place, STREAM)) as reader:
                        assert bodies(reader) == acknowledged
                    if full == 6:
                        with pytest.raises(SnapshotFailed, match="No space left"):
                            journal.save_snapshot(1, bytes(100_000))
                        ballast.unlink()
                else:
                    acknowledged.append(body)
        assert len(acknowledged) > 20
        with closing(open_sqlite(place, STREAM, owner=OWNER)) as journal:
            assert bodies(journal) == acknowledged


def fill(place: Path) -> Path:
    """Take all the room there is; returns the file to remove."""
    ballast = place / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                continue
        except OSError as fault:
            if fault.errno != errno.ENOSPC:
                raise
    return ballast


def test_an_owner_that_was_killed_starts_again_on_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "2m") as place:
        child = spawn("append", place)
        acknowledged = [int(line_of(child)) for _ in range(20)][-1]
        end(child)
        # Its shared memory lies there still, as a kill leaves it.
        ballast = fill(place)
        with closing(open_sqlite(place, STREAM, owner=OWNER)) as journal:
            found = journal.read(1, ALL)
            assert len(found) >= acknowledged
            with pytest.raises(JournalFull, match="nothing was written"):
                put(journal, bytes(1_500_000))
            assert journal.read(1, ALL) == found
            ballast.unlink()
            put(journal, b"next")
        with closing(open_sqlite(place, STREAM, owner=OWNER)) as journal:
            assert bodies(journal) == [*(entry.body for entry in found), b"next"]


def test_a_stream_that_cannot_be_opened_for_lack_of_room_says_so(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "1m") as place:
        with closing(open_sqlite(place, STREAM, owner=OWNER)) as journal:
            put(journal, b"a", b"b")
        # SQLite's shared memory went with its last user, and has no room to come back.
        ballast = fill(place)
        with pytest.raises(JournalFailed, match=f"{STREAM}.* start the actor again"):
            open_sqlite(place, STREAM, owner=OWNER)
        ballast.unlink()
        with closing(open_sqlite(place, STREAM, owner=OWNER)) as journal:
            assert bodies(journal) == [b"a", b"b"]
            put(journal, b"c")


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """Within, a write beyond `size` takes only what fits, and then none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_snapshot_that_was_cut_at_any_byte_is_not_kept(tmp_path: Path) -> None:
    with closing(open_sqlite(tmp_path, STREAM, owner=OWNER)) as journal:
        put(journal, b"a", b"b")
        journal.save_snapshot(1, b"one")
    with closing(read_sqlite(tmp_path, STREAM)) as reader:
        before = sorted(path.name for path in tmp_path.iterdir())
        size = (tmp_path / f"{STREAM}.00000000000000000001.snapshot").stat().st_size
        for room in range(size):
            with files_end_at(room), pytest.raises(SnapshotFailed, match=STREAM):
                reader.save_snapshot(2, b"two")
            assert reader.load_snapshot() == (1, b"one")
            assert sorted(path.name for path in tmp_path.iterdir()) == before
        with files_end_at(size):
            reader.save_snapshot(2, b"two")
        assert reader.load_snapshot() == (2, b"two")
