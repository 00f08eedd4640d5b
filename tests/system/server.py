"""Server: an exchange as an operator runs it, by the `excore` command in processes of its own.

Separate because every system test starts one, and none may leave a process behind, however it
ends.  All processes inherit a mark in their environment, so they are found, and ended by their
ids, even when their parents are gone.
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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from api.client import Client
from excore_ray.serving import Places, read_admin

ROOT = Path(__file__).parents[2]
GATEWAY, COMPACTOR = "ray::GatewayActor", "ray::CompactorActor"
START_S, STOP_S, COMMAND_S = 60.0, 40.0, 100.0
_MARK = "EXCORE_TEST_MARK"
_PAUSE_S = 0.05
_TAIL = 3000


def command(*args: str, environment: Mapping[str, str] | None = None) -> list[Any]:
    """Exit code, output and errors of one `excore` command."""
    done = subprocess.run(
        [sys.executable, "-m", "excore_ray", *args],
        env=_environment(environment or {}),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    return [done.returncode, done.stdout, done.stderr]


class Server:
    """One exchange on one data directory, started and ended as often as a test likes.

    options: of `excore serve`, besides the data and the port, which is a free one.  environment:
    variables for it, besides those of the tests.
    """

    def __init__(
        self, data: Path, *options: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self.data = data
        self.places = Places(data)
        self.url = ""
        self.process: subprocess.Popen[bytes] | None = None
        self._options = options
        self._given = dict(environment or {})
        self._mark = secrets.token_hex(8)
        self._environment = _environment({**self._given, _MARK: self._mark})
        self._starts = 0

    # Start and end.

    def start(self) -> None:
        """Run `excore serve` and return when it says that it is ready."""
        process = self.launch()
        until = time.monotonic() + START_S
        while "excore ready" not in self.out:
            assert process.poll() is None, f"it ended with {process.returncode}:\n{self.told()}"
            assert time.monotonic() < until, f"it is not ready:\n{self.told()}"
            time.sleep(_PAUSE_S)
        ready = next(line for line in self.out.splitlines() if line.startswith("excore ready"))
        self.url = ready.split()[2]

    def launch(self) -> subprocess.Popen[bytes]:
        """Run `excore serve` and do not wait for it."""
        assert self.process is None, "it runs already"
        self._starts += 1
        serve = ["serve", "--data", str(self.data), "--port", "0", *self._options]
        with self._file("out").open("wb") as out, self._file("err").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "excore_ray", *serve],
                env=self._environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        return self.process

    def stop(self, number: signal.Signals = signal.SIGTERM, *, group: bool = False) -> int:
        """Ask it to end, wait until every process is gone, and return its exit code.

        group: tell all its processes, as Ctrl-C in a terminal does.
        """
        assert self.process is not None, "it does not run"
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired as late:
            raise AssertionError(f"it does not end: {self.family()}\n{self.told()}") from late
        self.process = None
        left = self.gone(5.0)
        assert not left, f"left behind: {left}\n{self.told()}"
        return code

    def kill(self) -> None:
        """SIGKILL to every process at once, as if the power had gone."""
        until = time.monotonic() + STOP_S
        while family := self.family():
            for process in family:
                _kill(process)
            psutil.wait_procs(family, timeout=5.0)
            assert time.monotonic() < until, f"these do not end: {family}"
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

    def owner(self, stream: str) -> int | None:
        """The pid of the process that holds a stream; None while nobody of this server does."""
        try:
            holder = json.loads((self.places.journals / f"{stream}.lock").read_text())
        except (OSError, ValueError):
            return None
        pid: int = holder["pid"]
        return pid if any(process.pid == pid for process in self.family()) else None

    def strike(self, victim: str) -> int | None:
        """SIGKILL to a stream's owner, or to one actor with a title; None when it is away."""
        pids = self.actors(victim) if "::" in victim else [self.owner(victim)]
        for pid in pids:
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                return pid
        return None

    # What it says, and asking it.

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

    def credential(self) -> tuple[str, str]:
        """The generated admin credential."""
        admin = read_admin(self.places)
        assert admin is not None, "there is no admin credential"
        return admin

    def client(self) -> Client:
        """A client with all rights."""
        return Client(f"{self.url}/", *self.credential(), deadline_s=25.0)

    def excore(self, *args: str) -> str:
        """The output of an `excore` command about this exchange that must succeed."""
        code, out, err = command(*args, "--data", str(self.data), environment=self._given)
        assert code == 0, f"excore {' '.join(args)} ended with {code}:\n{out}\n{err}"
        return str(out)

    def _file(self, suffix: str) -> Path:
        return self.data.parent / f"{self.data.name}-{self._starts}.{suffix}"


@contextmanager
def serving(
    data: Path, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server that is ready; whatever happens, none of its processes is left."""
    server = Server(data, *options, environment=environment)
    try:
        server.start()
        yield server
    finally:
        server.clear()


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """The variables of the tests, without any that would change what is tested."""
    plain = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("EXCORE_", "RAY_")) and name != "COLUMNS"
    }
    return {**plain, "PYTHONPATH": str(ROOT), **more}


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
