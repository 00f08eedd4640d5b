"""Heads that are damaged in every way a seed leads to: each is answered in HTTP, or hung up on."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from typing import Any

import msgspec
import pytest

from tests.actors.gateway_caller import LIMITS, Place, both_loops, play
from tests.fuzz.heads import damaged, pieces, right

MANY = msgspec.structs.replace(LIMITS, connections_max=1_000)
CALLERS = 250
NEXT = b"POST /known HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello"


def replies_in(heard: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each; the bytes must be nothing but whole replies."""
    found = []
    while heard:
        head, end, heard = heard.partition(b"\r\n\r\n")
        assert end, f"half a head: {head!r}"
        version, status, *_ = head.split(b"\r\n")[0].split(b" ", 2)
        assert version == b"HTTP/1.1"
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        body = b""
        if b"content-length" in fields:
            size = int(fields[b"content-length"])
            body, heard = heard[:size], heard[size:]
            assert len(body) == size, f"half a body: {body!r}"
        elif fields.get(b"transfer-encoding") == b"chunked":
            size = -1
            while size:
                line, end, heard = heard.partition(b"\r\n")
                assert end, f"half a chunk: {line!r}"
                size = int(line, 16)
                body += heard[:size]
                assert heard[size : size + 2] == b"\r\n", f"half a chunk: {heard!r}"
                heard = heard[size + 2 :]
        else:
            assert status == b"100", f"a reply without an end: {head!r}"
        found.append((int(status), body))
    return found


async def said_and_heard(place: Place, said: list[bytes]) -> bytes:
    caller = await place.call()
    for piece in said:
        caller.writer.write(piece)  # one who is hung up on can say what he likes
        await asyncio.sleep(0)
    return await caller.hear()


def check_replies(heard: bytes) -> list[tuple[int, bytes]]:
    """The replies; one of the server's own refusals is the last and has its error object."""
    replies = replies_in(heard)
    for status, body in replies:
        if status >= 400:
            assert json.loads(body)["error"]["code"] in (1, 3)
    assert all(status in (100, 200) for status, _ in replies[:-1])
    return replies


