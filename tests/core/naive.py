"""A matcher in the fewest words: the independent answer to what `Kernel` should report.

Separate from everything it checks: it must not import anything of ours.
"""

from __future__ import annotations

from collections.abc import Iterable

Message = tuple[int, int, int, int, int, int]  # type, side, ioc, qty, order_id, price


class NaiveMatcher:
    """Both sides as a dict of price to a list of [order_id, left], searched every time."""

    def __init__(self) -> None:
        self.sides: list[dict[int, list[list[int]]]] = [{}, {}]
        self.places: dict[int, tuple[int, int]] = {}  # order_id -> side, price
        self.reports: list[str] = []

    def feed_all(self, messages: Iterable[Message]) -> None:
        for seq, (kind, side, ioc, qty, order_id, price) in enumerate(messages):
            if kind == 0:
                self.reports.append(f"0,{seq},{side},{order_id},{price},{qty}")
                left = self.trade(seq, side, qty, order_id, price)
                if left and ioc:
                    self.reports.append(f"2,{seq},{side},{order_id},{price}")
                elif left:
                    self.rest(side, left, order_id, price)
            elif order_id not in self.places:
                self.reports.append(f"{kind + 3},{seq},{order_id}")
            elif kind == 1:
                was_side, was_price = self.take_out(order_id)
                self.reports.append(f"2,{seq},{was_side},{order_id},{was_price}")
            else:
                was_side, _ = self.take_out(order_id)
                left = self.trade(seq, was_side, qty, order_id, price)
                if left:
                    self.rest(was_side, left, order_id, price)
                self.reports.append(f"3,{seq},{was_side},{order_id},{price},{qty}")

    def trade(self, seq: int, side: int, qty: int, order_id: int, price: int) -> int:
        makers = self.sides[1 - side]
        while qty and makers:
            best = min(makers) if side == 0 else max(makers)
            if (best > price) if side == 0 else (best < price):
                break
            maker = makers[best][0]
            amount = min(qty, maker[1])
            self.reports.append(f"1,{seq},{best},{amount},{maker[0]},{order_id}")
            qty -= amount
            maker[1] -= amount
            if not maker[1]:
                self.take_out(maker[0])
        return qty

    def rest(self, side: int, left: int, order_id: int, price: int) -> None:
        self.sides[side].setdefault(price, []).append([order_id, left])
        self.places[order_id] = (side, price)

    def take_out(self, order_id: int) -> tuple[int, int]:
        side, price = self.places.pop(order_id)
        queue = [order for order in self.sides[side][price] if order[0] != order_id]
        self.sides[side][price] = queue
        if not queue:
            del self.sides[side][price]
        return side, price
