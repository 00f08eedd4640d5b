"""History: what clients asked, what they were told, and what was done to the exchange meanwhile.

Separate because those who make it, clients and nemesis, and those who judge it share nothing
else.  Written as JSON lines, so that a drill can be looked at afterwards.

Times are microseconds since 1970 on a clock that only goes forward, comparable with the times
of the exchange's records.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgspec

DONE, REFUSED, UNKNOWN = "done", "refused", "unknown"
KILL, STOP = "kill", "stop"


class Operation(msgspec.Struct, tag="operation"):
    """One request of a client, from before it was first sent until its client knew or gave up.

    number: of its own in a drill; orders carry it as their source, updates as business_id.
    request_id: hexadecimal, "" for one that was not stamped.  sends: attempts made.
    outcome: DONE, REFUSED (certainly nothing was done), or UNKNOWN.  code: of a refusal, 0 for
    none.  result: of what is DONE, as JSON has it.
    """

    number: int
    client: int
    method: str
    params: list[Any]
    began_us: int
    ended_us: int = 0
    outcome: str = UNKNOWN
    code: int = 0
    result: Any = None
    request_id: str = ""
    sends: int = 0

    @property
    def source(self) -> str:
        """What an order of this operation is called in its market."""
        return f"drill-{self.number}"


class Fault(msgspec.Struct, tag="fault"):
    """One thing that was done to a process.

    target: what kind of process; victim: which one.  ended_us: when a stopped one was continued;
    of a kill when it happened.  back_us: when it was seen at work again, where no operation of a
    client tells it; 0 else.
    """

    kind: str
    target: str
    victim: str
    pid: int
    began_us: int
    ended_us: int = 0
    back_us: int = 0


Event = Operation | Fault


class History:
    """All of one drill, in the order of ending.  Any thread may add."""

    def __init__(self, path: Path | None = None) -> None:
        self.operations: list[Operation] = []
        self.faults: list[Fault] = []
        self._guard = threading.Lock()
        self._numbers = 0
        self._file = path.open("wb") if path is not None else None

    def number(self) -> int:
        """A number that no other operation has."""
        with self._guard:
            self._numbers += 1
            return self._numbers

    def add(self, event: Event) -> None:
        """Keep what has ended."""
        with self._guard:
            if isinstance(event, Operation):
                self.operations.append(event)
            else:
                self.faults.append(event)
            if self._file is not None:
                self._file.write(msgspec.json.encode(event) + b"\n")

    def close(self) -> None:
        """Write out what is left."""
        with self._guard:
            if self._file is not None:
                self._file.close()
                self._file = None


def load(path: Path) -> History:
    """A history that was written."""
    history = History()
    decode = msgspec.json.Decoder(Event).decode
    with path.open("rb") as lines:
        for line in lines:
            history.add(decode(line))
    return history
