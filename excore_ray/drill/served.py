"""Served: an exchange in processes of its own, started and ended as often as somebody likes.

Separate because drills and system tests both need one, and neither may leave a process behind,
however it ends.  All its processes inherit a mark in their environment, so they are found, and
ended by their ids, even when their parents are gone.  It must not know what is asked of it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from excore_ray.errors import ExcoreError
from excore_ray.serving import Credential, Places, read_admin

# As Ray names the processes of our actors.
GATEWAY, ARCHIVE, COMPACTOR = "ray::GatewayActor", "ray::ArchiveActor", "ray::CompactorActor"
START_S, STOP_S = 60.0, 40.0
_MARK = "EXCORE_SERVED_MARK"
_PAUSE_S = 0.05
_TAIL = 3000


class ServedFailed(ExcoreError):
    """The exchange did not start, or did not end.  The message has what it has printed."""


class Served:
    """One exchange on one data directory.

    options: of `excore serve`, besides the data and the port.  environment: all variables it
    gets, but for the mark.  port: 0 for a free one.
    """

    def __init__(
        self, data: Path, *options: str, environment: Mapping[str, str], port: int = 0
    ) -> None:
        self.data = data
        self.places = Places(data)
        self.url = ""
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        self._options = options
        self._mark = secrets.token_hex(8)
        self._environment = {**environment, _MARK: self._mark}
        self._starts = 0

    # Start and end.

    def start(self) -> None:
        """Run `excore serve` and return when it says that it is ready.  Raises ServedFailed."""
        process = self.launch()
        until = time.monotonic() + START_S
        while "excore ready" not in self.out:
            if process.poll() is not None:
                raise ServedFailed(f"it ended with {process.returncode}:\n{self.told()}")
            if time.monotonic() >= until:
                raise ServedFailed(f"it is not ready after {START_S} s:\n{self.told()}")
            time.sleep(_PAUSE_S)
        ready = next(line for line in self.out.splitlines() if line.startswith("excore ready"))
        self.url = ready.split()[2]

    def launch(self) -> subprocess.Popen[bytes]:
        """Run `excore serve` and do not wait for it."""
        assert self.process is None, "it runs already"
        self._starts += 1
        serve = ["serve", "--data", str(self.data), "--port", str(self.port), *self._options]
        with self._file("out").open("wb") as out, self._file("err").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "excore_ray", *serve],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        return self.process

    def stop(self, number: signal.Signals = signal.SIGTERM, *, group: bool = False) -> int:
        """Ask it to end, wait until every process is gone, and return its exit code.

        group: tell all its processes, as Ctrl-C in a terminal does.  Raises ServedFailed.
        """
        assert self.process is not None, "it does not run"
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        return self.ended()

    def ended(self, wait_s: float = STOP_S) -> int:
        """Its exit code, once it and all its processes have ended.  Raises ServedFailed."""
        assert self.process is not None, "it does not run"
        try:
            code = self.process.wait(wait_s)
        except subprocess.TimeoutExpired as late:
            raise ServedFailed(f"it does not end: {self.family()}\n{self.told()}") from late
        self.process = None
        left = self.gone(5.0)
        if left:
            raise ServedFailed(f"left behind: {left}\n{self.told()}")
        return code

    def kill(self) -> None:
        """SIGKILL to every process at once, as if the power had gone.  Raises ServedFailed."""
        until = time.monotonic() + STOP_S
        while family := self.family():
            for process in family:
                _kill(process)
            psutil.wait_procs(family, timeout=5.0)
            if time.monotonic() >= until:
                raise ServedFailed(f"these do not end: {family}")
        if self.process is not None:
            self.process.wait(STOP_S)
            self.process = None

    def clear(self) -> None:
        """End everything, and delete what only a next start would have deleted."""
        self.kill()
        note = self.places.journals / "exchange.lock"
        place = Path(note.read_text() or "-") if note.exists() else Path("-")
        if place.is_absolute() and place.name.startswith("excore-"):
            shutil.rmtree(place, ignore_errors=True)

    def gone(self, wait_s: float) -> list[psutil.Process]:
        """The processes that are still there after so long, none as soon as there are none."""
        until = time.monotonic() + wait_s
        while (left := self.family()) and time.monotonic() < until:
            time.sleep(_PAUSE_S)
        return left

    # Its processes.

    def family(self) -> list[psutil.Process]:
        """All processes that it has started, and itself."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARK) == self._mark:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def actors(self, title: str) -> list[int]:
        """The pids of the actors that bear this title, as in "ray::GatewayActor"."""
        found = []
        for process in self.family():
            try:
                if process.cmdline()[:1] == [title]:
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    def named(self, name: str) -> list[int]:
        """The pids of the processes that bear this name, as in "raylet"."""
        found = []
        for process in self.family():
            try:
                if process.name() == name:
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    def owner(self, stream: str) -> int | None:
        """The pid of the process that holds a stream; None while nobody of this one does."""
        try:
            holder = json.loads((self.places.journals / f"{stream}.lock").read_text())
        except (OSError, ValueError):
            return None
        pid: int = holder["pid"]
        return pid if self.has(pid) else None

    def has(self, pid: int) -> bool:
        """Whether a process is one of its own, and lives."""
        try:
            process = psutil.Process(pid)
            zombie = process.status() == psutil.STATUS_ZOMBIE
            return not zombie and process.environ().get(_MARK) == self._mark
        except psutil.Error:
            return False

    # What it says.

    @property
    def out(self) -> str:
        """What the last start has printed."""
        return self._file("out").read_text()

    @property
    def err(self) -> str:
        """What the last start has printed as errors."""
        return self._file("err").read_text()

    def told(self) -> str:
        """All that the last start has printed, for a failure's message."""
        return f"{self.out[-_TAIL:]}\n{self.err[-_TAIL:]}"

    def credential(self) -> Credential:
        """The generated admin credential.  Raises ServedFailed when there is none."""
        admin = read_admin(self.places)
        if admin is None:
            raise ServedFailed(f"there is no admin credential in {self.places.admin}")
        return admin

    def _file(self, suffix: str) -> Path:
        return self.data.parent / f"{self.data.name}-{self._starts}.{suffix}"


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
