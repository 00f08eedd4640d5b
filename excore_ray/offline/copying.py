"""Copying: files and journals from one directory to another, durably and as they were.

Separate from backup and restore, which decide what is copied and what it means.  Everything that
is made is for this user alone.  It must not know what a backup is.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from excore_ray.actors.replay import SLICE_BYTES
from excore_ray.errors import JournalForgotten
from excore_ray.storage import sqlite_faults as faults
from excore_ray.storage import sqlite_file as file
from excore_ray.storage.snapshots import sync_directory
from excore_ray.storage.sqlite import read_sqlite
from excore_ray.storage.sqlite_keys import Keys

_CHUNK_BYTES = 1 << 20


def copy_file(source: Path, target: Path, *, link: bool = False) -> str:
    """Copy one file, durably; its SHA-256 in hex.  Folders are made, an old target is replaced.

    link: have the target be the very same file, where the file system can do that.
    Raises OSError.
    """
    make_folder(target.parent)
    target.unlink(missing_ok=True)
    if link and _linked(source, target):
        return digest_of(target)
    running = hashlib.sha256()
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as made, source.open("rb") as read:
        while chunk := read.read(_CHUNK_BYTES):
            running.update(chunk)
            made.write(chunk)
        made.flush()
        os.fsync(made.fileno())
    return running.hexdigest()


def write_file(target: Path, data: bytes) -> None:
    """Write a small file, durably.  Raises OSError."""
    make_folder(target.parent)
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as made:
        made.write(data)
        made.flush()
        os.fsync(made.fileno())


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex.  Raises OSError."""
    with path.open("rb") as read:
        return hashlib.file_digest(read, "sha256").hexdigest()


def copy_stream(source: Path, stream: str, head: int, target: Path) -> None:
    """Copy a journal up to and with entry `head` into another directory, whoever writes it.

    The pages are read in one transaction of SQLite's own backup; then what came after `head` is
    taken out of the copy, its dedupe keys too, and every entry and key left is verified.  The copy
    has no write-ahead log; its owner makes one when it opens it.
    Raises JournalForgotten when the journal was truncated up to `head` meanwhile, and what reading
    a journal raises.
    """
    path = file.stream_path(target, stream)
    make_folder(target)
    write_file(path, b"")
    try:
        with (
            closing(file.connect_reader(file.stream_path(source, stream), stream)) as reader,
            closing(sqlite3.connect(path, isolation_level=None)) as copy,
        ):
            reader.backup(copy)
        with closing(sqlite3.connect(path, isolation_level=None)) as copy:
            copy.execute("PRAGMA journal_mode = DELETE")
            copy.execute("PRAGMA synchronous = FULL")
            copy.execute("BEGIN IMMEDIATE")
            copy.execute("DELETE FROM journal WHERE seq > ?", (head,))
            # A key bears the first entry of its append, and an append is in the cut or is not.
            keys = Keys(copy, stream)
            keys.forget_after(head)
            copy.execute("COMMIT")
            if file.read_head(copy).seq != head:
                raise JournalForgotten(f"stream {stream}: entry {head} was truncated meanwhile")
            keys.check(head)
    except sqlite3.Error as fault:
        raise faults.as_storage_error(fault, stream, path) from fault
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    _verify(target, stream)


def files_in(root: Path) -> Iterator[Path]:
    """Every file under a directory, in order."""
    for folder, folders, names in os.walk(root):
        folders.sort()
        yield from (Path(folder) / name for name in sorted(names))


def make_folder(folder: Path) -> None:
    """Make a directory and those above it that are missing, for this user alone."""
    for each in reversed((folder, *folder.parents)):
        if not each.exists():
            each.mkdir(mode=0o700, exist_ok=True)


def sync_folders(root: Path) -> None:
    """Make all names under a directory durable.  Raises OSError."""
    for folder, _, _ in os.walk(root):
        sync_directory(Path(folder))


def _linked(source: Path, target: Path) -> bool:
    """Whether a hard link could be made; FileNotFoundError when there is nothing to link."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        return False  # another file system, or one without links: it is copied then
    return True


def _verify(directory: Path, stream: str) -> None:
    """Read a copied journal through: CRC and chain of every entry.  Raises JournalBroken."""
    reader = read_sqlite(directory, stream)
    try:
        seq = reader.status().oldest_seq
        while entries := reader.read(seq, 16 * SLICE_BYTES):
            seq = entries[-1].seq + 1
    finally:
        reader.close()
