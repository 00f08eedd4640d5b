"""Undecided: the orders of a market whose shards were asked and have not yet been heard in full.

Separate because they count as open against the caps before they are: otherwise who sends a
thousand orders at once would pass a cap by a thousand.
"""

from __future__ import annotations

from excore_ray.core.commands import PutLimit
from excore_ray.core.shardlink import Waiting


class Undecided:
    """by_id: all of them, in order of arrival.  limits: how many may come to rest in the book.

    limits_of: the same by user, of those who have any.
    """

    __slots__ = ("by_id", "limits", "limits_of")

    def __init__(self) -> None:
        self.by_id: dict[int, Waiting] = {}
        self.limits = 0
        self.limits_of: dict[int, int] = {}

    def add(self, waiting: Waiting) -> None:
        """An order, under the id it has just got."""
        self.by_id[waiting.order_id] = waiting
        put = waiting.ask
        if type(put) is PutLimit:
            self.limits += 1
            self.limits_of[put.user] = self.limits_of.get(put.user, 0) + 1

    def remove(self, waiting: Waiting) -> None:
        """One that is executed, denied or given up."""
        del self.by_id[waiting.order_id]
        put = waiting.ask
        if type(put) is PutLimit:
            self.limits -= 1
            count = self.limits_of[put.user] - 1
            if count:
                self.limits_of[put.user] = count
            else:
                del self.limits_of[put.user]
