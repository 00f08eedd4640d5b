"""The newest acknowledged entry, noted beside the journal, so that a journal cut short is found.

Separate from the journal because it must fail on its own: it is another file, and nothing else
may be needed to read it.  It must not know where or how entries are kept.

A log that ends early looks the same whether its last append was torn by a crash, and never
acknowledged, or was lost afterwards.  The files of the journal cannot tell; a second place can.
So each append, once it is durable and before anybody hears of it, is noted here:

    <stream>.head = magic, 8 bytes | u64 seq | chain after it, 32 bytes | CRC-32 of these

It is one write in place of 52 bytes and no sync, some 1 to 3 us: enough against the end of the
process and against damage to the journal's files.  After a power failure it may be as old as the
system takes to write it back (30 s on Linux as it comes), never newer than the journal: so what it
says holds always, and what it does not say may be missing.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from pathlib import Path

import msgspec

logger = logging.getLogger(__name__)

MAGIC = b"excorhed"
_NOTE = struct.Struct(">8sQ32s")
_CRC = struct.Struct(">I")
NOTE_BYTES = _NOTE.size + _CRC.size


class Note(msgspec.Struct, frozen=True):
    """An entry that was acknowledged, and the chain after it."""

    seq: int
    chain: bytes


class Witness:
    """The note of a stream, for its owner to renew.  Made at `path` if need be; raises OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def note(self, seq: int, chain: bytes) -> None:
        """Say that entry `seq` is durable.

        A fault is logged and no more: the entry stands, and the older note is still true.
        """
        head = _NOTE.pack(MAGIC, seq, chain)
        try:
            os.pwrite(self._fd, head + _CRC.pack(zlib.crc32(head)), 0)
        except OSError as fault:
            logger.error("%s: entry %d could not be noted: %s", self._path, seq, fault)

    def sync(self) -> None:
        """Make the note durable.  A fault is logged and no more."""
        try:
            os.fsync(self._fd)
        except OSError as fault:
            logger.error("%s could not be synced: %s", self._path, fault)

    def close(self) -> None:
        """Let go of the file.  May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_note(path: Path) -> Note | None:
    """What is noted at `path`; None when nothing is, or it is damaged, which is logged.

    Raises OSError.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if not data:
        return None
    head, crc = data[: _NOTE.size], data[_NOTE.size :]
    if len(data) != NOTE_BYTES or crc != _CRC.pack(zlib.crc32(head)) or head[:8] != MAGIC:
        logger.error(
            "%s is damaged, so nobody can tell whether the journal beside it has lost its newest"
            " entries. It is written anew; look for what damages files on this disk.",
            path,
        )
        return None
    _, seq, chain = _NOTE.unpack(head)
    return Note(seq, chain)
