"""World: the seeded clock, network and nemesis that everything simulated runs in.

Whatever happens is a function of the seed.  Times are microseconds; the world's millisecond is
short on purpose, so that time-outs and faults meet often.
"""

from __future__ import annotations

import collections
import random
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from typing import TYPE_CHECKING, TypeVar

from excore_ray.core import messages as m
from tests.simulation.story import Story

if TYPE_CHECKING:
    from _typeshed import SupportsLenAndGetItem

T = TypeVar("T")
MS = 1_000
_IN_PEACE_US = 2 * MS  # no message is under way for much longer then
Deliver = Callable[[str, str, bytes], None]  # source, target, body


class Violation(AssertionError):
    """A promise was broken."""


class Chance(random.Random):
    """The same draws as `random.Random` makes, at a third of the cost: a run makes thousands."""

    def choice(self, seq: SupportsLenAndGetItem[T]) -> T:
        """One of `seq`."""
        count = len(seq)
        bits = count.bit_length()
        draw = self.getrandbits
        found = draw(bits)
        while found >= count:
            found = draw(bits)
        return seq[found]

    def randint(self, a: int, b: int) -> int:
        """A whole number from `a` to `b`, both included."""
        count = b - a + 1
        bits = count.bit_length()
        draw = self.getrandbits
        found = draw(bits)
        while found >= count:
            found = draw(bits)
        return a + found


class World:
    """One seeded run: an event queue, a faulty network, and counts of every fault.

    skew_us: what the clock of a process may be off by; it stays so for the process's life.
    ancient: whether copies of messages may come out of the network after results have expired.
    restless: whether names change often, and the catalog dies often.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Chance(seed)
        self.now_us = 1_700_000_000_000_000
        self.faults = False
        self.counts: collections.Counter[str] = collections.Counter()
        self.story = Story()
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._number = 0
        self._cut: dict[tuple[str, str], int] = {}  # until when
        draw = self.random.choice
        self.loss = draw((0.0, 0.02, 0.1, 0.3))
        self.doubling = draw((0.0, 0.1, 0.5))
        self.delay_us = draw((2, 10, 40)) * MS
        self.append_us = draw((1, 5, 25)) * MS
        self.crash = draw((0.002, 0.01, 0.025))
        self.zombie = draw((0.0, 0.3, 0.7))
        self.disk = draw((0.0, 0.002, 0.01))
        self.skew_us = draw((0, 20, 200)) * MS
        self.ancient = self.random.random() < 0.2
        self.restless = self.random.random() < 0.2
        if self.restless:
            self.zombie = 0.7

    def at(self, delay_us: int, what: Callable[[], None]) -> None:
        """Have `what` happen `delay_us` from now."""
        number = self._number = self._number + 1
        heappush(self._queue, (self.now_us + delay_us, number, what))

    def run(self, duration_us: int) -> None:
        """Let time pass."""
        until = self.now_us + duration_us
        queue = self._queue
        while queue and queue[0][0] <= until:
            self.now_us, _, what = heappop(queue)
            what()
        self.now_us = until

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included; randint() at a third of its cost."""
        return low + int(self.random.random() * (high - low + 1))

    def strikes(self, fault: str, chance: float) -> bool:
        """Whether a fault happens now; it is counted."""
        if not self.faults or self.random.random() >= chance:
            return False
        self.counts[fault] += 1
        return True

    def offset_us(self, before_us: int = 0) -> int:
        """How far the clock of a new process is off.  before_us: that of its predecessor."""
        offset_us = self.between(-self.skew_us, self.skew_us)
        if abs(offset_us - before_us) > 10 * MS:
            way = "forward" if offset_us > before_us else "backward"
            self.counts[f"clock stepped {way}"] += 1
        return offset_us

    def say(self, who: str, what: bytes | str) -> None:
        """Add a line to the story that a failure prints."""
        self.story.add((self.now_us, who, "", what))

    def cut(self, one: str, other: str, duration_us: int) -> None:
        """Let nothing through between two for some time."""
        self._cut[one, other] = self._cut[other, one] = self.now_us + duration_us

    def is_cut(self, source: str, target: str) -> bool:
        """Whether nothing gets through."""
        return self.faults and self._cut.get((source, target), 0) > self.now_us

    def send(self, source: str, target: str, message: m.WireMessage, deliver: Deliver) -> None:
        """Carry one encoded message: maybe never, maybe twice, in any order."""
        body = m.encode(message)
        self.story.add((self.now_us, source, target, body))
        arrives = partial(deliver, source, target, body)
        draw = self.random.random
        if not self.faults:
            self.at(MS // 4 + int(draw() * _IN_PEACE_US), arrives)
            return
        if self._cut and self.is_cut(source, target):
            self.counts["message into a cut link"] += 1
            return
        if draw() < self.loss:
            self.counts["message lost"] += 1
            return
        copies = 1
        if draw() < self.doubling:
            self.counts["message doubled"] += 1
            copies = 2
        for _ in range(copies):
            slow = self.delay_us
            late = draw()
            if late < 0.02:
                slow = (60, 150, 300)[int(late * 150)] * MS
                self.counts["message very late"] += 1
            self.at(MS // 4 + int(draw() * slow), arrives)
        if self.ancient and draw() < 0.03:
            self.counts["message copied from long ago"] += 1
            self.at(self.between(900 * MS, 2_500 * MS), arrives)
