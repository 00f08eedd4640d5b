"""What a fault of SQLite, or of the system below it, means for a stream, and what to do about it.

Separate from the file that it happens to, because everybody who touches that file must judge a
fault in the same way.  It must not touch the file itself.
"""

from __future__ import annotations

import errno
import re
import sqlite3
from pathlib import Path

from excore_ray.errors import JournalBroken, JournalFailed, StorageError

# What a damaged file makes of a read: texts that are no UTF-8 come as the last.
READ_FAULTS = (sqlite3.Error, UnicodeDecodeError)


class OddRows(sqlite3.DatabaseError):
    """Rows that this version never wrote, told like damage that SQLite sees itself."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


ADVICE = (
    "Stop the actor, keep a copy of this file and all beside it, and restore the stream from a"
    " backup. Do not delete or edit the file: what comes before the damage is intact."
)


FOREIGN_ADVICE = (
    "Nothing was changed. Unless you know whose file it is and put it where it belongs, keep a copy"
    " of it and all beside it, and restore the stream from a backup."
)


def damaged(stream: str, path: Path, seq: int, what: str) -> JournalBroken:
    """The exception for damage at entry `seq`, with what the operator must do."""
    return JournalBroken(f"stream {stream}: entry {seq} in {path} is damaged: {what}. {ADVICE}")


def as_storage_error(fault: Exception, stream: str, path: Path) -> StorageError:
    """What a fault of SQLite or of the system means for the stream."""
    code = getattr(fault, "sqlite_errorcode", 0) & 0xFF
    # Tables and columns that are not there, texts that are none: SQLite has no code for these.
    is_odd = isinstance(fault, UnicodeDecodeError) or re.match(
        r"no such (table|column)|table \w+ has|Could not decode", str(fault)
    )
    if is_odd or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return JournalBroken(f"stream {stream}: {path} is damaged: {fault}. {ADVICE}")
    is_no_room = is_full(fault) or getattr(fault, "errno", 0) in (errno.ENOSPC, errno.EDQUOT)
    what = "Make room" if is_no_room else "Look at the disk and the system's log"
    return JournalFailed(
        f"stream {stream}: {path}: {fault}. {what}, and start the actor again: what was"
        " acknowledged is in the file."
    )


def is_full(fault: BaseException) -> bool:
    """Whether `fault` says that there was no room to write."""
    return getattr(fault, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
