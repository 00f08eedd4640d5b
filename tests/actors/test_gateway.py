"""Gateways: requests that are slow or large are cut off, others never are, and none is dropped."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from excore_ray.actors.gateway import listen, load, reserve
from excore_ray.errors import SettingsError
from tests.actors.gateway_caller import GET, Place, play


def test_requests_are_answered_on_one_connection() -> None:
    async def scenario(place: Place) -> None:
        caller = await place.call()
        for size in (0, 1, 100_000, 500_000):
            head = f"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n"
            await caller.say(head.encode() + b"x" * size)
            reply = await caller.hear_reply()
            assert reply.startswith(b"HTTP/1.1 200")
            assert b"\r\n%d\r\n" % size in reply
            assert b"server:" not in reply

    play(scenario)


SLOW = {
    "says nothing": b"",
    "half a request line": b"POST / HT",
    "half a header": b"POST / HTTP/1.1\r\nhost: a\r\nx: ",
    "half a body": b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nxx",
    "half a second request": GET + b"POST / HT",
    "blank lines": b"\r\n\r\n",
}


@pytest.mark.parametrize("said", SLOW.values(), ids=SLOW)
def test_who_does_not_finish_a_request_is_hung_up_on(said: bytes) -> None:
    async def scenario(place: Place) -> None:
        caller = await place.call()
        await caller.say(said)
        began = time.monotonic()
        heard = await caller.hear()
        assert 0.2 < time.monotonic() - began < 0.9
        assert heard.count(b"HTTP/1.1 200") == said.count(GET)

    play(scenario)


def test_who_dribbles_is_hung_up_on() -> None:
    async def scenario(place: Place) -> None:
        caller = await place.call()
        hearing = asyncio.create_task(caller.hear())
        for byte in b"POST / HTTP/1.1\r\nhost: abcdefghijklmnopqrstuvwxyz":
            if hearing.done():
                break
            await caller.say(bytes([byte]))
            await asyncio.sleep(0.02)
        assert hearing.done()
        assert (await hearing).startswith(b"HTTP/1.1 408 ")

    play(scenario)


def test_a_slow_answer_is_waited_for() -> None:
    async def scenario(place: Place) -> None:
        caller = await place.call()
        await caller.say(GET)
        assert (await caller.hear_reply()).startswith(b"HTTP/1.1 200")

    play(scenario, wait_s=0.6)


LARGE = {
    "one header in one piece": ([b"x: " + b"a" * 5_000 + b"\r\n"], 0),
    "many headers": ([b"x%d: %s\r\n" % (n, b"a" * 90) for n in range(60)], 0),
    "one header in pieces": ([b"x: ", *[b"a" * 900] * 6], 0.01),
    "many headers in pieces": ([b"x%d: %s\r\n" % (n, b"a" * 900) for n in range(6)], 0.01),
}


@pytest.mark.parametrize(("pieces", "pause_s"), LARGE.values(), ids=LARGE)
def test_a_large_head_is_refused(pieces: list[bytes], pause_s: float) -> None:
    async def scenario(place: Place) -> None:
        caller = await place.call()
        hearing = asyncio.create_task(caller.hear())
        whole = [b"GET / HTTP/1.1\r\nhost: a\r\n", *pieces, b"\r\n\r\n"]
        if not pause_s:
            whole = [b"".join(whole)]
        for piece in whole:
            if hearing.done():
                break
            caller.writer.write(piece)
            await asyncio.sleep(pause_s)
        assert (await hearing).startswith(b"HTTP/1.1 431 ")

    play(scenario)


def test_a_head_just_below_the_limit_is_not() -> None:
    async def scenario(place: Place) -> None:
        caller = await place.call()
        await caller.say(b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 1_900 + b"\r\n\r\n")
        assert (await caller.hear_reply()).startswith(b"HTTP/1.1 200")

    play(scenario)


def test_what_was_asked_before_the_end_is_answered() -> None:
    async def scenario(place: Place) -> None:
        caller = await place.call()
        await caller.say(GET)
        await asyncio.sleep(0.05)
        hearing = asyncio.create_task(caller.hear_reply())
        await place.gateway.drain(2)
        assert (await hearing).startswith(b"HTTP/1.1 200")

    play(scenario, wait_s=0.3)


def test_gateways_share_a_port_and_nobody_else_gets_it() -> None:
    with reserve("127.0.0.1", 0) as reserved:
        port = reserved.getsockname()[1]
        with listen("127.0.0.1", port, 10), listen("127.0.0.1", port, 10):
            with pytest.raises(SettingsError, match=f"port {port}"):
                reserve("127.0.0.1", port)
            with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
                stranger.bind(("127.0.0.1", port))


@pytest.mark.parametrize("reference", ["", "no.such:thing", "os:no_such_thing", "os", ":x"])
def test_what_cannot_be_imported_is_said_so(reference: str) -> None:
    with pytest.raises(SettingsError, match="names nothing"):
        load(reference)
