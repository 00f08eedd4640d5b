"""Funds: whether what clients were told about an order's funds was so.

Separate from `scenario.py` because it judges, from the durable state at every moment, and wishes
for nothing.
"""

from __future__ import annotations

from typing import Any

from excore_ray.core import commands as c
from excore_ray.core.ledger import Ledger
from excore_ray.core.market import Market
from excore_ray.core.orders import Side
from excore_ray.core.reasons import Reason
from excore_ray.core.sharding import shard_of
from excore_ray.core.shardlink import shard_name
from tests.simulation.exchange import SHARDS, Exchange
from tests.simulation.gateways import Operation
from tests.simulation.world import Violation

_AFTER_A_GRANT = (Reason.NO_ENOUGH_TRADER, Reason.AMOUNT_TOO_SMALL)


class Funds:
    """Watches the funds of orders from when they are wished for until they are answered."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._needs: dict[int, tuple[str, int, int, int]] = {}  # actor, user, asset, amount
        self._numbers: dict[str, dict[int, tuple[int, int]]] = {}  # user and asset, by actor
        self._least: dict[int, int] = {}  # the least that was available meanwhile

    def begin(self, operation: Operation, ask: c.PutLimit | c.PutMarket, market_no: int) -> None:
        """An order is about to be sent, maybe not for the first time."""
        rules = self._exchange.shadows[f"market-{market_no}"].rules
        if ask.side == Side.SELL:
            asset, amount = rules.stock_id, ask.amount * rules.stock_unit
        else:
            price = ask.price if type(ask) is c.PutLimit else 1
            asset, amount = rules.money_id, ask.amount * price * rules.money_unit
        actor = shard_name(shard_of(ask.user, SHARDS))
        number = operation.number
        self._needs[number] = (actor, ask.user, asset, amount)
        self._numbers.setdefault(actor, {})[number] = ask.user, asset
        ledger: Ledger = self._exchange.shadows[actor]
        now = ledger.available(ask.user, asset)
        self._least[number] = min(self._least.get(number, now), now)

    def executed(self, stream: str) -> None:
        """A command became durable."""
        numbers = self._numbers.get(stream)
        if numbers:
            ledger: Ledger = self._exchange.shadows[stream]
            least, available = self._least, ledger.available
            for number, (user, asset) in numbers.items():
                now = available(user, asset)
                least[number] = min(least[number], now)

    def end(self, operation: Operation, reason: Reason | None) -> None:
        """An order is answered.  reason: why it was refused, None when it was not.

        Raises Violation when there was enough all the while and it was refused for want of
        funds, or when it was refused by the book and its funds are held still.
        """
        needed = self._needs.pop(operation.number, None)
        if needed is None:
            return
        least = self._least.pop(operation.number)
        del self._numbers[needed[0]][operation.number]
        if reason == Reason.BALANCE_NOT_ENOUGH and least >= needed[3]:
            raise Violation(f"{operation.ask} was refused, {least} was there for {needed[3]}")
        granted = reason in _AFTER_A_GRANT and type(operation.ask) is c.PutMarket
        if granted and operation.attempt == 1:
            self._released(operation, operation.ask, needed)

    def _released(self, operation: Operation, ask: Any, needed: tuple[str, int, int, int]) -> None:
        decided = self._exchange.decided  # another order, of which so much is left, is among them
        market: Market = self._exchange.shadows[operation.actor]
        ledger: Ledger = self._exchange.shadows[needed[0]]
        for order_id, hold in ledger.holds_of(market.rules.market_no).items():
            mine = (hold.user, hold.asset, hold.remaining, hold.resting) == (*needed[1:], False)
            if mine and order_id >= market.id_base and order_id not in decided:
                raise Violation(f"{ask} was refused while its funds are held: order {order_id}")
