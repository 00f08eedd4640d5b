"""Backup and restore of files: whole, of one instant, private, and refused when damaged."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]

from analytics import lake_compact
from analytics.lake import Lake
from excore_ray.core.snapshot import dump
from excore_ray.errors import BackupFailed, SettingsError, StreamMissing
from excore_ray.offline.backup import SUMS_NAME, About, Source, make_backup
from excore_ray.offline.copying import copy_stream, files_in
from excore_ray.offline.deep import audit_deep
from excore_ray.offline.restore import restore
from excore_ray.storage.ownership import Ownership
from excore_ray.storage.sqlite import open_sqlite, read_sqlite
from tests.offline.world import SECRET, Planted, lived, machine_at, made, newest, quiet, source_of
from tests.offline.writers import beside

MARKET, SHARD = "market-1", "ledger-0"


def exact(data: Path) -> None:
    assert audit_deep(data / "journals", str(data / "lake")).findings == []


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("link", [False, True])
def test_what_was_backed_up_comes_back(seed: int, link: bool, tmp_path: Path) -> None:
    print(f"seed {seed}")
    planted = made(tmp_path, seed)
    target, again = tmp_path / "backup", tmp_path / "again"
    about = make_backup(source_of(planted, link), target, quiet)
    assert about.streams == {s: newest(planted.life, s) for s in planted.life.disks}
    assert restore(target, again, quiet) == about
    exact(again)
    for stream in planted.life.disks:
        here, there = (read_sqlite(at / "journals", stream) for at in (planted.places.data, again))
        assert here.read(1, 10**9) == there.read(1, 10**9)
        here.close()
        there.close()
    lake, copy = planted.places.lake, again / "lake"
    assert (copy / "manifest.json").read_bytes() == (lake / "manifest.json").read_bytes()
    assert (again / "cluster.secret").read_bytes() == SECRET
    assert not (again / "running.json").exists()


def test_everything_is_for_this_user_alone(tmp_path: Path) -> None:
    planted = made(tmp_path)
    target, again = tmp_path / "backup", tmp_path / "again"
    before = os.umask(0)
    try:
        make_backup(source_of(planted), target, quiet)
        restore(target, again, quiet)
    finally:
        os.umask(before)
    for root in (target, again):
        for path in (root, *root.rglob("*")):
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o700 if path.is_dir() else 0o600), path


def test_the_sums_are_those_of_the_files(tmp_path: Path) -> None:
    target = tmp_path / "backup"
    make_backup(source_of(made(tmp_path)), target, quiet)
    said = dict(
        reversed(line.split("  ", 1)) for line in (target / SUMS_NAME).read_text().splitlines()
    )
    found = {
        path.relative_to(target).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files_in(target)
        if path.name != SUMS_NAME
    }
    assert said == found


def test_no_file_is_taken_that_changed_after_the_backup(tmp_path: Path) -> None:
    target = tmp_path / "backup"
    make_backup(source_of(made(tmp_path)), target, quiet)
    for number, path in enumerate(sorted(files_in(target))):
        if path.name == SUMS_NAME:
            continue
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        again = tmp_path / f"again-{number}"
        with pytest.raises(BackupFailed):
            restore(target, again, quiet)
        assert not again.exists()
        path.write_bytes(data)
    restore(target, tmp_path / "again", quiet)


@pytest.mark.parametrize("what", ["missing", "strange", "sums", "about"])
def test_a_backup_that_is_not_whole_is_refused(what: str, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    make_backup(source_of(made(tmp_path)), target, quiet)
    match what:
        case "missing":
            (target / "cluster.secret").unlink()
        case "strange":
            (target / "journals" / "market-2.db").touch()
        case "sums":
            (target / SUMS_NAME).write_text("nothing\n")
        case "about":
            (target / "backup.json").unlink()
    with pytest.raises(BackupFailed):
        restore(target, tmp_path / "again", quiet)
    assert not (tmp_path / "again").exists()


def test_nothing_is_written_over_what_is_there(tmp_path: Path) -> None:
    planted = made(tmp_path)
    target = tmp_path / "backup"
    target.mkdir()
    (target / "precious").touch()
    with pytest.raises(SettingsError, match="not empty"):
        make_backup(source_of(planted), target, quiet)
    (target / "precious").unlink()
    make_backup(source_of(planted), target, quiet)  # an empty one will do
    with pytest.raises(SettingsError, match="not empty"):
        restore(target, planted.places.data, quiet)
    exact(planted.places.data)


def test_a_backup_that_fails_leaves_nothing(tmp_path: Path) -> None:
    planted = made(tmp_path)
    entry = Lake(str(planted.places.lake)).manifest().files[0]
    (planted.places.lake / entry.path).unlink()
    with pytest.raises(BackupFailed, match=r"No such file"):
        make_backup(source_of(planted), tmp_path / "backup", quiet)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    with pytest.raises(StreamMissing):
        make_backup(Source(tmp_path / "data", ""), tmp_path / "backup", quiet)


def test_a_damaged_journal_is_not_backed_up(tmp_path: Path) -> None:
    planted = made(tmp_path)
    path = planted.places.journals / f"{SHARD}.db"
    data = bytearray(path.read_bytes())
    data[data.index(b'["up"') + 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(Exception, match="its CRC does not match"):
        make_backup(source_of(planted), tmp_path / "backup", quiet)
    assert not (tmp_path / "backup").exists()


def test_keys_end_where_the_entries_do(tmp_path: Path) -> None:
    async def write() -> None:
        journal = open_sqlite(tmp_path / "here", SHARD, owner=Ownership(SHARD))
        for seq in range(1, 21):
            await journal.append(seq, 1, [b"{}"], [b"key %d" % seq])
        copy_stream(tmp_path / "here", SHARD, 12, tmp_path / "there")
        journal.close()
        copy = open_sqlite(tmp_path / "there", SHARD, owner=Ownership(SHARD))
        keys = [b"key %d" % seq for seq in range(1, 21)]
        assert await copy.find_keys(keys) == set(keys[:12])
        assert copy.status().next_seq == 13
        await copy.append(13, 2, [b"{}"], [b"key 13"])
        copy.close()

    asyncio.run(write())


# While the exchange runs: what moves on under the backup's hands.


def interrupting(at: str, do: Callable[[], None]) -> tuple[list[str], Callable[..., None]]:
    """Progress that does something once, when the backup begins with `at`."""
    done: list[str] = []

    def progress(what: str, _: int, __: int) -> None:
        if what == at and not done:
            done.append(what)
            do()

    return done, progress


def test_a_lake_that_is_merged_and_swept_meanwhile(tmp_path: Path) -> None:
    planted = made(tmp_path)
    # Files of several flushes, so that there is something to merge.
    for _ in range(3):
        planted.life.pay_in(1, 1, 100)
        planted.life.settle_all()
        planted.fill_lake()
    shutil.rmtree(planted.places.journals)
    planted.write()
    lake = Lake(str(planted.places.lake))

    def merge() -> None:
        manifest = lake.manifest()
        tomorrow = "2099-01-01"
        while merges := lake_compact.plan(manifest, tomorrow):
            for one in merges:
                made_of = lake_compact.merge(lake, one, manifest.version)
                manifest = lake.commit(manifest, add=made_of, remove=one.files)
        assert lake.sweep(0, time.time() + 10)

    done, progress = interrupting("copying the lake", merge)
    about = make_backup(source_of(planted), tmp_path / "backup", progress)
    assert done
    assert about.lake.version == lake.manifest().version
    restore(tmp_path / "backup", tmp_path / "again", quiet)
    exact(tmp_path / "again")


def test_a_journal_that_is_truncated_meanwhile(tmp_path: Path) -> None:
    planted = made(tmp_path)
    end = newest(planted.life, MARKET)

    def forget() -> None:
        journal = open_sqlite(planted.places.journals, MARKET, owner=Ownership(MARKET))
        for seq in (end - 9, end - 2):
            journal.save_snapshot(seq, dump(machine_at(planted.life.disks[MARKET], seq)))
        journal.truncate(end - 9)
        journal.close()

    done, progress = interrupting(f"copying {MARKET}", forget)
    make_backup(source_of(planted), tmp_path / "backup", progress)
    assert done
    restore(tmp_path / "backup", tmp_path / "again", quiet)
    exact(tmp_path / "again")


@pytest.mark.parametrize("seed", range(3))
def test_journals_that_grow_meanwhile(seed: int, tmp_path: Path) -> None:
    """The whole life is written while it is backed up, in an order in which it could happen."""
    print(f"seed {seed}")
    planted = Planted(tmp_path / "data", lived(seed, steps=400))
    chance, started = random.Random(seed), threading.Event()

    async def write() -> None:
        journals = {
            stream: open_sqlite(planted.places.journals, stream, owner=Ownership(stream))
            for stream in planted.life.disks
        }
        for stream, entry in planted.life.landed:
            await journals[stream].append(entry.seq, entry.epoch, [entry.body], [])
            # Until then the market has begun though its catalog does not define it, as no other.
            if entry.seq > 4:
                started.set()
            await asyncio.sleep(chance.choice((0, 0, 0.001)))
        for journal in journals.values():
            journal.close()

    abouts: list[About] = []
    with beside(write) as writer:
        assert started.wait(20)
        while writer.is_alive() or not abouts:
            target = tmp_path / f"backup-{len(abouts)}"
            abouts.append(make_backup(source_of(planted), target, quiet))
            report = audit_deep(target / "journals", str(target / "lake"))
            assert report.findings == []
    assert abouts[0].streams != {s: newest(planted.life, s) for s in planted.life.disks}


def test_a_remote_lake_is_named_and_not_copied(tmp_path: Path) -> None:
    planted = made(tmp_path)
    memory = MemoryFileSystem()
    memory.put(str(planted.places.lake), "/lake", recursive=True)
    try:
        source = source_of(planted)._replace(lake="memory://lake")
        about = make_backup(source, tmp_path / "backup", quiet)
        version = Lake("memory://lake").manifest().version
        assert about.lake == about.lake.__class__("memory://lake", version, False, about.lake.files)
        assert not (tmp_path / "backup" / "lake").exists()
    finally:
        memory.rm("/lake", recursive=True)
