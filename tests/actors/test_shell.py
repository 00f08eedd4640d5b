"""Shells: nothing leaves before it is durable, and a process that may be wrong ends.

Journals are real ones in memory behind a fault; what a shell says is heard by a peer of its own.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import msgspec
import pytest

from excore_ray.actors.replay import replay
from excore_ray.actors.shell import (
    EXIT_BUG,
    EXIT_FENCED,
    EXIT_JOURNAL,
    ShellSettings,
)
from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.snapshot import state_hash
from excore_ray.errors import JournalFailed, JournalForeign, JournalFull
from excore_ray.storage.journal import Journal
from excore_ray.storage.memory import open_memory
from tests.actors.shell_faults import FaultyJournal, FaultyTown, Peer, batch, commands
from tests.actors.shell_world import (
    BUY,
    SELL,
    STOCK,
    Town,
    expect_done,
    expect_placed,
    play,
)
from tests.actors.wire_world import until


def test_nothing_leaves_before_the_record_is_durable() -> None:
    async def scenario(town: FaultyTown) -> None:
        await town.ready()
        journal = town.faulty["ledger-0"]
        peer = Peer(town, "gateway-test", "ledger-0")
        begun = len(journal.appends)
        journal.gate.clear()
        await peer.say(batch(town, town.update(4, STOCK, 1)))
        await until(lambda: len(journal.appends) > begun)
        # Messages that arrive meanwhile wait, whatever they are.
        await peer.say(batch(town, m.AskAccounts(4, [])))
        appends = len(journal.appends)
        await asyncio.sleep(0.2)
        assert peer.kinds() == []
        assert len(journal.appends) == appends, "two turns at a time"
        journal.gate.set()
        await until(lambda: len(peer.answers()) == 2)
        assert peer.answers() == [m.Done(), m.Accounts([m.Account(STOCK, 10**4, 0)])]
        await peer.link.close()
        await town.close()

    play(scenario, FaultyTown)


def test_what_one_turn_may_not_execute_is_executed_in_the_next_at_once() -> None:
    async def scenario(town: Town) -> None:
        town.sequencer = msgspec.structs.replace(town.sequencer, commits_max=2)
        await town.open_all()
        await town.add_market()
        # Nobody has open orders, so no shard says a word, and nobody asks again: a turn that
        # waited for the time would wait longer than the test does.
        asks = [c.Cancel(town.exchange.new_request_id(), 0, user, 0) for user in range(1, 8)]
        peer = Peer(town, "gateway-test", "market-1")
        await peer.say(batch(town, *asks))
        await until(lambda: len(peer.answers()) == len(asks))
        assert peer.answers() == [m.Done()] * len(asks)
        await peer.link.close()
        records = commands(town.shells["market-1"], c.MarketRecord)
        cancels = [sum(type(command) is c.Cancel for command in record) for record in records]
        assert (max(cancels), sum(cancels)) == (2, 7)
        await town.close()

    slow = ShellSettings(idle_ms=30_000, busy_ms=30_000)
    play(scenario, functools.partial(Town, slow))


def test_a_turn_without_a_record_confirms_ownership_before_it_answers() -> None:
    async def scenario(town: FaultyTown) -> None:
        await town.ready()
        journal = town.faulty["ledger-1"]
        peer = Peer(town, "gateway-test", "ledger-1")
        checks = journal.checks
        await peer.say(batch(town, m.AskAccounts(1, [])))
        await until(peer.answers)
        assert journal.checks > checks
        # Another process opens the journal: the next answer is none, but an end.
        open_memory(town.disks["ledger-1"])
        await peer.say(batch(town, m.AskAccounts(1, [])))
        await until(lambda: town.ends)
        assert town.ends == [("ledger-1", EXIT_FENCED)]
        await asyncio.sleep(0.05)
        assert len(peer.answers()) == 1
        await peer.link.close()
        town.kill("ledger-1")
        await town.close()

    play(scenario, FaultyTown)


FAULTS = [
    (JournalFailed("the disk is gone"), EXIT_JOURNAL),
    (OSError("an error nobody expects here"), EXIT_BUG),
    (AssertionError("a bug"), EXIT_BUG),
]


@pytest.mark.parametrize(("fault", "code"), FAULTS, ids=lambda value: str(value)[:20])
def test_a_failed_append_ends_the_process_and_nothing_leaves(fault: Exception, code: int) -> None:
    async def scenario(town: FaultyTown) -> None:
        await town.ready()
        journal = town.faulty["ledger-0"]
        journal.fault = fault
        peer = Peer(town, "gateway-test", "ledger-0")
        await peer.say(batch(town, town.update(4, STOCK, 1)))
        await until(lambda: town.ends)
        await peer.say(batch(town, m.AskAccounts(4, [])))
        await asyncio.sleep(0.2)
        assert town.ends == [("ledger-0", code)]
        assert peer.answers() == []
        assert str(fault) in town.shells["ledger-0"].trouble
        await peer.link.close()
        # The next incarnation knows nothing of it, and serves.
        await town.restart("ledger-0")
        town.ends.clear()
        assert await town.exchange.ask_shard(4, m.AskAccounts(4, [])) == m.Accounts([])
        await town.close()

    play(scenario, FaultyTown)


def test_a_failed_look_up_of_keys_ends_the_process() -> None:
    async def scenario(town: FaultyTown) -> None:
        await town.ready()
        town.faulty["ledger-0"].find_fault = JournalFailed("no index")
        peer = Peer(town, "gateway-test", "ledger-0")
        await peer.say(batch(town, town.update(4, STOCK, 1)))
        await until(lambda: town.ends)
        assert town.ends == [("ledger-0", EXIT_JOURNAL)]
        await peer.link.close()
        town.kill("ledger-0")
        await town.close()

    play(scenario, FaultyTown)


def test_a_full_disk_is_waited_for() -> None:
    async def scenario(town: FaultyTown) -> None:
        await town.ready()
        journal = town.faulty["ledger-0"]
        journal.fault = JournalFull("no room")
        shell = town.shells["ledger-0"]
        answer = town.exchange.ask_shard(4, town.update(4, STOCK, 1))
        await until(lambda: shell.status()["trouble"] == "no room")
        await asyncio.sleep(0.3)
        assert not answer.done()
        assert town.ends == []
        journal.fault = None
        expect_done(await answer)
        assert shell.status()["trouble"] == ""
        await town.close()

    play(scenario, FaultyTown)


def test_a_peer_that_knows_a_newer_epoch_ends_the_process() -> None:
    async def scenario(town: FaultyTown) -> None:
        await town.ready()
        peer = Peer(town, "gateway-test", "market-1")
        await peer.say(batch(town, m.AskCounts(), epoch=9))
        await until(lambda: town.ends)
        assert town.ends == [("market-1", EXIT_FENCED)]
        await asyncio.sleep(0.05)
        assert peer.heard == []
        await peer.link.close()
        town.kill("market-1")
        await town.close()

    play(scenario, FaultyTown)


def test_nothing_is_served_before_the_first_record_is_durable() -> None:
    async def scenario(town: FaultyTown) -> None:
        held: list[FaultyJournal] = []

        def wrap(name: str, journal: Journal) -> Journal:
            found = FaultyJournal(journal)
            found.gate.clear()
            held.append(found)
            return found

        town.wrap = wrap
        opening = asyncio.create_task(town.open("ledger-0"))
        await until(lambda: held and held[0].appends)
        await asyncio.sleep(0.02)
        assert not opening.done()
        assert "ledger-0" not in town.endpoints
        held[0].gate.set()
        await opening
        assert "ledger-0" in town.endpoints
        await town.close()

    play(scenario, FaultyTown)


def test_what_is_no_message_costs_the_connection_and_nothing_else() -> None:
    async def scenario(town: Town) -> None:
        await town.open_all()
        peer = Peer(town, "gateway-test", "ledger-0")
        await until(lambda: peer.connection is not None)
        assert peer.connection is not None
        first = peer.connection.id
        for garbage in (b"", b"\xff", b'["no","such"]', b"[" * 100_000, b'["ta"]garbage'):
            await until(lambda: peer.connection is not None)
            assert peer.connection is not None
            peer.connection.send(garbage)
            await until(lambda: peer.connection is None)
        await peer.say(batch(town, m.AskAccounts(1, [])))
        await until(peer.answers)
        assert peer.connection.id != first
        assert town.ends == []
        await peer.link.close()
        await town.close()

    play(scenario)


def test_a_shell_that_cannot_keep_up_reads_no_more_until_it_can() -> None:
    small = ShellSettings(idle_ms=50, busy_ms=5, turn_bytes_max=2_000, inbox_bytes_max=10_000)

    async def scenario(town: FaultyTown) -> None:
        town.settings = small
        await town.ready()
        shell, journal = town.shells["ledger-0"], town.faulty["ledger-0"]
        peers = [Peer(town, f"gateway-{n}", "ledger-0") for n in range(4)]
        journal.gate.clear()
        updates = 400
        for n, peer in enumerate(peers):
            for _ in range(updates):
                await peer.say(batch(town, town.update(2 * n, STOCK, 1)))
        await asyncio.sleep(0.1)
        # What was read at once with the frame that crossed the mark still came.
        assert 10_000 < int(shell.status()["inbox_bytes"]) < 10_000 + len(peers) * 256 * 1024
        held = shell.status()["inbox_bytes"]
        late = Peer(town, "gateway-late", "ledger-0")
        await late.say(batch(town, m.AskAccounts(0, [])))
        await asyncio.sleep(0.05)
        assert shell.status()["inbox_bytes"] == held
        journal.gate.set()
        await until(lambda: all(len(peer.answers()) == updates for peer in peers))
        await until(late.answers)
        assert shell.status()["inbox_bytes"] == 0
        for peer in (*peers, late):
            await peer.link.close()
        await town.close()

    play(scenario, FaultyTown)


def test_messages_that_arrive_together_share_a_record() -> None:
    async def scenario(town: FaultyTown) -> None:
        await town.ready()
        journal = town.faulty["ledger-0"]
        peer = Peer(town, "gateway-test", "ledger-0")
        begun = len(journal.appends)
        journal.gate.clear()
        await peer.say(batch(town, town.update(4, STOCK, 1)))
        await until(lambda: len(journal.appends) > begun)
        before = len(journal.appends)
        for _ in range(50):
            await peer.say(batch(town, town.update(4, STOCK, 1)))
        await asyncio.sleep(0.05)
        journal.gate.set()
        await until(lambda: len(peer.answers()) == 51)
        assert len(journal.appends) == before + 1
        await peer.link.close()
        await town.close()

    play(scenario, FaultyTown)


def test_an_idle_exchange_writes_nothing_and_hardly_turns() -> None:
    async def scenario(town: FaultyTown) -> None:
        await town.ready()
        await until(lambda: not any(shell.desk.busy for shell in town.shells.values()))
        before = {name: journal.appends[-1] for name, journal in town.faulty.items()}
        turned = 0

        async def count() -> None:
            nonlocal turned
            turned += 1

        for journal in town.faulty.values():
            journal.check_owner = count  # type: ignore[method-assign]
        await asyncio.sleep(0.5)
        assert {name: journal.appends[-1] for name, journal in town.faulty.items()} == before
        # Heartbeats of the market and their echoes, and renewals of the lease.
        assert turned < 60
        await town.close()

    play(scenario, FaultyTown)


def test_checkpoints_are_recorded_and_every_replay_agrees() -> None:
    often = ShellSettings(idle_ms=50, busy_ms=5, checkpoint_records=5, checkpoint_spacing=0)
    records = {"market-1": c.MarketRecord, "ledger-0": c.LedgerRecord, "catalog": c.CatalogRecord}

    async def scenario(town: Town) -> None:
        town.settings = often
        await town.open_all()
        await town.add_market()
        await town.pay_in([1, 2])
        for n in range(60):
            expect_placed(await town.put(1 + n % 2, SELL if n % 3 else BUY, 2, 100 + n % 5))
        await town.close()
        for name, kind in records.items():
            shell = town.shells[name]
            found = commands(shell, kind)
            assert type(found[-1][0]) is c.Checkpoint, f"{name}: none at the end"
            count = sum(type(one) is c.Checkpoint for record in found for one in record)
            assert count >= (10 if name != "catalog" else 1), name
            again, seq = replay(open_memory(town.disks[name]), name.partition("-")[0])
            assert seq == len(found)
            assert state_hash(again) == state_hash(shell.machine)

    play(scenario)


def test_checkpoints_take_no_more_than_their_share_of_the_time() -> None:
    rare = ShellSettings(idle_ms=50, busy_ms=5, checkpoint_records=1, checkpoint_spacing=10**6)

    async def scenario(town: Town) -> None:
        town.settings = rare
        await town.open_all()
        await town.add_market()
        await town.pay_in([1])
        for _ in range(30):
            expect_placed(await town.put(1, SELL, 1, 100))
        found = commands(town.shells["market-1"], c.MarketRecord)
        assert sum(type(one) is c.Checkpoint for record in found for one in record) == 1
        await town.close()

    play(scenario)


def test_the_files_of_two_exchanges_are_not_mixed() -> None:
    async def scenario(town: Town) -> None:
        await town.open_all()
        await town.add_market()
        await town.close()
        ledger_journal = open_memory(town.disks["ledger-0"])
        assert ledger_journal.status().next_seq > 1
        town.disks["ledger-1"] = town.disks["ledger-0"]
        with pytest.raises(JournalForeign, match="shard 0 of 2"):
            await town.open("ledger-1")
        machine: Any = town.shells["market-1"].machine
        other = msgspec.structs.replace(machine.rules, min_amount=7)
        with pytest.raises(JournalForeign, match="Do not mix"):
            await town.open("market-1", c.CreateMarket(other, 2))

    play(scenario)


def test_a_market_that_does_not_start_is_started_again_and_its_adding_waits() -> None:
    class Stubborn(Town):
        """The first attempts to start a market fail."""

        attempts = 0

        async def _start_market(self, create: c.CreateMarket) -> None:
            self.attempts += 1
            if self.attempts < 3:
                raise OSError("no room for another process")
            await super()._start_market(create)

    async def scenario(town: Stubborn) -> None:
        await town.open_all()
        await town.add_market()
        assert town.attempts == 3
        assert "market-1" in town.shells
        # The next incarnation of the catalog finds it running.
        await town.restart("catalog")
        await until(lambda: town.attempts == 4)
        await town.close()

    play(scenario, Stubborn)
