"""Backseat: a thread that takes the processor only when nobody else wants it, until it must hurry.

Separate because it is about the kernel alone.  It must not know what the thread does.

A lower priority alone is not enough: a process that has just been given the processor keeps it for
some ms, in which an order waits.  Under SCHED_IDLE it gives way at once.  That starves while all
processors are busy, so whoever waits for it must be able to have it hurry; where the kernel would
not allow the way back, only the priority is lowered.

Source: sched(7) of the Linux manual.
"""

from __future__ import annotations

import os
import resource
import sys

_NICE_RANGE = 20  # RLIMIT_NICE counts downward from it


class Backseat:
    """The scheduling of the thread that makes it.  niceness: where there is no SCHED_IDLE."""

    def __init__(self, niceness: int) -> None:
        self._gives_way = False
        self._can = _may_return()
        if not self._can:
            os.nice(niceness)

    def give_way(self) -> None:
        """From now on everybody else goes first."""
        if sys.platform == "linux" and self._can and not self._gives_way:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            self._gives_way = True

    def hurry(self) -> None:
        """From now on be as everybody else: somebody waits."""
        if sys.platform == "linux" and self._gives_way:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            self._gives_way = False


def _may_return() -> bool:
    """Whether this process may leave SCHED_IDLE again."""
    if sys.platform != "linux":
        return False
    allowed, _ = resource.getrlimit(resource.RLIMIT_NICE)
    return allowed == resource.RLIM_INFINITY or allowed >= _NICE_RANGE or os.geteuid() == 0
