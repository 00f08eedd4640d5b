"""Backup: all of an exchange at one instant, copied while it trades on.

Separate from `cut.py`, which finds the instant and says why it is the only kind of moment that
will do, and from `copying.py`, which copies.  It must not know Ray, nor ask any actor.

    backup.json                      which instant, which entries, which lake
    SHA256SUMS                       of every other file, as `sha256sum --check` reads it
    journals/<stream>.db             its entries up to the instant, and their dedupe keys
    journals/<stream>.<seq>.snapshot
    lake/manifest.json and the files it names
    cluster.secret, admin.json       for this user alone, like everything here

First the lake's manifest is read, then the instant is taken: whatever the lake has then, the
journals have.  A journal only grows at its end, so what it was at the instant can be copied at
leisure.  It is also truncated, snapshots are replaced and files of the lake merged meanwhile;
then what was still to be copied is gone, and all begins again with a newer manifest and a newer
instant.  Files of the lake that are copied already stay: a name never means another content.

A backup is made under another name and renamed when it is whole and durable.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from analytics.lake import Lake, LakeError, Manifest
from analytics.lake_manifest import MANIFEST_NAME, encode
from analytics.lake_store import LocalStore, file_system, open_store
from excore_ray.errors import (
    BackupFailed,
    JournalForgotten,
    SettingsError,
    SnapshotBroken,
    StreamMissing,
)
from excore_ray.offline.copying import (
    copy_file,
    copy_stream,
    digest_of,
    files_in,
    make_folder,
    sync_folders,
    write_file,
)
from excore_ray.offline.cut import Cut, cut_of
from excore_ray.storage.snapshots import SnapshotFiles, sync_directory
from excore_ray.storage.sqlite import read_sqlite

FORMAT = 1
ABOUT_NAME, SUMS_NAME = "backup.json", "SHA256SUMS"
JOURNALS, LAKE = "journals", "lake"
_TRIES = 5
Progress = Callable[[str, int, int], None]


class Source(NamedTuple):
    """What is to be backed up.

    journals: their directory.  lake: a directory or URL.  secrets: small private files; those
    that are not there are left out.  link: have files of the lake be hard links where possible.
    """

    journals: Path
    lake: str
    secrets: tuple[Path, ...] = ()
    link: bool = False


class LakeAbout(msgspec.Struct, frozen=True):
    """The lake of a backup.  version: of its manifest, 0 for none.  copied: whether it is in it."""

    url: str
    version: int
    copied: bool
    files: int


class About(msgspec.Struct, frozen=True):
    """What backup.json says.  time_s: the instant.  streams: the last entry of each."""

    format: int
    time_s: float
    streams: dict[str, int]
    lake: LakeAbout
    bytes: int


class _MovedOn(Exception):
    """What was still to be copied is gone: begin again with what is there now."""


def make_backup(source: Source, target: Path, progress: Progress) -> About:
    """Copy an exchange as it is at one instant after the call, whether or not it runs.

    target: does not exist, or is an empty directory.
    Raises SettingsError when it is neither; BackupFailed; StreamMissing when there is no journal;
    what reading journals raises.
    Nothing is at `target` then.
    """
    expect_empty(target)
    staging = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        make_folder(staging)
        about = _fill(source, staging, progress)
        _seal(staging, about, progress)
        os.rename(staging, target)
        sync_directory(target.parent)
    except (OSError, LakeError) as fault:
        raise BackupFailed(f"the backup could not be made: {fault}") from fault
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return about


def expect_empty(target: Path) -> None:
    """Raise SettingsError unless `target` does not exist or is an empty directory."""
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise SettingsError(f"{target} is not empty: nothing is written over what is there")
    except OSError as fault:
        raise BackupFailed(f"{target} cannot be used: {fault}") from fault


def _fill(source: Source, staging: Path, progress: Progress) -> About:
    for again in range(_TRIES, 0, -1):
        shutil.rmtree(staging / JOURNALS, ignore_errors=True)
        try:
            lake = Lake(source.lake)
            # Before the instant: so the lake is never ahead of the journals.
            manifest = lake.manifest()
            cut = cut_of(source.journals)
            if not cut.heads:
                raise StreamMissing(f"there are no journals in {source.journals}")
            _copy_journals(source, cut, manifest, staging / JOURNALS, progress)
            about = _copy_lake(source, manifest, staging / LAKE, progress)
        except (_MovedOn, JournalForgotten) as moved:
            if again == 1:
                raise BackupFailed(
                    "the exchange forgot what was to be copied, again and again: lake files were"
                    f" merged or entries truncated faster than they are copied ({moved}); copy to a"
                    " faster place, or set the lake's grace_s higher"
                ) from moved
            continue
        for path in source.secrets:
            if path.exists():
                copy_file(path, staging / path.name)
        size = sum(path.stat().st_size for path in files_in(staging))
        return About(FORMAT, cut.time_s, dict(sorted(cut.heads.items())), about, size)
    raise AssertionError("unreachable")


def _copy_journals(
    source: Source, cut: Cut, manifest: Manifest, target: Path, progress: Progress
) -> None:
    for done, (stream, head) in enumerate(sorted(cut.heads.items())):
        progress(f"copying {stream}", done, len(cut.heads))
        # Snapshots first: they stand for what the journal may have forgotten when it is read.
        snapshots = SnapshotFiles(source.journals, stream, lambda seq, chain: True)
        for seq in snapshots.numbers():
            if seq > head:
                continue
            path = snapshots.path(seq)
            try:
                copy_file(path, target / path.name)
            except FileNotFoundError as gone:
                raise _MovedOn(f"{path.name} was replaced by newer snapshots") from gone
        copy_stream(source.journals, stream, head, target)
        _expect_usable(target, stream, manifest)


def _expect_usable(target: Path, stream: str, manifest: Manifest) -> None:
    """_MovedOn unless owner and archive can both begin from what was copied of a stream."""
    reader = read_sqlite(target, stream)
    try:
        reader.load_snapshot()
        if mark := manifest.watermarks.get(stream, 0):
            reader.load_snapshot(mark)
    except SnapshotBroken as gone:
        raise _MovedOn(str(gone)) from gone
    finally:
        reader.close()


def _copy_lake(source: Source, manifest: Manifest, target: Path, progress: Progress) -> LakeAbout:
    files = manifest.files
    if not manifest.version or not isinstance(open_store(source.lake), LocalStore):
        return LakeAbout(source.lake, manifest.version, False, len(files))
    root = Path(file_system(source.lake)[1])
    for done, entry in enumerate(files):
        progress("copying the lake", done, len(files))
        copy = target / entry.path
        if copy.exists() and copy.stat().st_size == entry.bytes:
            continue  # of an earlier try: a name never means another content
        try:
            copy_file(root / entry.path, copy, link=source.link)
        except FileNotFoundError as gone:
            if entry in Lake(source.lake).manifest().files:
                raise
            raise _MovedOn(f"{entry.path} was merged and swept") from gone
        if (size := copy.stat().st_size) != entry.bytes:
            raise BackupFailed(
                f"{root / entry.path} is damaged: it has {size} bytes, not {entry.bytes}; restore"
                " the file from a backup, or move the lake away and let the archive write it again"
            )
    live = {target / entry.path for entry in files}
    for path in list(files_in(target)):
        if path not in live:
            path.unlink()  # of a manifest that an earlier try began with
    write_file(target / MANIFEST_NAME, encode(manifest))
    return LakeAbout(source.lake, manifest.version, True, len(files))


def _seal(staging: Path, about: About, progress: Progress) -> None:
    """Write down what it is and the sums of all files, and make everything durable."""
    write_file(staging / ABOUT_NAME, msgspec.json.format(msgspec.json.encode(about), indent=2))
    paths = list(files_in(staging))
    lines: list[str] = []
    for done, path in enumerate(paths):
        progress("adding up", done, len(paths))
        lines.append(f"{digest_of(path)}  {path.relative_to(staging).as_posix()}\n")
    write_file(staging / SUMS_NAME, "".join(lines).encode())
    sync_folders(staging)
