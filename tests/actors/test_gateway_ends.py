"""Connections end, and leave nothing behind, whatever of them was unfinished: asked or answered.

What a stranger can do without a key to stay for ever, to be counted by nobody, or to be answered
in another's place.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import struct
from typing import Any

import msgspec
import pytest

from excore_ray.actors.gateway_http import HEADERS_MAX, GuardedProtocol
from tests.actors.gateway_caller import GET, LIMITS, Caller, Place, both_loops, play
from tests.actors.wire_world import until

Loop = type[asyncio.AbstractEventLoop]
PATIENT = msgspec.structs.replace(
    LIMITS, head_s=60.0, body_s=60.0, send_s=60.0, keep_alive_s=60, head_bytes_max=16_384
)
EARLY = b"POST /early HTTP/1.1\r\ncontent-length: %d\r\n\r\n"
HELLO = b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello"


def connections(place: Place) -> list[Any]:
    """The server's side of those that are open."""
    return list(place.gateway._server.server_state.connections)


async def all_end(place: Place) -> None:
    await until(lambda: not connections(place) and not len(place.crowd))


async def reset(caller: Caller) -> None:
    """Have the connection end with a reset."""
    line = caller.writer.get_extra_info("socket")
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    caller.writer.transport.abort()


async def left_unread(place: Place, request: bytes) -> Caller:
    """A caller who asks until part of a reply is unsent, and does not read."""
    caller = await place.call(receive_bytes=4_096)
    caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
    while True:
        await caller.say(request)
        await asyncio.sleep(0.005)
        if any(each.transport.get_write_buffer_size() for each in connections(place)):
            return caller


# Those who stay.


