"""World: the seeded clock, network and nemesis that everything simulated runs in.

Whatever happens is a function of the seed.  Times are microseconds; the world's millisecond is
short on purpose, so that time-outs and faults meet often.
"""

from __future__ import annotations

import collections
import heapq
import random
from collections.abc import Callable

from excore_ray.core import messages as m

MS = 1_000


class Violation(AssertionError):
    """A promise was broken."""


class World:
    """One seeded run: an event queue, a faulty network, and counts of every fault."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now_us = 1_700_000_000_000_000
        self.faults = True
        self.counts: collections.Counter[str] = collections.Counter()
        self.story: collections.deque[str] = collections.deque(maxlen=4_000)
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._number = 0
        draw = self.random.choice
        self.loss = draw((0.0, 0.02, 0.1, 0.3))
        self.doubling = draw((0.0, 0.1, 0.5))
        self.delay_us = draw((2, 10, 40)) * MS
        self.append_us = draw((1, 5, 25)) * MS
        self.crash = draw((0.002, 0.01, 0.025))
        self.zombie = draw((0.0, 0.3, 0.7))

    def at(self, delay_us: int, what: Callable[[], None]) -> None:
        """Have `what` happen `delay_us` from now."""
        self._number += 1
        heapq.heappush(self._queue, (self.now_us + delay_us, self._number, what))

    def run(self, duration_us: int) -> None:
        """Let time pass."""
        until = self.now_us + duration_us
        while self._queue and self._queue[0][0] <= until:
            self.now_us, _, what = heapq.heappop(self._queue)
            what()
        self.now_us = until

    def say(self, text: str) -> None:
        """Add a line to the story that a failure prints."""
        self.story.append(f"{self.now_us % 10**9 / 1000:10.1f} ms  {text}")

    def send(
        self, source: str, target: str, message: m.WireMessage, deliver: Callable[[bytes], None]
    ) -> None:
        """Carry one encoded message: maybe never, maybe twice, in any order."""
        body = m.encode(message)
        self.say(f"{source} -> {target} {body.decode()[:300]}")
        chance = self.random
        if self.faults and chance.random() < self.loss:
            self.counts["message lost"] += 1
            return
        copies = 1
        if self.faults and chance.random() < self.doubling:
            self.counts["message doubled"] += 1
            copies = 2
        for _ in range(copies):
            slow = self.delay_us if self.faults else 2 * MS
            if self.faults and chance.random() < 0.02:
                slow = chance.choice((60, 150, 300)) * MS
                self.counts["message very late"] += 1
            self.at(chance.randint(MS // 4, slow), lambda: deliver(body))
