"""The dedupe keys of one stream, in its SQLite file, so that none is ever forgotten in silence.

Separate from the file's other tables because a missing key looks like a new one: no check of its
own can tell that it is gone.  So a key is not a row.  The rows are blocks, each of which vouches
for all keys in a range, and the ranges leave no gap:

    keys(first, last, crc, body)    one block: every key whose place is in first to last

    mark  = the first 16 bytes of SHA-256(key)
    place = the first 8 bytes of the mark, without their lowest bit: 0 to 2**63 - 1
    body  = (mark, 16 bytes | seq of the first entry of the append that brought it, u64)*
    crc   = CRC-32(stream | first | last | body)                                  (big endian)

Whatever page SQLite is led to by a damaged index, what it finds there is the block that covers
the place looked for, whole, and then a key that is not in it was never appended; or it is not,
and the journal stops.  A block that grows too long is cut in the middle of its range.  Within a
block keys stand in the order of their entries.

It must not know transactions, locks, nor what a key says.
Source: the denial of existence of RFC 4034 (NSEC), which proves an absence by the gap around it.
"""

from __future__ import annotations

import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from hashlib import sha256

from excore_ray.storage.sqlite_faults import OddRows

TABLE = """
CREATE TABLE keys (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL,
    crc INTEGER NOT NULL, body BLOB NOT NULL)
"""
BLOCK_KEYS_MAX = 32  # 16 to 64 were measured: shorter costs more rows, longer more bytes
_PLACE_MAX = (1 << 63) - 1
_RANGE = struct.Struct(">qq")
_KEY = struct.Struct(">16sQ")
_MARK_BYTES, _SEQ_BYTES = 16, 8
_BLOCK_BYTES_MAX = BLOCK_KEYS_MAX * _KEY.size
_COVERING = "SELECT first, last, crc, body FROM keys WHERE first <= ? ORDER BY first DESC LIMIT 1"
_INSERT = "INSERT INTO keys VALUES (?, ?, ?, ?)"
_UPDATE = "UPDATE keys SET last = ?, crc = ?, body = ? WHERE first = ?"


class Block:
    """All keys whose places are in `first` to `last`."""

    __slots__ = ("body", "first", "last")

    def __init__(self, first: int, last: int, body: bytes) -> None:
        self.first = first
        self.last = last
        self.body = body

    @property
    def newest(self) -> int:
        """The seq of its newest key, 0 when there is none."""
        return int.from_bytes(self.body[-_SEQ_BYTES:], "big")

    def has(self, mark: bytes) -> bool:
        """Whether the key with this mark is in it."""
        at = self.body.find(mark)
        while at > 0 and at % _KEY.size:
            at = self.body.find(mark, at + 1)
        return at >= 0

    def records(self) -> Iterator[tuple[bytes, int]]:
        """Mark and seq of each, in the order in which they were appended."""
        return _KEY.iter_unpack(self.body)