@both_loops
def test_who_was_refused_amid_a_request_goes_soon(loop: Loop) -> None:
    async def scenario(place: Place) -> None:
        for _ in range(5):
            caller = await place.call()
            await caller.say(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nx")
        await until(lambda: len(connections(place)) == 5)
        await all_end(place)

    play(scenario, PATIENT, loop=loop)


@both_loops
@pytest.mark.parametrize("more", [b"", b"POST / HT", HELLO[:-1]], ids=["none", "head", "body"])
def test_who_says_no_more_and_does_not_read_goes(more: bytes, loop: Loop) -> None:
    async def scenario(place: Place) -> None:
        caller = await left_unread(place, b"GET /large HTTP/1.1\r\n\r\n")
        await caller.say(more)
        caller.writer.write_eof()
        await all_end(place)

    play(scenario, msgspec.structs.replace(PATIENT, send_s=0.2), loop=loop, reply_bytes=20_000)


@both_loops
def test_who_leaves_little_of_the_last_reply_unread_goes(loop: Loop) -> None:
    async def scenario(place: Place) -> None:
        await left_unread(place, b"GET /large HTTP/1.1\r\nconnection: close\r\n\r\n")
        [connection] = connections(place)
        # As the transport does when little is left: how much that is, the system decides.
        connection.resume_writing()
        await all_end(place)

    play(scenario, msgspec.structs.replace(PATIENT, send_s=0.2), loop=loop, reply_bytes=6_000_000)


@both_loops
def test_who_still_reads_is_not_cut_off_for_asking_nothing(loop: Loop) -> None:
    size = 8_000_000

    async def scenario(place: Place) -> None:
        caller = await place.call(receive_bytes=4_096)
        await caller.say(b"GET /large HTTP/1.1\r\n\r\n")
        heard = 0
        while heard < size:
            part = await caller.reader.read(65_536)
            assert part, f"cut off after {heard} bytes"
            heard += len(part)
            await asyncio.sleep(0.015)
        await all_end(place)

    play(scenario, msgspec.structs.replace(PATIENT, keep_alive_s=1), loop=loop, reply_bytes=size)


# Those who are counted by nobody.


async def is_replaced_by_a_newcomer(place: Place) -> None:
    """The house is full of strangers: one of them has to go."""
    await until(lambda: len(place.crowd) == PATIENT.connections_max)
    newcomer = await place.call()
    await newcomer.say(GET)
    assert (await newcomer.hear_reply()).startswith(b"HTTP/1.1 200")


@both_loops
def test_who_asks_the_next_in_part_ahead_is_a_stranger_again(loop: Loop) -> None:
    async def scenario(place: Place) -> None:
        for _ in range(PATIENT.connections_max):
            caller = await place.call()
            await caller.say(GET + EARLY.replace(b"/early", b"/") % 9 + b"x")
            await caller.hear_reply()
        await is_replaced_by_a_newcomer(place)

    play(scenario, PATIENT, loop=loop)


@both_loops
def test_who_was_answered_before_his_last_byte_is_a_stranger_still(loop: Loop) -> None:
    async def scenario(place: Place) -> None:
        for _ in range(PATIENT.connections_max):
            caller = await place.call()
            await caller.say(EARLY % 1)
            await caller.hear_reply()
            await caller.say(b"x")
        await asyncio.sleep(0.05)
        await is_replaced_by_a_newcomer(place)

    play(scenario, PATIENT, loop=loop)


@both_loops
def test_what_is_not_read_is_neither_kept_nor_counted(loop: Loop) -> None:
    async def scenario(place: Place) -> None:
        caller = await place.call()
        await caller.say(EARLY % 500_000 + b"x" * 60_000)
        await caller.hear_reply()
        for _ in range(4):
            await caller.say(b"x" * 100_000)
        await asyncio.sleep(0.1)
        [connection] = connections(place)
        assert (len(connection.cycle.body), place.crowd.body_bytes) == (0, 0)
        await caller.say(b"x" * 40_000 + HELLO)
        assert b"\r\n5\r\n" in await caller.hear_reply()

    play(scenario, PATIENT, loop=loop)


@both_loops
@pytest.mark.parametrize("asked", [GET, HELLO * 9], ids=["answered", "queued"])
def test_a_reset_leaves_nothing_behind(asked: bytes, loop: Loop) -> None:
    async def scenario(place: Place) -> None:
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                caller = await place.call()
                await caller.say(asked)
                await caller.hear_reply()
                await reset(caller)
            await all_end(place)
            await asyncio.sleep(0.1)
            left = [each for each in gc.get_objects() if isinstance(each, GuardedProtocol)]
        finally:
            gc.enable()
        assert left == []

    play(scenario, PATIENT, loop=loop, wait_s=0.01)


def test_headers_are_so_many() -> None:
    async def scenario(place: Place) -> None:
        for count, status in ((HEADERS_MAX, 200), (HEADERS_MAX + 1, 431)):
            caller = await place.call()
            await caller.say(b"GET / HTTP/1.1\r\n" + b"a:\r\n" * count + b"\r\n")
            line = await caller.reader.readline()
            assert line.startswith(b"HTTP/1.1 %d " % status)

    play(scenario, PATIENT)


# Those who are answered in another's place.

BROKEN_TARGETS = [b"http://a", b"/\xff", b"http://a:99999/", b"?"]


@both_loops
@pytest.mark.parametrize("target", BROKEN_TARGETS)
@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_a_broken_target_is_nobody_elses_fault(ahead: int, target: bytes, loop: Loop) -> None:
    async def scenario(place: Place) -> None:
        caller = await place.call()
        await caller.say(HELLO * ahead + b"GET " + target + b" HTTP/1.1\r\n\r\n")
        replies = (await caller.hear()).split(b"HTTP/1.1 ")[1:]
        if not ahead:
            [refusal] = replies
            assert refusal.startswith(b"400 ")
            assert json.loads(refusal.partition(b"\r\n\r\n")[2])["error"]["code"] == 1
        else:
            assert [reply[:3] for reply in replies] == [b"200"] * ahead
            assert all(b"\r\n5\r\n" in reply for reply in replies)

    play(scenario, PATIENT, loop=loop, wait_s=0.02)


def test_a_broken_target_after_an_answer_is_refused_in_words() -> None:
    async def scenario(place: Place) -> None:
        caller = await place.call()
        await caller.say(HELLO)
        assert b"\r\n5\r\n" in await caller.hear_reply()
        await caller.say(b"GET http://a HTTP/1.1\r\n\r\n")
        assert (await caller.hear()).startswith(b"HTTP/1.1 400 ")

    play(scenario, PATIENT)


def test_an_old_client_is_not_told_to_go_on() -> None:
    async def scenario(place: Place) -> None:
        caller = await place.call()
        await caller.say(b"POST / HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
        await asyncio.sleep(0.05)
        await caller.say(b"hello")
        assert (await caller.hear()).startswith(b"HTTP/1.1 200")

    play(scenario, PATIENT)
