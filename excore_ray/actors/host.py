"""Host: a process of ours around one part of the exchange: its log, its beginning and its end.

Separate from the shells, which tests run by the dozen in one process, because here the process
itself is at stake, and because these classes are what is turned into Ray actors.  It must not
know Ray: how peers are found and markets are started is handed in.

A host never raises when it is made: it opens its part in the background, tells whoever asks how
far that is, and when it cannot, ends the process after a pause, to be started again.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import logging.handlers
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from excore_ray.actors.clock import SteadyClock
from excore_ray.actors.plan import NodeSettings
from excore_ray.actors.shell import EXIT_BUG, EXIT_OPENING, Around, Shell
from excore_ray.actors.wire import Endpoint
from excore_ray.actors.wiring import Resolve, TcpWiring, read_secret
from excore_ray.errors import WireClosed
from excore_ray.storage.journal import Journal
from excore_ray.storage.ownership import Holder, Ownership
from excore_ray.storage.sqlite import open_sqlite

logger = logging.getLogger(__name__)

_LOG_BYTES, _LOG_FILES = 10_000_000, 5
_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_READY_WAIT_S = 5.0
_COLLECT_AFTER = 100_000  # containers made and not freed


class Readiness(msgspec.Struct, frozen=True):
    """Whether an actor serves, and where on the wire, if it does; else how far it is."""

    serves: bool
    endpoint: Endpoint | None
    trouble: str


OpenShell = Callable[[Journal, Around], Awaitable[Shell]]


class Host:
    """A process around one part.  Made on a running loop.

    open_part: opens it and returns where it serves on the wire, if it does; whatever it raises
    is fatal.
    """

    def __init__(
        self, name: str, node: NodeSettings, open_part: Callable[[], Awaitable[Endpoint | None]]
    ) -> None:
        begin_log(name, node)
        calm_collector()
        self.name = name
        self.node = node
        self.progress = "it is starting"
        self._open_part = open_part
        self._serves = False
        self._endpoint: Endpoint | None = None
        self._settled = asyncio.Event()
        self._task = asyncio.create_task(self._open())

    async def ready(self) -> Readiness:
        """Whether the part serves; waits some seconds for it, so that callers need not poll."""
        if not self._serves:
            waiting = asyncio.create_task(self._settled.wait())
            await asyncio.wait([waiting], timeout=_READY_WAIT_S)
            waiting.cancel()
        return Readiness(self._serves, self._endpoint, "" if self._serves else self.progress)

    async def _open(self) -> None:
        try:
            self._endpoint = await self._open_part()
            self._serves = True
            self.progress = ""
            self._settled.set()
        except Exception as error:
            self.progress = f"it cannot be opened: {error}"
            logger.critical("%s cannot be opened: %s", self.name, error, exc_info=error)
            self._settled.set()
            await asyncio.sleep(self.node.reopen_pause_s)
            end_process(EXIT_OPENING)


class ShellHost(Host):
    """A process around a shell on an embedded journal.  open_shell: makes and opens the shell."""

    def __init__(
        self, name: str, node: NodeSettings, resolve: Resolve, open_shell: OpenShell
    ) -> None:
        self.shell: Shell | None = None
        self._resolve = resolve
        self._open_shell = open_shell
        self._truncating = asyncio.Lock()
        super().__init__(name, node, self._open_journal)

    async def status(self) -> dict[str, int | str]:
        """Figures of the shell, and what stands in its way."""
        found: dict[str, int | str] = {"pid": os.getpid(), "trouble": self.progress}
        return found | self.shell.status() if self.shell is not None else found

    async def stop(self, patience_s: float) -> None:
        """Finish what is pending, for so long, checkpoint, and close the journal."""
        if self.shell is not None:
            await self.shell.stop(patience_s)

    async def truncate(self, up_to: int) -> None:
        """Have the journal forget its entries up to and with `up_to`; appends go on meanwhile.

        One truncation at a time: a caller who lost patience and asks again waits for the first,
        and then finds it done.  Cost: some 30 us an entry, half of it spent in letting appends by.
        Raises WireClosed while the shell does not serve, and what Journal.truncate raises.
        """
        if self.shell is None:
            raise WireClosed(f"{self.name} does not serve yet: {self.progress}")
        async with self._truncating:
            await asyncio.to_thread(self.shell.journal.truncate, up_to)

    async def _open_journal(self) -> Endpoint:
        node, name = self.node, self.name
        self.progress = "it is opening its journal"
        wiring = TcpWiring(
            name, read_secret(Path(node.secret)), self._resolve, node.host, node.wire
        )
        owner = Ownership(name, kill_after_s=node.kill_after_s, on_wait=self._wait_for)
        journal = await asyncio.to_thread(open_sqlite, Path(node.data), name, owner=owner)
        self.progress = f"it replays {journal.status().next_seq - 1} entries"
        around = Around(wiring, SteadyClock(), end_process, node.shell)
        self.shell = await self._open_shell(journal, around)
        return self.shell.endpoint

    def _wait_for(self, holder: Holder | None) -> None:
        self.progress = f"it waits for {holder or 'a process without a name'} to end"


def calm_collector() -> None:
    """Have Python look for cyclic garbage rarely, and never among what is there already.

    An actor keeps much that lives long and makes little garbage in cycles; by default the
    search took a third of a busy gateway's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 50)


def begin_log(name: str, node: NodeSettings) -> None:
    """Write the log of this process to a file of its own; files are replaced as they grow."""
    Path(node.logs).mkdir(mode=0o700, parents=True, exist_ok=True)
    to_file = logging.handlers.RotatingFileHandler(
        Path(node.logs) / f"{name}.log", maxBytes=_LOG_BYTES, backupCount=_LOG_FILES
    )
    to_file.setFormatter(logging.Formatter(_LOG_FORMAT))
    logging.basicConfig(level=node.log_level, handlers=[to_file], force=True)


def end_process(code: int) -> None:
    """End this process at once, with nothing but the log written; whoever supervises restarts it.

    Not sys.exit: in a task that would be one more exception, and the process would live on.
    """
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


def end_on_failure(task: asyncio.Task[None]) -> None:
    """A done-callback: a task that was to run for ever has ended, and so must the process."""
    if task.cancelled():
        return
    error = task.exception()
    logger.critical("%s ended: %s", task.get_name(), error, exc_info=error)
    end_process(EXIT_BUG)
