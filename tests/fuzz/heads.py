"""Requests as bytes of HTTP/1.1, whole ones and damaged ones, from a seed.

Separate from the bodies because here everything up to the body is what is wrong: lines, lengths,
encodings, and where one request ends and the next begins.
"""

from __future__ import annotations

from random import Random

MARKS = (b"\r\n", b"\n", b"\r", b":", b" ", b"\t", b"\0", b"\x7f", b"\xff", b"\xe2\x82\xac", b",")
TARGETS = (b"/", b"/known", b"/%41", b"/%", b"/%zz", b"*", b"http://a/", b"/\xff", b"//", b"?a=1")
METHODS = (b"POST", b"GET", b"PUT", b"OPTIONS", b"CONNECT", b"TRACE", b"PRI", b"post", b"G\0T", b"")
VERSIONS = (
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/0.9",
    b"HTTP/2.0",
    b"HTTP/1.9",
    b"http/1.1",
    b"HTTP",
    b"",
)
HEADERS = (
    b"connection: close",
    b"connection: keep-alive, close",
    b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: eA==",
    b"connection: upgrade\r\nupgrade: h2c",
    b"expect: 100-continue",
    b"expect: a miracle",
    b"transfer-encoding: chunked",
    b"transfer-encoding: chunked, identity",
    b"transfer-encoding: gzip, chunked",
    b"transfer-encoding: chunked\r\ntransfer-encoding: chunked",
    b"content-length: 0",
    b"content-length: -1",
    b"content-length: +3",
    b"content-length: 3, 3",
    b"content-length: 3\r\ncontent-length: 4",
    b"content-length: 99999999999999999999",
    b"content-length: 9223372036854775807",
    b"content-length: 0x3",
    b"content-length:",
    b"content-length : 3",
    b" folded: yes",
    b"x: a\r\n b",
    b"no colon",
    b": no name",
    b"x\0y: z",
    b"x: \0",
    b"x: \xff\xfe",
    b"host: b",
    b"x: " + b"y" * 3_000,
    b"\r\n".join(b"x%d: y" % n for n in range(300)),
)
CHUNKS = (
    b"0\r\n\r\n",
    b"3\r\nabc\r\n0\r\n\r\n",
    b"3;a=b\r\nabc\r\n0\r\nx: y\r\n\r\n",
    b"fffffffff\r\n",
    b"-1\r\n",
)


def right(chance: Random) -> bytes:
    """A request that must be answered; its body holds nothing that could pass for a request."""
    size = chance.choice((0, 0, 1, 10, 5_000))
    more = b"x-pad: %b\r\n" % (b"y" * chance.randrange(900)) if chance.random() < 0.3 else b""
    if chance.random() < 0.3:
        chunks = b"%x\r\n%b\r\n" % (size, b"b" * size) if size else b""
        return b"POST / HTTP/1.1\r\nhost: a\r\n%btransfer-encoding: chunked\r\n\r\n%b0\r\n\r\n" % (
            more,
            chunks,
        )
    return b"POST / HTTP/1.1\r\n%bhost: a\r\ncontent-length: %d\r\n\r\n%b" % (
        more,
        size,
        b"b" * size,
    )


def damaged(chance: Random) -> bytes:
    """A request that is wrong somewhere, or only odd."""
    if chance.random() < 0.4:
        return _scratched(right(chance), chance)
    method, target, version = b"POST", b"/", b"HTTP/1.1"
    draw = chance.random()
    if draw < 0.1:
        method = chance.choice(METHODS)
    elif draw < 0.2:
        target = chance.choice(TARGETS)
    elif draw < 0.3:
        version = chance.choice(VERSIONS)
    lines = [b"%b %b %b" % (method, target, version), b"host: a"]
    lines += chance.choices(HEADERS, k=chance.randrange(4))
    body = chance.choice((b"", b"abc", *CHUNKS))
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    return head + body


def _scratched(request: bytes, chance: Random) -> bytes:
    """The same with a few bytes lost, doubled, or in the place of others."""
    found = bytearray(request)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(found)) if chance.random() < 0.3 else chance.randrange(60)
        draw = chance.random()
        if draw < 0.3:
            found[at : at + chance.randrange(1, 4)] = b""
        elif draw < 0.6:
            found[at:at] = chance.choice(MARKS)
        elif draw < 0.9:
            found[at : at + 1] = chance.choice(MARKS)
        else:
            found[at : at + 1] = bytes([chance.randrange(256)])
    return bytes(found)


def pieces(said: bytes, chance: Random) -> list[bytes]:
    """The same bytes as they may come out of a network."""
    cuts = sorted(chance.randrange(len(said) + 1) for _ in range(chance.choice((0, 0, 1, 3))))
    return [said[a:b] for a, b in zip([0, *cuts], [*cuts, len(said)], strict=True) if a < b]
