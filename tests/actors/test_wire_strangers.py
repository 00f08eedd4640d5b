"""What strangers and latecomers do to a server of the wire: no traceback, no wait, no way in."""

from __future__ import annotations

import asyncio
import socket
import struct
import time

import msgspec
import pytest

from tests.actors.wire_world import (
    QUICK,
    WORLDS,
    Recorder,
    TcpWorld,
    World,
    challenger,
    close,
    play,
    turns,
    until,
)

worlds = pytest.mark.parametrize("world", WORLDS)


@pytest.mark.parametrize("world", ["tcp", "tcp-uvloop"])
def test_a_stranger_who_resets_at_once_is_no_bug_of_ours(world: str) -> None:
    async def scenario(world: World) -> None:
        assert isinstance(world, TcpWorld)
        serving = await world.serve(Recorder())
        for _ in range(5):
            peer = socket.create_connection((serving.endpoint.host, serving.endpoint.port))
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
        await until(lambda: serving.refused_count == 5)
        await close(serving)

    play(world, scenario)


@worlds
def test_a_proof_that_arrives_as_the_server_closes_opens_nothing(world: str) -> None:
    async def scenario(world: World) -> None:
        server = Recorder()
        serving = await world.serve(server)
        peer = await world.raw(serving.endpoint)
        challenge = challenger()
        peer.say(next(challenge))
        await until(peer.frames)
        peer.say(challenge.send(peer.frames()[-1][1]))
        time.sleep(0.005)  # noqa: ASYNC251 -- the loop is busy while the proof arrives
        serving.close()
        try:
            async with asyncio.timeout(2):
                await serving.wait_closed()
        finally:
            peer.transport.abort()
            await turns()  # uvloop cannot be closed with a live transport
        assert server.names == []

    play(world, scenario)


@worlds
def test_a_busy_server_does_not_let_actors_wait_behind_strangers(world: str) -> None:
    async def scenario(world: World) -> None:
        server = Recorder()
        serving = await world.serve(server, limits=msgspec.structs.replace(QUICK, strangers_max=64))
        await turns()
        idle = [await world.raw(serving.endpoint) for _ in range(60)]
        for _ in range(20):  # turns of a busy loop
            await asyncio.sleep(0)
        taken = len(serving._strangers)
        await close(serving)
        assert taken == 60
        await until(lambda: all(peer.closed for peer in idle))

    play(world, scenario)
