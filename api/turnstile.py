"""Turnstile: how many requests are begun in one turn of the event loop, and how long others wait.

Separate because it is about the loop and nothing else.  A gateway that begins all it finds takes
so long that the markets' answers, which come over the same loop, wait behind requests that then
have to be refused: at three times its capacity it did a third of its work.  So requests are begun
for a few milliseconds, others wait in their order, and who has waited too long is refused before
anything of his request is read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

BEGUN_NS = 5_000_000  # requests are begun for so long before the others' turn comes
WAIT_NS = 250_000_000
WAITING_BYTES_MAX = 32 * 1024 * 1024
_SHARE_MAX = 64
_REFUSED_A_TURN_MAX = 100


class Turnstile:
    """One for all requests of a gateway.  Used from one event loop."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._waiting: deque[tuple[asyncio.Future[bool], int, int]] = deque()  # since, bytes
        self._waiting_bytes = 0
        self._turn_ns = 0  # when this turn of the loop began its first request, 0 for none yet
        self._share = 1  # how many of those who wait are let in at once

    def __len__(self) -> int:
        return len(self._waiting)

    def free(self) -> bool:
        """Whether a request may begin now, without a wait."""
        if self._waiting:
            return False
        if self._turn_ns:
            return self._clock_ns() - self._turn_ns < BEGUN_NS
        self._turn_ns = self._clock_ns()
        asyncio.get_running_loop().call_soon(self._next_turn)
        return True

    async def wait(self, size: int) -> bool:
        """Wait for a turn; False when it does not come in time.  size: bytes that wait with it."""
        if self._waiting_bytes + size > WAITING_BYTES_MAX:
            return False
        loop = asyncio.get_running_loop()
        if not self._waiting and not self._turn_ns:
            loop.call_soon(self._next_turn)
        future: asyncio.Future[bool] = loop.create_future()
        self._waiting.append((future, self._clock_ns(), size))
        self._waiting_bytes += size
        return await future

    def _next_turn(self) -> None:
        """Let in some of those who wait: so many that the loop goes round in a few milliseconds."""
        now_ns, waiting = self._clock_ns(), self._waiting
        took_ns, self._turn_ns = now_ns - self._turn_ns, 0
        if not waiting:
            self._share = 1
            return
        share = 2 * self._share if took_ns < BEGUN_NS else self._share // 2
        self._share = min(max(share, 1), _SHARE_MAX)
        refused = 0
        while waiting and refused < _REFUSED_A_TURN_MAX and now_ns - waiting[0][1] > WAIT_NS:
            refused += 1
            self._let(in_time=False)
        for _ in range(min(len(waiting), self._share)):
            self._let(in_time=True)
        self._turn_ns = now_ns
        # After those that were let in have begun, for they stand before it in the loop.
        asyncio.get_running_loop().call_soon(self._next_turn)

    def _let(self, *, in_time: bool) -> None:
        future, _, size = self._waiting.popleft()
        self._waiting_bytes -= size
        if not future.done():  # its client may have gone
            future.set_result(in_time)
