"""Clock: the time of one process, in microseconds since 1970.

Separate so that tests and the simulation can be the clock.  Nothing else in an actor asks the
system for the time: every decision about time is taken on what is handed in.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time, and never an earlier one than it told before."""

    def now_us(self) -> int:
        """Microseconds since 1970."""
        ...


class SteadyClock:
    """Wall time read once, and advanced by the monotonic clock from there on.

    A step of the system's clock therefore touches no lease and no time-out of a running process;
    the next incarnation starts from the new time.
    """

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_us(self) -> int:
        """Microseconds since 1970."""
        return (time.monotonic_ns() + self._offset_ns) // 1000
