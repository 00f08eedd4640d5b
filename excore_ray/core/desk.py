"""Desk: what the volatile halves of market, shard and catalog have in common.

Separate because each of them takes in gateways' batches, runs commands on its machine at the
time of the turn, answers reads at the end of it, and closes it with one record.  It must not
know what any command means.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.machine import Machine
from excore_ray.core.messages import Answer, Ask, Batch
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.reception import NEW, Inflight, Reception, is_executed
from excore_ray.core.results import Result
from excore_ray.core.snapshot import state_hash
from excore_ray.core.turns import Send, Superseded, Turn


class Desk(ABC):
    """One incarnation's dealings: messages and the time come in, a Turn goes out."""

    def __init__(
        self,
        machine: Machine,
        kind: type[Inflight] = Inflight,
    ) -> None:
        self.reception = Reception(machine.results)
        self.now_us = 0
        self.around: dict[str, str | int] = {}  # what the shell tells of itself, for the status
        self._machine = machine
        self._kind = kind
        self._commands: list[Any] = []
        self._keys: list[bytes] = []
        self._reads: list[tuple[str, int, Ask]] = []  # peer, token
        self._fenced = ""

    # What each kind of actor fills in.

    @abstractmethod
    def admit(self, inflight: Inflight) -> None:
        """Take a new request in."""

    def repeat(self, inflight: Inflight, result: Result) -> None:
        """Answer a request that was executed before, and so is not in flight any more."""
        self.reception.reply(inflight.peer, inflight.token, result.answer)

    @abstractmethod
    def hear(self, peer: str, message: m.WireMessage) -> None:
        """Take in what is not a gateway's batch."""

    @abstractmethod
    def read(self, ask: m.Ask) -> Answer:
        """Answer a question from the state as it is at the end of the turn."""

    @property
    def pressing(self) -> bool:
        """Whether the next turn has something to decide, whatever arrives."""
        return False

    @property
    def busy(self) -> bool:
        """Whether something waits for others or for time, so that turns must go on."""
        return bool(self.reception.inflight)

    # What they share.

    def receive(self, peer: str, message: m.WireMessage, now_us: int) -> None:
        """Take in one message.  What it leads to comes with the next turn."""
        self.now_us = now_us
        try:
            if type(message) is Batch:
                self._take(peer, message)
            else:
                self.hear(peer, message)
        except Superseded as superseded:
            self._fenced = str(superseded)

    def _take(self, peer: str, batch: Batch) -> None:
        reception = self.reception
        reception.check_epoch(batch)
        reception.taken(peer)
        # Results are forgotten by record time, which was ahead of the clock if an incarnation's
        # was: what may have been forgotten must count as too late, or it would be executed twice.
        epoch, now_us = batch.epoch, max(self.now_us, self._machine.time_us)
        requests = zip(batch.tokens, batch.deadlines_us, batch.asks, strict=True)
        for token, deadline_us, ask in requests:
            if not is_executed(ask):
                self._reads.append((peer, token, ask))
                continue
            inflight = self._kind(ask, deadline_us, peer, token)
            result = reception.admit(inflight, epoch, now_us)
            if result is NEW:
                self.admit(inflight)
            elif type(result) is Result:
                self.repeat(inflight, result)

    def refuse(self, inflight: Inflight, refused: Refused) -> None:
        """Refuse a request for good, or one attempt at it."""
        self.reception.refuse(inflight, refused, self.now_us)

    def refuse_foreign(self, inflight: Inflight) -> None:
        """Refuse a command that no actor of this kind executes."""
        what = f"{type(inflight.ask).__name__} is not asked of this actor"
        self.refuse(inflight, Refused(Reason.INVALID_ARGUMENT, what))

    def open_epoch(self) -> None:
        """Journal that a new incarnation owns the stream."""
        self.run(c.OpenEpoch(self._machine.epoch + 1))
        self.reception.epoch = self._machine.epoch

    def checkpoint(self) -> None:
        """Journal the state_hash; only before any other command of the turn."""
        if not self._commands:
            self._begin()
            self._commands.append(c.Checkpoint(state_hash(self._machine)))

    def run(self, command: Any) -> m.Placed | m.Done | Refused:
        """Execute `command` and, unless it is refused, put it into the turn's record."""
        if not self._commands:
            self._begin()
        answer = self._machine.execute(command)
        if type(answer) is not Refused:
            self._commands.append(command)
        return answer

    def full(self, results_max: int, nothing: Any) -> bool:
        """Whether so many results are remembered that none may be added.

        nothing: a command without effect.  Only a record forgets results, and while everything
        is refused there is no other.
        """
        results = self._machine.results
        if len(results) >= results_max and results.due(self.now_us):
            self.run(nothing)
        return len(results) >= results_max

    def answer_reads(self) -> None:
        """Answer the turn's questions, after its commands."""
        for peer, token, ask in self._reads:
            self.reception.reply(peer, token, self.read(ask))
        self._reads = []

    def status(self, stream: str, facts: dict[str, int]) -> m.Status:
        """How this actor is: its own figures, and those its shell has told of the process."""
        texts: dict[str, str] = {}
        next_seq = 0
        for name, value in self.around.items():
            if name == "next_seq":
                next_seq = int(value)
            elif isinstance(value, str):
                texts[name] = value
            else:
                facts[name] = value
        return m.Status(stream, self._machine.epoch, next_seq, facts, texts)

    def close(self, sends: list[Send]) -> Turn:
        """The turn: its record, the replies and `sends`."""
        replies = self.reception.take_sends()
        self.reception.expire(self.now_us)
        record = None
        if self._commands:
            record = self._machine.record(self._commands)
            self._commands = []
        turn = Turn(record, self._keys, replies + sends, self._fenced)
        self._keys = []
        return turn

    def _begin(self) -> None:
        """Start the turn's record; its time never goes back."""
        self._machine.begin(max(self.now_us, self._machine.time_us))
