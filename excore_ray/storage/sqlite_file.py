"""One stream's SQLite file: opening it, its tables, and reading entries so that damage is seen.

Separate from the journal, which owns a connection and decides who may use it when; this only
knows what is in the file.  It must not write entries, nor know locks, snapshots or event loops.

    journal(seq, epoch, crc, chain, body)   the entries that were not truncated
    keys(first, last, crc, body)            every key ever appended, see sqlite_keys.py
    base(id, seq, epoch, chain)             one row: the last truncated entry, or 0 and genesis
    meta(name, value)                       schema, stream, created

The file is in WAL mode with synchronous=FULL: a commit is one write and one sync of the log.  It
has exactly one writing connection, which alone checkpoints; all others are read-only.  That also
keeps clear of the WAL-reset bug of SQLite before 3.51.3, which needs two connections that write or
checkpoint.  Checkpoints are asked for explicitly, since an automatic one hides its errors.
Source: the SQLite documentation, Write-Ahead Logging.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any, TypeGuard

import msgspec

from excore_ray.errors import (
    JournalBroken,
    JournalFailed,
    JournalForeign,
    JournalForgotten,
    StreamMissing,
)
from excore_ray.storage import chain
from excore_ray.storage.journal import Entry
from excore_ray.storage.snapshots import sync_directory
from excore_ray.storage.sqlite_faults import (
    ADVICE,
    FOREIGN_ADVICE,
    OddRows,
    damaged,
    is_full,
)
from excore_ray.storage.sqlite_keys import Keys
from excore_ray.storage.sqlite_wal import count_committed, find_lost_commit, sync_log
from excore_ray.storage.witness import Note, read_note

SCHEMA = 2  # 1 kept each key in a row of its own
BUSY_TIMEOUT_S = 5.0
_HASH_BYTES = 32
_PAGE_BYTES_MIN = 512  # SQLite takes what is shorter for an empty file

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE base (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    seq INTEGER NOT NULL, epoch INTEGER NOT NULL, chain BLOB NOT NULL);
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY, epoch INTEGER NOT NULL,
    crc INTEGER NOT NULL, chain BLOB NOT NULL, body BLOB NOT NULL)
"""

_OWNER_PRAGMAS = (
    "synchronous = FULL",
    "fullfsync = ON",  # where a plain fsync does not reach the disk
    "wal_autocheckpoint = 0",
    "cache_spill = OFF",  # an append reaches the log whole, at its commit, or not at all
    "cache_size = -65536",  # KiB; the index of keys is read and written at random
    "temp_store = MEMORY",
    # What is replaced inside a page is blanked: damage to an index must not lead to an older
    # block of keys, which would pass for the newest.
    "secure_delete = FAST",
)


class Mark(msgspec.Struct, frozen=True):
    """A place in a stream: an entry's seq and epoch, and the chain after it."""

    seq: int
    epoch: int
    chain: bytes


def stream_path(directory: Path, stream: str) -> Path:
    """The file of `stream`.  A name is letters, digits, dot, dash and underscore."""
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", stream), f"no stream name: {stream!r}"
    return directory / f"{stream}.db"


def log_path(path: Path) -> Path:
    """The write-ahead log of the database at `path`."""
    return path.with_name(path.name + "-wal")


def note_path(path: Path) -> Path:
    """Where the newest acknowledged entry of the database at `path` is noted."""
    return path.with_suffix(".head")


def connect_owner(path: Path, stream: str) -> sqlite3.Connection:
    """The one writing connection to `path`, which is created if need be.

    What it shows is durable, also when the owner before was killed between writing and syncing.
    Its caller must hold the stream's lock.
    Raises JournalForeign, JournalBroken, JournalFailed.
    """
    noted = read_note(note_path(path))
    _refuse_if_gone(stream, path, noted)
    if not path.exists():
        # Not through SQLite, which would let the umask decide.  Closed before SQLite opens it:
        # closing a file drops every lock this process has on it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        sync_directory(path.parent)
    # The last connection to close moves the log into the database and deletes it, unless it is
    # read-only.  So this one stays until all is well: a damaged log must be found damaged again
    # by the next start, not have been tidied away by this one.
    with closing(_connect(path, "ro")) as keeper:
        is_new = not has_schema(keeper, stream, path)
        # Before the checkpoint, which would move what is left of a log over newer pages.
        _refuse_if_cut(None if is_new else keeper, stream, path, noted)
        db = _connect(path, "rw")
        try:
            _set_up(db, stream, path, is_new)
        except BaseException:
            db.close()
            raise
        return db


