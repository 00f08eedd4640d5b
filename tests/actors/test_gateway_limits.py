"""What a gateway bears of its clients: crowds, floods, those who never finish and never read."""

from __future__ import annotations

import asyncio
import json
import resource
import socket

import msgspec
import pytest

from api.app import KNOWN as KNOWN_TO_THE_APPLICATION
from api.replies import ERROR_KINDS
from excore_ray.actors import gateway_http, gateway_words
from excore_ray.actors.gateway import files_for
from excore_ray.actors.plan import HttpLimits
from excore_ray.core.reasons import Reason
from tests.actors.gateway_caller import GET, LIMITS, Caller, Place, both_loops, play
from tests.actors.wire_world import until

PATIENT = msgspec.structs.replace(LIMITS, head_s=60.0, body_s=60.0, send_s=60.0, keep_alive_s=60)
KNOWN = b"GET /known HTTP/1.1\r\nhost: a\r\n\r\n"
LARGE = b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n"
LAST = b"GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"


def bounded(**limits: int | float) -> HttpLimits:
    """Limits where time does not matter, but for those named."""
    return msgspec.structs.replace(PATIENT, **limits)


def post(size: int, sent: int) -> bytes:
    """The first `sent` bytes of a body, with the headers before it."""
    return b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size + b"x" * sent


def error_of(heard: bytes) -> tuple[int, int, str]:
    """Status, code and message of a refusal; whoever heard it was told that it is the last."""
    head, _, body = heard.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert "connection: close" in lines
    assert f"content-length: {len(body)}" in lines
    reply = json.loads(body)
    assert (reply["result"], reply["id"]) == (None, None)
    return int(lines[0].split()[1]), reply["error"]["code"], reply["error"]["message"]


async def served(caller: Caller, request: bytes = GET) -> None:
    await caller.say(request)
    assert (await caller.hear_reply()).startswith(b"HTTP/1.1 200")


async def strangers(place: Place, count: int) -> list[Caller]:
    """Callers who say nothing, and are all inside."""
    callers = [await place.call() for _ in range(count)]
    await until(lambda: len(place.crowd) == count)
    return callers


