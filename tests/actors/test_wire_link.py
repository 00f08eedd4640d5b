"""The link: it finds its peer anew after every loss, and gives up only when it is closed."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import ssl
import subprocess
from functools import partial
from pathlib import Path

import msgspec
import pytest

from excore_ray.actors import wire
from excore_ray.actors.wire import Endpoint, Limits, Link
from excore_ray.errors import WireClosed
from tests.actors.wire_world import (
    QUICK,
    SECRET,
    WORLDS,
    Raw,
    Recorder,
    TcpWorld,
    World,
    at,
    challenger,
    close,
    met,
    play,
    turns,
    until,
)

worlds = pytest.mark.parametrize("world", WORLDS)


@worlds
def test_a_link_follows_its_peer_to_another_endpoint(world: str) -> None:
    async def scenario(world: World) -> None:
        client = Recorder()
        asked: list[Endpoint] = []
        old = await world.serve(Recorder())
        home = [old.endpoint]

        async def resolve() -> Endpoint:
            asked.append(home[0])
            return home[0]

        link = world.link(client, resolve=resolve)
        link.start()
        await until(lambda: client.live)
        first = client.only
        new_handler = Recorder()
        new = await world.serve(new_handler)
        home[0] = new.endpoint
        await close(old)
        await until(lambda: client.live and client.only is not first)
        assert client.reasons == ["closed by the peer"]
        assert link.connection is client.only
        assert asked == [old.endpoint, new.endpoint]
        link.connection.send(b"moved")
        await until(lambda: new_handler.frames)
        assert new.endpoint != old.endpoint
        await close(new, link)
        assert link.connection is None
        assert client.reasons[1:] == ["the link was closed"]

    play(world, scenario)


@worlds
def test_a_link_goes_on_while_nobody_can_be_found(
    world: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(world: World) -> None:
        client = Recorder()
        asked = 0

        async def resolve() -> Endpoint:
            nonlocal asked
            asked += 1
            if asked < 5:
                raise LookupError("no actor of this name")
            if asked < 10:
                return empty
            return serving.endpoint

        empty = await world.raw_server(Raw)
        await world.close()
        link = world.link(client, resolve=resolve)
        link.start()
        await until(lambda: asked == 3)
        assert isinstance(link.trouble, WireClosed)
        assert "no actor of this name" in str(link.trouble)
        serving = await world.serve(Recorder())
        await until(lambda: client.live)
        assert link.trouble is None
        assert client.reasons == []
        await close(serving, link)

    play(world, scenario)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) <= 2, "the same failure is logged once"


@worlds
def test_a_resolver_that_hangs_is_asked_again(world: str) -> None:
    async def scenario(world: World) -> None:
        client = Recorder()
        asked = 0

        async def resolve() -> Endpoint:
            nonlocal asked
            asked += 1
            if asked == 1:
                await asyncio.Event().wait()
            return serving.endpoint

        serving = await world.serve(Recorder())
        limits = msgspec.structs.replace(QUICK, resolve_timeout_ms=30)
        link = world.link(client, resolve=resolve, limits=limits)
        link.start()
        await until(lambda: client.live)
        await close(serving, link)

    play(world, scenario)


@worlds
@pytest.mark.parametrize("moment", ["resolving", "dialling", "challenged", "waiting", "connected"])
def test_a_link_can_be_closed_at_any_moment(world: str, moment: str) -> None:
    async def scenario(world: World) -> None:
        client = Recorder()
        reached = asyncio.Event()
        serving = await world.serve(Recorder())
        silent: list[Raw] = []

        def make_silent() -> Raw:
            silent.append(Raw())
            return silent[-1]

        deaf = await world.raw_server(make_silent)

        async def resolve() -> Endpoint:
            reached.set()
            match moment:
                case "resolving":
                    await asyncio.Event().wait()
                case "waiting":
                    raise LookupError("nobody")
                case "dialling" | "challenged":
                    return deaf
            return serving.endpoint

        link = world.link(client, resolve=resolve)
        link.start()
        await reached.wait()
        if moment == "challenged":
            await until(lambda: silent and silent[0].got)
        elif moment == "connected":
            await until(lambda: client.live)
        await link.close()
        await link.close()
        assert client.live == {}
        assert len(client.reasons) == len(client.names) == (moment == "connected")
        await until(lambda: all(peer.closed for peer in silent))
        await close(serving)

    play(world, scenario)


@worlds
def test_a_link_can_be_closed_in_any_turn_of_the_loop(world: str) -> None:
    async def scenario(world: World) -> None:
        server, client = Recorder(), Recorder()
        serving = await world.serve(server)
        for turn in range(40):
            link = world.link(client, resolve=at(serving.endpoint))
            link.start()
            for _ in range(turn):
                await asyncio.sleep(0)
            await link.close()
            assert len(client.names) == len(client.reasons)
        await until(lambda: not server.live)
        await close(serving)

    play(world, scenario)


@worlds
def test_a_link_that_never_started_closes(world: str) -> None:
    async def scenario(world: World) -> None:
        await world.link(Recorder(), resolve=at(Endpoint("127.0.0.1", 9))).close()

    play(world, scenario)


@worlds
def test_a_server_that_says_nothing_is_left_for_another_try(world: str) -> None:
    async def scenario(world: World) -> None:
        client = Recorder()
        peers: list[Raw] = []

        def make() -> Raw:
            peers.append(Raw())
            return peers[-1]

        limits = msgspec.structs.replace(QUICK, handshake_timeout_ms=40)
        link = world.link(client, resolve=at(await world.raw_server(make)), limits=limits)
        link.start()
        await until(lambda: len(peers) == 3)
        assert "silent for 40 ms" in str(link.trouble)
        assert peers[0].closed
        assert client.names == []
        await link.close()

    play(world, scenario)


def test_pauses_grow_stay_bounded_and_differ_by_link() -> None:
    limits = Limits(redial_first_ms=20, redial_max_ms=1000)
    links = [
        Link(
            Recorder(),
            name=f"gateway-{number}",
            peer="market-1",
            secret=SECRET,
            resolve=at(Endpoint("", 0)),
            limits=limits,
        )
        for number in range(50)
    ]
    for failures in range(40):
        longest = min(0.02 * 2**failures, 1.0)
        pauses = [link._pause_s(failures, attempt=failures) for link in links]
        assert all(longest / 2 <= pause <= longest for pause in pauses)
        assert len(set(pauses)) == len(links)
        assert max(pauses) - min(pauses) > longest / 4


@worlds
def test_a_peer_that_takes_us_and_drops_us_is_not_dialled_in_a_hurry(world: str) -> None:
    async def scenario(world: World) -> None:
        server = Recorder(lambda connection, number, body: connection.close("not today"))
        client = Recorder()
        limits = msgspec.structs.replace(QUICK, redial_first_ms=40, redial_max_ms=80)
        serving, link = await met(world, server, client, limits=limits)
        began = asyncio.get_running_loop().time()
        while len(client.names) < 5:
            if client.live:
                client.only.send(b"")
            await turns(1)
        assert asyncio.get_running_loop().time() - began > 4 * 0.04
        await close(serving, link)

    play(world, scenario)


@pytest.mark.parametrize("world", ["tcp", "tcp-uvloop"])
def test_connections_do_not_delay_small_frames_and_notice_a_dead_machine(world: str) -> None:
    async def scenario(world: World) -> None:
        server, client = Recorder(), Recorder()
        serving, link = await met(world, server, client)
        for connection in (server.only, client.only):
            sock = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        await close(serving, link)

    play(world, scenario)


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command makes the certificate")
    folder: Path = tmp_path_factory.mktemp("tls")
    files = ["-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"]
    names = ["-subj", "/CN=wire", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subprocess.run([*command, *files, *names], check=True, capture_output=True)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
    return server, ssl.create_default_context(cafile=f"{folder}/cert.pem")


@pytest.mark.parametrize("world", ["tcp", "tcp-uvloop"])
def test_over_tls(world: str, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server_side, client_side = contexts

    async def scenario(world: World) -> None:
        assert isinstance(world, TcpWorld)
        server = Recorder(lambda connection, number, body: connection.send(body, number))
        client, plain = Recorder(), Recorder()
        limits = msgspec.structs.replace(QUICK, strangers_max=2, handshake_timeout_ms=2000)
        serving = await world.serve(server, ssl=server_side, limits=limits)
        # Whoever holds places without even beginning with TLS gives way too.
        idle = [await world.raw(serving.endpoint) for _ in range(5)]
        await until(lambda: sum(peer.closed for peer in idle) == 3)
        without = world.link(plain, name="market-9", resolve=at(serving.endpoint), limits=limits)
        without.start()
        connect = partial(wire.connect_tcp, ssl=client_side)
        link = world.link(client, resolve=at(serving.endpoint), connect=connect, limits=limits)
        link.start()
        await until(lambda: client.live)
        bodies = [b"x" * size for size in (0, 5_000, 2_000_000)]
        for number, body in enumerate(bodies):
            client.only.send(body, number)
        await until(lambda: len(client.frames) == 3)
        assert [body for _, body in client.frames] == bodies
        assert plain.names == []
        for peer in idle:
            peer.transport.abort()
        await without.close()
        await close(serving, link)

    play(world, scenario)


@worlds
def test_a_proven_peer_may_come_twice(world: str) -> None:
    """Two incarnations of one actor live at once; telling them apart is for those above."""

    async def scenario(world: World) -> None:
        server = Recorder()
        serving = await world.serve(server)
        peers = [await world.raw(serving.endpoint) for _ in range(2)]
        for peer in peers:
            await peer.pass_challenge(challenger())
        await until(lambda: len(server.live) == 2)
        assert server.names == ["market-1"] * 2
        assert len(set(server.live)) == 2
        for peer in peers:
            peer.transport.abort()
        await close(serving)

    play(world, scenario)
