"""The exception tree: faults of the world, which no command can refuse its way out of.

    ExcoreError
    ├── SettingsError            what was configured cannot work
    ├── BackupFailed             a backup cannot be made, or is not whole
    ├── StorageError
    │   ├── JournalFailed        an append or a read failed; the outcome may be unknown
    │   │   └── JournalFull      no room, and nothing was written: the journal stays usable
    │   ├── Fenced               another incarnation owns the stream now
    │   ├── StreamBusy           the owner of the stream is alive elsewhere
    │   ├── StreamMissing        nobody has ever opened this stream here
    │   ├── JournalBroken        what was written is not what is read: damage, or entries lost
    │   ├── JournalForeign       another version's journal, another stream's, or no journal
    │   ├── JournalForgotten     the entries asked for were truncated
    │   ├── SnapshotFailed       a snapshot could not be written; those before it still stand
    │   ├── SnapshotBroken       no snapshot verifies and the journal does not reach back
    │   └── TruncateRefused      truncating so far would leave fewer than two ways to restart
    └── WireError
        ├── WireClosed           the connection ended; what was under way may have happened
        ├── WireRefused          the other side did not accept us
        ├── FrameTooLarge        a frame beyond the agreed size
        └── WireOverloaded       too much is under way; nothing was sent

A refusal of what a caller asked is a value, never an exception; a bug of our own is an assertion,
and ends the process.  After Fenced, or a JournalFailed that is not JournalFull, the process must
exit too: its state may have outrun its journal, or another incarnation may be serving.

Separate so that every layer can name a fault without importing the one that raises it.  It must
not import anything of ours.  Messages are whole sentences for the operator: what, where, and what
to do.  An exception is built from its message alone, so it survives pickling between processes.
"""

from __future__ import annotations


class ExcoreError(Exception):
    """Anything in this tree."""


class SettingsError(ExcoreError):
    """The settings cannot work: unknown, contradictory or out of range.  Found at start."""


class BackupFailed(ExcoreError):
    """A backup could not be made, or is not as it was made.  Nothing bears the name asked for."""


class StorageError(ExcoreError):
    """The durable side cannot do what was asked."""


class JournalFailed(StorageError):
    """The journal failed, and what the last append did may be unknown.

    Fatal: exit, open again, read what is there.  The journal that raised it refuses everything.
    """


class JournalFull(JournalFailed):
    """There was no room for the append; nothing of it was written.

    Not fatal: the journal goes on working, and an append may succeed once there is room again.
    """


class Fenced(StorageError):
    """Another incarnation owns the stream: nothing was written, and nothing may be answered.

    Fatal.  Also raised when `seq` or `epoch` of an append do not continue the journal, which
    has no other harmless explanation.
    """


class StreamBusy(StorageError):
    """The stream has a living owner that this process may not end.  The message says what to do."""


class StreamMissing(StorageError):
    """There is no such stream to read.  It appears when its owner first opens it."""


class JournalBroken(StorageError):
    """The journal is damaged, or lacks entries it once had.  Nothing may be built on it."""


class JournalForeign(StorageError):
    """The file is of another version or another stream, or is no journal.  It was not changed."""


class JournalForgotten(StorageError):
    """The entries asked for were truncated.  A snapshot stands for them."""


class SnapshotFailed(StorageError):
    """A snapshot could not be written.  Not fatal: the snapshots before it were not touched."""


class SnapshotBroken(StorageError):
    """No snapshot can be used, and the journal does not begin at 1: the state cannot be rebuilt."""


class TruncateRefused(StorageError):
    """The two kept snapshots do not cover what was to be truncated.  Nothing was truncated."""


class WireError(ExcoreError):
    """The wire between two actors failed."""


class WireClosed(WireError):
    """The connection ended.  A request that was under way may or may not have been carried out."""


class WireRefused(WireError):
    """The other side did not accept the connection: no proof of the secret, or another version."""


class FrameTooLarge(WireError):
    """A frame is longer than the agreed size.  One of ours was not sent."""


class WireOverloaded(WireError):
    """Too much is under way already.  Nothing was sent; send again freely."""
