"""Proof that SQLite's write-ahead log has lost nothing in its middle.

Separate because it reads SQLite's own file format, and knows nothing of journals.  It must never
write.

Recovery takes the log up to the first frame whose checksum fails.  After a crash that is right:
the frame belongs to a commit that was never acknowledged.  But a bit that rots inside the log
looks the same to SQLite, which then drops, silently, every commit from there on.  The two can be
told apart: each checksum is seeded with the one before, and a commit is on the disk before the
next is begun.  So a frame behind the accepted end that ends a commit, and whose checksum seeds
the frame after it, was durable once, and its loss is damage.  A crash cannot look like this.
The newest commit of all has nothing after it, so its damage cannot be told from a crash.

Source: the SQLite documentation, Database File Format, 4, The Write-Ahead Log.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from pathlib import Path
from typing import Literal

Order = Literal["little", "big"]

_HEADER_BYTES = 32  # magic, version, page size, checkpoint number, 2 salts, 2 sums: u32 each
_FRAME = struct.Struct(">II8sII")  # page, pages after a commit or 0, salts, 2 sums
_MAGICS = {b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"}  # sums over little, over big endian words
_ORDERS: tuple[Order, ...] = ("little", "big")
_MASK = 0xFFFFFFFF


def sync_log(path: Path) -> None:
    """Make the log at `path` durable as it is.  Raises OSError; no file is no error.

    What a process that was killed had written but not synced is read by the next one, and must
    not vanish in a power failure after that.  Only for the log: closing the database file itself
    would drop the locks that SQLite holds on it in this process.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def find_lost_commit(path: Path, page_bytes: int, frames_accepted: int) -> int | None:
    """Number, from 1, of a frame that ends a commit which was durable once and was not recovered.

    None when nothing was lost as far as can be told, or there is no log.
    page_bytes: of the database.  frames_accepted: how many frames SQLite took from the log at
    `path` when it recovered.  Cost: one small read for each frame behind those.  Raises OSError.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return _scan(fd, _FRAME.size + page_bytes, frames_accepted)
    finally:
        os.close(fd)


def _scan(fd: int, frame_bytes: int, frames_accepted: int) -> int | None:
    raw = os.pread(fd, _HEADER_BYTES, 0)
    if len(raw) < _HEADER_BYTES:
        return None
    order: Order = "big" if raw[3] & 1 else "little"
    sums = struct.pack(">II", *_sums(raw[:24], (0, 0), order))
    # A header is synced before its first frame, so one that fails its checksum is damaged; what
    # the frames say of themselves is all there is to go by then.
    is_good = raw[:4] in _MAGICS and raw[24:] == sums
    salts = raw[16:24] if is_good else os.pread(fd, 8, _HEADER_BYTES + 8)
    count = (os.fstat(fd).st_size - _HEADER_BYTES) // frame_bytes
    for frame in range(frames_accepted, count - 1):
        at = _HEADER_BYTES + frame * frame_bytes
        _, pages, own_salts, *seed = _FRAME.unpack(os.pread(fd, _FRAME.size, at))
        if not pages or own_salts != salts:
            continue
        after = os.pread(fd, frame_bytes, at + frame_bytes)
        _, _, own_salts, *recorded = _FRAME.unpack_from(after)
        data = after[:8] + after[_FRAME.size :]
        if own_salts == salts and any(
            _sums(data, (seed[0], seed[1]), order) == (recorded[0], recorded[1])
            for order in _ORDERS
        ):
            return frame + 1
    return None


def _sums(data: bytes, seed: tuple[int, int], order: Order) -> tuple[int, int]:
    """The log's running checksum over `data`, a multiple of 8 bytes."""
    words = array("I", data)
    if sys.byteorder != order:
        words.byteswap()
    first, second = seed
    for n in range(0, len(words), 2):
        first = (first + words[n] + second) & _MASK
        second = (second + words[n + 1] + first) & _MASK
    return first, second