def _set_up(db: sqlite3.Connection, stream: str, path: Path, is_new: bool) -> None:
    [(mode,)] = db.execute("PRAGMA journal_mode = WAL")
    if mode != "wal":
        raise JournalFailed(f"{path} is on a file system without shared memory for SQLite")
    for pragma in _OWNER_PRAGMAS:
        db.execute(f"PRAGMA {pragma}")
    if is_new:
        _create(db, stream)
    sync_log(log_path(path))
    [(page_bytes,)] = db.execute("PRAGMA page_size")
    try:
        frames = checkpoint(db)
    except sqlite3.Error as fault:
        if not is_full(fault):
            raise
        # What it would have moved is safe in the log.  An actor that is restarted on a full disk
        # must open its journal: it can answer, and append as soon as there is room.
        frames = count_committed(log_path(path), page_bytes)
    lost = find_lost_commit(log_path(path), page_bytes, frames)
    if lost is not None:
        raise JournalBroken(
            f"stream {stream}: {log_path(path)} is damaged before its frame {lost}, and committed"
            f" entries after {read_head(db).seq} are lost. {ADVICE}"
        )


def connect_reader(path: Path, stream: str) -> sqlite3.Connection:
    """A read-only connection to `path`, which works while the owner runs and when there is none.

    Raises StreamMissing, JournalForeign, JournalBroken, sqlite3.Error, OSError.
    """
    missing = StreamMissing(f"there is no stream {stream} in {path.parent}: nobody opened it yet")
    noted = read_note(note_path(path))
    _refuse_if_gone(stream, path, noted)
    if not path.exists():
        raise missing
    db = _connect(path, "ro")
    try:
        db.execute("PRAGMA query_only = ON")
        is_new = not has_schema(db, stream, path)
        _refuse_if_cut(None if is_new else db, stream, path, noted)
        if is_new:
            raise missing
        # A reader may be the first to recover the log of an owner that was killed.
        sync_log(log_path(path))
    except BaseException:
        db.close()
        raise
    return db


def _refuse_if_gone(stream: str, path: Path, noted: Note | None) -> None:
    """Raise JournalBroken when there was more in `path` than no file, or an empty one.

    SQLite takes an empty file for a new database and deletes the log beside it, so this must
    come before it looks.
    """
    if path.exists() and path.stat().st_size >= _PAGE_BYTES_MIN:
        return
    log = log_path(path)
    if noted is not None and noted.seq > 0:
        raise JournalBroken(
            f"stream {stream}: {path} is missing or cut short, but {note_path(path)} says that"
            f" entry {noted.seq} was acknowledged. {ADVICE}"
        )
    if log.exists() and log.stat().st_size > 0:
        raise JournalBroken(
            f"stream {stream}: {path} is missing or cut short, but its log {log} is not. {ADVICE}"
        )


def _refuse_if_cut(
    db: sqlite3.Connection | None, stream: str, path: Path, noted: Note | None
) -> None:
    """Raise JournalBroken unless the entry that was `noted` before `db` was looked at is there.

    db: None when it holds no tables yet.
    """
    if noted is None or noted.seq == 0:
        return
    head = Mark(0, 0, b"") if db is None else read_head(db)
    mark = None if db is None else read_mark(db, noted.seq)
    if head.seq < noted.seq:
        raise JournalBroken(
            f"stream {stream}: {path} and its log end with entry {head.seq}, but"
            f" {note_path(path)} says that entry {noted.seq} was acknowledged: entries are lost, or"
            f" an old copy was put back. {ADVICE} If the old copy is what you want, and the"
            f" entries after {head.seq} are to be given up, move {note_path(path)} away."
        )
    if mark is not None and mark.chain != noted.chain:
        raise JournalBroken(
            f"stream {stream}: {path} has another entry {noted.seq} than {note_path(path)} says"
            " was acknowledged: it is damaged, or a copy of another history was put back."
            f" {ADVICE} If that copy is what you want, move {note_path(path)} away."
        )


def has_schema(db: sqlite3.Connection, stream: str, path: Path) -> bool:
    """Whether the file is this stream's journal; False when it is empty, as right after creation.

    Raises JournalForeign when it is anything else.
    """
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master ORDER BY name")]
    if not tables:
        return False
    if "meta" not in tables:
        raise JournalForeign(
            f"{path} is a database, but no journal: it holds {tables}. {FOREIGN_ADVICE}"
        )
    meta: dict[str, Any] = dict(db.execute("SELECT name, value FROM meta"))
    schema, owner = meta.get("schema"), meta.get("stream")
    if schema != SCHEMA:
        age = "newer" if isinstance(schema, int) and schema > SCHEMA else "older"
        raise JournalForeign(
            f"{path} was written by a version {age} than this one: its schema is {schema}, this"
            f" version reads {SCHEMA}. Start the version that wrote it; if there is none, the file"
            f" is damaged. {FOREIGN_ADVICE}"
        )
    if owner != stream:
        raise JournalForeign(
            f"{path} is the journal of stream {owner}, not of {stream}. {FOREIGN_ADVICE}"
        )
    return True


