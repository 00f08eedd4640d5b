"""Snapshot files: written whole or not at all, recognised when damaged, two good ones kept."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from excore_ray.errors import SnapshotFailed
from excore_ray.storage.snapshots import Snapshot, SnapshotFiles

CHAIN = bytes(range(32))


@pytest.fixture
def files(tmp_path: Path) -> SnapshotFiles:
    return SnapshotFiles(tmp_path, "s-1", lambda seq, chain: chain == CHAIN)


def save(files: SnapshotFiles, *seqs: int) -> None:
    for seq in seqs:
        files.save(Snapshot(seq, CHAIN, b"state %d" % seq))


def valid(files: SnapshotFiles) -> list[int]:
    return [snapshot.seq for snapshot in files.valid()]


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_a_snapshot_is_found_as_it_was_saved(files: SnapshotFiles) -> None:
    saved = Snapshot(12, CHAIN, b"\0" * 3_000_000)
    files.save(saved)
    assert list(files.valid()) == [saved]
    assert [path.name for path in files.directory.iterdir()] == [
        "s-1.00000000000000000012.snapshot"
    ]
    assert stat.S_IMODE(files.path(12).stat().st_mode) == 0o600


def test_the_bytes_of_version_1_never_change(files: SnapshotFiles) -> None:
    save(files, 7)
    assert files.path(7).read_bytes() == b"".join(
        (
            b"excorsnp",
            bytes.fromhex("00000001 0000000000000007 0000000000000007"),
            CHAIN,
            bytes.fromhex("ab960fec29895403da40192ee86bf00dea3db29d6a687c1f3543dee5779ca985"),
            b"state 7",
        )
    )


def test_two_are_kept(files: SnapshotFiles) -> None:
    save(files, 5, 9, 12)
    assert files.numbers() == [12, 9]
    save(files, 7)
    assert files.numbers() == [12, 9]
    save(files, 12)
    assert files.numbers() == [12, 9]


def test_other_files_are_nobodys_business(files: SnapshotFiles) -> None:
    others = [
        "s-1.db",
        "s-1.lock",
        "s-2.00000000000000000001.snapshot",
        "s-1.1.snapshot",
        "xs-1.00000000000000000001.snapshot",
        "s-1.00000000000000000001.snapshot.bak",
        "s-1.00000000000000000001.snapshot.1.partial.old",
    ]
    for name in others:
        (files.directory / name).write_bytes(b"x")
    save(files, 5, 6, 7)
    assert files.numbers() == [7, 6]
    assert all((files.directory / name).exists() for name in others)


@settings(deadline=None)
@given(bit=st.integers(0, (92 + 7) * 8 - 1))
def test_any_flipped_bit_is_seen(tmp_path_factory: pytest.TempPathFactory, bit: int) -> None:
    files = SnapshotFiles(tmp_path_factory.mktemp("s"), "s-1", lambda seq, chain: chain == CHAIN)
    save(files, 3, 4)
    assert files.path(4).stat().st_size == 92 + 7
    flip(files.path(4), bit)
    assert valid(files) == [3]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def cut_to_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def be_another(path: Path) -> None:
    os.replace(path.with_name(path.name.replace("9.", "5.")), path)


def be_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def be_newer(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[11] = 2
    path.write_bytes(data)


DAMAGE: list[tuple[Callable[[Path], None], str]] = [
    (cut, "SHA-256"),
    (cut_to_header, "50 bytes"),
    (empty, "0 bytes"),
    (lengthen, "SHA-256"),
    (be_another, "of entry 5"),
    (be_a_directory, "cannot be read"),
    (be_newer, "format 2"),
]


@pytest.mark.parametrize(
    ("damage", "word"), DAMAGE, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_damaged_one_is_passed_over_and_that_is_said(
    files: SnapshotFiles,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    word: str,
) -> None:
    save(files, 5, 9)
    damage(files.path(9))
    with caplog.at_level(logging.WARNING):
        assert valid(files)[:1] in ([5], [])
    [message] = [record.getMessage() for record in caplog.records]
    assert str(files.path(9)) in message
    assert word in message


def test_one_that_is_not_asked_for_is_not_read(
    files: SnapshotFiles, caplog: pytest.LogCaptureFixture
) -> None:
    save(files, 5, 9)
    flip(files.path(9), 8 * 95)
    for seq_max, expected in ((8, [5]), (5, [5]), (4, []), (0, [])):
        assert [snapshot.seq for snapshot in files.valid(seq_max)] == expected
    assert not caplog.records
    assert [snapshot.seq for snapshot in files.valid(9)] == [5]
    assert len(caplog.records) == 1


def test_one_of_another_history_is_passed_over(files: SnapshotFiles) -> None:
    save(files, 5)
    files.save(Snapshot(9, CHAIN[::-1], b"state of another history"))
    assert valid(files) == [5]


def test_a_damaged_one_does_not_count_as_kept(files: SnapshotFiles) -> None:
    save(files, 5, 9)
    flip(files.path(9), 8 * 95)
    save(files, 7)
    assert valid(files) == [7, 5]
    assert files.numbers() == [9, 7, 5]
    save(files, 11, 12)
    assert files.numbers() == [12, 11]


def test_a_failed_save_leaves_everything_as_it_was(
    files: SnapshotFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(files, 5, 9)
    before = sorted(files.directory.iterdir())

    def no_room(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(SnapshotFailed, match="No space left"):
        save(files, 12)
    assert sorted(files.directory.iterdir()) == before
    assert valid(files) == [9, 5]


def test_what_a_dead_writer_left_half_written_is_cleared_away(files: SnapshotFiles) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = files.directory / f"s-1.00000000000000000003.snapshot.{gone.pid}.partial"
    living = files.directory / f"s-1.00000000000000000003.snapshot.{os.getppid()}.partial"
    dead.write_bytes(b"half")
    living.write_bytes(b"half")
    assert valid(files) == []
    save(files, 4)
    assert not dead.exists()
    assert living.exists()