# Where proxy and server might disagree on the end of a request, the server must not go on.
UNCLEAR = {
    "two lengths": b"content-length: 3\r\ncontent-length: 4\r\n\r\nabc",
    "a list of lengths": b"content-length: 3, 3\r\n\r\nabc",
    "a length and chunks": b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
    "no length": b"content-length:\r\n\r\n",
    "a signed length": b"content-length: +3\r\n\r\nabc",
    "a hexadecimal length": b"content-length: 0x3\r\n\r\nabc",
    "a length beyond 64 bits": b"content-length: 18446744073709551619\r\n\r\nabc",
    "a space before the colon": b"content-length : 3\r\n\r\nabc",
    "a folded header": b"x: a\r\n content-length: 3\r\n\r\nabc",
    "a header without a name": b": 3\r\n\r\n",
    "a line without a colon": b"content-length 3\r\n\r\n",
    "a zero byte": b"x: a\0b\r\n\r\n",
    "another coding after chunks": b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunks twice": b"transfer-encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "a negative chunk": b"transfer-encoding: chunked\r\n\r\n-1\r\n\r\n",
    "a chunk beyond 64 bits": b"transfer-encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n",
    "a chunk that goes on": b"transfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    "lines without a return": b"x: y\ncontent-length: 3\n\nabc",
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_an_unclear_end_of_a_request_is_the_end_of_the_connection(name: str) -> None:
    async def scenario(place: Place) -> None:
        said = b"POST / HTTP/1.1\r\nhost: a\r\n" + UNCLEAR[name] + NEXT
        replies = check_replies(await said_and_heard(place, [said]))
        assert [status for status, _ in replies] == [400]

    play(scenario, MANY)


def test_who_waits_to_be_told_to_go_on_and_does_not_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(place: Place) -> None:
        said = b"POST / HTTP/1.1\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\nx"
        [(status, _)] = check_replies(await said_and_heard(place, [said]))
        assert status == 400

    play(scenario, MANY)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


# Other protocols.

JAVA = b"connection: Upgrade, HTTP2-Settings\r\nhttp2-settings: AAMAAABk\r\nupgrade: h2c\r\n"
BROWSER = b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"


@pytest.mark.parametrize("cut", [0, 1, 40, 90, 148, 160])
@pytest.mark.parametrize("offer", [JAVA, BROWSER], ids=["java", "browser"])
def test_an_offer_of_another_protocol_changes_nothing(offer: bytes, cut: int) -> None:
    async def scenario(place: Place) -> None:
        head = b"POST / HTTP/1.1\r\n" + offer + b"content-length: 7\r\nhost: a\r\n\r\n"
        caller = await place.call()
        said = head + b"abcdefg" + NEXT
        await caller.say(said[:cut])
        await asyncio.sleep(0.02)
        await caller.say(said[cut:])
        for size in (7, 5):
            assert b"\r\n%d\r\n" % size in await caller.hear_reply()
        await caller.say(NEXT)  # the connection stays
        assert b"\r\n5\r\n" in await caller.hear_reply()

    play(scenario, MANY)


def test_offers_ahead_of_their_answers_are_all_declined() -> None:
    async def scenario(place: Place) -> None:
        head = b"POST / HTTP/1.1\r\n" + JAVA + b"transfer-encoding: chunked\r\n\r\n"
        caller = await place.call()
        await caller.say((head + b"3\r\nabc\r\n0\r\n\r\n") * MANY.pipelined_max)
        for _ in range(MANY.pipelined_max):
            assert b"\r\n3\r\n" in await caller.hear_reply()

    play(scenario, MANY, wait_s=0.01)


def test_nobody_is_connected_to_others() -> None:
    async def scenario(place: Place) -> None:
        said = NEXT + b"CONNECT b:80 HTTP/1.1\r\nhost: b\r\n\r\n" + NEXT
        first = b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n"
        caller = await place.call()
        await caller.say(first)
        await caller.hear_reply()
        await caller.say(said[len(NEXT) :])
        replies = check_replies(await caller.hear())
        assert [status for status, _ in replies] == [405]
        # Asked ahead of an answer, it is not answered, and nothing after it is read.
        answered = check_replies(await said_and_heard(place, [said]))
        assert [status for status, _ in answered] == [200]

    play(scenario, MANY)


# What is in nobody's count.


def test_headers_without_content_have_a_size_too() -> None:
    async def scenario(place: Place) -> None:
        caller = await place.call()
        await caller.say(b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 1_000 + b"\r\n")
        [(status, _)] = check_replies(await caller.hear())
        assert status == 431

    play(scenario, MANY)


CHUNKED = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "more"),
    [(b"3\r\nabc\r\n0\r\n", b"x: y\r\n"), (b"0\r\nx: ", b"y"), (b"3;", b"x"), (b"", b"0")],
    ids=["trailers", "a trailer", "an extension", "a size"],
)
def test_what_follows_or_parts_a_body_has_a_size(start: bytes, more: bytes) -> None:
    async def scenario(place: Place) -> None:
        caller = await place.call()
        await caller.say(CHUNKED + start)
        hearing = asyncio.create_task(caller.hear())
        while not hearing.done():
            caller.writer.write(more * (400 // len(more)))
            await asyncio.wait([hearing], timeout=0.01)
        [(status, _)] = check_replies(await hearing)
        assert status in (400, 431)

    play(scenario, msgspec.structs.replace(MANY, body_s=60.0))


def test_trailers_are_read_and_are_no_headers() -> None:
    async def scenario(place: Place) -> None:
        caller = await place.call()
        await caller.say(CHUNKED + b"3\r\nabc\r\n0\r\nx: y\r\nexpect: 100-continue\r\n\r\n" + NEXT)
        for size in (3, 5):
            assert b"\r\n%d\r\n" % size in await caller.hear_reply()

    play(scenario, MANY)


@both_loops
@pytest.mark.parametrize("round_", range(2))
def test_damaged_requests_are_answered_or_hung_up_on(
    round_: int, loop: type[asyncio.AbstractEventLoop], caplog: pytest.LogCaptureFixture
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    counts: dict[int, int] = {}

    async def one(place: Place, number: int) -> None:
        chance = random.Random(f"{seed}/{number}")
        whole = [right(chance) for _ in range(chance.choice((0, 0, 1, 3)))]
        said = b"".join([*whole, damaged(chance), *([NEXT] * chance.choice((0, 1)))])
        try:
            replies = check_replies(await said_and_heard(place, pieces(said, chance)))
            answered = [body for status, body in replies if status == 200]
            assert answered[: len(whole)] == [b"%d" % size_of(request) for request in whole]
        except AssertionError as broken:
            raise AssertionError(f"seed {seed}, caller {number}: {said!r}") from broken
        for status, _ in replies:
            counts[status] = counts.get(status, 0) + 1

    async def scenario(place: Place) -> None:
        raised: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: raised.append(told))
        honest = await place.call()
        beside = asyncio.gather(*(one(place, number) for number in range(CALLERS)))
        while not beside.done():
            await honest.say(NEXT)
            assert (await honest.hear_reply()).startswith(b"HTTP/1.1 200")
            await asyncio.wait([beside], timeout=0.05)
        await beside
        assert raised == []

    play(scenario, MANY, loop=loop)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert counts[200] > CALLERS / 2
    assert counts[400] > CALLERS / 10


def size_of(request: bytes) -> int:
    """How many bytes the body of a right request has; no other part of it has a b."""
    return request.partition(b"\r\n\r\n")[2].count(b"b")
