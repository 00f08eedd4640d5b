"""The challenge: who is let in, who is not, and what a stranger can do to a server."""

from __future__ import annotations

import logging
import os
import random

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from excore_ray.actors.wire_challenge import (
    VERSION,
    Challenge,
    Refusal,
    Verdict,
    client_challenge,
    server_challenge,
)
from excore_ray.actors.wire_connection import HEADER
from excore_ray.errors import WireRefused
from tests.actors.wire_world import (
    QUICK,
    SECRET,
    WORLDS,
    Raw,
    Recorder,
    World,
    at,
    challenger,
    close,
    play,
    turns,
    until,
)

worlds = pytest.mark.parametrize("world", WORLDS)
OTHER_SECRET = b"the secret of another cluster"
HASTY = msgspec.structs.replace(QUICK, handshake_timeout_ms=60)


def ledger(secret: bytes = SECRET, has_room: bool = True) -> Challenge:
    return server_challenge("ledger-0", secret, lambda: has_room)


def hear(side: Challenge, body: bytes) -> bytes | Verdict:
    """What a side says to a message, or its verdict."""
    try:
        return side.send(body)
    except StopIteration as end:
        verdict: Verdict = end.value
        return verdict


def duel(client: Challenge, server: Challenge, change: object = None) -> list[Verdict | None]:
    """Carry both sides to their ends; the verdicts of client and server, None where it waits on.

    change: called with the number of each message, from 0, and its bytes; what is then delivered.
    """
    verdicts: list[Verdict | None] = [None, None]
    sides = [client, server]
    next(server)
    message = next(client)
    for number in range(4):
        to = 1 - number % 2
        delivered = change(number, message) if callable(change) else message
        if verdicts[to] is not None:
            break
        said = hear(sides[to], delivered)
        if isinstance(said, Verdict):
            verdicts[to], said = said, said.answer
            if not said:
                break
        message = said
    return verdicts


def test_those_with_the_secret_and_the_right_names_prove_each_other() -> None:
    client, server = duel(challenger(), ledger())
    assert client == Verdict(peer="ledger-0")
    assert server is not None
    assert (server.peer, server.refusal) == ("market-1", None)


@pytest.mark.parametrize(
    ("client", "server", "why"),
    [
        (challenger(secret=OTHER_SECRET), ledger(), Refusal.PROOF),
        (challenger(), ledger(secret=OTHER_SECRET), Refusal.PROOF),
        (client_challenge("market-1", "ledger-1", SECRET), ledger(), Refusal.NAME),
        (challenger(), ledger(has_room=False), Refusal.FULL),
    ],
)
def test_a_refused_client_is_told_why(client: Challenge, server: Challenge, why: Refusal) -> None:
    verdicts = duel(client, server)
    assert [verdict and (verdict.refusal, verdict.peer) for verdict in verdicts] == [(why, "")] * 2


def test_a_server_without_the_secret_gets_no_proof_believed() -> None:
    """It says what the client wants to hear, and gives the client's own proof back."""
    client = challenger()
    next(client)
    impostor = server_challenge("ledger-0", OTHER_SECRET, lambda: True)
    next(impostor)
    proof = client.send(impostor.send(next(challenger())))
    verdict = hear(client, proof)
    assert isinstance(verdict, Verdict)
    assert verdict.refusal is Refusal.PROOF


def test_a_server_of_another_name_never_sees_a_proof() -> None:
    client = challenger()
    next(client)
    other = server_challenge("ledger-1", SECRET, lambda: True)
    next(other)
    answer = other.send(next(client_challenge("market-1", "ledger-1", SECRET)))
    verdict = hear(client, answer)
    assert isinstance(verdict, Verdict)
    assert (verdict.refusal, verdict.answer) == (Refusal.NAME, b"")


@given(number=st.integers(0, 3), place=st.integers(0, 170), bit=st.integers(0, 7))
def test_any_bit_changed_on_the_way_is_noticed(number: int, place: int, bit: int) -> None:
    def flip(now: int, message: bytes) -> bytes:
        if now != number:
            return message
        changed = bytearray(message)
        changed[place % len(changed)] ^= 1 << bit
        return bytes(changed)

    client, server = duel(challenger(), ledger(), flip)
    assert client is None or not client.peer
    if number < 3:
        assert server is None or not server.peer


