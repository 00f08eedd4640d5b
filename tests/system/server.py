"""Server: an exchange as an operator runs it, by the `excore` command in processes of its own.

Separate from `excore_ray.drill.served`, which runs it, by what only tests want: to hit its
processes by name, and to run commands on it that must succeed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from api.client import Client
from excore_ray.drill.served import Served

ROOT = Path(__file__).parents[2]
COMMAND_S = 100.0


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


class Server(Served):
    """One exchange on one data directory, started and ended as often as a test likes.

    options: of `excore serve`, besides the data and the port, which is a free one.  environment:
    variables for it, besides those of the tests.
    """

    def __init__(
        self, data: Path, *options: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self._given = dict(environment or {})
        super().__init__(data, *options, environment=_environment(self._given))

    def strike(self, victim: str) -> int | None:
        """SIGKILL to a stream's owner, or to one actor with a title; None when it is away."""
        pids = self.actors(victim) if "::" in victim else [self.owner(victim)]
        for pid in pids:
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                return pid
        return None

    def client(self) -> Client:
        """A client with all rights."""
        return Client(f"{self.url}/", *self.credential(), deadline_s=25.0)

    def excore(self, *args: str) -> str:
        """The output of an `excore` command about this exchange that must succeed."""
        code, out, err = command(*args, "--data", str(self.data), environment=self._given)
        assert code == 0, f"excore {' '.join(args)} ended with {code}:\n{out}\n{err}"
        return str(out)


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