def checkpoint(db: sqlite3.Connection) -> int:
    """Move what the log holds into the database as far as no reader is in the way.

    Returns how many frames the log has.  Durable when it returns.  Raises sqlite3.Error.
    """
    [(_, frames, _)] = db.execute("PRAGMA wal_checkpoint(PASSIVE)")
    return int(frames)


def read_base(db: sqlite3.Connection) -> Mark:
    """The last truncated entry; seq 0 and the genesis chain when there is none."""
    rows = db.execute("SELECT seq, epoch, chain FROM base").fetchall()
    if len(rows) != 1:
        raise OddRows(f"its table base holds {len(rows)} rows")
    return _as_mark(*rows[0])


def check_base(db: sqlite3.Connection, stream: str, path: Path) -> None:
    """Raise JournalBroken when the oldest entry is not the one after the last truncated."""
    base = read_base(db)
    [(oldest,)] = db.execute("SELECT min(seq) FROM journal")
    if oldest is not None and oldest != base.seq + 1:
        raise damaged(stream, path, base.seq + 1, f"the entry after {base.seq} is {oldest}")


def read_head(db: sqlite3.Connection) -> Mark:
    """The newest entry, or the base when there is none."""
    rows = db.execute("SELECT seq, epoch, chain FROM journal ORDER BY seq DESC LIMIT 1").fetchall()
    return _as_mark(*rows[0]) if rows else read_base(db)


def read_mark(db: sqlite3.Connection, seq: int) -> Mark | None:
    """The mark of entry `seq` if it, or the base in its place, is there."""
    rows = db.execute("SELECT seq, epoch, chain FROM journal WHERE seq = ?", (seq,)).fetchall()
    mark = _as_mark(*rows[0]) if rows else read_base(db)
    return mark if mark.seq == seq else None


def _as_mark(seq: object, epoch: object, hashed: object) -> Mark:
    """A row as SQLite gave it: damage can turn any column into any type.  Raises OddRows."""
    if not (
        _is_u63(seq) and _is_u63(epoch) and isinstance(hashed, bytes) and len(hashed) == _HASH_BYTES
    ):
        raise OddRows(f"an entry is said to be {seq!r} of epoch {epoch!r} with hash {hashed!r}")
    return Mark(seq, epoch, hashed)


def _is_u63(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and value >= 0


def read_entries(
    db: sqlite3.Connection, stream: str, path: Path, from_seq: int, bytes_max: int
) -> list[Entry]:
    """See JournalReader.read.  Within one read transaction.  Raises sqlite3.Error too."""
    assert from_seq >= 1, f"entries are numbered from 1, not {from_seq}"
    base = read_base(db)
    if from_seq <= base.seq:
        raise JournalForgotten(
            f"stream {stream}: entry {from_seq} was truncated; the oldest is {base.seq + 1}"
        )
    if from_seq > read_head(db).seq:
        return []
    before = read_mark(db, from_seq - 1)
    if before is None:
        raise damaged(stream, path, from_seq - 1, "it is missing")
    found: list[Entry] = []
    room = bytes_max
    running = before.chain
    columns = "SELECT seq, epoch, crc, chain, body FROM journal WHERE seq >= ? ORDER BY seq"
    with closing(db.execute(columns, (from_seq,))) as rows:
        for seq, epoch, crc, recorded, body in rows:
            expected = from_seq + len(found)
            if not isinstance(body, bytes):
                raise damaged(stream, path, expected, "its body is not bytes, so no CRC can match")
            room -= len(body)
            if found and room < 0:
                break
            if seq != expected:
                raise damaged(stream, path, expected, f"the entry after {expected - 1} is {seq}")
            if not _is_u63(epoch):
                raise damaged(stream, path, seq, f"its epoch is {epoch!r}")
            if chain.entry_crc(seq, epoch, body) != crc:
                raise damaged(stream, path, seq, "its CRC does not match")
            running = chain.link(running, seq, epoch, body)
            if running != recorded:
                raise damaged(stream, path, seq, "the running hash does not match")
            found.append(Entry(seq, epoch, body))
    return found


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    # Any thread may use it, one at a time: its owner sees to that.
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )


def _create(db: sqlite3.Connection, stream: str) -> None:
    db.execute("BEGIN IMMEDIATE")
    for table in _TABLES.split(";"):
        db.execute(table)
    Keys(db, stream).create()
    db.execute("INSERT INTO base VALUES (1, 0, 0, ?)", (chain.genesis(stream),))
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    rows = [("schema", SCHEMA), ("stream", stream), ("created", created)]
    db.executemany("INSERT INTO meta VALUES (?, ?)", rows)
    db.execute("COMMIT")
