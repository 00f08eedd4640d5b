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
Sums = tuple[int, int]

_HEADER_BYTES = 32  # magic, version, page size, checkpoint number, 2 salts, 2 sums: u32 each
_PAIR = struct.Struct(">II")
_FRAME = struct.Struct(">II8sII")  # page, pages after a commit or 0, salts, 2 sums
_MAGICS = {b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"}  # sums over little, over big endian words
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


def count_committed(path: Path, page_bytes: int) -> int:
    """How many frames of the log at `path` SQLite takes when it recovers; 0 when there is no log.

    For when SQLite itself cannot be asked.  Cost: 0.2 s a megabyte.  Raises OSError.
    """
    try:
        log = path.read_bytes()
    except FileNotFoundError:
        return 0
    header = log[:_HEADER_BYTES]
    if len(header) < _HEADER_BYTES or header[:4] not in _MAGICS:
        return 0
    order: Order = "big" if header[3] & 1 else "little"
    sums = _sums(header[:24], (0, 0), order)
    if header[24:] != _PAIR.pack(*sums):
        return 0
    committed, frame_bytes = 0, _FRAME.size + page_bytes
    for frame in range((len(log) - _HEADER_BYTES) // frame_bytes):
        at = _HEADER_BYTES + frame * frame_bytes
        data = log[at : at + frame_bytes]
        _, pages, salts, first, second = _FRAME.unpack(data[: _FRAME.size])
        sums = _sums(data[:8] + data[_FRAME.size :], sums, order)
        if salts != header[16:24] or sums != (first, second):
            break
        if pages:
            committed = frame + 1
    return committed


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
    is_good = raw[:4] in _MAGICS and raw[24:] == _PAIR.pack(*_sums(raw[:24], (0, 0), order))
    # A header is synced before its first frame, so one that fails its checksum is damaged; what
    # the frames say of themselves is all there is to go by then.
    orders: tuple[Order, ...] = (order,) if is_good else ("little", "big")
    salts = raw[16:24] if is_good else os.pread(fd, 8, _HEADER_BYTES + 8)
    count = (os.fstat(fd).st_size - _HEADER_BYTES) // frame_bytes
    for frame in range(frames_accepted, count - 1):
        at = _HEADER_BYTES + frame * frame_bytes
        _, pages, _, _, _ = _FRAME.unpack(os.pread(fd, _FRAME.size, at))
        _, _, salts_after, _, _ = _FRAME.unpack(os.pread(fd, _FRAME.size, at + frame_bytes))
        if pages and salts_after == salts:
            # The sums before the frame stand at the end of the header, or of the frame before.
            before = os.pread(fd, 8, at - (frame_bytes - 16 if frame else 8))
            both = os.pread(fd, 2 * frame_bytes, at)
            if any(_are_linked(both, _PAIR.unpack(before), each) for each in orders):
                return frame + 1
    return None


def _are_linked(both: bytes, before: Sums, order: Order) -> bool:
    """Whether the checksum of the second of two frames goes on from that of the first.

    The first may be damaged, in its data or in its sums: either gives what the second began with.
    before: the sums before the first.
    """
    half = len(both) // 2
    first, second = both[:half], both[half:]
    seeds = _PAIR.unpack(first[16:24]), _sums(first[:8] + first[24:], before, order)
    data, recorded = second[:8] + second[24:], _PAIR.unpack(second[16:24])
    return any(_sums(data, seed, order) == recorded for seed in seeds)


def _sums(data: bytes, seed: Sums, order: Order) -> Sums:
    """The log's running checksum over `data`, a multiple of 8 bytes."""
    words = array("I", data)
    if sys.byteorder != order:
        words.byteswap()
    first, second = seed
    for n in range(0, len(words), 2):
        first = (first + words[n] + second) & _MASK
        second = (second + words[n + 1] + first) & _MASK
    return first, second
