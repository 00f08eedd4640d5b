"""Planted defects of what records tell the world.

Separate from `mutants.py`, which plants the others, by the length of a file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from excore_ray.core import commands as c
from excore_ray.core.events import Deal, events_of
from excore_ray.core.ledger import Ledger
from excore_ray.core.machine import Machine
from excore_ray.core.market import Market
from excore_ray.core.orders import Order
from tests.simulation.mutants_of_shards import Undo, patch


def told_again() -> Undo:
    """A record tells once more what the one before it told."""
    original = Machine.begin

    def begin(machine: Machine, time_us: int) -> None:
        told = machine.told
        original(machine, time_us)
        machine.told += told

    return patch(Machine, "begin", begin)


def deals_not_told() -> Undo:
    """A market tells nothing when there are deals."""

    def record(market: Market, commands: list[Any]) -> c.MarketRecord:
        honest = c.MarketRecord(market.time_us, commands, market.told)
        deals = sum(type(event) is Deal for event in events_of(honest))
        return c.MarketRecord(market.time_us, commands, [] if deals else market.told)

    return patch(Market, "record", record)


def open_orders_told_as_over() -> Undo:
    """A market tells of an order that has traded and stays open as of one that is over."""
    original = Market._rest

    def rest(market: Market, order: Order) -> None:
        original(market, order)
        market._tell_finished(order)

    return patch(Market, "_rest", rest)


def balance_told_before_the_fee() -> Undo:
    """A shard tells what a leg left of what came as if there were no fee."""
    original = Ledger._leg

    def leg(ledger: Ledger, link: Any, market_no: int, leg: c.Leg) -> None:
        original(ledger, link, market_no, leg)
        ledger.told[-1] += leg.fee

    return patch(Ledger, "_leg", leg)


PLANTS: tuple[Callable[[], Undo], ...] = (
    told_again,
    deals_not_told,
    open_orders_told_as_over,
    balance_told_before_the_fee,
)
