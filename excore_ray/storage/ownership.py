"""Who may write a stream: a lock file that the owner holds for as long as it lives.

Separate from the journal because it guards a name, whatever is kept under it.  It must not know
what that is.

The lock is flock on `<stream>.lock`; the kernel gives it up with the process, however that ends.
Inside the file the holder says who it is.  A successor waits for it, says whom it waits for, and
after a while ends the recorded process, but only one that is proven to be its own predecessor: the
same actor, the same boot, the same process namespace, and a process of that id which started at
the very tick that was recorded, so a reused id is never hit.  The process is pinned by a pidfd
before it is looked at, so it cannot be exchanged between the look and the kill.

The file is never removed: a successor could lock the old one and another the new.  Should
somebody else remove or replace it, the holder finds out in check() and is fenced.
A file system that is mounted by several machines is not for this: use the cluster journal there.

Source: the lock file of PostgreSQL (postmaster.pid); pidfd_open(2).
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from excore_ray.errors import Fenced, StreamBusy

logger = logging.getLogger(__name__)

POLL_S = 0.02
_HOLDER_BYTES = 512
_HOLDER_BYTES_MAX = 4096


class Holder(msgspec.Struct, frozen=True):
    """A process that holds a stream, as it wrote itself into the lock file.

    started_ticks: when it started, in clock ticks since boot.  boot_id and pid_namespace say what
    `pid` and `started_ticks` are relative to.  On a system without /proc these are empty, and
    nobody is ever ended.
    """

    actor: str
    pid: int
    started_ticks: int
    boot_id: str
    pid_namespace: str


class Ownership(msgspec.Struct, frozen=True):
    """How a stream is taken over.

    actor: name of the actor that opens it, the same for all its incarnations.
    kill_after_s: how long a holder is waited for before it is ended, and how long the lock is
    waited for after that.
    on_wait: called when the wait begins and whenever the holder changes, with the holder, or None
    while it is not readable.  Each call is logged too.
    """

    actor: str
    kill_after_s: float = 5.0
    on_wait: Callable[[Holder | None], None] | None = None


class OwnerLock:
    """A held lock.  Made by take()."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._pid = os.getpid()

    def check(self) -> None:
        """Raise Fenced unless this very process holds the file that bears the name now.

        Cost: two stat calls, some 2 us.
        """
        if os.getpid() != self._pid:
            raise Fenced(f"{self.path} is held by process {self._pid}, from which this one forked")
        if self._fd < 0 or not _is_file_at(self._fd, self.path):
            raise Fenced(
                f"{self.path} was removed or replaced while this process held it: another owner"
                " may exist. This process must exit; restart the actor."
            )

    def release(self) -> None:
        """Let the next owner in.  May be called twice."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            if os.getpid() == self._pid:
                # So that nobody takes this process, which may live on, for the next holder.
                _write_in_place(fd, b"")
            os.close(fd)


def take(path: Path, ownership: Ownership) -> OwnerLock:
    """Hold `path` alone, waiting for whoever holds it now.

    Blocks for at most 2 * kill_after_s per holder: on an event loop, call it in a thread.

    Raises StreamBusy, with what the operator can do, when the holder cannot be proven to be the
    predecessor, or when somebody keeps the lock although it was ended; OSError when the lock file
    cannot be made.
    """
    waited_for: Holder | None = None
    ended: Holder | None = None
    give_up_at: float | None = None
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if _lock(fd):
                if _is_file_at(fd, path):
                    _write_holder(fd, _identity(os.getpid(), ownership.actor))
                    lock, fd = OwnerLock(path, fd), -1
                    return lock
                continue
            holder = _read_holder(fd)
        finally:
            if fd >= 0:
                os.close(fd)
        now = time.monotonic()
        if give_up_at is None or holder != waited_for:
            # Every holder gets the whole time, so one that has just taken over is not hit.
            waited_for, give_up_at = holder, now + ownership.kill_after_s
            _report(path, holder, ownership)
        elif now >= give_up_at:
            if holder is None or holder == ended:
                raise StreamBusy(_busy(path, holder, ended, ""))
            if doubt := _end(holder, ownership.actor):
                raise StreamBusy(_busy(path, holder, ended, doubt))
            logger.warning("%s: ended process %d, the holder", path, holder.pid)
            ended, give_up_at = holder, now + ownership.kill_after_s
        time.sleep(POLL_S)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_file_at(fd: int, path: Path) -> bool:
    try:
        held, named = os.fstat(fd), os.stat(path)
    except FileNotFoundError:
        return False
    return (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)


def _read_holder(fd: int) -> Holder | None:
    try:
        return msgspec.json.decode(os.pread(fd, _HOLDER_BYTES_MAX, 0), type=Holder)
    except msgspec.DecodeError:
        # It is being written right now, or its writer died doing so.
        return None


def _write_holder(fd: int, holder: Holder) -> None:
    # In place, since the lock is on this inode.  A reader who sees half of it waits on.
    _write_in_place(fd, msgspec.json.encode(holder))


def _write_in_place(fd: int, data: bytes) -> None:
    # Padded with blanks and never cut: the room a file once has, it has on a full disk too.
    os.pwrite(fd, data.ljust(max(os.fstat(fd).st_size, _HOLDER_BYTES)), 0)


def _identity(pid: int, actor: str) -> Holder:
    """Who the process `pid` is right now; the /proc fields are empty when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        # The name of the program comes second, in brackets, and may hold anything; the start
        # time is field 22, the 20th after it.
        started_ticks = int(stat.rpartition(")")[2].split()[19])
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        pid_namespace = os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return Holder(actor, pid, 0, "", "")
    return Holder(actor, pid, started_ticks, boot_id, pid_namespace)


def _end(holder: Holder, actor: str) -> str:
    """Kill `holder` if it is proven to be an earlier incarnation of `actor`; else why not."""
    if holder.actor != actor:
        return f"it is another actor than {actor}"
    if holder.pid == os.getpid():
        return "it is this very process, which has the stream open already"
    try:
        pidfd = os.pidfd_open(holder.pid)
    except (OSError, AttributeError) as fault:
        return f"process {holder.pid} cannot be reached from here ({fault})"
    try:
        found = _identity(holder.pid, actor)
        if not found.boot_id or found != holder:
            return f"process {holder.pid} is not the one that wrote this ({found})"
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except OSError as fault:
        return f"process {holder.pid} could not be ended ({fault})"
    finally:
        os.close(pidfd)
    return ""


def _report(path: Path, holder: Holder | None, ownership: Ownership) -> None:
    logger.warning("%s: waiting for %s", path, holder or "a holder that gave no name")
    if ownership.on_wait is not None:
        ownership.on_wait(holder)


def _busy(path: Path, holder: Holder | None, ended: Holder | None, doubt: str) -> str:
    if holder is None:
        who = "a process that gave no name"
    elif holder == ended:
        who = f"another process than {holder.pid}, which was ended; perhaps a child of it"
    else:
        who = f"{holder}, and it was not ended: {doubt}"
    return (
        f"{path} is held by {who}. See who has the file open (fuser -v {path}), make sure that it"
        " serves nothing, stop it, and start this actor again. Never remove the lock file."
    )