REFUSALS = {
    "TOO_MANY": Reason.SERVICE_UNAVAILABLE,
    "TOO_MUCH": Reason.SERVICE_UNAVAILABLE,
    "NO_HTTP": Reason.INVALID_ARGUMENT,
    "NO_TUNNEL": Reason.INVALID_ARGUMENT,
    "HEAD_TOO_LARGE": Reason.INVALID_ARGUMENT,
    "TOO_SLOW": Reason.INVALID_ARGUMENT,
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_the_server_refuses_reads_as_what_the_application_does(name: str) -> None:
    kind = ERROR_KINDS[REFUSALS[name]]
    _, code, message = error_of(getattr(gateway_words, name))
    assert code == kind.code
    assert message.startswith(f"{kind.text}: ")


def test_server_and_application_have_one_word_for_who_is_known() -> None:
    assert gateway_http.KNOWN == KNOWN_TO_THE_APPLICATION


# Deadlines.


def test_headers_and_bodies_have_deadlines_of_their_own() -> None:
    async def scenario(place: Place) -> None:
        body, head = await place.call(), await place.call()
        await body.say(post(100, 2))
        await head.say(GET[:20])
        slow = "invalid argument: request: sent too slowly"
        assert error_of(await head.hear()) == (408, 1, slow)
        await body.say(b"x" * 98)  # the deadline of a body is another
        assert (await body.hear_reply()).startswith(b"HTTP/1.1 200")

    play(scenario, bounded(head_s=0.2))


@both_loops
def test_who_dribbles_a_body_is_told_and_hung_up_on(loop: type[asyncio.AbstractEventLoop]) -> None:
    async def scenario(place: Place) -> None:
        caller = await place.call()
        await caller.say(post(10_000, 0))
        hearing = asyncio.create_task(caller.hear())
        while not hearing.done():
            caller.writer.write(b"x")
            await asyncio.wait([hearing], timeout=0.02)
        assert error_of(await hearing)[:2] == (408, 1)

    play(scenario, bounded(body_s=0.3), loop=loop)


def test_blank_lines_after_an_answer_keep_nothing_open() -> None:
    async def scenario(place: Place) -> None:
        caller = await place.call()
        await served(caller)
        await caller.say(b"\r\n\r\n")
        assert await caller.hear() == b""

    play(scenario, bounded(head_s=0.2))


def test_what_was_asked_is_answered_though_the_next_request_never_ends() -> None:
    async def scenario(place: Place) -> None:
        for rest in (b"POST / HT", post(100, 2), b"no HTTP\r\n\r\n"):
            caller = await place.call()
            await caller.say(GET + rest)
            heard = await caller.hear()
            assert heard.startswith(b"HTTP/1.1 200")
            assert heard.count(b"HTTP/1.1") == 1
            assert b"connection: close" in heard

    play(scenario, bounded(head_s=0.1, body_s=0.1), wait_s=0.4)


def test_one_who_goes_on_asking_has_a_deadline_for_each_request() -> None:
    async def scenario(place: Place) -> None:
        caller = await place.call()
        half = len(GET) // 2
        await caller.say(GET[:half])
        for _ in range(20):  # it is never between two requests
            await asyncio.sleep(0.02)
            await caller.say(GET[half:] + GET[:half])
            await caller.hear_reply()

    play(scenario, bounded(head_s=0.25))


@pytest.mark.parametrize("said", [b"nonsense\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03"])
def test_what_is_no_http_is_told_so(said: bytes) -> None:
    async def scenario(place: Place) -> None:
        caller = await place.call()
        await caller.say(said)
        assert error_of(await caller.hear()) == (400, 1, "invalid argument: request: not HTTP")

    play(scenario, PATIENT)


# Crowds.


@both_loops
def test_strangers_crowd_out_only_each_other(loop: type[asyncio.AbstractEventLoop]) -> None:
    async def scenario(place: Place) -> None:
        known = await place.call()
        await served(known, KNOWN)
        silent = [await place.call() for _ in range(LIMITS.connections_max - 1)]
        await until(lambda: len(place.crowd) == LIMITS.connections_max)
        for place_in_line in range(3):
            await served(await place.call(), KNOWN)
            assert await silent[place_in_line].hear() == b""
        await silent[3].say(KNOWN)
        assert (await silent[3].hear_reply()).startswith(b"HTTP/1.1 200")
        await served(known)
        assert len(place.crowd) == LIMITS.connections_max

    play(scenario, PATIENT, loop=loop)


def test_one_who_is_being_answered_is_not_thrown_out() -> None:
    async def scenario(place: Place) -> None:
        asking = await place.call()
        await asking.say(GET)
        await asyncio.sleep(0.05)
        silent = await strangers_more(place, 2)
        late = await place.call()
        assert await silent[0].hear() == b""
        assert (await asking.hear_reply()).startswith(b"HTTP/1.1 200")
        # Answered and still a stranger, it stands behind the others now.
        await place.call()
        assert await silent[1].hear() == b""
        await served(asking)
        await served(late)

    play(scenario, bounded(connections_max=3), wait_s=0.3)


async def strangers_more(place: Place, count: int) -> list[Caller]:
    """Further callers who say nothing."""
    before = len(place.crowd)
    callers = [await place.call() for _ in range(count)]
    await until(lambda: len(place.crowd) == before + count)
    return callers


def test_when_all_are_known_the_next_is_refused_in_words() -> None:
    async def scenario(place: Place) -> None:
        known = [await place.call() for _ in range(3)]
        for caller in known:
            await served(caller, KNOWN)
        for _ in range(2):
            refused = await place.call()
            # What it says is not lost on it, though it is sent before anything is asked.
            await refused.say(post(10, 10))
            assert error_of(await refused.hear()) == (
                503,
                3,
                "service unavailable: too many connections are open",
            )
        for caller in known:
            await served(caller)
        known[0].writer.close()
        await until(lambda: len(place.crowd) == 2)
        await served(await place.call())

    play(scenario, bounded(connections_max=3))


def test_not_many_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_http, "LINGERING_MAX", 1)
    monkeypatch.setattr(gateway_http, "LINGER_S", 60.0)

    async def scenario(place: Place) -> None:
        await served(await place.call(), KNOWN)
        told = await place.call()
        assert (await told.reader.read(12)) == b"HTTP/1.1 503"
        assert await (await place.call()).hear() == b""

    play(scenario, bounded(connections_max=1))


def test_one_address_has_so_many_connections() -> None:
    async def scenario(place: Place) -> None:
        first, _ = await strangers(place, 2)
        assert error_of(await (await place.call()).hear())[:2] == (503, 3)
        first.writer.close()
        await until(lambda: len(place.crowd) == 1)
        await served(await place.call())

    play(scenario, bounded(address_connections_max=2))


# Floods.


@both_loops
def test_of_a_flood_only_so_many_are_read(loop: type[asyncio.AbstractEventLoop]) -> None:
    async def scenario(place: Place) -> None:
        caller = await place.call()
        await caller.say(GET * 2_000)
        heard = await caller.hear()
        replies = heard.split(b"HTTP/1.1 ")[1:]
        assert len(replies) == 1 + PATIENT.pipelined_max
        assert [b"connection: close" in reply for reply in replies] == [
            *[False] * PATIENT.pipelined_max,
            True,
        ]

    play(scenario, PATIENT, loop=loop, wait_s=0.01)


