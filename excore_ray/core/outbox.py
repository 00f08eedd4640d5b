"""Outbox: what a market owes one shard, in order, until the shard has it durably.

Separate because the entries are a function of the market's journal while their delivery is not:
`out_seq` and `emitted` are state, the waiting entries are a convenience that any replay can
regenerate.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

from excore_ray.core.commands import Entry
from excore_ray.core.settlement import moved_by


class Outbox:
    """Numbered entries for one shard: 1, 2, 3 and so on without a gap.

    out_seq: number of the newest entry.  acked: everything up to it is forgotten.
    stock, money: what has been moved to the shard since the beginning, at prec_save.
    """

    __slots__ = ("_waiting", "acked", "money", "out_seq", "stock")

    def __init__(
        self,
        out_seq: int = 0,
        acked: int = 0,
        emitted: tuple[int, int] = (0, 0),
        waiting: Iterable[Entry] = (),
    ) -> None:
        self.out_seq = out_seq
        self.acked = acked
        self.stock, self.money = emitted
        self._waiting = deque(waiting)
        assert acked + len(self._waiting) == out_seq, "an outbox has a gap"

    def add(self, entry: Entry) -> int:
        """Give `entry` the next number, and return it."""
        stock, money = moved_by(entry)
        self.stock += stock
        self.money += money
        self.out_seq += 1
        self._waiting.append(entry)
        return self.out_seq

    def forget(self, out_seq: int) -> None:
        """Drop the entries up to `out_seq`, which the shard has durably."""
        assert out_seq <= self.out_seq, f"shard is ahead: {out_seq} of {self.out_seq}"
        popleft = self._waiting.popleft
        for _ in range(out_seq - self.acked):
            popleft()
        self.acked = max(self.acked, out_seq)

    def after(self, out_seq: int, count_max: int) -> tuple[list[Entry], tuple[int, int]]:
        """At most `count_max` entries from out_seq + 1 on, and `emitted` after the last of them.

        out_seq: at least `acked`.  Cost: O(waiting).
        """
        start, waiting = out_seq - self.acked, self._waiting
        found = list(islice(waiting, start, start + count_max))
        if not found:
            return [], (0, 0)
        stock, money = self.stock, self.money
        for entry in islice(waiting, start + len(found), None):
            more_stock, more_money = moved_by(entry)
            stock -= more_stock
            money -= more_money
        return found, (stock, money)

    def dump(self) -> list[Entry]:
        """The waiting entries, for a snapshot."""
        return list(self._waiting)