@given(said=st.lists(st.binary(max_size=200), max_size=4))
def test_a_challenge_ends_well_formed_whatever_it_hears(said: list[bytes]) -> None:
    for side in (challenger(), ledger()):
        next(side)
        for body in said:
            verdict = hear(side, body)
            if isinstance(verdict, Verdict):
                assert verdict.refusal is not None
                break


@pytest.mark.parametrize(
    ("name", "secret"),
    [("", SECRET), ("a b", SECRET), ("x" * 65, SECRET), ("é", SECRET), ("-x", SECRET), ("x", b"s")],
)
def test_an_identity_that_cannot_work_is_refused_at_once(name: str, secret: bytes) -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(ValueError, match=r"not a name|cluster secret"):
            await world.serve(Recorder(), name=name, secret=secret)
        with pytest.raises(ValueError, match=r"not a name|cluster secret"):
            world.link(Recorder(), name=name, secret=secret, resolve=None)

    for world in WORLDS:
        play(world, scenario)


@worlds
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"secret": OTHER_SECRET}, "different cluster secrets"),
        ({"peer": "ledger-1"}, "another name"),
    ],
)
def test_a_link_that_is_refused_says_why_once_and_goes_on(
    world: str, options: dict[str, object], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(world: World) -> None:
        server, client = Recorder(), Recorder()
        serving = await world.serve(server)
        link = world.link(client, resolve=at(serving.endpoint), **options)
        link.start()
        await until(lambda: serving.refused_count >= 3)
        assert isinstance(link.trouble, WireRefused)
        assert text in str(link.trouble)
        assert server.names == client.names == []
        await close(serving, link)

    play(world, scenario)
    warnings = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(warnings) == 2, "each side says it once"
    assert not any("secret of" in each for each in warnings)


@worlds
def test_versions_that_differ_are_named_on_both_sides(world: str) -> None:
    class Newer(Raw):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.say(newer(self.frames()[0][1]))

    def newer(message: bytes) -> bytes:
        return message[:8] + (VERSION + 1).to_bytes(2) + message[10:]

    async def scenario(world: World) -> None:
        server, client = Recorder(), Recorder()
        serving = await world.serve(server)
        raw = await world.raw(serving.endpoint)
        raw.say(newer(next(challenger())))
        await until(lambda: raw.closed)
        ((_, refusal),) = raw.frames()
        assert refusal[8:10] == VERSION.to_bytes(2)
        assert refusal[11] == Refusal.VERSION

        link = world.link(client, resolve=at(await world.raw_server(Newer)))
        link.start()
        await until(lambda: isinstance(link.trouble, WireRefused))
        assert f"version {VERSION + 1} of the wire, this side {VERSION}" in str(link.trouble)
        assert server.names == client.names == []
        await close(serving, link)

    play(world, scenario)


@worlds
def test_what_was_heard_once_opens_nothing_later(world: str) -> None:
    async def scenario(world: World) -> None:
        server = Recorder()
        serving = await world.serve(server)
        honest = await world.raw(serving.endpoint)
        hello, proof = await honest.pass_challenge(challenger())
        await until(lambda: server.live)

        replaying = await world.raw(serving.endpoint)
        replaying.say(hello)
        await until(replaying.frames)
        replaying.say(proof, b"a command")
        await until(lambda: replaying.closed)
        assert replaying.frames()[-1][1][11] == Refusal.PROOF

        hurried = await world.raw(serving.endpoint)
        hurried.say(hello, proof, b"a command")
        await until(lambda: hurried.closed)

        assert server.names == ["market-1"]
        assert server.frames == []
        honest.transport.abort()
        await close(serving)

    play(world, scenario)


@worlds
def test_a_stranger_has_little_time_and_little_room(world: str) -> None:
    async def scenario(world: World) -> None:
        server = Recorder()
        serving = await world.serve(server, limits=HASTY)
        silent = await world.raw(serving.endpoint)
        await until(lambda: silent.closed, seconds=1)

        dripping = await world.raw(serving.endpoint)
        for byte in HEADER.pack(171, 0) + next(challenger()):
            if dripping.closed:
                break
            dripping.transport.write(bytes([byte]))
            await turns(2)
        await until(lambda: dripping.closed, seconds=1)

        half = await world.raw(serving.endpoint)
        half.say(next(challenger()))
        await until(lambda: half.closed, seconds=1)

        serving_longer = await world.serve(server, name="ledger-1")
        for length in (HASTY.stranger_frame_bytes_max + 1, 2**31, 2**32 - 1):
            greedy = await world.raw(serving_longer.endpoint)
            greedy.transport.write(HEADER.pack(length, 0))
            await until(lambda peer=greedy: peer.closed, seconds=0.2)

        assert server.names == []
        await close(serving)
        await close(serving_longer)

    play(world, scenario)


@worlds
def test_strangers_who_only_hold_places_keep_nobody_out(world: str) -> None:
    async def scenario(world: World) -> None:
        server, client = Recorder(), Recorder()
        limits = msgspec.structs.replace(QUICK, strangers_max=8, handshake_timeout_ms=5_000)
        serving = await world.serve(server, limits=limits)
        idle = [await world.raw(serving.endpoint) for _ in range(60)]
        await until(lambda: sum(not peer.closed for peer in idle) <= 8)
        await turns()
        assert [peer.closed for peer in idle] == [True] * 52 + [False] * 8
        link = world.link(client, resolve=at(serving.endpoint), limits=limits)
        link.start()
        await until(lambda: client.live and server.live)
        await close(serving, link)
        await until(lambda: all(peer.closed for peer in idle))

    play(world, scenario)


@worlds
def test_a_full_server_takes_the_next_when_one_leaves(world: str) -> None:
    async def scenario(world: World) -> None:
        server = Recorder()
        clients = [Recorder() for _ in range(3)]
        serving = await world.serve(
            server, limits=msgspec.structs.replace(QUICK, connections_max=2)
        )
        links = [
            world.link(client, name=f"market-{number}", resolve=at(serving.endpoint))
            for number, client in enumerate(clients)
        ]
        for link in links[:2]:
            link.start()
        await until(lambda: len(server.live) == 2)
        links[2].start()
        await until(lambda: "no room" in str(links[2].trouble))
        assert clients[2].names == []
        await links[0].close()
        await until(lambda: clients[2].live)
        assert clients[1].reasons == []
        await close(serving, *links[1:])

    play(world, scenario)


GARBAGE = st.one_of(
    st.lists(st.binary(max_size=300), max_size=5),
    st.lists(
        st.builds(
            lambda length, number, body: HEADER.pack(length, number) + body,
            st.integers(0, 600),
            st.integers(0, 2**64 - 1),
            st.binary(max_size=300),
        ),
        max_size=4,
    ),
    st.just([b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]),
    st.just([bytes([0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3])]),
)


@worlds
@settings(
    deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(crowd=st.lists(GARBAGE, min_size=10, max_size=30))
def test_garbage_never_reaches_the_handler_nor_hurts_the_server(
    world: str, crowd: list[list[bytes]]
) -> None:
    async def scenario(world: World) -> None:
        server, client = Recorder(), Recorder()
        serving = await world.serve(server, limits=HASTY)
        peers = []
        for chunks in crowd:
            peer = await world.raw(serving.endpoint)
            peers.append(peer)
            for chunk in chunks:
                if not peer.closed:
                    peer.transport.write(chunk)
                await turns(1)
        await until(lambda: all(peer.closed for peer in peers))
        assert server.names == []
        link = world.link(client, resolve=at(serving.endpoint))
        link.start()
        await until(lambda: server.live)
        await close(serving, link)

    play(world, scenario)


@worlds
def test_garbage_in_the_place_of_the_proof(world: str) -> None:
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    rng = random.Random(seed)

    async def scenario(world: World) -> None:
        server = Recorder()
        serving = await world.serve(server)
        for _ in range(40):
            peer = await world.raw(serving.endpoint)
            peer.say(next(challenger()))
            await until(peer.frames)
            peer.say(rng.randbytes(rng.choice((0, 1, 43, 43, 300))), b"a command")
            await until(lambda peer=peer: peer.closed)
        assert server.names == []
        assert serving.refused_count == 40
        await close(serving)

    play(world, scenario)
