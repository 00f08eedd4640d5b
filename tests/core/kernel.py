"""Kernel: the message format of matching engine benchmarks, fed into the machine of a market.

Separate so that conformance tests, the comparison with a naive matcher and the benchmark drive
the same code.  tests/vectors/README.md describes messages and report lines.
"""

from __future__ import annotations

from collections.abc import Iterable

from excore_ray.core import commands as c
from excore_ray.core.events import Deal, events_of
from excore_ray.core.market import Market
from excore_ray.core.messages import Placed
from excore_ray.core.orders import Side, order_id_of
from excore_ray.core.reasons import Refused
from tests.core.machines import PLAIN, START_US, new_market

NEW, CANCEL, MODIFY = 0, 1, 2
SIDES = (Side.BUY, Side.SELL)
USERS = 1_000
SHARDS = 2
# A turn is long enough that unstamped results expire as fast as they are recorded.
TURN_MESSAGES, TURN_US = 100, 100_000

Message = tuple[int, int, int, int, int, int]  # type, side, ioc, qty, order_id, price_ticks


class Kernel:
    """A market that obeys messages and reports what happened, one line an occurrence."""

    def __init__(self) -> None:
        self.market: Market = new_market(PLAIN, SHARDS)
        self.seq = 0
        self._number = 0
        self._request = 0
        self._ids: dict[int, int] = {}  # their order id -> ours
        self._theirs: list[int] = [0]  # our order number -> their order id

    def feed(self, messages: Iterable[Message], reports: list[str]) -> None:
        """Obey messages of one turn, add their lines to `reports`, and let the shards catch up."""
        market = self.market
        market.begin(START_US + self.seq // TURN_MESSAGES * TURN_US)
        for message in messages:
            if message[0] == NEW:
                self._new(message, reports)
            elif message[0] == CANCEL:
                self._cancel(message[4], reports)
            else:
                self._modify(message, reports)
            self.seq += 1
        for box in market.outboxes:
            box.forget(box.out_seq)

    def feed_all(self, messages: list[Message], reports: list[str]) -> None:
        """Obey all messages, turn by turn."""
        for start in range(0, len(messages), TURN_MESSAGES):
            self.feed(messages[start : start + TURN_MESSAGES], reports)

    def best_bid_ask(self) -> list[int | None]:
        """The best prices of both sides."""
        levels = [self.market.sides[side].best for side in SIDES]
        return [None if level is None else level.price for level in levels]

    def _new(self, message: Message, reports: list[str]) -> None:
        _, side, ioc, qty, theirs, price = message
        seq = self.seq
        reports.append(f"0,{seq},{side},{theirs},{price},{qty}")
        placed = self._place(SIDES[side], qty, theirs, price)
        self._report_deals(reports)
        if ioc and placed.left:
            self._execute_cancel(placed.order_id, theirs)
            reports.append(f"2,{seq},{side},{theirs},{price}")

    def _cancel(self, theirs: int, reports: list[str]) -> None:
        order_id = self._ids.get(theirs, 0)
        order = self.market.orders.get(order_id)
        # An id never heard of is asked for too: the refusal must be the machine's.
        answer = self._execute_cancel(order_id or order_id_of(1, 0), theirs)
        if type(answer) is Refused:
            reports.append(f"4,{self.seq},{theirs}")
        else:
            assert order is not None
            reports.append(f"2,{self.seq},{2 - order.side},{theirs},{order.price}")

    def _modify(self, message: Message, reports: list[str]) -> None:
        _, _, _, qty, theirs, price = message
        order = self.market.orders.get(self._ids.get(theirs, 0))
        if order is None:
            reports.append(f"5,{self.seq},{theirs}")
            return
        self._execute_cancel(order.order_id, theirs)
        self._place(Side(order.side), qty, theirs, price)
        self._report_deals(reports)
        reports.append(f"3,{self.seq},{2 - order.side},{theirs},{price},{qty}")

    def _place(self, side: Side, qty: int, theirs: int, price: int) -> Placed:
        self._number += 1
        order_id = order_id_of(self._number, PLAIN.market_no)
        self._ids[theirs] = order_id
        self._theirs.append(theirs)
        user = 1 + theirs % USERS
        put = c.PutLimit(self._request_id(), 0, user, side, qty, price, 0, 0, 0, 0, "kernel")
        placed = self.market.execute(c.Place(order_id, put))
        assert type(placed) is Placed
        return placed

    def _execute_cancel(self, order_id: int, theirs: int) -> object:
        user = 1 + theirs % USERS
        return self.market.execute(c.Cancel(self._request_id(), 0, user, order_id))

    def _report_deals(self, reports: list[str]) -> None:
        for event in events_of(self.market.record([])):
            if type(event) is Deal:
                maker = self._theirs[event.maker_order_id >> 12]
                taker = self._theirs[event.taker_order_id >> 12]
                reports.append(f"1,{self.seq},{event.price},{event.amount},{maker},{taker}")
        self.market.told.clear()

    def _request_id(self) -> bytes:
        self._request += 1
        return self._request.to_bytes(c.REQUEST_ID_BYTES, "big")
