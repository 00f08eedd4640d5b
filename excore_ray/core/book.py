"""BookSide: one side of a book, in price-time order.

Separate because both sides are the same code with the side as data.  It must not know who
trades with whom, what an order may spend, or any journal.

Orders of a level are chained through `older` and `newer`, so that a cancel costs no search and
an order costs no container of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from sortedcontainers import SortedDict

from excore_ray.core.orders import Level, Order, Side


class BookSide:
    """The resting orders of one side, best price first, oldest first within a price.

    Cost: add and remove O(log levels), the best order O(1), iteration O(1) an order.
    """

    __slots__ = ("_levels", "_sign", "best", "count", "side")

    def __init__(self, side: Side) -> None:
        self.side = side
        self.count = 0
        self.best: Level | None = None
        self._sign = 1 if side == Side.SELL else -1
        self._levels: SortedDict[int, Level] = SortedDict()

    def add(self, order: Order) -> None:
        """Rest `order` behind all others of its price."""
        key = order.price * self._sign
        level = self._levels.get(key)
        if level is None:
            level = self._levels[key] = Level(order.price)
            best = self.best
            if best is None or key < best.price * self._sign:
                self.best = level
        order.level = level
        order.price = level.price  # the equal integer of the level: one in memory for all of them
        last = level.newest
        if last is None:
            level.oldest = order
        else:
            last.newer = order
            order.older = last
        level.newest = order
        level.count += 1
        level.amount += order.left
        self.count += 1

    def crosses(self, price: int) -> bool:
        """Whether an order of the other side at `price` would trade here."""
        best = self.best
        return best is not None and (best.price - price) * self._sign <= 0

    def remove(self, order: Order) -> None:
        """Take `order` out, which must rest here."""
        level = order.level
        assert level is not None, "the order rests nowhere"
        order.level = None
        older, newer = order.older, order.newer
        if older is None:
            level.oldest = newer
        else:
            older.newer = newer
            order.older = None
        if newer is None:
            level.newest = older
        else:
            newer.older = older
            order.newer = None
        level.count -= 1
        level.amount -= order.left
        self.count -= 1
        if not level.count:
            del self._levels[level.price * self._sign]
            if level is self.best:
                self.best = self._levels.peekitem(0)[1] if self._levels else None

    def reduce(self, order: Order, amount: int) -> None:
        """Lower a resting order's `left` by `amount`; it keeps its place."""
        level = order.level
        assert level is not None, "the order rests nowhere"
        level.amount -= amount
        order.left -= amount

    def levels(self) -> Iterator[Level]:
        """Levels, best first.  The book must not change meanwhile."""
        return iter(self._levels.values())

    def __iter__(self) -> Iterator[Order]:
        """Orders, best first, oldest first.  The book must not change meanwhile."""
        if self.best is None:
            return
        # An arriving order mostly asks for the best level alone, which needs no search.
        order = self.best.oldest
        while order is not None:
            yield order
            order = order.newer
        for level in islice(self._levels.values(), 1, None):
            yield from level

    def page(self, offset: int, limit: int) -> list[Order]:
        """At most `limit` orders from the `offset`-th on.

        Cost: O(levels passed + orders of the level it begins in + limit).
        """
        found: list[Order] = []
        for level in self._levels.values():
            if offset >= level.count:
                offset -= level.count
                continue
            found += islice(level, offset, offset + limit - len(found))
            if len(found) == limit:
                break
            offset = 0
        return found

    def depth(self, limit: int, interval: int) -> list[int]:
        """Flat pairs of price and summed amount, best first, at most `limit` pairs.

        interval: asks are merged up and bids down to its multiples; 0 merges nothing.
        """
        pairs: list[int] = []
        for level in self._levels.values():
            price = level.price
            if interval:
                price = price * self._sign
                price = -(-price // interval) * interval * self._sign
            if pairs and pairs[-2] == price:
                pairs[-1] += level.amount
            elif len(pairs) == 2 * limit:
                break
            else:
                pairs += (price, level.amount)
        return pairs
