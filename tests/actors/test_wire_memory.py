"""The network in memory: the faults that only it can be told to have."""

from __future__ import annotations

import pytest

from excore_ray.actors.wire import Endpoint
from tests.actors.wire_world import (
    MemoryWorld,
    Recorder,
    World,
    at,
    close,
    met,
    play,
    turns,
    until,
)


def test_faults_of_the_network_in_memory() -> None:
    async def scenario(world: World) -> None:
        assert isinstance(world, MemoryWorld)
        network = world.network
        server, client, other = Recorder(), Recorder(), Recorder()
        serving, link = await met(world, server, client)
        second = world.link(other, name="market-2", resolve=at(serving.endpoint))
        second.start()
        await until(lambda: other.live)

        assert network.cut(client="market-1") == 1
        await until(lambda: client.reasons and len(client.names) == 2)
        assert client.reasons == ["the connection was cut"]
        assert other.reasons == []

        network.black_hole(client="market-1", server="ledger-0")
        for number in range(100):
            client.only.send(b"x" * 5_000, number)
        other.only.send(b"through", 1)
        await until(lambda: server.frames)
        await turns()
        assert server.frames == [(1, b"through")]
        network.heal(client="market-1")
        await until(lambda: len(server.frames) == 101)
        assert [number for number, _ in server.frames[1:]] == list(range(100))

        network.refuse(server="ledger-0")
        assert network.cut() == 2
        await until(lambda: "refuse" in str(link.trouble))
        assert client.live == {}
        network.heal()
        await until(lambda: client.live and other.live)

        network.black_hole()
        assert network.cut() == 2
        await until(lambda: "silent" in str(link.trouble))
        network.heal()
        await until(lambda: client.live)
        network.black_hole()
        await close(serving, link, second)
        network.heal()

    play("memory", scenario)


def test_an_address_is_taken_once() -> None:
    async def scenario(world: World) -> None:
        serving = await world.serve(Recorder(), host="here", port=7)
        assert serving.endpoint == Endpoint("here", 7)
        with pytest.raises(OSError, match="taken"):
            await world.serve(Recorder(), host="here", port=7)
        others = [await world.serve(Recorder(), host="here") for _ in range(8)]
        assert len({each.endpoint for each in others} | {serving.endpoint}) == 9
        await close(serving)
        again = await world.serve(Recorder(), host="here", port=7)
        for each in [again, *others]:
            await close(each)

    play("memory", scenario)
