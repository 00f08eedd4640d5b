"""Clients: what people do to an exchange during a drill, each client in a thread of its own.

Separate because it is a matter of chance and taste, while sending and judging are not.  A client
has its users to itself and asks one thing at a time, so it knows the order of what it asked.
No order is ever cancelled by its id twice, so a cancel without a stamp is found in the journal
by the order it names.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from excore_ray.drill.history import DONE, History, Operation
from excore_ray.drill.sender import Sender
from excore_ray.errors import ExcoreError
from excore_ray.serving import Credential

ASSETS = ("AAA", "BBB", "USD")
MARKETS = {"AAA_USD": ("AAA", "USD"), "BBB_USD": ("BBB", "USD"), "AAA_BBB": ("AAA", "BBB")}
PREC, ORDER_PREC = 12, 4
USERS_EACH = 3
BUSINESS = "drill"
SELL, BUY = 1, 2
DEPOSIT = "1000000000"
PENDING_MAX = 100
_PAUSE_MAX_S = 0.06
_STAMPED = 0.8  # of what may be either
_FEES = (("0.002", "0.001"), ("0", "0"), ("0.001", "0"))
_PUT, _FILLER_EACH = "order.put_limit", 500


class Opened(NamedTuple):
    """An order that may be open."""

    user: int
    market: str
    order_id: int


class Shop:
    """What the clients of one drill have in common.  users: of all clients, by client."""

    def __init__(self, url: str, credential: Credential, history: History, clients: int) -> None:
        self.url = url
        self.credential = credential
        self.history = history
        self.users = {
            client: [client * USERS_EACH + number for number in range(1, USERS_EACH + 1)]
            for client in range(clients)
        }

    def sender(self, client: int) -> Sender:
        """Connections for one client."""
        return Sender(client, self.url, self.credential, self.history)

    def open(self) -> None:
        """Add assets and markets and give everybody of everything.  Raises ExcoreError."""
        sender = self.sender(0)
        try:
            for asset in (*ASSETS, *map(own_asset, self.users)):
                _expect(sender.stamped("asset.add", asset, PREC, PREC, ""))
            for market, (stock, money) in MARKETS.items():
                scales = (stock, ORDER_PREC, money, ORDER_PREC, "0.5", "")
                _expect(sender.stamped("market.add", market, *scales))
            for users in self.users.values():
                for user in users:
                    for asset in ASSETS:
                        _expect(update(sender, user, asset, DEPOSIT))
        finally:
            sender.close()

    def fill(self, orders: int, told: Callable[[int], None]) -> None:
        """Rest so many orders in the books, far from any trade.  told: how many there are."""
        sender = self.sender(0)
        first = (max(self.users) + 1) * USERS_EACH + 1
        try:
            for begin in range(0, orders, _FILLER_EACH):
                user = first + begin // _FILLER_EACH
                count = min(_FILLER_EACH, orders - begin)
                market = list(MARKETS)[user % len(MARKETS)]
                _expect(update(sender, user, MARKETS[market][0], DEPOSIT))
                asks = []
                for _ in range(count):
                    number = self.history.number()
                    price = str(1_000 + number % 97)
                    more = ("0", "0", None, None, f"drill-{number}")
                    asks.append((number, _PUT, (user, market, SELL, "1", price, *more)))
                for operation in sender.batch(asks):
                    _expect(operation)
                told(begin + count)
        finally:
            sender.close()


class Customer(threading.Thread):
    """One client, from start() until `ended` is set.  error: what ended it before."""

    def __init__(self, number: int, shop: Shop, seed: int, ended: threading.Event) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self.error: Exception | None = None
        self._users = shop.users[number]
        self._everybody = [user for users in shop.users.values() for user in users]
        self._chance = random.Random(seed * 1_000 + number)
        self._sender = shop.sender(number)
        self._ended = ended
        self._open: list[Opened] = []
        self._deals: dict[str, int] = dict.fromkeys(MARKETS, 0)
        self._asset = own_asset(number)
        self._renamed = 0
        self._placed = 0  # the newest order of its own, 0 before any
        self._doings: list[tuple[int, Callable[[], Any]]] = [
            (32, self._put_limit),
            (8, self._put_market),
            (12, self._cancel),
            (3, self._cancel_all),
            (10, self._update),
            (14, self._read_balance),
            (6, self._read_pending),
            (3, self._read_depth),
            (4, self._read_deals),
            (4, self._read_order_deals),
            (2, self._rename),
            (2, self._list_assets),
        ]

    def run(self) -> None:
        """Part of being a thread."""
        weights = [weight for weight, _ in self._doings]
        doings = [doing for _, doing in self._doings]
        try:
            while not self._ended.is_set():
                self._chance.choices(doings, weights)[0]()
                self._ended.wait(self._chance.uniform(0.0, _PAUSE_MAX_S))
        except Exception as error:
            self.error = error
        finally:
            self._sender.close()

    def _user(self) -> int:
        return self._chance.choice(self._users)

    def _market(self) -> str:
        return self._chance.choice(list(MARKETS))

    def _stamps(self) -> bool:
        return self._chance.random() < _STAMPED

    # What it does.

    def _put_limit(self) -> None:
        chance = self._chance
        user, market, side = self._user(), self._market(), chance.choice((SELL, BUY))
        amount, price = f"{chance.randint(5, 200) / 10:g}", str(chance.randint(95, 105))
        referrer = chance.choice(self._everybody) if chance.random() < 0.3 else None
        share = "0.3" if referrer is not None else None
        number = self._sender.next_number()
        order = (user, market, side, amount, price, *chance.choice(_FEES), referrer, share)
        operation = self._send(_PUT, (*order, f"drill-{number}"), number)
        self._note(operation, user, market)

    def _put_market(self) -> None:
        chance = self._chance
        user, market, side = self._user(), self._market(), chance.choice((SELL, BUY))
        amount = str(chance.randint(1, 20) * (100 if side == BUY else 1))
        number = self._sender.next_number()
        params = (user, market, side, amount, "0.002", f"drill-{number}")
        operation = self._send("order.put_market", params, number)
        self._note(operation, user, market)

    def _note(self, operation: Operation, user: int, market: str) -> None:
        if operation.outcome != DONE:
            return
        self._placed = operation.result["id"]
        if operation.result["type"] == 1 and float(operation.result["left"]):
            self._open.append(Opened(user, market, self._placed))

    def _cancel(self) -> None:
        if not self._open:
            return
        index = self._chance.randrange(len(self._open))
        user, market, order_id = self._open.pop(index)
        self._send("order.cancel", (user, market, order_id), self._sender.next_number())

    def _cancel_all(self) -> None:
        user, market = self._user(), self._market()
        operation = self._sender.stamped("order.cancel", user, market)
        if operation.outcome == DONE:
            self._open = [o for o in self._open if (o.user, o.market) != (user, market)]

    def _update(self) -> None:
        change = str(self._chance.randint(-500, 500) or 1)
        asset = self._chance.choice(ASSETS)
        update(self._sender, self._user(), asset, change, self._stamps())

    def _rename(self) -> None:
        self._renamed += 1
        name = f"{own_asset(int(self.name.partition('-')[2]))}_{self._renamed}"
        operation = self._sender.stamped("asset.rename", self._asset, name)
        # What is unknown is asked again under the new name: refused, if it was not done.
        self._asset = name if operation.outcome == DONE else self._found_asset()

    def _found_asset(self) -> str:
        """What its own asset is called now, as far as anybody tells."""
        mine = own_asset(int(self.name.partition("-")[2]))
        operation = self._list_assets()
        names = [row["name"] for row in (operation.result or {"records": []})["records"]]
        return next((name for name in names if name.partition("_")[0] == mine), self._asset)

    # What it reads.

    def _read_balance(self) -> None:
        self._sender.stamped("balance.query", self._user())

    def _read_pending(self) -> None:
        self._sender.stamped("order.pending", self._user(), self._market(), 0, PENDING_MAX)

    def _read_depth(self) -> None:
        self._sender.stamped("order.depth", self._market(), 20, "0")

    def _read_deals(self) -> None:
        market = self._market()
        last = self._deals[market]
        operation = self._sender.stamped("market.deal_history", market, 1000, last)
        if operation.outcome == DONE and operation.result["records"]:
            self._deals[market] = operation.result["records"][-1]["id"]

    def _read_order_deals(self) -> None:
        if self._placed:
            self._sender.stamped("order.deals", self._placed, 0, 100)

    def _list_assets(self) -> Operation:
        return self._sender.stamped("asset.list", 0, 1000)

    def _send(self, method: str, params: tuple[Any, ...], number: int) -> Operation:
        if self._stamps():
            return self._sender.stamped(method, *params, number=number)
        return self._sender.once(method, *params, number=number)


def own_asset(client: int) -> str:
    """What the asset that a client renames is called in the beginning."""
    return f"N{client}"


def update(sender: Sender, user: int, asset: str, change: str, stamped: bool = True) -> Operation:
    """Change a balance under a key of its own."""
    number = sender.next_number()
    send = sender.stamped if stamped else sender.once
    return send("balance.update", user, asset, BUSINESS, number, change, {}, number=number)


def _expect(operation: Operation) -> None:
    if operation.outcome != DONE:
        raise ExcoreError(f"{operation.method} {operation.params}: {operation.outcome}")
