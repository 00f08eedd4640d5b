"""Backseat: threads that take the processor only when nobody else wants it, until they must hurry.

Separate because it is about the kernel alone.  It must not know what the threads do.

A lower priority alone is not enough: a process that has just been given the processor keeps it for
some ms, in which an order waits.  Under SCHED_IDLE it gives way at once.  That starves while all
processors are busy, so whoever waits for it must be able to have it hurry; where the kernel would
not allow the way back, only the priority is lowered.

All threads that run Python hurry together: one that gives way may hold the interpreter's lock.

Source: sched(7) of the Linux manual.
"""

from __future__ import annotations

import os
import resource
import sys
import threading

_NICE_RANGE = 20  # RLIMIT_NICE counts downward from it


class Backseat:
    """The scheduling of the thread that makes it, and of those that join.

    niceness: of the process, where there is no SCHED_IDLE.
    """

    def __init__(self, niceness: int) -> None:
        self._gives_way = False
        self._can = _may_return()
        self._lock = threading.Lock()
        self._threads: set[int] = set()
        if not self._can:
            os.nice(niceness)
        self.join()

    def join(self) -> None:
        """Have the thread that calls this, for as long as it lives, do as the others do."""
        with self._lock:
            self._threads.add(threading.get_native_id())
            self._schedule()

    def give_way(self) -> None:
        """From now on everybody else goes first."""
        self._turn(gives_way=True)

    def hurry(self) -> None:
        """From now on be as everybody else: somebody waits."""
        self._turn(gives_way=False)

    def _turn(self, *, gives_way: bool) -> None:
        if self._gives_way != gives_way:
            with self._lock:
                self._gives_way = gives_way
                self._schedule()

    def _schedule(self) -> None:
        if sys.platform != "linux" or not self._can:
            return
        policy = os.SCHED_IDLE if self._gives_way else os.SCHED_OTHER
        for thread in tuple(self._threads):
            try:
                os.sched_setscheduler(thread, policy, os.sched_param(0))
            except ProcessLookupError:
                self._threads.discard(thread)  # it has ended


def _may_return() -> bool:
    """Whether this process may leave SCHED_IDLE again."""
    if sys.platform != "linux":
        return False
    allowed, _ = resource.getrlimit(resource.RLIMIT_NICE)
    return allowed == resource.RLIM_INFINITY or allowed >= _NICE_RANGE or os.geteuid() == 0
