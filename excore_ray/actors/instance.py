"""Instance: the surroundings of a Ray of our own on this machine: environment, directories, lock.

Separate from what uses Ray because Ray reads the environment when it is imported: everything
here happens before, and nothing here imports it.

A private Ray is reached by nobody else: it listens on 127.0.0.1 only, asks everyone for a token
that only this user can read, and keeps its files, which it makes accessible to all, inside a
directory that only this user can enter.
"""

from __future__ import annotations

import asyncio
import atexit
import fcntl
import logging
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from excore_ray.errors import SettingsError

logger = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 80 * 1024 * 1024  # close to the least Ray accepts; we keep no objects
_PREFIX = "excore-"  # short: Ray puts sockets below, whose paths are limited to 107 bytes
_DIRECTORY = "gcs_server"
_VITAL = {_DIRECTORY, "raylet"}
_LOOK_S = 1.0
_MARK = "EXCORE_RAY_PLACE"  # whose environment this is: a child inherits it, and is somebody else
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Otherwise workers run behind everything else, and are the first to be ended without memory.
    "RAY_worker_niceness": "0",
    "RAY_worker_oom_score_adjustment": "0",
    # A question that comes after the end must not start another Ray.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    # "No clusters": the address of this node is 127.0.0.1, and Ray listens there only.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Ray prints the death of each worker to the terminal, whatever it is told about logs.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # How soon a caller learns that an actor which was killed is back: 0.6 s instead of 2.0.
    "RAY_timeout_ms_task_wait_for_death_info": "50",
    "RAY_core_worker_internal_heartbeat_ms": "100",
}


class DataLock:
    """The data directory, which is made if need be, held by the one process that may start an
    exchange on it.

    Without it a second start would take every journal away from the first.
    """

    def __init__(self, data: Path) -> None:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = os.open(data / "exchange.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self.note()
            os.close(self._fd)
            raise SettingsError(f"an exchange runs on {data} already ({holder})") from None

    def note(self) -> str:
        """What the last holder has written."""
        return os.pread(self._fd, 4096, 0).decode("utf-8", "replace")

    def write(self, note: str) -> None:
        """Leave a note to whoever comes next."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, note.encode(), 0)

    def release(self) -> None:
        """Let the next one in."""
        os.close(self._fd)


class PrivateRay:
    """The place of one private Ray.  The first of a process is made before Ray is imported.

    place: its directory.  options: for ray.init().
    """

    def __init__(self, lock: DataLock, cpus: int) -> None:
        _remove_place(lock.note())
        self.place = _prepared_place() if "ray" in sys.modules else _prepare()
        lock.write(str(self.place))
        self._vital: dict[psutil.Process, str] = {}
        self._below: list[psutil.Process] = []  # what the vital ones have started
        self.options: dict[str, Any] = {
            "address": "local",
            "num_cpus": cpus,
            "num_gpus": 0,
            "include_dashboard": False,
            "log_to_driver": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_temp_dir": str(self.place / "ray"),
        }

    def begun(self) -> None:
        """Remember the processes of this Ray, once it runs."""
        self._vital = {p: p.name() for p in psutil.Process().children() if p.name() in _VITAL}
        self._below = [p for vital in self._vital for p in vital.children(recursive=True)]

    async def lost(self) -> str:
        """Return, saying what is gone, when this Ray can restart nothing any more.

        Its actors may go on without it for a while.
        """
        while True:
            for process, name in self._vital.items():
                if _has_ended(process):
                    return f"{name}, process {process.pid}, has ended"
            await asyncio.sleep(_LOOK_S)

    @property
    def answers(self) -> bool:
        """Whether Ray's directory can be asked.  Without it any question waits for a minute, and
        then Ray ends the process that has asked.
        """
        return not any(
            name == _DIRECTORY and _has_ended(process) for process, name in self._vital.items()
        )

    def end(self) -> None:
        """End all processes of this Ray at once, actors included, without asking it."""
        for vital in self._vital:
            if not _has_ended(vital):
                self._below += vital.children(recursive=True)
                _end(vital)
        for process in self._below:
            _end(process)

    def remove(self) -> None:
        """End what Ray has left running, and delete what it has written, logs included.

        Ray leaves some of its agents behind when it is shut down after an accident.  The token
        stays until this process ends: Ray has read it, and will use no other.
        """
        for process in self._below:
            if not _has_ended(process):
                logger.warning("Ray has left process %d running: it is ended", process.pid)
                _end(process)
        shutil.rmtree(self.place / "ray", ignore_errors=True)


def _has_ended(process: psutil.Process) -> bool:
    """Whether exactly this process, and none that got its id later, is gone."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _end(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        logger.info("process %d has ended by itself", process.pid)


def _prepare() -> Path:
    """Make a place and set the environment for it."""
    place = Path(tempfile.mkdtemp(prefix=_PREFIX))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    token = place / "token"
    fd = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32))
    os.environ.update(_ENVIRONMENT)
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
    os.environ[_MARK] = f"{os.getpid()} {place}"
    for name in ("RAY_AUTH_TOKEN", "RAY_ADDRESS"):
        os.environ.pop(name, None)
    return place


def _prepared_place() -> Path:
    """The place this process has made for an earlier Ray of its own."""
    pid, _, place = os.environ.get(_MARK, "").partition(" ")
    if pid != str(os.getpid()):
        raise SettingsError(
            "Ray was imported before its environment could be set: start the exchange first"
        )
    return Path(place)


def _remove_place(note: str) -> None:
    """Delete what a predecessor that was killed has left behind."""
    place = Path(note)
    if note == os.environ.get(_MARK, "").partition(" ")[2]:
        return
    if place.is_absolute() and place.name.startswith(_PREFIX) and (place / "token").exists():
        shutil.rmtree(place, ignore_errors=True)
