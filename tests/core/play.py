"""Play: a market's orders and what becomes of them, one line each, as a person would note them.

Separate so that tests of the market are tables.  A script is lines of

    put a1 ask 5 @ 100 [fee=taker/maker] [ref=user/rate] [source=web] [-> outcome]
    market b1 bid 700 [fee=taker]                                     [-> outcome]
    cancel a1 [as b]                                                  [-> outcome]
    cancel a
    wait 5
    depth ask 100:2 101:3
    orders a: a3 a1
    order a1: left=2 deal_stock=3
    finished a1 b2

`a1` is an order of user a (a is user 1, b user 2 and so on).  Rates are in ten-thousandths.  A
market bid's amount is money.  The outcome of a put is its deals, `a1 5@100, a2 2@100`, without
one there must be none; or `refused reason`.  `depth`, `orders` and `finished` are complete:
all levels, all open orders of a user newest first, all orders finished since the last `finished`.
`wait` lets seconds pass.  What follows `#` is for the reader.
"""

from __future__ import annotations

from collections.abc import Callable

from excore_ray.core import commands as c
from excore_ray.core.events import Deal, OrderFinished, events_of
from excore_ray.core.market import Market
from excore_ray.core.messages import Done, Placed
from excore_ray.core.orders import Order, Side, order_id_of
from excore_ray.core.reasons import Refused
from tests.core.machines import cancel, put_limit, put_market, with_fees

SIDES = {"ask": Side.SELL, "bid": Side.BUY}


def user_of(label: str) -> int:
    """The user a label's letter stands for."""
    return ord(label[0]) - ord("a") + 1


class Player:
    """A market at play: remembers which order a label stands for."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.labels: dict[str, int] = {}
        self.names: dict[int, str] = {}
        self.answers: dict[str, Placed] = {}
        self._seen = 0
        self._number = market.last_order_id // 4096
        self._finished: list[str] = []
        self._verbs: dict[str, Callable[[list[str], str], None]] = {
            "put": self._put,
            "market": self._market,
            "cancel": self._cancel,
            "wait": self._wait,
            "depth": self._depth,
            "orders": self._orders,
            "order": self._order,
            "finished": self._check_finished,
        }

    def play(self, script: str) -> None:
        """Do every line of `script` and assert what it says."""
        for line in script.splitlines():
            told, _, outcome = line.split("#")[0].partition("->")
            words = told.split()
            if words:
                try:
                    self._verbs[words[0]](words[1:], " ".join(outcome.split()))
                except AssertionError as wrong:
                    raise AssertionError(f"{line.strip()}\n{wrong}") from wrong

    def order(self, label: str) -> Order:
        """The open order a label stands for."""
        return self.market.orders[self.labels[label]]

    def _put(self, words: list[str], outcome: str) -> None:
        label, side, amount, _, price, *options = words
        put = put_limit(user_of(label), SIDES[side], int(amount), int(price))
        given = dict(option.split("=") for option in options)
        taker, maker = given.pop("fee", "0/0").split("/")
        ref_user, ref_rate = given.pop("ref", "0/0").split("/")
        put = with_fees(put, int(taker), int(maker), (int(ref_user), int(ref_rate)))
        assert not given, f"unknown options {given}"
        self._place(label, put, outcome)

    def _market(self, words: list[str], outcome: str) -> None:
        label, side, amount, *options = words
        fee = dict(option.split("=") for option in options).get("fee", "0")
        self._place(label, put_market(user_of(label), SIDES[side], int(amount), int(fee)), outcome)

    def _place(self, label: str, put: c.PutLimit | c.PutMarket, outcome: str) -> None:
        assert label not in self.labels, f"there is an order {label}"
        self._number += 1
        order_id = order_id_of(self._number, self.market.rules.market_no)
        self.labels[label], self.names[order_id] = order_id, label
        answer = self.market.execute(c.Place(order_id, put))
        if isinstance(answer, Placed):
            self.answers[label] = answer
        self._expect(answer, outcome)

    def _cancel(self, words: list[str], outcome: str) -> None:
        label = words[0]
        user = user_of(words[2]) if words[1:2] == ["as"] else user_of(label)
        order_id = self.labels[label] if len(label) > 1 else 0
        self._expect(self.market.execute(cancel(user, order_id)), outcome)

    def _expect(self, answer: object, outcome: str) -> None:
        deals: list[str] = []
        events = events_of(self.market.record([]))
        for event in events[self._seen :]:
            if isinstance(event, Deal):
                maker = self.names[event.maker_order_id]
                deals.append(f"{maker} {event.amount}@{event.price}")
            else:
                self._finished.append(self.names[event.order_id])
        self._seen = len(events)
        if isinstance(answer, Refused):
            happened = f"refused {answer.reason.name.lower()}"
        else:
            assert isinstance(answer, Placed | Done), f"an answer of no known kind: {answer}"
            happened = ", ".join(deals)
        assert happened == outcome, f"happened: {happened or 'nothing'}"

    def _wait(self, words: list[str], outcome: str) -> None:
        self.market.begin(self.market.time_us + int(words[0]) * 1_000_000)
        self._seen = 0

    def _depth(self, words: list[str], outcome: str) -> None:
        levels = self.market.sides[SIDES[words[0]]].levels()
        found = [f"{level.price}:{level.amount}" for level in levels]
        assert found == words[1:], f"depth: {found}"

    def _orders(self, words: list[str], outcome: str) -> None:
        user = user_of(words[0])
        found = [self.names[o.order_id] for o in self.market.open_orders_of(user)]
        assert found == words[1:], f"orders: {found}"

    def _order(self, words: list[str], outcome: str) -> None:
        order = self.order(words[0].rstrip(":"))
        for word in words[1:]:
            field, value = word.split("=")
            found = getattr(order, field)
            assert str(found) == value, f"{field}: {found}"

    def _check_finished(self, words: list[str], outcome: str) -> None:
        assert self._finished == words, f"finished: {self._finished}"
        self._finished = []


def play(market: Market, script: str) -> Player:
    """Do every line of `script` and assert what it says; returns who remembers the labels."""
    player = Player(market)
    player.play(script)
    return player


def finished_orders(market: Market) -> list[OrderFinished]:
    """What has been told of orders that are over."""
    return [event for event in events_of(market.record([])) if isinstance(event, OrderFinished)]


def deals(market: Market) -> list[Deal]:
    """What has been told of deals."""
    return [event for event in events_of(market.record([])) if isinstance(event, Deal)]
