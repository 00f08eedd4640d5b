"""Who holds a stream: exclusion, take-over, and that nobody is ended who is not proven guilty."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from excore_ray.errors import Fenced, StreamBusy
from excore_ray.storage.ownership import Holder, Ownership, take
from tests.storage.child import end, line_of, spawn
from tests.storage.places import STREAM

ACTOR = STREAM  # the name the children give
NOBODY = 2**30  # above every process id: what a test invents must never be somebody's


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / f"{STREAM}.lock"


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    child = spawn("hold", tmp_path)
    assert line_of(child) == "held"
    yield child
    end(child)


def recorded(path: Path) -> Holder:
    return msgspec.json.decode(path.read_bytes(), type=Holder)


def test_the_holder_says_who_it_is(path: Path) -> None:
    lock = take(path, Ownership("m"))
    lock.check()
    who = recorded(path)
    assert (who.actor, who.pid) == ("m", os.getpid())
    assert who.started_ticks > 0
    assert len(who.boot_id) == 36
    assert who.pid_namespace.startswith("pid:")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lock.release()
    lock.release()
    assert path.read_bytes().strip() == b""
    take(path, Ownership("m")).release()


def test_a_second_owner_in_this_process_is_refused_and_nobody_is_ended(path: Path) -> None:
    first = take(path, Ownership("m", kill_after_s=0.05))
    with pytest.raises(StreamBusy, match="this very process"):
        take(path, Ownership("m", kill_after_s=0.05))
    first.check()
    first.release()


def test_a_successor_waits_for_a_holder_that_lets_go(path: Path) -> None:
    waited_for: list[Holder | None] = []
    first = take(path, Ownership("m"))
    threading.Timer(0.2, first.release).start()
    began = time.monotonic()
    second = take(path, Ownership("m", on_wait=waited_for.append))
    assert 0.1 < time.monotonic() - began < 3
    assert [who and who.pid for who in waited_for] == [os.getpid()]
    second.check()
    second.release()


def test_a_predecessor_that_keeps_the_lock_is_ended(
    path: Path, holder: subprocess.Popen[str]
) -> None:
    waited_for: list[Holder | None] = []
    began = time.monotonic()
    lock = take(path, Ownership(ACTOR, 0.3, waited_for.append))
    assert time.monotonic() - began >= 0.3
    assert holder.wait(5) == -signal.SIGKILL
    assert [who and who.pid for who in waited_for] == [holder.pid]
    lock.check()
    assert recorded(path).pid == os.getpid()
    lock.release()


def test_a_stopped_predecessor_is_ended_too(path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGSTOP)
    take(path, Ownership(ACTOR, 0.1)).release()
    assert holder.wait(5) == -signal.SIGKILL


DOUBTS = {
    "another actor": {"actor": "ledger-7"},
    "a reused process id": {"started_ticks": 1},
    "another boot": {"boot_id": "00000000-0000-0000-0000-000000000000"},
    "another namespace": {"pid_namespace": "pid:[1]"},
    "a system without /proc": {"started_ticks": 0, "boot_id": "", "pid_namespace": ""},
    "a process that is not there": {"pid": NOBODY},
}


@pytest.mark.parametrize("change", DOUBTS.values(), ids=DOUBTS.keys())
def test_nobody_is_ended_who_is_not_proven_to_be_the_predecessor(
    path: Path, holder: subprocess.Popen[str], change: dict[str, str | int]
) -> None:
    # As if the file had been written by somebody else than who holds the lock.
    record = {**msgspec.to_builtins(recorded(path)), **change}
    path.write_bytes(msgspec.json.encode(record))
    with pytest.raises(StreamBusy, match="it was not ended") as caught:
        take(path, Ownership(ACTOR, 0.1))
    assert "fuser -v" in str(caught.value)
    assert holder.poll() is None


@pytest.mark.parametrize("record", [b"", b"{", b'{"pid": 1}', b"\xff" * 9000])
def test_a_holder_without_a_readable_name_is_left_alone(
    path: Path, holder: subprocess.Popen[str], record: bytes
) -> None:
    path.write_bytes(record)
    with pytest.raises(StreamBusy, match="gave no name"):
        take(path, Ownership(ACTOR, 0.1))
    assert holder.poll() is None


def test_a_lock_that_outlives_the_ended_holder_is_reported(tmp_path: Path, path: Path) -> None:
    child = spawn("orphan", tmp_path)
    assert line_of(child) == "held"
    orphans = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    try:
        with pytest.raises(StreamBusy, match="perhaps a child of it"):
            take(path, Ownership(ACTOR, 0.2))
        assert child.wait(5) == -signal.SIGKILL
    finally:
        for orphan in orphans:
            os.kill(int(orphan), signal.SIGKILL)
        end(child)


def test_every_new_holder_gets_the_whole_time(path: Path) -> None:
    waited_for: list[Holder | None] = []
    first = take(path, Ownership("m"))
    other = msgspec.structs.replace(recorded(path), pid=NOBODY)

    def change_hands() -> None:
        path.write_bytes(msgspec.json.encode(other))

    threading.Timer(0.2, change_hands).start()
    began = time.monotonic()
    with pytest.raises(StreamBusy, match="cannot be reached"):
        take(path, Ownership("m", 0.4, waited_for.append))
    assert time.monotonic() - began >= 0.6
    assert [who.pid for who in waited_for if who] == [os.getpid(), NOBODY]
    first.release()


def test_a_holder_whose_file_was_removed_is_fenced(path: Path) -> None:
    lock = take(path, Ownership("m"))
    path.unlink()
    with pytest.raises(Fenced, match="removed or replaced"):
        lock.check()
    usurper = take(path, Ownership("m"))
    with pytest.raises(Fenced, match="removed or replaced"):
        lock.check()
    usurper.check()
    lock.release()
    usurper.check()
    usurper.release()


def test_a_lock_on_a_file_that_was_replaced_meanwhile_does_not_count(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    replaced: list[int] = []

    def replace_first(fd: int, operation: int) -> None:
        if not replaced:
            replaced.append(fd)
            path.unlink()
            path.touch()
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", replace_first)
    lock = take(path, Ownership("m"))
    assert replaced
    lock.check()
    assert recorded(path).pid == os.getpid()
    lock.release()


def test_a_released_lock_is_not_held(path: Path) -> None:
    lock = take(path, Ownership("m"))
    lock.release()
    with pytest.raises(Fenced):
        lock.check()


def test_a_fork_is_not_the_owner(path: Path) -> None:
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from excore_ray.errors import Fenced\n"
        "from excore_ray.storage.ownership import Ownership, take\n"
        "lock = take(Path(sys.argv[1]), Ownership('m'))\n"
        "if pid := os.fork():\n"
        "    lock.check()\n"
        "    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        "try:\n"
        "    lock.check()\n"
        "except Fenced:\n"
        "    os._exit(7)\n"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", script, str(path)]
    assert subprocess.run(command, cwd=root, check=False).returncode == 7