def test_a_few_requests_ahead_are_answered_in_order() -> None:
    async def scenario(place: Place) -> None:
        caller = await place.call()
        await caller.say(b"".join(post(size, size) for size in range(PATIENT.pipelined_max)))
        for size in range(PATIENT.pipelined_max):
            assert b"\r\n%d\r\n" % size in await caller.hear_reply()
        await served(caller)

    play(scenario, PATIENT)


def test_unfinished_bodies_have_room_together_and_the_first_stranger_goes() -> None:
    async def scenario(place: Place) -> None:
        callers = [await place.call() for _ in range(4)]
        for caller in callers[:3]:
            before = place.crowd.body_bytes
            await caller.say(post(100_000, 30_000))
            await until(lambda before=before: place.crowd.body_bytes == before + 30_000)
        await callers[3].say(post(100_000, 30_000))
        assert await callers[0].hear() == b""
        assert place.crowd.body_bytes == 90_000
        await served(await place.call(), post(3_000, 3_000))  # a small one passes
        await callers[3].say(b"x" * 30_000)
        assert await callers[1].hear() == b""
        assert place.crowd.body_bytes == 90_000
        await callers[3].say(b"x" * 40_000)
        assert (await callers[3].hear_reply()).startswith(b"HTTP/1.1 200")
        assert place.crowd.body_bytes == 30_000

    play(scenario, bounded(bodies_bytes_max=100_000))


def test_known_ones_are_not_thrown_out_for_it_but_refused() -> None:
    async def scenario(place: Place) -> None:
        first, second = await place.call(), await place.call()
        for caller in (first, second):
            await served(caller, KNOWN)
        await first.say(post(100_000, 60_000))
        await until(lambda: place.crowd.body_bytes == 60_000)
        await second.say(post(100_000, 60_000))
        assert error_of(await second.hear())[:2] == (503, 3)
        await first.say(b"x" * 40_000)
        assert (await first.hear_reply()).startswith(b"HTTP/1.1 200")

    play(scenario, bounded(bodies_bytes_max=100_000))


# Those who do not read.


@both_loops
@pytest.mark.parametrize("asked", [LARGE, LAST, LARGE * 3], ids=["one", "the last", "more"])
def test_who_does_not_read_is_hung_up_on(
    asked: bytes, loop: type[asyncio.AbstractEventLoop]
) -> None:
    async def scenario(place: Place) -> None:
        caller = await place.call(receive_bytes=4_096)
        caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await caller.say(asked)
        await until(lambda: place.crowd.unsent_bytes > 0)
        await until(lambda: len(place.crowd) == 0)
        assert place.crowd.unsent_bytes == 0
        await served(await place.call())

    play(scenario, bounded(send_s=0.2), loop=loop, reply_bytes=8_000_000)


@both_loops
def test_who_reads_slowly_gets_it_all(loop: type[asyncio.AbstractEventLoop]) -> None:
    size = 3_000_000

    async def scenario(place: Place) -> None:
        caller = await place.call(receive_bytes=4_096)
        await caller.say(LAST)
        heard = 0
        while part := await caller.reader.read(65_536):
            heard += len(part)
            await asyncio.sleep(0.005)
        assert heard > size

    play(scenario, bounded(send_s=0.15), loop=loop, reply_bytes=size)


def test_replies_that_wait_to_be_read_have_room_together() -> None:
    async def scenario(place: Place) -> None:
        for _ in range(2):
            count = len(place.crowd)
            caller = await place.call(receive_bytes=4_096)
            caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await caller.say(LARGE)
            await until(lambda count=count: len(place.crowd) == count + 1)
            await until(lambda: place.crowd.unsent_bytes > 0)
        await until(lambda: len(place.crowd) == 1)
        await served(await place.call())

    play(scenario, bounded(unsent_bytes_max=10_000_000), reply_bytes=8_000_000)


# Files.


def test_connections_are_no_more_than_the_system_lets_files_be_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1_024, 6_000))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, pair: given.append(pair))
    fitted = files_for(HttpLimits(connections_max=8_192, backlog=100))
    assert given == [(6_000, 6_000)]
    assert fitted.connections_max == 6_000 - 1_000 - 100 - gateway_http.LINGERING_MAX
    assert files_for(HttpLimits(connections_max=100)).connections_max == 100


def test_an_interrupted_call_costs_nothing() -> None:
    async def scenario(place: Place) -> None:
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", place.port)) as line:
                line.sendall(GET[:10])
        await until(lambda: len(place.crowd) == 0)
        await served(await place.call())

    play(scenario, PATIENT)
