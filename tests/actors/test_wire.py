"""The contract of the wire once two peers have met, the same over TCP and in memory."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import struct

import pytest

from excore_ray.actors.wire import Limits
from excore_ray.actors.wire_connection import HEADER, FramedConnection
from excore_ray.errors import FrameTooLarge, WireClosed, WireOverloaded
from tests.actors.wire_world import (
    WORLDS,
    Recorder,
    World,
    at,
    challenger,
    close,
    met,
    play,
    turns,
    until,
)

pytestmark = pytest.mark.parametrize("world", WORLDS)
KIB, MIB = 1024, 1024 * 1024
DESCRIPTORS = "/dev/fd"
SMALL = Limits(
    frame_bytes_max=64 * KIB,
    unsent_bytes_max=256 * KIB,
    unsent_bytes_high=32 * KIB,
    handshake_timeout_ms=2000,
    linger_timeout_ms=200,
)


def test_frames_keep_their_order_in_both_directions(world: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    sizes = [rng.choice((0, 1, 100, 5_000, 70_000)) for _ in range(600)]
    out = [(rng.randrange(2**64), rng.randbytes(size)) for size in sizes]

    async def scenario(world: World) -> None:
        server = Recorder(lambda connection, number, body: connection.send(body, number))
        client = Recorder()
        serving, link = await met(world, server, client)
        for count, (number, body) in enumerate(out):
            client.only.send(body, number)
            if count % 7 == 0:
                await turns(1)
        await until(lambda: len(client.frames) == len(out))
        assert server.frames == out
        assert client.frames == out
        assert server.names == ["market-1"]
        assert client.names == ["ledger-0"]
        await close(serving, link)

    play(world, scenario)


def test_long_frames_arrive_whole(world: str) -> None:
    sizes = [0, 64 * KIB - 12, 64 * KIB, 256 * KIB, MIB + 1, 20 * MIB]
    bodies = [random.randbytes(size) for size in sizes]

    async def scenario(world: World) -> None:
        server, client = Recorder(), Recorder()
        serving, link = await met(world, server, client)
        for body in bodies:
            client.only.send(body, 9)
            server.only.send(body, 8)
        await until(lambda: len(server.frames) == len(client.frames) == len(bodies))
        assert server.frames == [(9, body) for body in bodies]
        assert client.frames == [(8, body) for body in bodies]
        await close(serving, link)

    play(world, scenario)


def test_what_is_sent_in_one_turn_leaves_together(world: str) -> None:
    async def scenario(world: World) -> None:
        server = Recorder()
        serving = await world.serve(server)
        raw = await world.raw(serving.endpoint)
        await raw.pass_challenge(challenger())
        await until(lambda: server.live)
        before = raw.chunks
        for _ in range(100):
            server.only.send(b"x" * 10)
        await until(lambda: len(raw.frames()) == 102)
        assert raw.chunks == before + 1
        raw.transport.abort()
        await close(serving)

    play(world, scenario)


def test_a_frame_beyond_the_cap_is_not_sent_and_costs_nothing(world: str) -> None:
    async def scenario(world: World) -> None:
        server, client = Recorder(), Recorder()
        serving, link = await met(world, server, client, limits=SMALL)
        with pytest.raises(FrameTooLarge):
            client.only.send(b"x" * (64 * KIB + 1))
        with pytest.raises(struct.error):
            client.only.send(b"", 2**64)
        client.only.send(b"x" * 64 * KIB, 2**64 - 1)
        await until(lambda: server.frames)
        assert server.frames == [(2**64 - 1, b"x" * 64 * KIB)]
        await close(serving, link)

    play(world, scenario)


def test_an_announced_length_beyond_the_cap_ends_the_connection_before_the_body(world: str) -> None:
    async def scenario(world: World) -> None:
        server = Recorder()
        serving = await world.serve(server, limits=SMALL)
        raw = await world.raw(serving.endpoint)
        await raw.pass_challenge(challenger())
        raw.say(b"good")
        raw.transport.write(HEADER.pack(64 * KIB + 1, 0))
        await until(lambda: raw.closed and server.reasons)
        assert server.frames == [(0, b"good")]
        assert "65537 bytes" in server.reasons[0]
        await close(serving)

    play(world, scenario)


@pytest.mark.parametrize("pause", ["the server", "the connection"])
def test_a_paused_reader_pushes_back_and_memory_stays_bounded(world: str, pause: str) -> None:
    async def scenario(world: World) -> None:
        server, client = Recorder(), Recorder()
        serving, link = await met(world, server, client, limits=SMALL)
        paused = serving if pause == "the server" else server.only
        paused.pause_reading()
        sent = 0
        overloads = 0
        while overloads < 3:
            try:
                client.only.send(sent.to_bytes(4) * 256, sent)
                sent += 1
            except WireOverloaded:
                assert not client.only.writable
                overloads += 1
                await turns()
            if sent % 32 == 0:
                await turns(1)
        # The cap, and what the kernel's own buffers took, but nothing that grows.
        assert sent * KIB < 16 * MIB
        arrived = len(server.frames)
        await turns()
        assert len(server.frames) == arrived
        paused.resume_reading()
        await until(lambda: len(server.frames) == sent and client.only.writable)
        assert [number for number, _ in server.frames] == list(range(sent))
        client.only.send(b"again")
        await until(lambda: server.frames[-1] == (0, b"again"))
        await close(serving, link)

    play(world, scenario)


def test_the_two_pauses_end_independently_and_bind_later_connections(world: str) -> None:
    async def scenario(world: World) -> None:
        server, early, late = Recorder(), Recorder(), Recorder()
        serving, link = await met(world, server, early)
        first = server.only
        serving.pause_reading()
        second_link = world.link(late, name="market-2", resolve=at(serving.endpoint))
        second_link.start()
        await until(lambda: late.live and len(server.live) == 2)
        early.only.send(b"early")
        late.only.send(b"late")
        first.pause_reading()
        await turns()
        assert server.frames == []
        serving.resume_reading()
        await until(lambda: server.frames)
        await turns()
        assert server.frames == [(0, b"late")]
        first.resume_reading()
        await until(lambda: len(server.frames) == 2)
        await close(serving, link, second_link)

    play(world, scenario)


def test_close_sends_what_is_queued_then_ends_with_its_reason(world: str) -> None:
    async def scenario(world: World) -> None:
        server, client = Recorder(), Recorder()
        serving, link = await met(world, server, client)
        connection = client.only
        for number in range(50):
            connection.send(b"x" * 5_000, number)
        connection.close("enough")
        connection.close("twice")
        assert client.reasons == []  # never from inside the call
        assert not connection.writable
        with pytest.raises(WireClosed, match="enough"):
            connection.send(b"")
        await until(lambda: len(server.frames) == 50 and client.reasons and server.reasons)
        assert client.reasons[0] == "enough"
        await until(lambda: client.live)
        assert client.only.id != connection.id
        await close(serving, link)

    play(world, scenario)


def test_nothing_is_delivered_once_the_handler_has_closed(world: str) -> None:
    async def scenario(world: World) -> None:
        server = Recorder(lambda connection, number, body: connection.close("one is enough"))
        client = Recorder()
        serving, link = await met(world, server, client)
        for number in range(10):
            client.only.send(b"", number)
        await until(lambda: server.reasons)
        assert server.frames == [(0, b"")]
        assert server.reasons == ["one is enough"]
        await close(serving, link)

    play(world, scenario)


def test_a_peer_that_reads_no_more_cannot_keep_a_closed_connection(world: str) -> None:
    async def scenario(world: World) -> None:
        server = Recorder()
        serving = await world.serve(server, limits=SMALL)
        raw = await world.raw(serving.endpoint)
        await raw.pass_challenge(challenger())
        await until(lambda: server.live)
        raw.transport.pause_reading()
        while server.only.writable:
            server.only.send(b"x" * 32 * KIB)
            await turns(1)
        server.only.close("enough")
        await close(serving)
        raw.transport.abort()

    play(world, scenario)


@pytest.mark.parametrize("where", ["connected", "received", "disconnected"])
def test_an_exception_out_of_a_handler_reaches_the_loop(world: str, where: str) -> None:
    """The actor decides there, by ending its process; the wire only closes the connection."""

    class Failing(Recorder):
        def fail(self, here: str) -> None:
            if here == where:
                raise OSError("a bug, even if it looks like a fault of the network")

        def connected(self, connection) -> None:  # type: ignore[no-untyped-def]
            super().connected(connection)
            self.fail("connected")

        def received(self, connection, request_id, body) -> None:  # type: ignore[no-untyped-def]
            self.fail("received")

        def disconnected(self, connection, reason) -> None:  # type: ignore[no-untyped-def]
            super().disconnected(connection, reason)
            self.fail("disconnected")

    async def scenario(world: World) -> None:
        server = Failing()
        serving = await world.serve(server)
        raw = await world.raw(serving.endpoint)
        await raw.pass_challenge(challenger())
        raw.say(b"one", b"two")
        if where == "disconnected":
            raw.transport.abort()
        await until(lambda: raw.closed and server.reasons)
        await close(serving)

    play(world, scenario, bugs=[OSError])


def test_a_server_can_be_closed_in_any_turn_of_the_loop(world: str) -> None:
    """Whoever has just arrived is hung up on, also when nobody has looked at it yet."""

    async def scenario(world: World) -> None:
        for turn in range(30):
            serving = await world.serve(Recorder())
            peers = [await world.raw(serving.endpoint) for _ in range(3)]
            for peer in peers:
                peer.say(next(challenger()))
            for _ in range(turn):
                await asyncio.sleep(0)
            await close(serving)
            await until(lambda peers=peers: all(peer.closed for peer in peers))

    play(world, scenario)


def test_a_thousand_meetings_leave_nothing_behind(world: str) -> None:
    async def scenario(world: World) -> None:
        server, client = Recorder(), Recorder()
        serving = await world.serve(server)
        for round_ in range(1000):
            link = world.link(client, resolve=at(serving.endpoint))
            link.start()
            await until(lambda: client.live)
            client.only.send(b"hello", round_)
            if round_ % 2:
                await until(lambda: server.live)
                server.only.close("by the server")
            await link.close()
            await until(lambda: not (client.live or server.live))
            assert len(serving._tasks) <= 2
        assert len(server.names) >= 1000
        assert len(server.reasons) == len(server.names)
        await close(serving)
        assert not serving._connections
        assert not serving._strangers

    async def nothing(world: World) -> None:
        await close(await world.serve(Recorder()))

    def count() -> tuple[int, int]:
        gc.collect()  # loops of other tests may still wait for it with their descriptors
        framed = sum(isinstance(each, FramedConnection) for each in gc.get_objects())
        return len(os.listdir(DESCRIPTORS)), framed

    play(world, nothing)  # what is opened once for all is open now
    before = count()
    play(world, scenario)
    descriptors, framed = count()
    assert descriptors <= before[0]
    assert framed <= before[1]
