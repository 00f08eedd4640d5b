"""Machine: what market, shard and catalog share as functions of their journals.

Separate because all three keep one promise in the same way: the same records lead to the same
state, whoever applies them and whenever.  It must not know what any command means.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from excore_ray.core import commands as c
from excore_ray.core.messages import Done, Placed
from excore_ray.core.reasons import Refused
from excore_ray.core.results import Results

DONE = Done()


class Machine(ABC):
    """One stream's state.  A subclass fills `handlers` with what executes each kind of command.

    `apply` takes the journal's records one after the other.  `execute` is one command of a
    record; it answers a refusal, and then changes nothing, or the command's answer.
    told: what the world may be told of since `begin`, as the record has it.
    """

    def __init__(self) -> None:
        self.shards = 0
        self.epoch = 0
        self.time_us = 0
        self.told: list[Any] = []
        self.results = Results()
        self.handlers: dict[type, Callable[[Any], Placed | Done | Refused]] = {
            c.OpenEpoch: self._open_epoch
        }

    def apply(self, record: c.Record, state_hash: Callable[[Any], str]) -> None:
        """Apply a journaled record.  An assertion fails when it was not made by this machine."""
        self.begin(record.time_us)
        for command in record.commands:
            self.repeat(command, state_hash)
        assert self.record(record.commands) == record, "replay tells otherwise than what ran"

    def repeat(self, command: Any, state_hash: Callable[[Any], str]) -> None:
        """Execute one command of a journaled record, for which begin() was called."""
        if type(command) is c.Checkpoint:
            assert command.state_hash == state_hash(self), "replay differs from what ran"
        else:
            answer = self.execute(command)
            assert type(answer) is not Refused, f"journaled but refused: {type(command)}"

    @abstractmethod
    def record(self, commands: list[Any]) -> Any:
        """The record of what was executed since begin(), with all that was told meanwhile.

        commands: what was executed and not refused, and checkpoints.
        """

    def begin(self, time_us: int) -> None:
        """Begin a record: what is executed happens at `time_us`, which never goes back."""
        assert time_us >= self.time_us, "record time went backwards"
        self.time_us = time_us
        self.told = []
        self.results.expire(time_us)

    def execute(self, command: Any) -> Placed | Done | Refused:
        """Execute one command at the time of `begin`."""
        return self.handlers[type(command)](command)

    def _open_epoch(self, command: c.OpenEpoch) -> Done:
        assert command.epoch > self.epoch, "epochs only grow"
        self.epoch = command.epoch
        return DONE
