"""The reader of frames alone, against cutting a whole stream by hand."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from excore_ray.actors.wire_connection import HEADER, FrameReader

FRAMES = st.lists(st.tuples(st.integers(0, 2**64 - 1), st.binary(max_size=40)), max_size=8)
CUTS = st.lists(st.integers(0, 400), max_size=20)


def pieces_of(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


@given(frames=FRAMES, cuts=CUTS)
def test_any_cutting_gives_the_same_frames(
    frames: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(HEADER.pack(len(body), number) + body for number, body in frames)
    reader = FrameReader(40)
    pieces = pieces_of(stream, cuts)
    assert [frame for piece in pieces for frame in reader.read(piece)] == frames
    assert not reader.too_large


@given(frames=FRAMES, cuts=CUTS, body=st.binary(min_size=41, max_size=80))
def test_the_reader_stops_before_a_body_that_is_too_large(
    frames: list[tuple[int, bytes]], cuts: list[int], body: bytes
) -> None:
    whole = [*frames, (1, body)]
    stream = b"".join(HEADER.pack(len(body), number) + body for number, body in whole)
    reader = FrameReader(40)
    got = []
    for piece in pieces_of(stream, cuts):
        got += reader.read(piece)
        if reader.too_large:
            break
    assert got == frames
    assert reader.too_large == len(body)
