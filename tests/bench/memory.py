"""Memory of an open order: what the machine of a market needs for each order that rests.

Run as `python -m tests.bench.memory [ORDERS]`.  Orders arrive the way they do in life: decoded
from the wire, so that no two share an integer or a string unless the machine sees to it.
Separate from the test of the same figure only in its size and in measuring the process too.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc

import msgspec
import psutil

from excore_ray.core import commands as c
from excore_ray.core.market import Market
from excore_ray.core.orders import Side, order_id_of
from tests.core.machines import PLAIN, START_US, new_market

USERS = 10_000
LEVELS = 1_000
MIDDLE = 50_000_000  # a price of eight digits, as at money_prec 4
TURN_ORDERS, TURN_US = 100, 100_000  # results expire as fast as they are recorded
SOURCE = "web"
REF_USER = 4_000_000_000

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(c.PutLimit)


def fill(market: Market, orders: int) -> None:
    """Rest `orders` orders of 10,000 users on 1,000 levels, in turns of 100, and let results of
    their requests expire.
    """
    for number in range(1, orders + 1):
        if number % TURN_ORDERS == 1:
            market.begin(START_US + number // TURN_ORDERS * TURN_US)
        put = _decoder.decode(_encoder.encode(_put(number)))
        market.execute(c.Place(order_id_of(number, PLAIN.market_no), put))
    market.begin(market.time_us + c.RESULT_KEPT_US)
    assert len(market.orders) == orders, "orders traded instead of resting"
    assert len(market.results) == 0, "results are still remembered"


def _put(number: int) -> c.PutLimit:
    side = Side.SELL if number % 2 else Side.BUY
    level = number // 2 % (LEVELS // 2)
    price = MIDDLE + 1 + level if side == Side.SELL else MIDDLE - level
    user = 1 + number * 7919 % USERS
    amount = 1_000_000_000 + number
    request_id = number.to_bytes(c.REQUEST_ID_BYTES, "big")
    return c.PutLimit(
        request_id, 0, user, side, amount, price, 2_000, 1_000, REF_USER, 3_000, SOURCE
    )


def bytes_an_order(orders: int) -> float:
    """Memory that `orders` open orders take in their machine, each, as Python accounts for it."""
    market = new_market(shards=1)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        fill(market, orders)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (after - before) / orders


def resident_bytes_an_order(orders: int) -> float:
    """The same, as the system sees the whole process grow."""
    process = psutil.Process()
    market = new_market(shards=1)
    gc.collect()
    before = process.memory_info().rss
    fill(market, orders)
    gc.collect()
    return (process.memory_info().rss - before) / orders


def main(orders: int) -> None:
    """Print both figures."""
    print(f"{orders} orders, {USERS} users, {LEVELS} levels")
    print(f"resident: {resident_bytes_an_order(orders):.0f} bytes an order")
    print(f"traced: {bytes_an_order(orders):.0f} bytes an order")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
