"""Hosts: a process that serves says where, one that cannot says why and ends, and what it logs.

The hosts that end run in processes of their own, for they end them.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from excore_ray.actors.compactor import Compactor, CompactorSettings
from excore_ray.actors.host import ShellHost
from excore_ray.actors.instance import DataLock
from excore_ray.actors.ledger import open_ledger
from excore_ray.actors.plan import NodeSettings
from excore_ray.actors.shell import EXIT_BUG, EXIT_OPENING
from excore_ray.actors.wire import Endpoint
from excore_ray.actors.wiring import make_secret, new_gateway_name, read_secret
from excore_ray.core.commands import CreateShard
from excore_ray.core.custodian import CustodianLimits
from excore_ray.errors import JournalFailed, SettingsError, TruncateRefused, WireClosed
from excore_ray.storage.sqlite import read_sqlite

ROOT = Path(__file__).parents[2]
SHARD = CreateShard(0, 1)


@pytest.fixture(autouse=True)
def log_handlers() -> Iterator[None]:
    """Hosts take over the log of their process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def node_of(place: Path) -> NodeSettings:
    secret = place / "secret"
    return NodeSettings(str(place / "data"), str(place / "log"), str(secret), reopen_pause_s=0.2)


async def nowhere(name: str) -> Endpoint:
    raise WireClosed(f"{name} is nowhere")


def host_of(node: NodeSettings) -> ShellHost:
    opening = functools.partial(open_ledger, SHARD, CustodianLimits())
    return ShellHost("ledger-0", node, nowhere, opening)


def test_a_host_tells_where_it_serves_and_stops_in_order(tmp_path: Path) -> None:
    node = node_of(tmp_path)
    make_secret(Path(node.secret))

    async def scenario() -> None:
        for epoch in (1, 2):
            host = host_of(node)
            readiness = await host.ready()
            assert readiness.serves
            assert readiness.trouble == ""
            assert readiness.endpoint is not None
            assert readiness.endpoint.port > 0
            status = await host.status()
            assert (status["stream"], status["epoch"]) == ("ledger-0", epoch)
            await host.stop(1)

    asyncio.run(scenario())
    assert "ledger-0 serves epoch 2" in (tmp_path / "log" / "ledger-0.log").read_text()


def test_a_host_truncates_its_journal_for_the_compactor(tmp_path: Path) -> None:
    node = node_of(tmp_path)
    make_secret(Path(node.secret))
    reader = functools.partial(read_sqlite, Path(node.data))
    host: ShellHost

    async def truncate(stream: str, up_to: int) -> None:
        assert stream == host.name
        # A caller may have lost patience before, and asks again.
        await asyncio.gather(*(host.truncate(up_to) for _ in range(3)))

    def watermarks() -> dict[str, int]:
        with closing(reader("ledger-0")) as journal:
            return {"ledger-0": journal.status().next_seq - 1}

    async def scenario() -> None:
        nonlocal host
        settings = CompactorSettings(records_min=1, truncate=True)
        compactor = Compactor(lambda: ["ledger-0"], reader, settings, truncate, watermarks)
        for incarnation in range(1, 6):
            host = host_of(node)
            with pytest.raises(WireClosed, match="ledger-0 does not serve yet"):
                await host.truncate(0)
            assert (await host.ready()).serves
            # What the incarnation before has left: its epoch and, when it stopped, a state_hash.
            await compactor.round()
            state = compactor.states["ledger-0"]
            assert (state.stopped, state.snapshot_seq > 0) == ("", incarnation > 1)
            with closing(reader("ledger-0")) as journal:
                assert journal.status().oldest_seq == state.older_seq + 1
            with pytest.raises(TruncateRefused):
                await host.truncate(state.older_seq + 1)
            assert (await host.status())["epoch"] == incarnation
            await host.stop(1)
        with pytest.raises(JournalFailed, match="closed"):
            await host.truncate(0)

    asyncio.run(scenario())


ENDING = """
import asyncio
from pathlib import Path
from tests.actors.test_host import host_of, node_of

async def main():
    host = host_of(node_of(Path({place!r})))
    print((await host.ready()).trouble, flush=True)
    {then}
    await asyncio.sleep(10)

asyncio.run(main())
"""


def run(place: Path, then: str = "") -> subprocess.CompletedProcess[str]:
    script = ENDING.format(place=str(place), then=then)
    command = [sys.executable, "-c", script]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_host_that_cannot_open_says_why_and_ends(tmp_path: Path) -> None:
    ended = run(tmp_path)
    assert ended.returncode == EXIT_OPENING
    assert "it cannot be opened: the cluster secret cannot be read" in ended.stdout
    assert "CRITICAL" in (tmp_path / "log" / "ledger-0.log").read_text()


def test_a_bug_in_a_turn_ends_the_process_with_its_cause_in_the_log(tmp_path: Path) -> None:
    make_secret(Path(node_of(tmp_path).secret))
    ended = run(tmp_path, then="host.shell.change(lambda: 1 // 0)")
    assert ended.returncode == EXIT_BUG
    log = (tmp_path / "log" / "ledger-0.log").read_text()
    assert "CRITICAL" in log
    assert "ZeroDivisionError" in log


def test_a_second_process_takes_the_journal_over_from_one_that_was_killed(tmp_path: Path) -> None:
    make_secret(Path(node_of(tmp_path).secret))
    for _ in range(2):
        ended = run(tmp_path, then="import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        assert ended.returncode == -9
        assert ended.stdout.strip() == ""


def test_the_secret_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    make_secret(path)
    first = read_secret(path)
    make_secret(path)
    assert read_secret(path) == first
    assert len(first) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(SettingsError, match="read by others"):
        read_secret(path)
    path.chmod(0o600)
    path.write_text("short\n")
    with pytest.raises(SettingsError, match="5 bytes"):
        read_secret(path)
    path.unlink()
    with pytest.raises(SettingsError, match="cannot be read"):
        read_secret(path)


def test_a_data_directory_is_held_by_one(tmp_path: Path) -> None:
    lock = DataLock(tmp_path / "data")
    lock.write("a note")
    with pytest.raises(SettingsError, match="a note"):
        DataLock(tmp_path / "data")
    lock.release()
    again = DataLock(tmp_path / "data")
    assert again.note() == "a note"
    again.release()


def test_no_two_gateways_have_one_name() -> None:
    assert len({new_gateway_name() for _ in range(1000)}) == 1000
