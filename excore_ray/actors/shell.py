"""Shell: one desk on an event loop: its journal, its connections and its time.

Separate from the desks, which decide, because everything here waits: for messages, for the disk,
for the clock.  It must not know what a message means, nor Ray.

A shell works in turns.  A turn takes in what has arrived, lets the desk decide, makes the one
record of the turn durable, and only then lets anything leave.  One turn runs at a time; what
arrives meanwhile waits for the next, so batches grow with load by themselves.  When anything
goes wrong inside a turn the process ends: the machine may have outrun its journal, and a replay
is the only way back to a state both agree on.

Source: the event loop of Redis with its one write of the append-only file per round.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from excore_ray.actors.clock import Clock
from excore_ray.actors.replay import Rebuilt
from excore_ray.actors.wire import Connection, Endpoint
from excore_ray.actors.wire_server import Server
from excore_ray.actors.wiring import Wiring
from excore_ray.core.custodian import Custodian
from excore_ray.core.messages import WireMessage, decode, encode
from excore_ray.core.registrar import Registrar
from excore_ray.core.sequencer import Sequencer
from excore_ray.core.turns import Send, Turn
from excore_ray.errors import Fenced, JournalFull, StorageError, WireError
from excore_ray.storage.journal import Journal

logger = logging.getLogger(__name__)

# How a process of ours ends when it must, for whoever reads the exit code in Ray's logs.
EXIT_FENCED = 81  # a newer incarnation exists, or another process owns the journal
EXIT_JOURNAL = 82  # the journal failed; what it holds is only known after reading it again
EXIT_BUG = 83  # an assertion or another exception of our own
EXIT_OPENING = 84  # the actor could not be opened; its log says why

Desk = Sequencer | Custodian | Registrar

_FRAME_BYTES = 128  # what a waiting frame takes besides its body
_LOOK_EVERY_US = 1_000_000
_HAS_PROC = Path("/proc/self/statm").exists()

_encode_record = msgspec.json.Encoder().encode


class ShellSettings(msgspec.Struct, frozen=True):
    """What a shell bounds.

    checkpoint_records: records between two recorded state hashes.  checkpoint_spacing: they are
    also kept apart by so many times what one costs, so that at most one part in so many of the
    time goes into them.
    turn_bytes_max: what one turn takes in, roughly.  inbox_bytes_max: what may wait for the next
    turns; beyond it nothing is read from any connection until half of it is worked off.
    busy_ms, idle_ms: the longest time between two turns while something is pending, and else.
    full_retry_ms: between two attempts to append while the disk is full.
    """

    checkpoint_records: int = 4096
    checkpoint_spacing: int = 200
    turn_bytes_max: int = 1024 * 1024
    inbox_bytes_max: int = 16 * 1024 * 1024
    busy_ms: int = 20
    idle_ms: int = 250
    full_retry_ms: int = 250


class Around(msgspec.Struct, frozen=True):
    """What a shell is given besides its desk.

    end: ends the process with an exit code and does not return, except in tests, where nothing
    happens in the shell any more once it was called.
    """

    wiring: Wiring
    clock: Clock
    end: Callable[[int], object]
    settings: ShellSettings = ShellSettings()


class Shell:
    """One incarnation of a market, a ledger shard or the catalog.  A `Handler` of its wire.

    task: takes the turns; done when the shell has stopped or failed.
    trouble: what keeps it from working just now, "" when nothing does.
    """

    def __init__(self, desk: Desk, rebuilt: Rebuilt, journal: Journal, around: Around) -> None:
        self.desk = desk
        self.machine = rebuilt.machine
        self.journal = journal
        self.next_seq = rebuilt.seq + 1
        self.trouble = ""
        self.task: asyncio.Task[None] | None = None
        self.around = around
        self._settings = around.settings
        self._server: Server | None = None
        self._connections: set[Connection] = set()
        self._newest: dict[str, Connection] = {}
        self._inbox: deque[tuple[Connection, bytes]] = deque()
        self._inbox_bytes = 0
        self._paused = False
        self._changes: list[Callable[[], None]] = []
        self._waiting: asyncio.Future[None] | None = None
        self._stop_at_s: float | None = None
        self._ended = False
        self._unchecked = 0  # records since the last checkpoint
        self._checkpoint_after_us = 0
        self._look_after_us = 0

    # What each kind of actor fills in.

    async def prepare(self, messages: Sequence[WireMessage]) -> None:
        """Called before the messages of a turn are given to the desk."""

    def turned(self) -> None:
        """Called after each turn, when all of it is durable and sent."""

    async def hang_up(self) -> None:
        """Called at the end: close what was opened besides the server."""

    # Control.

    async def open(self, first: Turn) -> None:
        """Make the desk's first turn durable, then take turns and listen.

        Raises Fenced, JournalFailed; OSError when the address cannot be taken.
        """
        await self._obey(first)
        self.turned()
        self._server = await self.around.wiring.serve(self)
        self.task = asyncio.create_task(self._run())

    @property
    def endpoint(self) -> Endpoint:
        """Where the shell serves; it must be open."""
        assert self._server is not None, "the shell does not serve yet"
        return self._server.endpoint

    async def stop(self, patience_s: float) -> None:
        """Finish what is pending, for so long, then journal a checkpoint and close everything."""
        assert self.task is not None, "the shell was never opened"
        self._stop_at_s = asyncio.get_running_loop().time() + patience_s
        self._wake()
        await asyncio.wait([self.task])
        if not self._ended and self._unchecked:
            try:
                await self._checkpoint()
            except Exception as error:
                self._fail(error)
        await self.hang_up()
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        self.journal.close()

    def change(self, what: Callable[[], None]) -> None:
        """Have `what` done to the desk at the beginning of the next turn, which is soon."""
        self._changes.append(what)
        self._wake()

    def status(self) -> dict[str, int | str]:
        """Figures of the shell itself; those of its machine are asked over the wire."""
        return {
            "stream": self.journal.stream,
            "epoch": self.machine.epoch,
            "next_seq": self.next_seq,
            "connections": len(self._connections),
            "inbox_bytes": self._inbox_bytes,
            "trouble": self.trouble,
        }

    # The wire.

    def connected(self, connection: Connection) -> None:
        """Part of being a Handler."""
        self._connections.add(connection)
        self._newest[connection.name] = connection
        if self._paused:
            connection.pause_reading()

    def received(self, connection: Connection, request_id: int, body: bytes) -> None:
        """Part of being a Handler."""
        self._inbox.append((connection, body))
        self._inbox_bytes += len(body) + _FRAME_BYTES
        if self._inbox_bytes > self._settings.inbox_bytes_max and not self._paused:
            self._paused = True
            for each in self._connections:
                each.pause_reading()
        self._wake()

    def disconnected(self, connection: Connection, reason: str) -> None:
        """Part of being a Handler."""
        self._connections.discard(connection)
        if self._newest.get(connection.name) is connection:
            del self._newest[connection.name]

    # Turns.

    async def _run(self) -> None:
        try:
            while not self._is_done():
                await self._wait()
                await self._turn()
        except Exception as error:
            self._fail(error)

    def _is_done(self) -> bool:
        """Whether the shell was told to stop, and nothing is pending or patience has run out."""
        if self._stop_at_s is None:
            return False
        pending = self.desk.busy or bool(self._inbox)
        return not pending or asyncio.get_running_loop().time() >= self._stop_at_s

    async def _wait(self) -> None:
        """Return when there is something to do, having let the loop go round at least once."""
        if self._inbox or self._changes or self.desk.pressing:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        wait_ms = self._settings.busy_ms if self.desk.busy else self._settings.idle_ms
        timer = loop.call_later(wait_ms / 1000, self._wake)
        try:
            await self._waiting
        finally:
            timer.cancel()
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def _turn(self) -> None:
        clock, desk = self.around.clock, self.desk
        changes, self._changes = self._changes, []
        for what in changes:
            what()
        messages = self._drain()
        await self.prepare([message for _, message in messages])
        now_us = clock.now_us()
        if now_us >= self._look_after_us:
            self._look(now_us)
        for peer, message in messages:
            desk.receive(peer, message, now_us)
        await self._obey(desk.turn(now_us))
        due = self._unchecked >= self._settings.checkpoint_records
        if due and clock.now_us() >= self._checkpoint_after_us:
            await self._checkpoint()
        self.turned()

    def _look(self, now_us: int) -> None:
        """Tell the desk how the process is, for whoever asks it for its status."""
        self._look_after_us = now_us + _LOOK_EVERY_US
        pages = int(Path("/proc/self/statm").read_text().split()[1]) if _HAS_PROC else 0
        self.desk.around = {
            "pid": os.getpid(),
            "node": socket.gethostname(),
            "rss_bytes": pages * os.sysconf("SC_PAGE_SIZE"),
            "next_seq": self.next_seq,
            "trouble": self.trouble,
        }

    def _drain(self) -> list[tuple[str, WireMessage]]:
        """The messages of this turn, in the order they arrived."""
        inbox = self._inbox
        messages: list[tuple[str, WireMessage]] = []
        room = self._settings.turn_bytes_max
        while inbox and room > 0:
            connection, body = inbox.popleft()
            room -= len(body) + _FRAME_BYTES
            self._inbox_bytes -= len(body) + _FRAME_BYTES
            try:
                messages.append((connection.name, decode(body)))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
                logger.error("%s sent what is no message: %s", connection.name, fault)
                connection.close("this is no message")
        if self._paused and self._inbox_bytes <= self._settings.inbox_bytes_max // 2:
            self._paused = False
            for each in self._connections:
                each.resume_reading()
        return messages

    async def _checkpoint(self) -> None:
        """Journal the state_hash in a turn of its own: a desk takes none between commands."""
        clock = self.around.clock
        began_us = clock.now_us()
        turn = self.desk.turn(began_us, checkpoint=True)
        ended_us = clock.now_us()
        cost_us = ended_us - began_us
        self._checkpoint_after_us = ended_us + cost_us * self._settings.checkpoint_spacing
        await self._obey(turn)
        self._unchecked = 0

    async def _obey(self, turn: Turn) -> None:
        """Do what a turn asks, in its order: nothing leaves before what it rests on is durable."""
        if turn.fenced:
            raise Fenced(turn.fenced)
        if turn.record is not None:
            await self._append(_encode_record(turn.record), turn.keys)
        elif turn.sends:
            await self.journal.check_owner()
        self._send(turn.sends)

    async def _append(self, body: bytes, keys: list[bytes]) -> None:
        """Make the turn's record durable, however long the disk is full.

        A full journal is as it was before, and nothing has left that rests on the record, so the
        same append may be tried again; the callers are told "unknown" by their gateways.
        """
        while True:
            try:
                await self.journal.append(self.next_seq, self.machine.epoch, [body], keys)
            except JournalFull as fault:
                if not self.trouble:
                    logger.critical("%s: waiting for room: %s", self.journal.stream, fault)
                self.trouble = str(fault)
                await asyncio.sleep(self._settings.full_retry_ms / 1000)
            else:
                break
        if self.trouble:
            logger.warning("%s: there is room again", self.journal.stream)
            self.trouble = ""
        self.next_seq += 1
        self._unchecked += 1

    def _send(self, sends: Sequence[Send]) -> None:
        """Tell whoever is connected; the protocol says again what anybody misses."""
        for peer, message in sends:
            connection = self._newest.get(peer)
            if connection is None:
                continue
            try:
                connection.send(encode(message))
            except WireError as fault:
                logger.warning("%s: nothing was sent to %s: %s", self.journal.stream, peer, fault)
                connection.close(str(fault))

    def _fail(self, error: Exception) -> None:
        """End the process: only a replay leads to a state that the journal has."""
        self._ended = True
        self.trouble = f"{type(error).__name__}: {error}"
        logger.critical("%s ends: %s", self.journal.stream, self.trouble, exc_info=error)
        if isinstance(error, Fenced):
            self.around.end(EXIT_FENCED)
        elif isinstance(error, StorageError):
            self.around.end(EXIT_JOURNAL)
        else:
            self.around.end(EXIT_BUG)