class Keys:
    """The keys of `stream` in an open database.  Its caller begins and ends transactions.

    What find() has looked at, the next insert() need not look for again: between the two nobody
    else may write, which the owner sees by the head of the journal.
    """

    def __init__(self, db: sqlite3.Connection, stream: str) -> None:
        self._db = db
        self._seed = zlib.crc32(stream.encode())
        self._seen: dict[bytes, tuple[bytes, Block]] = {}

    def create(self) -> None:
        """Make the table, without any key."""
        self._db.execute(TABLE)
        self._db.execute(_INSERT, self._row(Block(0, _PLACE_MAX, b"")))

    def find(self, keys: Sequence[bytes]) -> frozenset[bytes]:
        """Those of `keys` that are there.  Cost: 6 us a key.

        Raises sqlite3.Error, which includes OddRows when that cannot be told for certain.
        """
        self._seen = seen = {}
        blocks: dict[int, Block] = {}
        found = []
        for key in keys:
            mark = sha256(key).digest()[:_MARK_BYTES]
            block = self._covering(mark)
            block = blocks.setdefault(block.first, block)
            seen[key] = mark, block
            if block.has(mark):
                found.append(key)
        return frozenset(found)

    def insert(self, keys: Sequence[bytes], seq: int) -> None:
        """Remember `keys`, which came with entry `seq`, the newest.  Cost: 3 us a key after find().

        Raises AssertionError when one is remembered already, sqlite3.Error like find().
        """
        # Whether or not the transaction comes to its end: the blocks looked at are old then.
        seen, self._seen = self._seen, {}
        blocks: dict[int, Block] = {}
        for key in keys:
            if key in seen:
                mark, block = seen[key]
            else:
                mark = sha256(key).digest()[:_MARK_BYTES]
                block = self._covering(mark)
            block = blocks.setdefault(block.first, block)
            assert not block.has(mark), "a key was appended before"
            block.body += _KEY.pack(mark, seq)
        made: list[Block] = []
        for block in blocks.values():
            if len(block.body) > _BLOCK_BYTES_MAX:
                made += _cut(block)
        self._update(blocks.values())
        if made:
            self._db.executemany(_INSERT, map(self._row, made))

    def forget_after(self, seq: int) -> None:
        """Take out the keys that came with entries after `seq`.  Reads all of them."""
        changed = []
        for block in self._all():
            if block.newest <= seq:
                continue
            kept = b"".join(_KEY.pack(*key) for key in block.records() if key[1] <= seq)
            changed.append(Block(block.first, block.last, kept))
        self._seen = {}
        self._update(changed)

    def check(self, seq_max: int) -> int:
        """Read all keys; how many there are.  seq_max: the newest entry.

        Raises sqlite3.Error, which includes OddRows when any can have been lost or changed.
        Cost: 0.3 s a million.
        """
        count, expected = 0, 0
        for block in self._all():
            if block.first != expected:
                raise OddRows(f"its dedupe keys from {expected:#x} on are missing")
            before = 1
            for mark, seq in block.records():
                if not (block.first <= _place(mark) <= block.last and before <= seq <= seq_max):
                    raise OddRows(f"its dedupe keys from {block.first:#x} on do not belong there")
                before = seq
                count += 1
            expected = block.last + 1
        if expected != _PLACE_MAX + 1:
            raise OddRows(f"its dedupe keys from {expected:#x} on are missing")
        return count

    def _all(self) -> Iterator[Block]:
        columns = "SELECT first, last, crc, body FROM keys ORDER BY first"
        with closing(self._db.execute(columns)) as rows:
            for row in rows:
                yield self._as_block(row, row[0])

    def _covering(self, mark: bytes) -> Block:
        place = _place(mark)
        rows = self._db.execute(_COVERING, (place,)).fetchall()
        if len(rows) != 1:
            raise OddRows("a block of its dedupe keys is missing")
        return self._as_block(rows[0], place)

    def _as_block(self, row: tuple[int, object, object, object], place: int) -> Block:
        """A row as SQLite gave it: damage can turn any column into any type.

        place: must be in its range.
        """
        first, last, crc, body = row
        if not (isinstance(last, int) and isinstance(body, bytes) and first <= place <= last):
            raise OddRows("a block of its dedupe keys is not where it belongs")
        if len(body) % _KEY.size or crc != self._crc(first, last, body):
            raise OddRows("the CRC of a block of its dedupe keys does not match")
        return Block(first, last, body)

    def _update(self, blocks: Iterable[Block]) -> None:
        rows = [(b.last, self._crc(b.first, b.last, b.body), b.body, b.first) for b in blocks]
        if self._db.executemany(_UPDATE, rows).rowcount != len(rows):
            raise OddRows("a block of its dedupe keys is not found again")

    def _row(self, block: Block) -> tuple[int, int, int, bytes]:
        first, last, body = block.first, block.last, block.body
        return first, last, self._crc(first, last, body), body

    def _crc(self, first: int, last: int, body: bytes) -> int:
        return zlib.crc32(body, zlib.crc32(_RANGE.pack(first, last), self._seed))


def _place(mark: bytes) -> int:
    return int.from_bytes(mark[:8], "big") >> 1


def _cut(block: Block) -> list[Block]:
    """Shorten a block to as much as one may hold; the blocks for the rest of its range."""
    made: list[Block] = []
    while len(block.body) > _BLOCK_BYTES_MAX and block.first < block.last:
        middle = block.first + (block.last - block.first) // 2
        low, high = bytearray(), bytearray()
        for mark, seq in block.records():
            (low if _place(mark) <= middle else high).extend(_KEY.pack(mark, seq))
        upper = Block(middle + 1, block.last, bytes(high))
        block.last, block.body = middle, bytes(low)
        made += [upper, *_cut(upper)]
    return made
