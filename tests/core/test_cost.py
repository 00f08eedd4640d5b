"""What commands cost: counted in lines of the core that run, so that no clock decides.

The sorted list of prices, which costs more with more levels, is not ours and not counted.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from excore_ray.core import commands as c
from excore_ray.core.market import Market
from excore_ray.core.orders import Side, order_id_of
from tests.core.machines import cancel, new_market, put_limit


def lines_run(market: Market, command: c.MarketCommand) -> int:
    """How many lines of the core a command runs: its cost, without a clock."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace if "excore_ray" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        market.execute(command)
    finally:
        sys.settrace(before)
    return count


def with_book(levels: int, orders_a_level: int) -> Market:
    market = new_market()
    number = 0
    for level in range(levels):
        for _ in range(orders_a_level):
            number += 2
            ask = put_limit(1 + number % 7, Side.SELL, 2, 1_000_000 + level)
            bid = put_limit(2, Side.BUY, 2, 999_999 - level)
            market.execute(c.Place(order_id_of(number, 1), ask))
            market.execute(c.Place(order_id_of(number + 1, 1), bid))
    return market


def costs(market: Market) -> list[int]:
    """What one of each kind of command costs, each in the middle or at the front of the book."""
    number = market.last_order_id // 4096
    middle = list(market.orders.values())[len(market.orders) // 2]
    puts = [
        put_limit(1, Side.SELL, 1, 1_000_000),  # joins the best level
        put_limit(1, Side.BUY, 1, 1_000_000),  # takes part of an order
        put_limit(1, Side.BUY, 1, 1_000_000),  # takes the rest of it
        put_limit(1, Side.SELL, 1, 500_000),
    ]
    commands: list[c.MarketCommand] = [
        c.Place(order_id_of(number + n, 1), put) for n, put in enumerate(puts, 1)
    ]
    commands.append(cancel(middle.user, middle.order_id))
    return [lines_run(market, command) for command in commands]


def test_the_cost_of_a_command_does_not_grow_with_the_book() -> None:
    small, large = costs(with_book(4, 4)), costs(with_book(800, 4))
    deep = costs(with_book(4, 800))
    assert small == large == deep
    assert min(small) > 10, "nothing was measured"
