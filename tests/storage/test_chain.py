"""The CRC and the running hash: fixed values, and that no change goes unseen."""

from __future__ import annotations

import hashlib
import struct
import zlib

from hypothesis import given
from hypothesis import strategies as st

from excore_ray.storage.chain import entry_crc, genesis, link

U63 = st.integers(0, 2**63 - 1)


def test_the_format_is_as_written_down() -> None:
    head = struct.pack(">QQ", 7, 3)
    before = hashlib.sha256(b"excore-ray journal 1\0market-1").digest()
    assert genesis("market-1") == before
    assert entry_crc(7, 3, b"body") == zlib.crc32(head + b"body")
    assert link(before, 7, 3, b"body") == hashlib.sha256(before + head + b"body").digest()


def test_the_bytes_of_version_1_never_change() -> None:
    first = link(genesis("ledger-0"), 1, 1, b'["Epoch",1]')
    assert entry_crc(1, 1, b'["Epoch",1]') == 0x7EEDF471
    assert first.hex() == ("166738e1b94206bba152be4db61ec6df90ee6deb23ad8ef4bd247d9ce999f1a7")


@given(U63, U63, st.binary(max_size=300), st.data())
def test_any_flipped_bit_changes_both(
    seq: int, epoch: int, body: bytes, data: st.DataObject
) -> None:
    packed = struct.pack(">QQ", seq, epoch) + body
    at = data.draw(st.integers(0, len(packed) * 8 - 1))
    flipped = bytearray(packed)
    flipped[at // 8] ^= 0x80 >> at % 8
    other = (*struct.unpack_from(">QQ", flipped), bytes(flipped[16:]))
    previous = genesis("s")
    assert entry_crc(*other) != entry_crc(seq, epoch, body)
    assert link(previous, *other) != link(previous, seq, epoch, body)


def test_the_chain_depends_on_all_before_it_and_on_the_stream() -> None:
    chains = set()
    for stream in ("a", "b"):
        for order in ((b"x", b"y"), (b"y", b"x"), (b"x", b"x"), (b"xy", b"")):
            running = genesis(stream)
            for seq, body in enumerate(order, 1):
                running = link(running, seq, 1, body)
            chains.add(running)
    assert len(chains) == 8
